//! Why bytes of a blob are not here.

use std::time::Duration;

use allhands_common::blob::BlobId;

/// Why the wanted bytes of a blob are not in the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The leader knows nobody who has it.
    #[error(
        "nobody has blob {blob}: no worker holds it and no client offers it, and in {} s none came; the \
         program that has put it must still run, or put it again",
        waited.as_secs()
    )]
    NobodyHasIt {
        /// Which.
        blob: BlobId,
        /// How long somebody was waited for.
        waited: Duration,
    },
    /// There was no leader to ask.
    #[error(
        "nobody says who has blob {blob}: no leader has answered for {} s; see that a majority of the \
         coordinators runs, then try again",
        waited.as_secs()
    )]
    Leaderless {
        /// Which.
        blob: BlobId,
        /// How long.
        waited: Duration,
    },
    /// Those who have it do not give it, or it cannot be kept.
    #[error(transparent)]
    Transfer(#[from] allhands_transfer::node::FetchError),
    /// The worker ends.
    #[error("blob {blob} was not fetched: this worker is shutting down")]
    Stopped {
        /// Which.
        blob: BlobId,
    },
}

impl FetchError {
    /// Whether fetching it again can succeed without anybody's doing.
    pub fn retry_can_help(&self) -> bool {
        match self {
            Self::Leaderless { .. } => true,
            Self::Transfer(error) => error.retry_can_help(),
            Self::NobodyHasIt { .. } | Self::Stopped { .. } => false,
        }
    }
}
