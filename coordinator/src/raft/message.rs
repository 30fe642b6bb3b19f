//! What coordinators say to each other to keep the log: one request, one reply.
//!
//! Requests and replies are small and go through the wire codec; the bytes of entries, snapshots and segments follow as
//! `bulk`, in the order of their heads, and are never decoded on the way.

use allhands_common::id::{ClusterId, SegmentId};
use bytes::Bytes;
use openraft::raft::{
    StreamAppendError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{
    ENTRY_BYTES_MAX, Entry, LogId, Membership, NodeId, Payload, Proposal, TypeConfig, Vote,
};
use crate::segments::SegmentHead;

/// Bulk of one message: one entry, snapshot part or segment of the longest kind, or several smaller.
pub const BULK_BYTES_MAX: usize = ENTRY_BYTES_MAX + 4096;
/// Missing segments named in one reply; the sender asks again until there are none.
pub const MISSING_SEGMENTS_MAX: usize = 4096;

/// A call from one coordinator to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRequest {
    /// Whose log this is about.
    pub cluster: ClusterId,
    /// Who asks. The link checks it against the certificate.
    pub from: NodeId,
    /// Who is meant: an address may have been given to another node.
    pub to: NodeId,
    /// What is asked.
    pub call: PeerCall,
}

/// What one coordinator asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerCall {
    /// Entries of the leader, or its heartbeat.
    Append(Append),
    /// A candidate asks for a vote.
    Vote(VoteRequest<TypeConfig>),
    /// A node asks whether it would get one.
    PreVote(VoteRequest<TypeConfig>),
    /// The leader asks its successor to stand.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A snapshot's state file follows, this long. Ends any earlier transfer to this node.
    SnapshotBegin {
        /// Number of this transfer, the sender's.
        transfer: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// A part of the state file; its bytes are the bulk.
    SnapshotPart {
        /// Which transfer.
        transfer: u64,
        /// Where in the file.
        offset: u64,
    },
    /// The file is complete: which of its segments are missing?
    SnapshotMissing {
        /// Which transfer.
        transfer: u64,
    },
    /// Segments; their bytes are the bulk, in this order.
    SnapshotSegments {
        /// Which transfer.
        transfer: u64,
        /// What the bulk consists of.
        heads: Vec<SegmentHead>,
    },
    /// Everything is there: sync it and install it.
    SnapshotInstall {
        /// Which transfer.
        transfer: u64,
        /// The leader's vote.
        vote: Vote,
    },
}

/// Entries to append behind `previous`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// Where in a pipeline this request stands; `None` for heartbeats, which stand alone.
    pub turn: Option<Turn>,
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first.
    pub previous: Option<LogId>,
    /// Committed in the cluster.
    pub committed: Option<LogId>,
    /// The entries; what they carry is the bulk.
    pub entries: Vec<EntryHead>,
}

/// The place of an append among those in flight: links may let them overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The sender's process: another one numbers its pipelines anew.
    pub boot: u64,
    /// A pipeline of that process; a later one has a higher number.
    pub pipeline: u64,
    /// 0 for the first append in it.
    pub number: u64,
}

/// An entry without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHead {
    /// Where it stands.
    pub id: LogId,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A leader's first entry.
    Blank,
    /// This many bytes of the bulk.
    Proposal {
        /// Its length.
        bytes: u32,
    },
    /// Who votes.
    Membership(Membership),
}

/// The answer to a [`PeerCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerReply {
    /// To an append: up to where the logs agree, or why they do not.
    Append(Result<Option<LogId>, StreamAppendError<TypeConfig>>),
    /// To a vote or a pre-vote.
    Vote(VoteResponse<TypeConfig>),
    /// To a transfer of leadership.
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// The part of the snapshot is stored.
    Stored,
    /// These segments of the snapshot are missing; at most [`MISSING_SEGMENTS_MAX`] are named.
    Missing(Vec<SegmentId>),
    /// The snapshot is installed and durable, or was outdated by this vote.
    Installed(Vote),
    /// The call was not carried out.
    Refused(Refusal),
}

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Meant for another node or cluster: the sender's address book is outdated.
    #[error("this is coordinator {node} of cluster {cluster}")]
    NotMe {
        /// Who answers.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
    },
    /// Bulk and heads do not fit together, or a part is out of place.
    #[error("malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// A later pipeline or transfer has taken over, or an earlier turn never came.
    #[error("overtaken: {what}")]
    Overtaken {
        /// By what.
        what: String,
    },
    /// The node has stopped, or stops because of this.
    #[error("stopped: {cause}")]
    Stopped {
        /// Why.
        cause: String,
    },
}

/// Splits entries into heads and one bulk.
pub(crate) fn pack(entries: Vec<Entry>) -> (Vec<EntryHead>, Bytes) {
    let mut proposals = Vec::new();
    let mut heads = Vec::with_capacity(entries.len());
    for entry in entries {
        let kind = match entry.payload {
            Payload::Blank => EntryKind::Blank,
            Payload::Normal(Proposal(bytes)) => {
                // The log refuses longer entries.
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                proposals.push(bytes);
                EntryKind::Proposal { bytes: length }
            }
            Payload::Membership(membership) => EntryKind::Membership(membership),
        };
        heads.push(EntryHead { id: entry.log_id, kind });
    }
    (heads, join(proposals))
}

/// One buffer of many; a single one is not copied.
pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    }
}

/// The entries of heads and bulk; they share the bulk's buffer.
pub(crate) fn unpack(heads: Vec<EntryHead>, mut bulk: Bytes) -> Result<Vec<Entry>, Refusal> {
    let mut entries = Vec::with_capacity(heads.len());
    for EntryHead { id, kind } in heads {
        let payload = match kind {
            EntryKind::Blank => Payload::Blank,
            EntryKind::Proposal { bytes } => {
                let length = bytes as usize;
                if length > ENTRY_BYTES_MAX || length > bulk.len() {
                    return Err(malformed("an entry is longer than the bulk or the bound"));
                }
                Payload::Normal(Proposal(bulk.split_to(length)))
            }
            EntryKind::Membership(membership) => Payload::Membership(membership),
        };
        entries.push(Entry { log_id: id, payload });
    }
    if bulk.is_empty() { Ok(entries) } else { Err(malformed("bulk is left over")) }
}

pub(crate) fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::Malformed { what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LeaderId;

    #[test]
    fn entries_come_back_from_heads_and_bulk_and_nothing_else_does() {
        let id = |index| LogId { leader_id: LeaderId { term: 1, node_id: 2 }, index };
        let entries = vec![
            Entry { log_id: id(1), payload: Payload::Blank },
            Entry { log_id: id(2), payload: Payload::Normal(Proposal(Bytes::from_static(b"ab"))) },
            Entry { log_id: id(3), payload: Payload::Normal(Proposal(Bytes::from_static(b"c"))) },
        ];
        let (heads, bulk) = pack(entries.clone());
        assert_eq!(&bulk[..], b"abc");
        assert_eq!(unpack(heads.clone(), bulk.clone()), Ok(entries));
        assert!(unpack(heads.clone(), bulk.slice(..2)).is_err());
        assert!(unpack(heads[..2].to_vec(), bulk).is_err());
    }
}
