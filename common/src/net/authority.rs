//! The cluster's certificate authority: what `allhands init DIR` makes and later adds identities with.
//!
//! ```text
//! DIR/ca.pem        the authority's certificate, 10 years, may sign leaves only (path length 0)
//! DIR/ca.key        its private key (mode 0600): whoever holds it is the cluster; keep it off the machines
//! DIR/cluster-id    32 hexadecimal digits
//! DIR/NAME/         one folder per identity, see [`identity`](super::identity)
//! ```
//!
//! Nothing is ever overwritten: an existing file is an error that names it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::access::Role;
use super::identity::{IdentityFiles, write_new};
use super::{peer, tls};
use crate::id::ClusterId;

mod error;

pub use error::AuthorityError;

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CLUSTER_ID: &str = "cluster-id";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a machine's clock may lag when it gets a fresh certificate.
const CLOCK_LAG: Duration = Duration::from_secs(60 * 60);

/// Life of an authority.
pub const AUTHORITY_DAYS: u32 = 3652;

/// Default life of an identity.
pub const IDENTITY_DAYS: u32 = 365;

/// A name becomes a folder and part of a URI; 63 bytes is what a host name's label may have.
const NAME_BYTES_MAX: usize = 63;

/// From when until when a certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// `days` from `now` on, at most those of an authority, and an hour back for clocks that lag.
    pub fn days(now: SystemTime, days: u32) -> Self {
        let days = days.min(AUTHORITY_DAYS);
        Self { not_before: now - CLOCK_LAG, not_after: now + DAY * days }
    }
}

/// A certificate authority with its private key.
pub struct Authority {
    cluster: ClusterId,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl core::fmt::Debug for Authority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Authority({})", self.cluster)
    }
}

impl Authority {
    /// A new authority for `cluster`, in memory.
    #[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
    pub fn create(cluster: ClusterId) -> Result<Self, AuthorityError> {
        let mut params = params(
            &format!("allhands {cluster}"),
            Validity::days(SystemTime::now(), AUTHORITY_DAYS),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(AuthorityError::generating)?;
        let made = CertifiedIssuer::self_signed(params.clone(), key)
            .map_err(AuthorityError::generating)?;
        let certificate_pem = made.pem();
        let key =
            KeyPair::from_pem(&made.key().serialize_pem()).map_err(AuthorityError::generating)?;
        Ok(Self { cluster, certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Writes the authority to `folder`, which is made if it is missing.
    pub fn save(&self, folder: &Path) -> Result<(), AuthorityError> {
        let written = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Write { path, source }
        };
        fs::create_dir_all(folder).map_err(written(folder))?;
        for (name, content, mode) in [
            (CA_KEY, self.issuer.key().serialize_pem(), 0o600),
            (CA, self.certificate_pem.clone(), 0o644),
            (CLUSTER_ID, format!("{}\n", self.cluster), 0o644),
        ] {
            let path = folder.join(name);
            write_new(&path, content.as_bytes(), mode).map_err(written(&path))?;
        }
        Ok(())
    }

    /// Loads an authority that [`Self::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| AuthorityError::Read { path, source })
        };
        let cluster = read(CLUSTER_ID)?.trim().parse().map_err(|source| {
            AuthorityError::ClusterId { path: folder.join(CLUSTER_ID), source }
        })?;
        let certificate_pem = read(CA)?;
        let key = KeyPair::from_pem(&read(CA_KEY)?)
            .map_err(|source| AuthorityError::Unusable { path: folder.join(CA_KEY), source })?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|source| AuthorityError::Unusable { path: folder.join(CA), source })?;
        Ok(Self { cluster, certificate_pem, issuer })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// A new identity, to be used as it is or saved: [`IdentityFiles::save`] makes the folder `place`.
    ///
    /// The certificate serves as client and as server, names the role's host name and carries role and
    /// name as a URI. Key and `reset.key` are drawn afresh.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        validity: Validity,
        place: PathBuf,
    ) -> Result<IdentityFiles, AuthorityError> {
        check_name(name)?;
        let mut params = params(&format!("{role} {name}"), validity);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![
            SanType::DnsName(
                peer::host_name(self.cluster, role)
                    .try_into()
                    .map_err(AuthorityError::generating)?,
            ),
            SanType::URI(
                peer::role_uri(self.cluster, role, name)
                    .try_into()
                    .map_err(AuthorityError::generating)?,
            ),
        ];
        let key = KeyPair::generate().map_err(AuthorityError::generating)?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(AuthorityError::generating)?;
        let mut reset_key = [0; 32];
        tls::provider()
            .secure_random
            .fill(&mut reset_key)
            .map_err(|_| AuthorityError::NoEntropy)?;
        Ok(IdentityFiles {
            place,
            cert_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
            ca_pem: self.certificate_pem.clone().into_bytes(),
            reset_key,
        })
    }
}

/// rcgen's default dates are 1975 to 4096: they are always set.
fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    params
}

fn check_name(name: &str) -> Result<(), AuthorityError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(plain) && !name.starts_with('-') {
        Ok(())
    } else {
        Err(AuthorityError::BadName { name: name.to_owned() })
    }
}
