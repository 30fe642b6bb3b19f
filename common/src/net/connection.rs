//! One authenticated connection: whoever holds it knows who is on the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::access::Role;
use super::cause::{Cause, CloseCode};
use super::identity::Identity;
use super::peer::{PeerIdentity, PeerIdentityError};
use crate::id::ClusterId;

/// A QUIC connection whose peer has shown a certificate of this cluster. Cheap to clone; it closes when the
/// last clone, and the last link on it, is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    quinn: quinn::Connection,
    peer: Arc<PeerIdentity>,
    label: Arc<str>,
    cluster: ClusterId,
    role: Role,
}

impl Connection {
    /// Reads who the peer is. A connection whose peer is nobody is closed.
    pub(super) fn identify(
        quinn: quinn::Connection,
        own: &Identity,
    ) -> Result<Self, PeerIdentityError> {
        let (cluster, role) = (own.own().cluster, own.own().role);
        let peer = PeerIdentity::of_connection(&quinn)
            .and_then(|peer| peer.of_cluster(cluster))
            .inspect_err(|error| {
                quinn.close(CloseCode::Refused.wire(), error.to_string().as_bytes());
            })?;
        let label = format!("{peer} at {}", quinn.remote_address()).into();
        Ok(Self { quinn, peer: Arc::new(peer), label, cluster, role })
    }

    /// What the peer's certificate says.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Role, name and address of the peer, for messages.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub fn remote_address(&self) -> SocketAddr {
        self.quinn.remote_address()
    }

    /// Best estimate of the round-trip time.
    pub fn round_trip(&self) -> Duration {
        self.quinn.rtt()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Cause {
        Cause::of(&self.quinn.closed().await)
    }

    /// Why the connection has ended, if it has.
    pub fn close_cause(&self) -> Option<Cause> {
        self.quinn.close_reason().map(|error| Cause::of(&error))
    }

    /// Ends the connection at once; data on the way is lost. The peer is told code and reason.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.quinn.close(code.wire(), reason.as_bytes());
    }

    /// The bare connection, for measurements: what is said on it past the links is checked by nobody.
    pub fn quinn(&self) -> &quinn::Connection {
        &self.quinn
    }

    /// Cluster and role of this process.
    pub(super) fn own(&self) -> (ClusterId, Role) {
        (self.cluster, self.role)
    }
}
