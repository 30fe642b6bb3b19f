//! One enum per operation of a node; each says whether trying again can help.

use std::io;

use super::identity::ClaimError;
use super::log::OpenLogError;
use super::types::{LeaderId, NodeId};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not ours.
    #[error("the data directory cannot be used")]
    Claim(#[from] ClaimError),
    /// The log is not whole.
    #[error("the log cannot be used")]
    Log(#[from] OpenLogError),
    /// The snapshots cannot be read or made.
    #[error("the snapshots cannot be opened")]
    Snapshots(#[source] io::Error),
    /// openraft refused: the settings, or a log and snapshots that do not connect.
    #[error("raft does not start: {cause}")]
    Raft {
        /// Why.
        cause: String,
    },
}

/// What became of a proposal that has no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not appended: propose it to the leader, or again when there is one.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who leads, if known. May be this node, under another term than the proposal's fence.
        leader: Option<NodeId>,
    },
    /// Appended by a leader that was deposed: it may still be committed. Whoever asked must ask again with the same id.
    #[error("outcome unknown: the leader {fence} was deposed before the entry was committed")]
    Unknown {
        /// The fence it was proposed with.
        fence: LeaderId,
    },
    /// Longer than an entry may be. Trying again cannot help.
    #[error("an entry of {bytes} bytes, the most is {max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// This node has stopped; the outcome of a proposal in flight is unknown.
    #[error("this node has stopped: {cause}")]
    Stopped {
        /// Why.
        cause: String,
    },
}

/// Why there is no read index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// Ask the leader.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The leader hears no quorum. Trying again may help.
    #[error("no quorum answers: {cause}")]
    NoQuorum {
        /// Who did.
        cause: String,
    },
    /// This node has stopped.
    #[error("this node has stopped: {cause}")]
    Stopped {
        /// Why.
        cause: String,
    },
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Ask the leader.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The leader was deposed meanwhile; look at the membership and ask again.
    #[error("outcome unknown: the leader was deposed before the change was committed")]
    Unknown,
    /// Another change is in progress, an unknown node, no voter left. See the cause.
    #[error("refused: {cause}")]
    Refused {
        /// Why.
        cause: String,
    },
    /// This node has stopped.
    #[error("this node has stopped: {cause}")]
    Stopped {
        /// Why.
        cause: String,
    },
}

/// This node has stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node has stopped: {cause}")]
pub struct StoppedError {
    /// Why.
    pub cause: String,
}
