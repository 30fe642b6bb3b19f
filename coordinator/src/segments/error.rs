//! One enum per operation on segments; each says whether trying again can help.

use std::io;
use std::path::PathBuf;

use allhands_common::id::SegmentId;

/// Why a segment was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Larger than a segment may be: it should have been a blob. Trying again cannot help.
    #[error("segment {id} has {bytes} bytes, the most is {max}")]
    TooLarge {
        /// Which.
        id: SegmentId,
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The id is taken by other bytes: two entries of the log gave the same id. Trying again cannot help.
    #[error("segment {id} is stored already with other bytes")]
    Conflict {
        /// Which.
        id: SegmentId,
    },
    /// An earlier write or sync failed; the node must stop.
    #[error("segments are not written any more after an earlier failure")]
    Latched,
    /// This write failed; the node must stop.
    #[error(
        "segment {id} cannot be written to {path}: free space on that disk, or see its cause, and start again"
    )]
    Io {
        /// Which.
        id: SegmentId,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not stored here: discarded, or never received.
    #[error("segment {id} is not stored here")]
    Unknown {
        /// Which.
        id: SegmentId,
    },
    /// The disk gave back other bytes than were written; another coordinator has them.
    #[error("segment {id} is damaged: {path} at {offset}")]
    Mismatch {
        /// Which.
        id: SegmentId,
        /// The file.
        path: PathBuf,
        /// Where its bytes begin.
        offset: u64,
    },
    /// The system refused.
    #[error("segment {id} cannot be read from {path}")]
    Io {
        /// Which.
        id: SegmentId,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// As the trait of another crate wants it; the kind says whether the file is gone or damaged.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Unknown { .. } => io::ErrorKind::NotFound,
            Self::Mismatch { .. } => io::ErrorKind::InvalidData,
            Self::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, self)
    }
}

/// Why segments could not be made durable, linked or moved; the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// An earlier write or sync failed.
    #[error("segments are not written any more after an earlier failure")]
    Latched,
    /// The state refers to a segment that is not here.
    #[error("segment {id} is referred to by the state but not stored here")]
    Missing {
        /// Which.
        id: SegmentId,
    },
    /// The system refused.
    #[error("segment files in {dir}: {what} failed")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A segment could not be moved.
    #[error("a live segment cannot be moved")]
    Read(#[from] ReadError),
    /// A segment could not be written again.
    #[error("a live segment cannot be written again")]
    Append(#[from] AppendError),
}
