//! Who this process is: one folder that can be copied to a machine on its own.
//!
//! ```text
//! NAME/cert.pem    certificate: cluster, role, name, dates
//! NAME/key.pem     its private key (mode 0600)
//! NAME/ca.pem      the cluster's authority: whom to believe
//! NAME/reset.key   32 bytes: lets a restarted process disown its former connections (see `reset`)
//! ```
//!
//! [`Identity::load`] checks all that can be checked without a peer, so that a wrong, expired or
//! mixed-up folder is an error at start and not a puzzle at the first connection.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peer::PeerIdentity;
use super::tls;

mod error;
mod files;

pub use error::IdentityError;
pub use files::IdentityFiles;
pub(super) use files::write_new;

/// A verified certificate with its key, and the authority that it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    own: PeerIdentity,
    certified: CertifiedKey,
    authority: CertificateDer<'static>,
    reset_key: [u8; 32],
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Identity({} of {})", self.0.own, self.0.own.cluster)
    }
}

impl Identity {
    /// Loads and verifies the folder of one identity, as of now.
    #[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        Self::verify(&IdentityFiles::load(folder)?, SystemTime::now())
    }

    /// Verifies the contents of an identity's folder as of `now`.
    pub fn verify(files: &IdentityFiles, now: SystemTime) -> Result<Self, IdentityError> {
        let place = |name: &str| files.place.join(name);
        let chain = CertificateDer::pem_slice_iter(&files.cert_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| IdentityError::NotPem { path: place(files::CERT), source })?;
        let leaf =
            chain.first().ok_or_else(|| IdentityError::Empty { path: place(files::CERT) })?;
        let key = PrivateKeyDer::from_pem_slice(&files.key_pem)
            .map_err(|source| IdentityError::NotPem { path: place(files::KEY), source })?;
        let authority = CertificateDer::from_pem_slice(&files.ca_pem)
            .map_err(|source| IdentityError::NotPem { path: place(files::CA), source })?;
        let own = PeerIdentity::from_certificate(leaf)
            .map_err(|source| IdentityError::NotOurs { path: place(files::CERT), source })?;

        check_dates(&place(files::CERT), leaf, now)?;
        check_dates(&place(files::CA), &authority, now)?;
        tls::verifier(&authority)
            .map_err(|source| IdentityError::Authority { path: place(files::CA), source })?
            .verify_client_cert(leaf, &chain[1..], unix_time(now))
            .map_err(|source| match source {
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => IdentityError::OtherAuthority { place: files.place.clone() },
                source => IdentityError::Invalid { path: place(files::CERT), source },
            })?;
        let certified =
            CertifiedKey::from_der(chain, key, &tls::provider()).map_err(
                |source| match source {
                    rustls::Error::InconsistentKeys(_) => {
                        IdentityError::OtherKey { place: files.place.clone() }
                    }
                    source => IdentityError::Invalid { path: place(files::KEY), source },
                },
            )?;
        let reset_key = files.reset_key;
        Ok(Self(Arc::new(Parts { own, certified, authority, reset_key })))
    }

    /// What the certificate says about this process.
    pub fn own(&self) -> &PeerIdentity {
        &self.0.own
    }

    pub(super) fn certified(&self) -> &CertifiedKey {
        &self.0.certified
    }

    pub(super) fn authority(&self) -> &CertificateDer<'static> {
        &self.0.authority
    }

    pub(super) fn reset_key(&self) -> &[u8; 32] {
        &self.0.reset_key
    }
}

/// TLS checks the leaf's dates too, but never the root's, and says less.
fn check_dates(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|source| {
        IdentityError::NotX509 { path: path.to_owned(), source: source.into() }
    })?;
    let validity = parsed.validity();
    let seconds = i64::try_from(unix_time(now).as_secs()).unwrap_or(i64::MAX);
    if seconds < validity.not_before.timestamp() {
        let from = validity.not_before.to_string();
        return Err(IdentityError::NotYetValid { path: path.to_owned(), from });
    }
    if seconds > validity.not_after.timestamp() {
        let since = validity.not_after.to_string();
        return Err(IdentityError::Expired { path: path.to_owned(), since });
    }
    Ok(())
}

fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}
