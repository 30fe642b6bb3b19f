//! What can go wrong on a link.

use std::sync::Arc;

use quinn::{ReadError, WriteError};

use crate::bulk::BulkMismatch;
use crate::codec::{DecodeError, EncodeError};
use crate::frame::FrameError;
use crate::net::cause::Cause;

/// Why a frame was not sent, or none was received. Every variant names the peer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    #[error("a frame to {peer} was not sent")]
    Oversized { peer: Arc<str>, source: FrameError },
    #[error("a message to {peer} cannot be encoded")]
    Encode { peer: Arc<str>, source: EncodeError },
    #[error("{peer} sent what is not a frame of this link")]
    Frame { peer: Arc<str>, source: FrameError },
    #[error("{peer} sent a message that cannot be read")]
    Decode { peer: Arc<str>, source: DecodeError },
    #[error("{peer} sent a message whose bulk does not fit it")]
    Bulk { peer: Arc<str>, source: BulkMismatch },
    #[error("{peer} ended the link in the middle of a frame")]
    Truncated { peer: Arc<str> },
    #[error("{peer} gave the link up before its end")]
    Abandoned { peer: Arc<str> },
    #[error("{peer} no longer receives on the link")]
    Stopped { peer: Arc<str> },
    #[error("the link to {peer} failed before and cannot be used any more")]
    Over { peer: Arc<str> },
    #[error("the connection to {peer} was lost")]
    Lost { peer: Arc<str>, source: Cause },
}

impl LinkError {
    /// Whether a new link to the same peer may work.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Abandoned { .. } | Self::Stopped { .. } | Self::Over { .. } => true,
            Self::Lost { source, .. } => source.retry_can_help(),
            Self::Oversized { .. }
            | Self::Encode { .. }
            | Self::Frame { .. }
            | Self::Decode { .. }
            | Self::Bulk { .. }
            | Self::Truncated { .. } => false,
        }
    }

    pub(super) fn reading(peer: &Arc<str>, error: ReadError) -> Self {
        let peer = Arc::clone(peer);
        match error {
            ReadError::Reset(_) => Self::Abandoned { peer },
            ReadError::ConnectionLost(error) => Self::Lost { peer, source: Cause::of(&error) },
            // Ordered reads only and no 0-RTT: what remains is a stream that we stopped ourselves.
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Over { peer },
        }
    }

    pub(super) fn writing(peer: &Arc<str>, error: WriteError) -> Self {
        let peer = Arc::clone(peer);
        match error {
            WriteError::Stopped(_) => Self::Stopped { peer },
            WriteError::ConnectionLost(error) => Self::Lost { peer, source: Cause::of(&error) },
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Over { peer },
        }
    }
}
