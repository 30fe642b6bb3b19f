//! Who is on the other side: what a certificate of ours says about its holder.
//!
//! TLS has checked the signature, the dates and (when dialling) the host name; it knows nothing of roles.
//! They stand in the certificate as a URI, `allhands://<cluster>/role/<role>/<name>`.

use core::fmt;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::Role;
use crate::id::ClusterId;

const SCHEME: &str = "allhands://";

/// Serial number of a certificate, unique within a cluster: what a revocation names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Serial(String);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub cluster: ClusterId,
    pub role: Role,
    pub name: String,
    pub serial: Serial,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

impl PeerIdentity {
    /// Reads a certificate that TLS, or the caller, has verified.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, PeerIdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|source| PeerIdentityError::Unreadable { source: source.into() })?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|source| PeerIdentityError::Unreadable { source })?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let uri = names
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
                _ => None,
            })
            .ok_or(PeerIdentityError::NoRole)?;
        let (cluster, role, name) =
            parse_uri(uri).ok_or_else(|| PeerIdentityError::BadRole { uri: uri.to_owned() })?;
        Ok(Self { cluster, role, name, serial: Serial(format!("{:x}", parsed.serial)) })
    }

    /// As [`Self::from_certificate`], for the other side of a QUIC connection.
    pub(super) fn of_connection(connection: &quinn::Connection) -> Result<Self, PeerIdentityError> {
        let chain = connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
            .ok_or(PeerIdentityError::NoCertificate)?;
        Self::from_certificate(chain.first().ok_or(PeerIdentityError::NoCertificate)?)
    }

    /// One authority signs for one cluster; should its key ever have served two, they still stay apart.
    pub(super) fn of_cluster(self, ours: ClusterId) -> Result<Self, PeerIdentityError> {
        if self.cluster == ours {
            Ok(self)
        } else {
            Err(PeerIdentityError::OtherCluster { theirs: self.cluster, ours })
        }
    }
}

/// The URI of a certificate.
pub(super) fn role_uri(cluster: ClusterId, role: Role, name: &str) -> String {
    format!("{SCHEME}{cluster}/role/{role}/{name}")
}

/// The DNS name in a certificate, and what a dialler asks for: role and cluster, not the machine, so that
/// addresses may change. Whoever cares which machine it is compares [`PeerIdentity::name`].
pub(super) fn host_name(cluster: ClusterId, role: Role) -> String {
    format!("{role}.{cluster}.allhands")
}

fn parse_uri(uri: &str) -> Option<(ClusterId, Role, String)> {
    let mut parts = uri.strip_prefix(SCHEME)?.split('/');
    let cluster = parts.next()?.parse().ok()?;
    let ("role", role) = (parts.next()?, parts.next()?.parse().ok()?) else {
        return None;
    };
    let name = parts.next().filter(|name| !name.is_empty())?;
    parts.next().is_none().then(|| (cluster, role, name.to_owned()))
}

/// A verified certificate that is nevertheless not one of `allhands init`.
#[derive(Debug, thiserror::Error)]
pub enum PeerIdentityError {
    #[error("the peer showed no certificate")]
    NoCertificate,
    #[error("the certificate cannot be read as X.509")]
    Unreadable { source: x509_parser::error::X509Error },
    #[error("the certificate names no role; issue one with `allhands init`")]
    NoRole,
    #[error("the certificate is of cluster {theirs}, this is cluster {ours}")]
    OtherCluster { theirs: ClusterId, ours: ClusterId },
    #[error("the certificate's role {uri:?} is not of the form allhands://CLUSTER/role/ROLE/NAME")]
    BadRole { uri: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_uris_parse_as_written() {
        let cluster = ClusterId([7; 16]);
        let uri = role_uri(cluster, Role::Worker, "w-1");
        assert_eq!(uri, "allhands://07070707070707070707070707070707/role/worker/w-1");
        assert_eq!(parse_uri(&uri), Some((cluster, Role::Worker, "w-1".to_owned())));
    }

    #[test]
    fn anything_else_is_no_role() {
        let hex = ClusterId([7; 16]);
        for uri in [
            String::from("allhands://"),
            format!("allhands://{hex}/role/worker/"),
            format!("allhands://{hex}/role/worker"),
            format!("allhands://{hex}/role/king/a"),
            format!("allhands://{hex}/roll/worker/a"),
            format!("allhands://{hex}/role/worker/a/b"),
            format!("spiffe://{hex}/role/worker/a"),
        ] {
            assert_eq!(parse_uri(&uri), None, "{uri}");
        }
    }
}
