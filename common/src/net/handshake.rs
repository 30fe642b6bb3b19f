//! How a fresh stream becomes a link.
//!
//! The opener says [`Hello`]: which cluster, what for. The other side compares version, cluster and
//! [`access`](super::access) table, and answers [`Welcome`] or [`Refused`]; from then on the stream carries
//! the two kinds of the purpose. The protocol version is not in the messages but in each frame's header,
//! whose layout never changes: it is the first thing that either side checks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::access::{Purpose, Role};
use super::cause::Cause;
use super::connection::Connection;
use super::endpoint::HANDSHAKE_DEADLINE;
use super::link::{FrameReader, FrameWriter, Link, LinkError};
use super::peer::Serial;
use crate::frame::{FrameError, Kind, Message};
use crate::id::ClusterId;

mod error;

pub use error::{AdmitError, OpenError};

/// The first message on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub cluster: ClusterId,
    pub purpose: Purpose,
    /// Release and commit of the opener, for logs.
    pub build: String,
}

impl Message for Hello {
    const KIND: Kind = Kind::Hello;
}

/// The answer that makes the stream a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Release and commit of the acceptor, for logs.
    pub build: String,
}

impl Message for Welcome {
    const KIND: Kind = Kind::Welcome;
}

/// The answer that ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: Refusal,
}

impl Message for Refused {
    const KIND: Kind = Kind::Refused;
}

/// Why a link was refused, in the words of the side that refused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the opener speaks protocol {theirs}, the acceptor protocol {ours}; run the same release of allhands on both"
    )]
    Version { theirs: u16, ours: u16 },
    #[error("the link is meant for cluster {theirs}, this is cluster {ours}")]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error(
        "a {opener} may not open a {purpose} link to a {acceptor}; use an identity of another role"
    )]
    Role { opener: Role, purpose: Purpose, acceptor: Role },
    #[error("certificate {serial} was revoked; ask for a new identity")]
    Revoked { serial: Serial },
    #[error("too many links are open; try again in a moment")]
    Busy,
}

impl Refusal {
    /// Whether opening the same link again can succeed without anybody's doing.
    pub const fn retry_can_help(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Opens a link on a connection. `Out` and `In` must be the messages of the purpose.
pub async fn open_link<Out: Message, In: Message>(
    connection: &Connection,
    purpose: Purpose,
    build: &str,
) -> Result<(Link<Out, In>, Welcome), OpenError> {
    let peer = connection.label();
    if purpose.kinds() != (Out::KIND, In::KIND) {
        return Err(OpenError::Kinds { purpose, out: Out::KIND, back: In::KIND });
    }
    let (cluster, _) = connection.own();
    let hello = Hello { cluster, purpose, build: build.to_owned() };
    let exchange =
        async {
            let (send, receive) = connection.quinn().open_bi().await.map_err(|error| {
                LinkError::Lost { peer: peer.clone(), source: Cause::of(&error) }
            })?;
            let mut writer = FrameWriter::new(send, connection);
            let mut reader = FrameReader::new(receive, connection);
            writer.queue(&hello, Bytes::new())?;
            writer.flush().await?;
            let (kind, head, _) = reader
                .frame(&[Kind::Welcome, Kind::Refused])
                .await?
                .ok_or_else(|| LinkError::Truncated { peer: peer.clone() })?;
            if kind == Kind::Refused {
                let Refused { reason } = reader.decode(&head)?;
                return Err(OpenError::Refused { peer: peer.clone(), source: reason });
            }
            let welcome = reader.decode(&head)?;
            Ok((Link::quic(writer, reader), welcome))
        };
    tokio::time::timeout(HANDSHAKE_DEADLINE, exchange)
        .await
        .map_err(|_| OpenError::NoAnswer { peer: peer.clone() })?
}

/// Waits for the next stream that the peer opens, reads its [`Hello`] and refuses what is not allowed.
/// `None` once the connection has been closed in order.
///
/// Not cancel-safe: run it in a loop of its own, one per connection. An error concerns that stream alone
/// unless [`AdmitError::connection_is_gone`].
pub async fn accept_link(connection: &Connection) -> Result<Option<Applicant>, AdmitError> {
    let peer = connection.label();
    let (send, receive) = match connection.quinn().accept_bi().await {
        Ok(streams) => streams,
        Err(error) => {
            let source = Cause::of(&error);
            return if source.in_order() {
                Ok(None)
            } else {
                Err(AdmitError::Gone { peer: peer.clone(), source })
            };
        }
    };
    let writer = FrameWriter::new(send, connection);
    let mut reader = FrameReader::new(receive, connection);
    let greeting = tokio::time::timeout(HANDSHAKE_DEADLINE, reader.message::<Hello>())
        .await
        .map_err(|_| AdmitError::Silent { peer: peer.clone() })?;
    let hello = match greeting {
        Ok(Some((hello, _))) => hello,
        Ok(None) => return Err(LinkError::Truncated { peer: peer.clone() }.into()),
        Err(LinkError::Frame { source: FrameError::Version { theirs, ours }, .. }) => {
            let refusal = Refusal::Version { theirs, ours };
            return Err(refuse(writer, connection, refusal).await);
        }
        Err(error) => return Err(error.into()),
    };
    let (cluster, role) = connection.own();
    if hello.cluster != cluster {
        let refusal = Refusal::Cluster { theirs: hello.cluster, ours: cluster };
        return Err(refuse(writer, connection, refusal).await);
    }
    let opener = connection.peer().role;
    if !hello.purpose.allows(opener, role) {
        let refusal = Refusal::Role { opener, purpose: hello.purpose, acceptor: role };
        return Err(refuse(writer, connection, refusal).await);
    }
    Ok(Some(Applicant { connection: connection.clone(), hello, writer, reader }))
}

/// A peer that may open the link that it asked for.
#[derive(Debug)]
pub struct Applicant {
    connection: Connection,
    hello: Hello,
    writer: FrameWriter,
    reader: FrameReader,
}

impl Applicant {
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Makes the stream a link. `Out` and `In` must be the messages of the purpose, seen from here.
    pub async fn welcome<Out: Message, In: Message>(
        mut self,
        build: &str,
    ) -> Result<Link<Out, In>, AdmitError> {
        let purpose = self.hello.purpose;
        if purpose.kinds() != (In::KIND, Out::KIND) {
            return Err(AdmitError::Kinds { purpose, out: Out::KIND, back: In::KIND });
        }
        self.writer.queue(&Welcome { build: build.to_owned() }, Bytes::new())?;
        self.writer.flush().await?;
        Ok(Link::quic(self.writer, self.reader))
    }

    /// Refuses the link for a reason that only the caller knows. The error is for the log.
    pub async fn refuse(self, reason: Refusal) -> AdmitError {
        refuse(self.writer, &self.connection, reason).await
    }
}

/// Tells the opener why, waits until it knows or the deadline passes, and gives the error for the log.
async fn refuse(mut writer: FrameWriter, connection: &Connection, reason: Refusal) -> AdmitError {
    let peer = connection.label().clone();
    let told = async {
        writer.queue(&Refused { reason: reason.clone() }, Bytes::new())?;
        writer.finish().await
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "the refusal may not have arrived"),
        Err(_) => tracing::debug!(%peer, "the refusal was not acknowledged in time"),
    }
    AdmitError::Refused { peer, source: reason }
}
