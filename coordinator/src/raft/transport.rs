//! What the raft layer asks of the links between coordinators. Production wires three QUIC connections per peer; tests
//! call in process, with partitions. Calls may be lost, repeated, and overtake each other.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::message::{PeerReply, PeerRequest};
use super::types::NodeId;

/// One connection of the three per peer: bulk must never delay heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Entries. Up to 4 calls in flight.
    Append,
    /// Heartbeats and votes. Small.
    Heartbeat,
    /// Snapshots. One call in flight, up to 4 MiB.
    Snapshot,
}

/// Why a call has no answer. It may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection: openraft waits before it tries again.
    #[error("coordinator {node} cannot be reached: {cause}")]
    Unreachable {
        /// Whom.
        node: NodeId,
        /// Why not.
        cause: String,
    },
    /// Connected, but no answer in time, or the stream broke.
    #[error("no answer from coordinator {node}: {cause}")]
    NoAnswer {
        /// From whom.
        node: NodeId,
        /// Why not.
        cause: String,
    },
}

/// The links to the other coordinators.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends `request` with its `bulk` to `target` and waits at most `ttl` for the answer.
    fn call(
        &self,
        target: NodeId,
        lane: Lane,
        request: PeerRequest,
        bulk: Bytes,
        ttl: Duration,
    ) -> impl Future<Output = Result<PeerReply, PeerError>> + Send;
}
