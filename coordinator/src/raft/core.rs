//! How the replicated log drives the core loop, which owns the replicated state.
//!
//! The adapter sends one request at a time over a bounded channel and waits for its answer, so requests are in log
//! order and the core's state is exactly the applied log whenever it answers. A core that cannot go on (a command
//! of a newer version, a broken invariant) drops the answer's sender: the node then stops, nothing is skipped.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::types::{LeaderId, LogId, Membership};
use allhands_common::id::SegmentId;

/// One applied entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Its place in the log.
    pub index: u64,
    /// The leader that wrote it.
    pub leader: LeaderId,
    /// What it says.
    pub payload: AppliedPayload,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum AppliedPayload {
    /// A new leader's first entry: all entries of the leaders before it are applied.
    Blank,
    /// The bytes that were proposed.
    Proposal(Bytes),
    /// Who votes from here on.
    Membership(Membership),
}

/// The state at one index: what a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotImage {
    /// The encoded state: descriptors, never segment bytes.
    pub state: Bytes,
    /// The segments that the state refers to.
    pub segments: Vec<SegmentId>,
}

/// What the replicated log asks of the core loop.
#[derive(Debug)]
pub enum CoreRequest {
    /// Apply committed entries, in order, without a gap.
    Apply {
        /// At most [`APPLY_BYTES_MAX`] or one entry.
        entries: Vec<Applied>,
        /// Told when the state and the segments contain them.
        done: oneshot::Sender<()>,
    },
    /// Encode the state as it is now.
    Snapshot {
        /// Takes the image.
        reply: oneshot::Sender<SnapshotImage>,
    },
    /// Replace the state: at start by the last snapshot, later by a leader's. All segments are in the store.
    Install {
        /// The new state.
        image: SnapshotImage,
        /// Its last applied entry.
        applied: Option<LogId>,
        /// Told when it is in place.
        done: oneshot::Sender<()>,
    },
}

/// Bytes of one `Apply`: bounds what the core decodes before it looks at its other events.
pub const APPLY_BYTES_MAX: usize = 8 << 20;
/// Entries of one `Apply`.
pub const APPLY_ENTRIES_MAX: usize = 256;
/// Requests waiting: the adapter sends one at a time, the second is a snapshot's.
pub const CORE_REQUESTS_MAX: usize = 2;
