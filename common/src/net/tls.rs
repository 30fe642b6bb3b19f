//! TLS for QUIC: version 1.3 only, both sides show a certificate of the cluster's CA, nothing is resumed.
//!
//! No session tickets, no resumption, no 0-RTT: a resumed session skips the certificate checks, so that an
//! expired or revoked certificate would live on, and 0-RTT data can be replayed. quinn's
//! `ServerConfig::with_single_cert` is never used: it asks no client for a certificate and turns 0-RTT on.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::identity::Identity;

/// Application protocol. It names the family of protocols; the version is in each frame's header, so that
/// a refusal can name both versions.
pub(super) const ALPN: &[u8] = b"allhands/1";

/// Why certificates that were loaded cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate authority's certificate cannot serve as a root")]
    Root { source: rustls::Error },
    #[error("no verifier for client certificates can be built")]
    Verifier { source: VerifierBuilderError },
    #[error("the TLS provider lacks TLS 1.3")]
    Config { source: rustls::Error },
    #[error("the TLS provider lacks the cipher suite that QUIC starts with")]
    Suite { source: NoInitialCipherSuite },
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|source| TlsError::Root { source })?;
    Ok(Arc::new(roots))
}

/// Accepts a certificate that this authority signed for client authentication, within its dates.
pub(super) fn verifier(
    authority: &CertificateDer<'static>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
        .build()
        .map_err(|source| TlsError::Verifier { source })
}

pub(super) fn server(identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Config { source })?
        .with_client_cert_verifier(verifier(identity.authority())?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified().clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|source| TlsError::Suite { source })
}

pub(super) fn client(identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Config { source })?
        .with_root_certificates(roots(identity.authority())?)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified().clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(|source| TlsError::Suite { source })
}
