//! What can go wrong with the socket, with dialling and with accepting.

use std::io;
use std::net::SocketAddr;

use crate::net::cause::Cause;
use crate::net::peer::PeerIdentityError;
use crate::net::tls::TlsError;

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("UDP address {address} cannot be bound; is another process using it?")]
    Socket { address: SocketAddr, source: io::Error },
    #[error("the identity cannot be used")]
    Tls { source: TlsError },
    #[error("the QUIC settings are refused")]
    Config { source: quinn::ConfigError },
    #[error("the address of the socket cannot be read")]
    Address { source: io::Error },
}

impl BindError {
    /// Whether doing the same again can succeed: the address may become free.
    pub const fn retry_can_help(&self) -> bool {
        matches!(self, Self::Socket { .. })
    }
}

/// Why dialling gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("there is no address to dial")]
    Nowhere,
    #[error("{address} cannot be dialled")]
    Invalid { address: SocketAddr, source: quinn::ConnectError },
    #[error("no connection to {address}")]
    Failed { address: SocketAddr, source: Cause },
    #[error("{address} answers with a certificate that is not of this system")]
    Stranger { address: SocketAddr, source: PeerIdentityError },
    #[error("{address} is {got}, not {expected}; correct the address")]
    OtherPeer { address: SocketAddr, expected: String, got: String },
}

impl ConnectError {
    /// Whether dialling the same address again can succeed without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Failed { source, .. } => source.retry_can_help(),
            Self::Nowhere
            | Self::Invalid { .. }
            | Self::Stranger { .. }
            | Self::OtherPeer { .. } => false,
        }
    }
}

/// Why a peer that knocked was not let in. To be logged once; there is nobody to answer.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the handshake with {address} failed")]
    Failed { address: SocketAddr, source: Cause },
    #[error("{address} shows a certificate that is not of this system")]
    Stranger { address: SocketAddr, source: PeerIdentityError },
}

impl AcceptError {
    /// Whether the same peer may get in later without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Failed { source, .. } => source.retry_can_help(),
            Self::Stranger { .. } => false,
        }
    }
}
