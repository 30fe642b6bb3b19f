//! QUIC without our manners: peers that show no certificate, speak another protocol or send what they like.

use std::net::SocketAddr;
use std::sync::Arc;

use allhands_common::net::authority::Authority;
use allhands_common::net::identity::IdentityFiles;
use quinn::ConnectionError;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::LOOPBACK;

const ALPN: &[u8] = b"allhands/1";

pub(crate) struct RawClient {
    pub(crate) alpn: Vec<u8>,
    config: rustls::ClientConfig,
}

fn roots(files: &IdentityFiles) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&files.ca_pem).unwrap()).unwrap();
    roots
}

fn certificate(files: &IdentityFiles) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from_pem_slice(&files.cert_pem).unwrap()];
    (chain, PrivateKeyDer::from_pem_slice(&files.key_pem).unwrap())
}

fn builder(
    files: &IdentityFiles,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(files))
}

impl RawClient {
    pub(crate) fn with_certificate(files: &IdentityFiles) -> Self {
        let (chain, key) = certificate(files);
        let config = builder(files).with_client_auth_cert(chain, key).unwrap();
        Self { alpn: ALPN.to_vec(), config }
    }

    pub(crate) fn without_certificate(files: &IdentityFiles) -> Self {
        Self { alpn: ALPN.to_vec(), config: builder(files).with_no_client_auth() }
    }

    /// Connects to a coordinator of `authority`'s cluster. The endpoint lives as long as the connection.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        authority: &Authority,
    ) -> Result<quinn::Connection, ConnectionError> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![self.alpn.clone()];
        let config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let host = format!("coordinator.{}.allhands", authority.cluster());
        let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
        endpoint.connect_with(config, address, &host).unwrap().await
    }
}

/// A server that asks for no certificate and answers nothing by itself.
pub(crate) fn serve(files: &IdentityFiles) -> quinn::Endpoint {
    let (chain, key) = certificate(files);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    quinn::Endpoint::server(config, LOOPBACK).unwrap()
}
