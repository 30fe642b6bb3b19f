//! Why a connection could not be made, or ended: one plain sentence for each thing that happens.
//!
//! QUIC reports a wrong certificate as alert 48 inside a transport error inside a connection error, on
//! either side. Who noticed matters: what *we* refuse is the peer's fault, what the *peer* refuses is ours.
//! A dialler may learn the latter only after its own handshake has succeeded, when it opens the first link.

use core::fmt;

use quinn::{ConnectionError, VarInt};

/// Why one side closes a connection on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// All is said.
    Done,
    /// The process ends.
    ShuttingDown,
    /// The other side broke the protocol.
    Protocol,
    /// The certificate was revoked, or its holder has no business here.
    Refused,
}

impl CloseCode {
    const ALL: [Self; 4] = [Self::Done, Self::ShuttingDown, Self::Protocol, Self::Refused];

    pub(super) const fn wire(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::ShuttingDown => 1,
            Self::Protocol => 2,
            Self::Refused => 3,
        })
    }
}

/// Why a connection is not there, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error(
        "nothing answers: check the address, that the process runs there, and that no firewall drops UDP"
    )]
    NoAnswer,
    #[error("the peer fell silent: it is dead or paused, or the network between is cut")]
    Silent,
    #[error("the peer was restarted and no longer knows the connection")]
    Restarted,
    #[error("the peer closed the connection ({code}){reason}", reason = Reason(reason))]
    ClosedByPeer { code: PeerCode, reason: String },
    #[error("this process closed the connection")]
    ClosedHere,
    #[error(
        "the peer's certificate was issued by another authority: it belongs to another cluster"
    )]
    PeerOfOtherCluster,
    #[error(
        "the peer's certificate is out of date: issue it a new one and check both clocks ({detail})"
    )]
    PeerExpired { detail: String },
    #[error("the peer's certificate is not for the role that was dialled ({detail})")]
    PeerOfOtherRole { detail: String },
    #[error(
        "the peer does not know the authority of our certificate: it belongs to another cluster"
    )]
    WeAreOfOtherCluster,
    #[error(
        "the peer refused our certificate as out of date: issue a new one with `allhands init` and check both clocks"
    )]
    WeAreExpired,
    #[error("the peer demands a certificate and got none from us")]
    WeShowedNone,
    #[error(
        "the two sides share no application protocol: this one speaks allhands/1, the peer is something else or of another generation"
    )]
    OtherProtocol,
    #[error("the TLS handshake failed ({detail})")]
    Tls { detail: String },
    #[error("the QUIC connection failed ({detail})")]
    Quic { detail: String },
}

/// The code in a peer's close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCode {
    Known(CloseCode),
    Unknown(u64),
}

impl PeerCode {
    fn from_wire(code: VarInt) -> Self {
        CloseCode::ALL
            .into_iter()
            .find(|known| known.wire() == code)
            .map_or_else(|| Self::Unknown(code.into_inner()), Self::Known)
    }
}

impl fmt::Display for PeerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(CloseCode::Done) => f.write_str("all done"),
            Self::Known(CloseCode::ShuttingDown) => f.write_str("it is shutting down"),
            Self::Known(CloseCode::Protocol) => f.write_str("we broke the protocol"),
            Self::Known(CloseCode::Refused) => f.write_str("we are refused"),
            Self::Unknown(code) => write!(f, "code {code}"),
        }
    }
}

struct Reason<'a>(&'a str);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

// TLS alerts (RFC 8446, 6.2); QUIC error code is 0x100 + alert (RFC 9001, 4.8).
const BAD_CERTIFICATE: u64 = 0x100 + 42;
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;
const UNKNOWN_CA: u64 = 0x100 + 48;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
const ALERTS: core::ops::RangeInclusive<u64> = 0x100..=0x1ff;

impl Cause {
    /// What ended a connection, seen from this side.
    pub fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer {
                code: PeerCode::from_wire(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TransportError(error) => {
                Self::noticed_here(u64::from(error.code), error.reason.clone())
            }
            ConnectionError::ConnectionClosed(close) => Self::noticed_there(
                u64::from(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::Quic { detail: error.to_string() }
            }
        }
    }

    fn noticed_here(code: u64, detail: String) -> Self {
        match code {
            UNKNOWN_CA => Self::PeerOfOtherCluster,
            CERTIFICATE_EXPIRED => Self::PeerExpired { detail },
            BAD_CERTIFICATE => Self::PeerOfOtherRole { detail },
            NO_APPLICATION_PROTOCOL => Self::OtherProtocol,
            code if ALERTS.contains(&code) => Self::Tls { detail },
            code => Self::Quic { detail: format!("code {code:#x}: {detail}") },
        }
    }

    fn noticed_there(code: u64, detail: String) -> Self {
        match code {
            UNKNOWN_CA => Self::WeAreOfOtherCluster,
            CERTIFICATE_EXPIRED => Self::WeAreExpired,
            CERTIFICATE_REQUIRED => Self::WeShowedNone,
            NO_APPLICATION_PROTOCOL => Self::OtherProtocol,
            code if ALERTS.contains(&code) => Self::Tls { detail },
            code => Self::Quic { detail: format!("code {code:#x} from the peer: {detail}") },
        }
    }

    /// Whether connecting again can succeed without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::NoAnswer | Self::Silent | Self::Restarted | Self::Quic { .. } => true,
            Self::ClosedByPeer { code, .. } => {
                matches!(code, PeerCode::Known(CloseCode::Done | CloseCode::ShuttingDown))
            }
            Self::ClosedHere
            | Self::PeerOfOtherCluster
            | Self::PeerExpired { .. }
            | Self::PeerOfOtherRole { .. }
            | Self::WeAreOfOtherCluster
            | Self::WeAreExpired
            | Self::WeShowedNone
            | Self::OtherProtocol
            | Self::Tls { .. } => false,
        }
    }

    /// Whether the connection ended because one side said that all is said.
    pub const fn in_order(&self) -> bool {
        matches!(
            self,
            Self::ClosedHere
                | Self::ClosedByPeer {
                    code: PeerCode::Known(CloseCode::Done | CloseCode::ShuttingDown),
                    ..
                }
        )
    }
}
