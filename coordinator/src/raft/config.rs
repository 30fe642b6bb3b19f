//! What a raft node is started with, and the settings of openraft with the reason for each.

use std::path::PathBuf;

use allhands_common::id::ClusterId;
use openraft::SnapshotPolicy;

use super::types::NodeId;

/// The leader says that it lives this often.
pub const HEARTBEAT_MS: u64 = 100;
/// An election starts between these two; the second is also the leader's lease. Measured: failover p99 1.2 s, max
/// 1.5 s; twice as long comes too near the promised 2 s.
pub const ELECTION_MS: (u64, u64) = (300, 600);
/// A leader that hears no quorum for this long starts to probe: at least twice the lease. Without it a partition
/// with a bridge, or a one-way loss, never heals.
const QUORUM_LOSS_PROBE_MS: u64 = 1200;
/// One message of a snapshot transfer, whatever the disk of the receiver does.
const SNAPSHOT_MESSAGE_MS: u64 = 120_000;
/// A snapshot is taken after this much log, in bytes or in entries: what a restart replays.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
/// See [`SNAPSHOT_LOG_BYTES`].
pub const SNAPSHOT_LOG_ENTRIES: u64 = 100_000;
/// Log kept behind a snapshot, so that a follower that was away for a moment needs no snapshot.
pub const KEPT_LOG_BYTES_MAX: u64 = 64 << 20;

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`: survives a power loss.
    Disk,
    /// When the kernel has it: survives the process only. For the embedded cluster and tests.
    Process,
}

impl Durability {
    pub(crate) fn syncs(self) -> bool {
        self == Self::Disk
    }
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Stamped into the directory and into every message.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Holds `log/`, `snapshots/`, the stamp and the lock.
    pub dir: PathBuf,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// When snapshots are taken and how much log stays. The defaults are the design's.
    pub compaction: Compaction,
}

/// Bounds of the log.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// A snapshot after this many bytes of log.
    pub snapshot_log_bytes: u64,
    /// A snapshot after this many entries.
    pub snapshot_log_entries: u64,
    /// Bytes of log kept behind a snapshot.
    pub kept_log_bytes_max: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
            snapshot_log_entries: SNAPSHOT_LOG_ENTRIES,
            kept_log_bytes_max: KEPT_LOG_BYTES_MAX,
        }
    }
}

pub(crate) fn openraft_config(config: &Config) -> openraft::Config {
    openraft::Config {
        cluster_name: config.cluster.to_string(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(QUORUM_LOSS_PROBE_MS),
        // A restarted leader must be elected anew: its state may be behind what it had acknowledged.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: SNAPSHOT_MESSAGE_MS,
        // Snapshots and purges go by bytes, which openraft does not count: `compaction` triggers both.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Replicate from the log as long as it is there; only a purged log needs a snapshot.
        replication_lag_threshold: 10 * SNAPSHOT_LOG_ENTRIES,
        ..openraft::Config::default()
    }
}
