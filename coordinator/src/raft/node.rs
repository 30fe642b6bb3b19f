//! One member of the replicated log, as the rest of the coordinator sees it.
//!
//! The core loop must be running before [`Node::start`] returns: the last snapshot and the committed entries behind it
//! are applied through it first. Everything acknowledged survives a crash of this node (with [`Durability::Disk`],
//! of all nodes); proposals in flight have an unknown outcome.
//!
//! [`Durability::Disk`]: super::config::Durability::Disk

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::{ChangeMembers, ReadPolicy};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::compaction::Compactor;
use super::config::{self, Config};
use super::core::CoreRequest;
use super::error::{MembershipError, ProposeError, ReadIndexError, StartError, StoppedError};
use super::identity::Claim;
use super::leadership::{self, Leadership};
use super::log::LogStore;
use super::machine::Machine;
use super::message::{PeerReply, PeerRequest};
use super::network::{Numbers, Peers};
use super::receive_append::Pipelines;
use super::receive_snapshot::Receiver;
use super::serve::Server;
use super::snapshot::Snapshots;
use super::transport::PeerTransport;
use super::types::{
    ENTRY_BYTES_MAX, LeaderId, LogId, Member, Membership, NodeId, Proposal, TypeConfig,
};
use crate::segments::Segments;

type Raft = openraft::Raft<TypeConfig, Machine>;
type RaftState = openraft::RaftState<TypeConfig>;

/// A running node; clones share it. [`Node::stop`] ends it.
#[derive(Debug, Clone)]
pub struct Node {
    raft: Raft,
    server: Arc<Server>,
    leadership: watch::Receiver<Leadership>,
    _life: Arc<Life>,
}

/// What lives as long as a clone of the node does.
#[derive(Debug)]
struct Life {
    _tasks: [AbortOnDropHandle<()>; 2],
    _claim: Claim,
}

/// How far a node is; for the operator's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Last entry in the log.
    pub last_index: Option<u64>,
    /// Last entry applied.
    pub applied: Option<LogId>,
    /// Last entry in the newest snapshot.
    pub snapshot: Option<LogId>,
    /// Last entry no longer in the log.
    pub purged: Option<LogId>,
    /// Who votes and learns.
    pub membership: Membership,
}

