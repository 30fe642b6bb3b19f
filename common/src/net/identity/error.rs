//! What can be wrong with an identity's folder. No error here goes away by trying again.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;
use x509_parser::error::X509Error;

use crate::net::peer::PeerIdentityError;
use crate::net::tls::TlsError;

/// Why a folder is not an identity that can be used now.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path} cannot be read; an identity is a folder that `allhands init` made, copied whole", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} holds {bytes} bytes instead of 32; copy the identity's folder again", path = path.display())]
    ResetKey { path: PathBuf, bytes: usize },
    #[error("{path} is not a PEM file of the expected content", path = path.display())]
    NotPem { path: PathBuf, source: pem::Error },
    #[error("{path} holds no certificate", path = path.display())]
    Empty { path: PathBuf },
    #[error("{path} is not an X.509 certificate", path = path.display())]
    NotX509 { path: PathBuf, source: X509Error },
    #[error("{path} is not a certificate of this system", path = path.display())]
    NotOurs { path: PathBuf, source: PeerIdentityError },
    #[error("{path} expired on {since}; issue a new identity with `allhands init`", path = path.display())]
    Expired { path: PathBuf, since: String },
    #[error("{path} is valid only from {from}; set this machine's clock", path = path.display())]
    NotYetValid { path: PathBuf, from: String },
    #[error("{place}/key.pem is not the key of {place}/cert.pem; copy the identity's folder again", place = place.display())]
    OtherKey { place: PathBuf },
    #[error("{place}/cert.pem was not issued by {place}/ca.pem; do not mix folders of two clusters", place = place.display())]
    OtherAuthority { place: PathBuf },
    #[error("{path} cannot serve as the cluster's authority", path = path.display())]
    Authority { path: PathBuf, source: TlsError },
    #[error("{path} cannot be used", path = path.display())]
    Invalid { path: PathBuf, source: rustls::Error },
}

impl IdentityError {
    /// Whether doing the same again can succeed: only a clock that is being set changes anything.
    pub const fn retry_can_help(&self) -> bool {
        matches!(self, Self::NotYetValid { .. })
    }
}
