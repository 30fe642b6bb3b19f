//! What can go wrong when certificates are made.

use std::io;
use std::path::PathBuf;

use crate::id::ParseIdError;

/// Why an authority could not be made, saved, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(
        "{name:?} cannot name an identity: use 1 to 63 lower-case letters, digits and hyphens, not a hyphen first"
    )]
    BadName { name: String },
    #[error("{path} cannot be written; nothing is ever overwritten here", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} cannot be read; the folder of an authority is made by `allhands init`", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no cluster id", path = path.display())]
    ClusterId { path: PathBuf, source: ParseIdError },
    #[error("{path} cannot be used to sign certificates", path = path.display())]
    Unusable { path: PathBuf, source: rcgen::Error },
    #[error("a certificate cannot be generated")]
    Generate { source: rcgen::Error },
    #[error("the system gives no random bytes")]
    NoEntropy,
}

impl AuthorityError {
    pub(super) fn generating(source: rcgen::Error) -> Self {
        Self::Generate { source }
    }

    /// Whether doing the same again can succeed.
    pub const fn retry_can_help(&self) -> bool {
        matches!(self, Self::NoEntropy)
    }
}
