//! openraft's network over our transport: one client per peer and lane.
//!
//! Appends are pipelined, [`APPENDS_IN_FLIGHT_MAX`] at a time, numbered so that the receiver can put them in order.
//! Nothing here survives a crash; every error ends in openraft sending again from what is known to match.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesOrdered};
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::{Instant, sleep_until};

use super::message::{self, Append, PeerCall, PeerReply, PeerRequest, Turn};
use super::nonce::nonce;
use super::send_snapshot;
use super::snapshot::SnapshotHandle;
use super::transport::{Lane, PeerError, PeerTransport};
use super::types::{LogId, Member, NodeId, TypeConfig, Vote};

use allhands_common::id::ClusterId;

/// Appends sent and not yet answered, per peer: each at most 4 MiB, so 16 MiB per peer.
pub const APPENDS_IN_FLIGHT_MAX: usize = 4;
/// openraft's ttl for appends is the heartbeat interval, which is for empty ones. Entries also wait for the
/// receiver's disk and for the appends before them: a slow disk must not make the leader send everything again.
const APPEND_DISK_TIME: Duration = Duration::from_millis(500);
/// How long a follower may wait to hear that entries are committed, if no append comes that says so as well. Only what
/// it has applied depends on it, which matters when it becomes the leader. openraft would send each such news at once:
/// half of all messages between coordinators, at the moment when the leader has just been told to act on the entry.
const COMMIT_PATIENCE: Duration = Duration::from_millis(10);
/// What a slow link carries per second, for the ttl of an append.
const LINK_BYTES_PER_SECOND: u64 = 8 << 20;

/// Makes clients for peers.
#[derive(Debug)]
pub struct Peers<T> {
    pub(crate) transport: Arc<T>,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) numbers: Arc<Numbers>,
}

/// Numbers the pipelines and snapshot transfers of this process.
#[derive(Debug)]
pub(crate) struct Numbers {
    boot: u64,
    next: AtomicU64,
}

impl Numbers {
    /// Differ from those of any other process of this node; order does not matter.
    pub(crate) fn new() -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, ..] = nonce()?;
        let boot = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Ok(Self { boot, next: AtomicU64::new(boot >> 1) })
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// One lane to one peer.
#[derive(Debug)]
pub struct Peer<T> {
    transport: Arc<T>,
    lane: Lane,
    cluster: ClusterId,
    from: NodeId,
    target: NodeId,
    numbers: Arc<Numbers>,
}

impl<T: PeerTransport> Peers<T> {
    fn peer(&self, target: NodeId, lane: Lane) -> Peer<T> {
        Peer {
            transport: Arc::clone(&self.transport),
            lane,
            cluster: self.cluster,
            from: self.node,
            target,
            numbers: Arc::clone(&self.numbers),
        }
    }
}

