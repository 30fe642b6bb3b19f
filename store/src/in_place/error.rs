//! Why a file in place is of no use; each says whether trying again can help.

use std::io;
use std::path::PathBuf;

use allhands_common::blob::ManifestError;

use crate::map::MapError;

/// Why a file cannot be used in place.
#[derive(Debug, thiserror::Error)]
pub enum InPlaceError {
    /// The system refused.
    #[error("{path} cannot be used in place: {what} failed")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe, or the like. Trying again cannot help.
    #[error(
        "{path} cannot be used in place: it is not a regular file; copy what is in it with put"
    )]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was opened any more. Trying again, with the file opened anew, helps once nobody writes it.
    #[error(
        "{path} was changed after it was opened: open it again, and write files that are in use under another name"
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before. Trying again cannot help.
    #[error("{path} has {bytes} bytes, none at {at}")]
    Beyond {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// What was asked for.
        at: u64,
    },
    /// It cannot be mapped.
    #[error("{path} cannot be mapped")]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MapError,
    },
    /// It is longer than a blob may be. Trying again cannot help.
    #[error("{path} is too long to be shipped")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it may be.
        #[source]
        source: ManifestError,
    },
}
