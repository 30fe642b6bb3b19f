//! Why a blob could not be fetched.

use std::sync::Arc;

use allhands_common::blob::BlobId;
use allhands_common::wire::data::Node;

use crate::store::StoreError;

/// Why a blob, or the wanted part of it, is not here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error(
        "blob {blob} is lost: nobody has what is missing of it (asked: {asked}{absent}); put it again, or run the task again that made it",
        asked = Names(holders),
        absent = Absent(unreached)
    )]
    BlobLost {
        blob: BlobId,
        /// Who was asked.
        holders: Vec<Node>,
        /// Clients that are said to have it, and have not come to be asked.
        unreached: Vec<Node>,
    },
    #[error(
        "blob {blob} is {bytes} bytes long, and {expected} by the handle with which it was asked for; use the handle that came with it"
    )]
    Length { blob: BlobId, expected: u64, bytes: u64 },
    #[error(
        "{node} says that blob {blob} is {bytes} bytes long, its handle says {expected}, and nobody else has it; put it again"
    )]
    OtherLength { node: Node, blob: BlobId, expected: u64, bytes: u64 },
    #[error("blob {blob} was not fetched in time{missing}; allow more time", missing = Missing(missing))]
    Late { blob: BlobId, missing: Option<u32> },
    #[error("blob {blob} cannot be kept here")]
    Store { blob: BlobId, source: Arc<StoreError> },
    #[error("blob {blob} was not fetched: this process is shutting down")]
    Stopped { blob: BlobId },
}

impl FetchError {
    /// Whether fetching it again can succeed without anybody's doing.
    pub fn retry_can_help(&self) -> bool {
        match self {
            Self::Late { .. } => true,
            Self::Store { source, .. } => source.retry_can_help,
            Self::BlobLost { .. }
            | Self::Length { .. }
            | Self::OtherLength { .. }
            | Self::Stopped { .. } => false,
        }
    }
}

struct Names<'a>(&'a [Node]);

impl core::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        self.0.iter().enumerate().try_for_each(|(at, node)| {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{node}")
        })
    }
}

struct Absent<'a>(&'a [Node]);

impl core::fmt::Display for Absent<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            [] => Ok(()),
            clients => write!(
                f,
                "; said to have it, and not connected to here: {}; can it reach this machine's bulk address?",
                Names(clients)
            ),
        }
    }
}

struct Missing<'a>(&'a Option<u32>);

impl core::fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(chunks) => write!(f, ": {chunks} chunks are missing"),
            None => f.write_str(": its manifest is missing"),
        }
    }
}