impl Node {
    /// Claims the directory, restores the state through `core`, and takes part. A new directory waits to be
    /// initialized, or added by a leader.
    pub async fn start<T: PeerTransport>(
        config: Config,
        segments: Segments,
        transport: Arc<T>,
        core: mpsc::Sender<CoreRequest>,
    ) -> Result<Self, StartError> {
        let claim = Claim::take(&config.dir, config.cluster, config.node)?;
        let log = LogStore::open(&config.dir.join("log"), config.durability)?;
        let snapshots = Snapshots::open(&config.dir.join("snapshots"), config.durability)
            .map_err(StartError::Snapshots)?;
        let settings = config::openraft_config(&config)
            .validate()
            .map_err(|error| StartError::Raft { cause: error.to_string() })?;
        let numbers =
            Numbers::new().map_err(|error| StartError::Raft { cause: error.to_string() })?;
        let peers = Peers {
            transport,
            cluster: config.cluster,
            node: config.node,
            numbers: Arc::new(numbers),
        };
        let machine = Machine::new(core, segments.clone(), snapshots.clone());
        let built = Raft::build(config.node, Arc::new(settings), peers, log.clone(), machine).await;
        let raft = built.map_err(|fatal| StartError::Raft { cause: fatal.to_string() })?;
        raft.run();
        let (seen, leadership) = watch::channel(Leadership::NONE);
        let compactor = Compactor {
            raft: raft.clone(),
            log,
            segments: segments.clone(),
            bounds: config.compaction,
        };
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(leadership::follow(raft.clone(), seen))),
            AbortOnDropHandle::new(tokio::spawn(compactor.run())),
        ];
        let server = Server {
            raft: raft.clone(),
            cluster: config.cluster,
            node: config.node,
            pipelines: Pipelines::default(),
            receiver: Receiver::new(segments, snapshots),
        };
        let life = Life { _tasks: tasks, _claim: claim };
        let node = Self { raft, server: Arc::new(server), leadership, _life: Arc::new(life) };
        node.elect_if_alone().await?;
        Ok(node)
    }

    /// Nobody else can lead a single voter: it does not wait for its election timeout.
    async fn elect_if_alone(&self) -> Result<(), StartError> {
        let failed = |fatal: Fatal<TypeConfig>| StartError::Raft { cause: fatal.to_string() };
        // Not from the metrics: they are empty until the first event.
        let voters = self.raft.with_raft_state(|state| {
            state.membership_state.effective().voter_ids().collect::<Vec<_>>()
        });
        if voters.await.map_err(failed)? == [*self.raft.node_id()] {
            self.raft.trigger().elect(false).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Puts an encoded entry on its way, behind those proposed before, if `fence` still leads. The outcome comes from
    /// the future that is returned; dropping that does not take the proposal back.
    pub async fn propose(
        &self,
        entry: Bytes,
        fence: LeaderId,
    ) -> Result<impl Future<Output = Result<u64, ProposeError>> + Send + use<>, ProposeError> {
        if entry.len() > ENTRY_BYTES_MAX {
            let bytes = entry.len();
            return Err(ProposeError::TooLarge { bytes, max: ENTRY_BYTES_MAX });
        }
        let (responder, outcome) = ProgressResponder::complete_only();
        let write = self.raft.write(Proposal(entry)).with_leader(fence).responder(responder);
        write.await.map_err(|fatal| ProposeError::Stopped { cause: fatal.to_string() })?;
        Ok(async move {
            match outcome.await {
                Ok(Ok(written)) => Ok(written.log_id.index),
                Ok(Err(ClientWriteError::ForwardToLeader(ForwardToLeader {
                    leader_id, ..
                }))) => Err(ProposeError::NotLeader { leader: leader_id }),
                Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => {
                    Err(ProposeError::Unknown { fence })
                }
                Ok(Err(other)) => Err(ProposeError::Stopped { cause: other.to_string() }),
                Err(_) => Err(ProposeError::Stopped { cause: "no answer from raft".to_owned() }),
            }
        })
    }

    /// Waits until all that was committed before the call is applied here, and says up to where. One call serves all
    /// readers that wait for it. Asks a quorum; no clock is trusted.
    pub async fn read_index(&self) -> Result<u64, ReadIndexError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.log_id().index),
            Err(RaftError::Fatal(fatal)) => {
                Err(ReadIndexError::Stopped { cause: fatal.to_string() })
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadIndexError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
                Err(ReadIndexError::NoQuorum { cause: missing.to_string() })
            }
        }
    }

    /// Who leads. Changes as soon as this node learns of it.
    pub fn leader(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Makes the first membership of a new cluster, on one node. `Ok` also when that was done before.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, Member>,
    ) -> Result<(), MembershipError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(MembershipError::Refused { cause: error.to_string() })
            }
            Err(RaftError::Fatal(fatal)) => {
                Err(MembershipError::Stopped { cause: fatal.to_string() })
            }
        }
    }

    /// Who votes and learns.
    pub async fn membership(&self) -> Result<Membership, StoppedError> {
        // Not from the metrics: they are empty until the first event.
        let known = |state: &RaftState| state.membership_state.effective().membership().clone();
        self.raft.with_raft_state(known).await.map_err(stopped)
    }

    /// Lets a node receive the log without a vote; waits until it has caught up. Its id must never have been used.
    pub async fn add_learner(&self, node: NodeId, member: Member) -> Result<(), MembershipError> {
        changed(self.raft.add_learner(node, member, true).await)
    }

    /// Makes exactly these the voters; those that go stay learners if `retain`.
    pub async fn change_membership(
        &self,
        voters: BTreeSet<NodeId>,
        retain: bool,
    ) -> Result<(), MembershipError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        changed(self.raft.change_membership(change, retain).await)
    }

    /// Stands for election at once.
    pub async fn elect(&self) -> Result<(), StoppedError> {
        self.raft.trigger().elect(true).await.map_err(stopped)
    }

    /// Hands leadership to another voter, as before a planned stop. Watch [`Node::leader`] for the outcome.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), StoppedError> {
        // openraft would take a transfer to itself for a reason to stop leading.
        if to == *self.raft.node_id() {
            return Ok(());
        }
        self.raft.trigger().transfer_leader(to).await.map_err(stopped)
    }

    /// Takes a snapshot now, whatever the size of the log.
    pub async fn snapshot(&self) -> Result<(), StoppedError> {
        self.raft.trigger().snapshot().await.map_err(stopped)
    }

    /// How far this node is.
    pub fn progress(&self) -> Progress {
        let metrics = self.raft.metrics().borrow_watched().clone();
        Progress {
            last_index: metrics.last_log_index,
            applied: metrics.last_applied,
            snapshot: metrics.snapshot,
            purged: metrics.purged,
            membership: metrics.membership_config.membership().clone(),
        }
    }

    /// Waits until this node stops, and says why.
    pub async fn stopped(&self) -> StoppedError {
        // Not by the metrics: each turn of openraft's loop would wake whoever waits. Who follows the leadership ends
        // with openraft.
        let mut leadership = self.leadership.clone();
        while leadership.changed().await.is_ok() {}
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => StoppedError { cause: fatal.to_string() },
            Ok(()) => StoppedError { cause: "raft has ended".to_owned() },
        }
    }

    /// Answers a call of another coordinator, whose identity the link has checked against `request.from`.
    pub async fn serve(&self, request: PeerRequest, bulk: Bytes) -> PeerReply {
        self.server.serve(request, bulk).await
    }

    /// Ends this node; what it acknowledged is durable already.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft ended with a panic");
        }
    }
}

fn stopped(fatal: Fatal<TypeConfig>) -> StoppedError {
    StoppedError { cause: fatal.to_string() }
}

fn changed<T>(
    result: Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
) -> Result<(), MembershipError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::Fatal(fatal)) => Err(MembershipError::Stopped { cause: fatal.to_string() }),
        Err(RaftError::APIError(error)) => Err(match error {
            ClientWriteError::ForwardToLeader(forward) => {
                MembershipError::NotLeader { leader: forward.leader_id }
            }
            ClientWriteError::LogEntryDiscarded(_) => MembershipError::Unknown,
            ClientWriteError::ChangeMembershipError(error) => {
                MembershipError::Refused { cause: error.to_string() }
            }
            ClientWriteError::PreconditionFailed(error) => {
                MembershipError::Refused { cause: error.to_string() }
            }
        }),
    }
}
