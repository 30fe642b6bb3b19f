//! What can go wrong before a stream is a link.

use std::sync::Arc;

use super::Refusal;
use crate::frame::Kind;
use crate::net::access::Purpose;
use crate::net::cause::Cause;
use crate::net::link::LinkError;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{peer} refused the link")]
    Refused { peer: Arc<str>, source: Refusal },
    #[error("{peer} did not answer the request for a link in time")]
    NoAnswer { peer: Arc<str> },
    #[error("no link could be opened")]
    Link {
        #[from]
        source: LinkError,
    },
    #[error("a {purpose} link carries no {out:?} out and {back:?} back; this is a bug in allhands")]
    Kinds { purpose: Purpose, out: Kind, back: Kind },
}

impl OpenError {
    /// Whether opening the same link again, on a new connection if need be, can succeed.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Refused { source, .. } => source.retry_can_help(),
            Self::NoAnswer { .. } => true,
            Self::Link { source } => source.retry_can_help(),
            Self::Kinds { .. } => false,
        }
    }
}

/// Why a stream that a peer opened did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("a link of {peer} was refused")]
    Refused { peer: Arc<str>, source: Refusal },
    #[error("{peer} opened a stream and did not say in time what for")]
    Silent { peer: Arc<str> },
    #[error("the connection to {peer} was lost")]
    Gone { peer: Arc<str>, source: Cause },
    #[error("a stream did not become a link")]
    Link {
        #[from]
        source: LinkError,
    },
    #[error("a {purpose} link carries no {out:?} out and {back:?} back; this is a bug in allhands")]
    Kinds { purpose: Purpose, out: Kind, back: Kind },
}

impl AdmitError {
    /// Whether there is nothing more to accept on this connection.
    pub const fn connection_is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Whether the peer may be admitted later without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Refused { source, .. } => source.retry_can_help(),
            Self::Silent { .. } => true,
            Self::Gone { source, .. } => source.retry_can_help(),
            Self::Link { source } => source.retry_can_help(),
            Self::Kinds { .. } => false,
        }
    }
}
