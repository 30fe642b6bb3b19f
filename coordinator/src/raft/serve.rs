//! Answers the calls of other coordinators. The link has authenticated the caller; here its words are checked.

use bytes::Bytes;
use openraft::raft::AppendEntriesRequest;

use super::machine::Machine;
use super::message::{self, Append, PeerCall, PeerReply, PeerRequest, Refusal};
use super::receive_append::Pipelines;
use super::receive_snapshot::Receiver;
use super::types::{NodeId, TypeConfig};

use allhands_common::id::ClusterId;

type Raft = openraft::Raft<TypeConfig, Machine>;

/// The serving half of a node.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) raft: Raft,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) pipelines: Pipelines,
    pub(crate) receiver: Receiver,
}

impl Server {
    pub(crate) async fn serve(&self, request: PeerRequest, bulk: Bytes) -> PeerReply {
        if request.cluster != self.cluster || request.to != self.node {
            let refusal = Refusal::NotMe { node: self.node, cluster: self.cluster };
            return PeerReply::Refused(refusal);
        }
        self.carry_out(request.from, request.call, bulk).await.unwrap_or_else(PeerReply::Refused)
    }

    async fn carry_out(
        &self,
        from: NodeId,
        call: PeerCall,
        bulk: Bytes,
    ) -> Result<PeerReply, Refusal> {
        match call {
            PeerCall::Append(append) => self.append(from, append, bulk).await,
            PeerCall::Vote(request) => {
                self.raft.vote(request).await.map(PeerReply::Vote).map_err(stopped)
            }
            PeerCall::PreVote(request) => {
                self.raft.pre_vote(request).await.map(PeerReply::Vote).map_err(stopped)
            }
            PeerCall::TransferLeader(request) => {
                let response = self.raft.handle_transfer_leader(request).await;
                response.map(PeerReply::TransferLeader).map_err(stopped)
            }
            PeerCall::SnapshotBegin { transfer, file_bytes } => {
                self.receiver.begin(from, transfer, file_bytes).await
            }
            PeerCall::SnapshotPart { transfer, offset } => {
                self.receiver.part(from, transfer, offset, bulk).await
            }
            PeerCall::SnapshotMissing { transfer } => self.receiver.missing(from, transfer).await,
            PeerCall::SnapshotSegments { transfer, heads } => {
                self.receiver.segments(from, transfer, heads, bulk).await
            }
            PeerCall::SnapshotInstall { transfer, vote } => {
                self.receiver.install(&self.raft, from, transfer, vote).await
            }
        }
    }

    async fn append(
        &self,
        from: NodeId,
        append: Append,
        bulk: Bytes,
    ) -> Result<PeerReply, Refusal> {
        let Append { turn, vote, previous, committed, entries } = append;
        let entries = message::unpack(entries, bulk)?;
        let last = entries.last().map(|entry| entry.log_id).or(previous);
        let request =
            AppendEntriesRequest { vote, prev_log_id: previous, entries, leader_commit: committed };
        match turn {
            Some(turn) => Ok(self.pipelines.append(&self.raft, from, turn, request).await),
            None => {
                let response = self.raft.append_entries(request).await.map_err(stopped)?;
                Ok(PeerReply::Append(response.into_stream_result(previous, last)))
            }
        }
    }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped { cause: error.to_string() }
}
