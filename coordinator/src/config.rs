//! What a coordinator process is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use allhands_common::id::CoordinatorId;
use allhands_common::net::identity::Identity;

use crate::raft::config::Durability;

/// A coordinator of a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which one.
    pub id: CoordinatorId,
    /// Its certificate.
    pub identity: Identity,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Log, segments, snapshots, programs.
    pub dir: PathBuf,
    /// All voters of a new cluster, itself included: where each is reached. Looked at once, when the
    /// directory is new.
    pub members: Vec<(CoordinatorId, SocketAddr)>,
    /// When a write is acknowledged.
    pub durability: Durability,
}
