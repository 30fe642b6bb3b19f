//! The types that openraft is parametrised with, and the words the rest of the crate uses for them.
//!
//! This layer replicates opaque bytes: a [`Proposal`] is an encoded entry that only the core can read.
//! All of them are plain data; the log store and the snapshots own their layout on disk.

use core::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A coordinator's number. Never given twice: a machine that lost its log joins again under a new one.
pub type NodeId = u64;

/// Longest encoded entry that may be proposed, in bytes. Larger payloads are segments or blobs.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

openraft::declare_raft_types!(
    /// Default leader-id mode: an id is (term, node), so that two candidates of one term are ordered.
    pub TypeConfig:
        D = Proposal,
        R = Written,
        NodeId = NodeId,
        Node = Member,
);

/// The leader of a term, and the fence that every proposal carries.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// Leader and index of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote given, or (when committed) a leader recognised.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// Who votes, who learns, and where they are.
pub type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// One encoded entry of the replicated log. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Answer to a proposal once it is committed and applied: where it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Index of the entry.
    pub index: u64,
}

/// What the membership says of a coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name for people: the host's, normally.
    pub name: String,
    /// Where its peers reach it, most preferred first.
    pub addresses: Vec<SocketAddr>,
}