impl<T: PeerTransport> RaftNetworkFactory<TypeConfig> for Peers<T> {
    type Network = Peer<T>;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> Peer<T> {
        self.peer(target, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _: &Member) -> Peer<T> {
        self.peer(target, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, _: &Member) -> Peer<T> {
        self.peer(target, Lane::Snapshot)
    }
}

impl<T: PeerTransport> Peer<T> {
    pub(crate) fn call(
        &self,
        lane: Lane,
        call: PeerCall,
        bulk: Bytes,
        ttl: Duration,
    ) -> impl Future<Output = Result<PeerReply, PeerError>> + Send + use<T> {
        let request = PeerRequest { cluster: self.cluster, from: self.from, to: self.target, call };
        let (transport, target) = (Arc::clone(&self.transport), self.target);
        async move {
            match tokio::time::timeout(ttl, transport.call(target, lane, request, bulk, ttl)).await
            {
                Ok(answer) => answer,
                Err(_) => {
                    Err(PeerError::NoAnswer { node: target, cause: format!("waited {ttl:?}") })
                }
            }
        }
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.next()
    }

    fn append(
        &self,
        turn: Option<Turn>,
        request: AppendEntriesRequest<TypeConfig>,
        ttl: Duration,
    ) -> impl Future<Output = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> + Send + use<T>
    {
        let AppendEntriesRequest { vote, prev_log_id: previous, entries, leader_commit } = request;
        let (entries, bulk) = message::pack(entries);
        let transfer_time = Duration::from_millis(bulk.len() as u64 * 1000 / LINK_BYTES_PER_SECOND);
        let ttl = match turn {
            Some(_) => ttl + APPEND_DISK_TIME + transfer_time,
            None => ttl,
        };
        let append = Append { turn, vote, previous, committed: leader_commit, entries };
        let answer = self.call(self.lane, PeerCall::Append(append), bulk, ttl);
        async move {
            match answer.await.map_err(rpc_error)? {
                PeerReply::Append(result) => Ok(result),
                other => Err(unexpected(&other)),
            }
        }
    }

    async fn vote_call(
        &self,
        call: PeerCall,
        ttl: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // Votes go beside the heartbeats, whatever lane openraft made this client for.
        match self.call(Lane::Heartbeat, call, Bytes::new(), ttl).await.map_err(rpc_error)? {
            PeerReply::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }
}

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;
type InFlight = FuturesOrdered<BoxFuture<'static, Answer>>;

impl<T: PeerTransport> RaftNetworkV2<TypeConfig> for Peer<T> {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.append(None, request, option.soft_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // openraft sends heartbeats as streams of one, beside the replication of entries to the same peer.
        let turn = (self.lane == Lane::Append).then(|| Turn {
            boot: self.numbers.boot,
            pipeline: self.next_number(),
            number: 0,
        });
        let pipeline = Pipeline {
            turn,
            peer: &*self,
            ttl: option.soft_ttl(),
            input: Some(input),
            in_flight: InFlight::new(),
            ends: VecDeque::new(),
            agreed: false,
            late: None,
        };
        let answers = stream::unfold(Some(pipeline), Pipeline::next);
        Box::pin(async move { Ok(answers.boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(PeerCall::Vote(request), option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(PeerCall::PreVote(request), option.soft_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = PeerCall::TransferLeader(request);
        let answer = self.call(Lane::Heartbeat, call, Bytes::new(), option.soft_ttl());
        match answer.await.map_err(rpc_error)? {
            PeerReply::TransferLeader(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = send_snapshot::send(self, vote, &snapshot.snapshot, option.soft_ttl()) => sent,
        }
    }
}

/// Appends on their way to one peer. Answers come out in the order of the requests.
struct Pipeline<'s, T, S> {
    peer: &'s Peer<T>,
    turn: Option<Turn>,
    ttl: Duration,
    input: Option<S>,
    in_flight: InFlight,
    /// Last entry of each request in flight.
    ends: VecDeque<Option<LogId>>,
    /// A request of this pipeline was accepted, so the logs agree up to its end.
    agreed: bool,
    /// News of a commit that waits for an append to take it along, and when it goes alone.
    late: Option<(AppendEntriesRequest<TypeConfig>, Instant)>,
}

impl<T, S> Pipeline<'_, T, S>
where
    T: PeerTransport,
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    async fn next(this: Option<Self>) -> Option<(Answer, Option<Self>)> {
        let mut this = this?;
        loop {
            let room = this.in_flight.len() < APPENDS_IN_FLIGHT_MAX;
            let Some(input) = this.input.as_mut().filter(|_| room) else {
                let answer = this.in_flight.next().await?;
                return Some(this.answered(answer));
            };
            let due = this.late.as_ref().map(|(_, due)| *due);
            tokio::select! {
                biased;
                Some(answer) = this.in_flight.next() => return Some(this.answered(answer)),
                request = input.next() => match request {
                    Some(request) if this.may_wait(&request) => {
                        let due = due.unwrap_or_else(|| Instant::now() + COMMIT_PATIENCE);
                        this.late = Some((request, due));
                    }
                    Some(request) => {
                        // It says how far the log is committed as well.
                        this.late = None;
                        this.send(request);
                    }
                    None => {
                        this.input = None;
                        this.send_late();
                    }
                },
                () = reached(due) => this.send_late(),
            }
        }
    }

    /// Whether `request` only tells of a commit. openraft takes the answer to a later request for this one's, too.
    /// Heartbeats and probes look the same, but are asked for their answer.
    fn may_wait(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        self.turn.is_some() && self.agreed && request.entries.is_empty()
    }

    fn send_late(&mut self) {
        if let Some((request, _)) = self.late.take() {
            self.send(request);
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        let end = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        self.ends.push_back(end);
        let answer: Pin<Box<_>> = Box::pin(self.peer.append(self.turn, request, self.ttl));
        self.in_flight.push_back(answer);
        if let Some(turn) = &mut self.turn {
            turn.number += 1;
        }
    }

    /// What openraft is told, and whether the pipeline goes on: not after an error, nor after a partial success.
    fn answered(mut self, answer: Answer) -> (Answer, Option<Self>) {
        let end = self.ends.pop_front().flatten();
        match answer {
            Ok(Ok(matching)) => {
                self.agreed = true;
                let goes_on = matching == end;
                (Ok(Ok(matching)), goes_on.then_some(self))
            }
            // Behind an accepted request a conflict can only be an answer out of turn. openraft would take it for a
            // follower that lost its log.
            Ok(Err(StreamAppendError::Conflict(at))) if self.agreed => {
                let cause = format!("a conflict at {at} behind an accepted append");
                (Err(RPCError::Network(NetworkError::from_string(cause))), None)
            }
            other => (other, None),
        }
    }
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn rpc_error(error: PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        PeerError::NoAnswer { .. } => RPCError::Network(NetworkError::new(&error)),
    }
}

pub(crate) fn unexpected(reply: &PeerReply) -> RPCError<TypeConfig> {
    match reply {
        PeerReply::Refused(refusal) => RPCError::Network(NetworkError::new(refusal)),
        other => {
            RPCError::Network(NetworkError::from_string(format!("unexpected answer {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::types::{Entry, LeaderId, Payload};
    use super::*;

    const LEADER: LeaderId = LeaderId { term: 1, node_id: 1 };

    /// A follower that accepts everything and notes entries and commit of each append.
    #[derive(Default)]
    struct Follower(Mutex<Vec<(usize, u64)>>);

    impl PeerTransport for Follower {
        async fn call(
            &self,
            _: NodeId,
            _: Lane,
            request: PeerRequest,
            _: Bytes,
            _: Duration,
        ) -> Result<PeerReply, PeerError> {
            let PeerCall::Append(append) = request.call else { panic!("{request:?}") };
            let committed = append.committed.map_or(0, |id| id.index);
            self.0.lock().unwrap().push((append.entries.len(), committed));
            let last = append.entries.last().map(|entry| entry.id).or(append.previous);
            Ok(PeerReply::Append(Ok(last)))
        }
    }

    fn id(index: u64) -> LogId {
        LogId { leader_id: LEADER, index }
    }

    fn append(previous: u64, entries: u64, committed: u64) -> AppendEntriesRequest<TypeConfig> {
        let entry = |index| Entry { log_id: id(index), payload: Payload::Blank };
        AppendEntriesRequest {
            vote: Vote { leader_id: LEADER, committed: true },
            prev_log_id: Some(id(previous)),
            entries: (previous + 1..=previous + entries).map(entry).collect(),
            leader_commit: Some(id(committed)),
        }
    }

    async fn heard(lane: Lane, said: Vec<AppendEntriesRequest<TypeConfig>>) -> Vec<(usize, u64)> {
        let transport = Arc::new(Follower::default());
        let mut peer = Peer {
            transport: Arc::clone(&transport),
            lane,
            cluster: ClusterId([7; 16]),
            from: 1,
            target: 2,
            numbers: Arc::new(Numbers::new().unwrap()),
        };
        let option = RPCOption::new(Duration::from_secs(60));
        let answers = peer.stream_append(stream::iter(said), option).await.unwrap();
        assert!(answers.all(|answer| async move { matches!(answer, Ok(Ok(_))) }).await);
        transport.0.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn news_of_a_commit_go_with_the_next_append_and_alone_if_there_is_none() {
        let said = vec![append(0, 1, 0), append(1, 0, 1), append(1, 2, 1), append(3, 0, 3)];
        assert_eq!(heard(Lane::Append, said).await, [(1, 0), (2, 1), (0, 3)]);
    }

    #[tokio::test]
    async fn a_heartbeat_and_a_first_probe_never_wait() {
        let said = || vec![append(1, 0, 1), append(1, 1, 1)];
        assert_eq!(heard(Lane::Heartbeat, said()).await, [(0, 1), (1, 1)]);
        assert_eq!(heard(Lane::Append, said()).await, [(0, 1), (1, 1)]);
    }
}
