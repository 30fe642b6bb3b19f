//! The session's half of the protocol, as a state machine: events in, actions out, time as an
//! argument. The shell around it ([`super::run`]) owns links and clocks.
//!
//! Everything that is not known to be committed is kept and said again to each new leader; what names
//! itself (a batch by its id, an append by its place) makes saying it twice the same as saying it
//! once. Outcomes are numbered per batch: what was handed on is never handed on again, and what comes
//! early waits. `hear` is what coordinators say, `speak` what is said to them. Nothing here survives the process: a client that dies is cancelled by its lease.

mod awaits;
mod batch;
mod event;
mod hear;
mod keeps;
mod offers;
mod speak;
mod visit;
mod wants;

pub(crate) use event::{Action, End, Event, Peer};
pub(crate) use visit::{Purpose, Visited};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use allhands_common::execution::Awaited;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{
    BatchId, BlobId, ClusterId, CoordinatorId, JobId, RequestId, SessionId, Term,
};
use allhands_common::limit::HEARTBEAT_MS;
use allhands_common::policy::BatchSpec;
use allhands_common::program::Program;
use allhands_common::range::RangeSet;
use allhands_common::time::Instant;
use allhands_common::wire::client::FromClient;
use bytes::Bytes;

use batch::{Batch, Held, Inbox, Outbox, Step};
use keeps::Kept;
use visit::Visit;

/// Something is said to the leader at least so often.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

/// Last acknowledgements are said again to a leader that comes within this time: longer than an
/// election, after which the former leader has committed them.
const REMEMBER: Duration = Duration::from_secs(10);

/// Calls wait so long for a first worker before the user is told: a cluster that just starts needs less.
const WORKLESS: Duration = Duration::from_secs(2);

/// A leader is told of at most so many batches at a time, and of so many kept ones: an attach, which names them all
/// with at most 21 bytes each, fits a frame's head of 6 MiB.
pub(crate) const BATCHES_MAX: usize = (1 << 18) - KEPT_BATCHES_MAX;
pub(crate) const KEPT_BATCHES_MAX: usize = 1 << 16;

/// Who speaks and for what.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
    pub(crate) program: Program,
    /// Of the job, for people.
    pub(crate) name: String,
    /// What the job is.
    pub(crate) purpose: Purpose,
    /// How long a call waits for a leader.
    pub(crate) patience: Duration,
    /// How many batches a leader is told of at a time: [`BATCHES_MAX`], but for tests.
    pub(crate) batches_max: usize,
}

/// The state of a session.
#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    now: Instant,
    /// Links that are there.
    peers: BTreeMap<Peer, Option<CoordinatorId>>,
    /// The highest term heard of.
    term: Term,
    /// Who leads in that term and has taken the session.
    leader: Option<Peer>,
    leaderless_since: Instant,
    job: Job,
    visit: Visit,
    /// Number of the request that opens the job, or attaches to it.
    request: RequestId,
    /// Requests of this stay below are answered.
    low: RequestId,
    batches: BTreeMap<BatchId, Batch>,
    /// Segments that were given.
    given: u64,
    /// Who has something to say, in order.
    queue: VecDeque<Turn>,
    /// Batches that were said and are not over, kept ones aside, whose number their callers bound: what an attach
    /// names.
    open_batches: usize,
    /// Batches that are said when others are over, in order.
    waiting: VecDeque<BatchId>,
    /// Argument bytes said to the leader and not known to be committed.
    said_bytes: usize,
    to_acknowledge: Vec<BatchId>,
    acknowledge_bytes: usize,
    finished: VecDeque<(Instant, BatchId, u32)>,
    /// Blobs that this process gives to whoever wants them.
    offered: BTreeSet<BlobId>,
    /// Results that this process has asked the leader about.
    wanted: BTreeSet<BlobId>,
    /// Outcomes that the leader was asked for, ...
    asked: BTreeSet<Awaited>,
    /// ... and those that it is to be.
    to_ask: BTreeSet<Awaited>,
    /// Results that workers are to keep.
    kept: BTreeMap<BlobId, Kept>,
    /// Whether there ever was one.
    has_kept: bool,
    /// Tasks whose results are here, or kept, and whose workers were not told.
    fetched: BTreeMap<BatchId, RangeSet>,
    said_at: Instant,
    /// Since when the cluster has no slot.
    workless_since: Option<Instant>,
    /// The user was told of that; once is enough.
    workless_told: bool,
}

/// The session's one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Idle,
    Asked,
    Open(JobId),
    /// It cannot be had.
    Refused,
}

/// What a batch says when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Everything; not of a kept one.
    All(BatchId),
    /// Of a kept one, the segment of this order.
    Segment(BatchId, u64),
    /// Of a kept one, what is not a segment.
    Rest(BatchId),
}

impl Turn {
    const fn batch(self) -> BatchId {
        match self {
            Self::All(batch) | Self::Segment(batch, _) | Self::Rest(batch) => batch,
        }
    }
}

impl Core {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            now,
            peers: BTreeMap::new(),
            term: Term(0),
            leader: None,
            leaderless_since: now,
            job: Job::Idle,
            visit: Visit::default(),
            request: RequestId(0),
            low: RequestId(0),
            batches: BTreeMap::new(),
            given: 0,
            queue: VecDeque::new(),
            open_batches: 0,
            waiting: VecDeque::new(),
            said_bytes: 0,
            to_acknowledge: Vec::new(),
            acknowledge_bytes: 0,
            finished: VecDeque::new(),
            offered: BTreeSet::new(),
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            to_ask: BTreeSet::new(),
            kept: BTreeMap::new(),
            has_kept: false,
            fetched: BTreeMap::new(),
            said_at: now,
            workless_since: None,
            workless_told: false,
        }
    }

    /// Whether somebody leads whom the session can talk to.
    pub(crate) const fn has_leader(&self) -> bool {
        self.leader.is_some()
    }

    /// When a [`Event::Tick`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.leader {
            Some(_) => Some(self.said_at + HEARTBEAT),
            None => {
                let waiting = self.batches.values().filter(|batch| batch.is_wanted());
                let patience = waiting.map(|batch| self.patient_until(batch));
                patience.chain(self.visit_patient_until()).min()
            }
        }
    }

    /// Until when a batch waits for a leader: its deadline is kept here while there is none to keep it.
    fn patient_until(&self, batch: &Batch) -> Instant {
        let patience = batch.since.max(self.leaderless_since) + self.config.patience;
        batch.deadline().map_or(patience, |deadline| deadline.min(patience))
    }

    /// One step: what has happened, then what there is to say about it.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        out: &mut Vec<Action>,
    ) {
        self.now = now;
        for event in events {
            if matches!(event, Event::Detach) {
                return self.detach(out);
            }
            self.take(event, out);
        }
        self.speak(out);
    }

    fn detach(&self, out: &mut Vec<Action>) {
        let all = || self.peers.keys().copied().collect();
        let peers: Vec<Peer> = self.leader.map_or_else(all, |leader| vec![leader]);
        let detach = |peer| Action::Send { peer, message: FromClient::Detach };
        out.extend(peers.into_iter().map(detach));
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::LinkUp { peer, coordinator } => {
                self.peers.insert(peer, coordinator);
                self.attach(peer, out);
                self.offer_program(peer, out);
            }
            Event::LinkDown { peer } => {
                self.peers.remove(&peer);
                if self.leader == Some(peer) {
                    self.lose_leader();
                }
            }
            Event::Said { peer, message } => self.hear(peer, message, out),
            Event::Open { batch, sequence, call, spec, context, kept } => {
                self.open(batch, (sequence, call), spec, context, kept);
            }
            Event::Append { batch, tasks, segment, mentions, needs } => {
                let order = self.given;
                self.append(batch, Held { first: 0, tasks, segment, mentions, needs, order });
            }
            Event::Release { batch } => self.release(batch),
            Event::Await(outcomes) => self.await_outcomes(outcomes, out),
            Event::Unawait(outcomes) => self.unawait(outcomes, out),
            Event::Seal { batch } => self.change(batch, |outbox| outbox.sealing = Step::Due),
            Event::Consumed { batch, segments } => match self.batches.contains_key(&batch) {
                true => self.consume(batch, segments),
                false => self.consume_visited(batch, segments, out),
            },
            Event::Cancel { batch, reason } => self.cancel(batch, reason),
            // One of a task's calls: it is said once, to whoever leads.
            Event::CancelTasks { batch, range } if !self.batches.contains_key(&batch) => {
                if let Some(peer) = self.leader {
                    self.say(peer, FromClient::CancelTasks { batch, range }, out);
                }
            }
            // The session's own are cancelled one by one as well: this is said once, to whoever leads.
            Event::CancelGroup { group } => {
                if let Some(peer) = self.leader {
                    self.say(peer, FromClient::CancelGroup { group }, out);
                }
            }
            Event::CancelTasks { batch, range } => self.change(batch, |outbox| {
                outbox.unwanted.insert(range);
                outbox.unwanted_due.insert(range);
            }),
            Event::Offer { blobs } => self.offer(blobs, out),
            Event::Withdraw { blobs } => self.withdraw(blobs, out),
            Event::Keep { blobs } => self.keep(blobs, out),
            Event::LetGo { blobs } => self.let_go(blobs, out),
            Event::Fetched { batch, tasks } => self.note_fetched(batch, tasks),
            Event::Want { blob } => self.want(blob, out),
            Event::Unwant { blob } => self.unwant(blob, out),
            Event::Read { batches } => self.read(batches, out),
            Event::StopReading => self.stop_reading(),
            Event::LookAtJob => self.want_look(out),
            Event::CancelJob { reason } => self.cancel_job(reason, out),
            Event::Tick => self.tick(out),
            Event::Detach => self.detach(out),
        }
    }

    fn open(
        &mut self,
        batch: BatchId,
        (sequence, call): (u32, u32),
        spec: Arc<BatchSpec>,
        context: Bytes,
        kept: bool,
    ) {
        let outbox = Outbox { opening: Step::Due, queued: !kept, ..Outbox::default() };
        let opened = Batch {
            sequence,
            call,
            spec,
            context,
            since: self.now,
            outbox,
            inbox: Inbox::default(),
            kept,
            held: kept,
            cancelled: None,
            doubted: None,
        };
        self.batches.insert(batch, opened);
        // A kept one is said with its first segment.
        if !kept {
            self.queue.push_back(Turn::All(batch));
        }
    }

    fn append(&mut self, id: BatchId, held: Held) {
        let order = held.order;
        self.given += 1;
        match self.batches.get_mut(&id) {
            Some(batch) if batch.kept && !batch.inbox.over => {
                batch.outbox.give(held);
                self.queue.push_back(Turn::Segment(id, order));
            }
            _ => self.change(id, |outbox| outbox.give(held)),
        }
    }

    fn release(&mut self, id: BatchId) {
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.held = false;
            let consumed = batch.inbox.consumed;
            self.consume(id, consumed);
        }
    }

    /// Changes what a batch has to say, unless nobody listens any more.
    fn change(&mut self, id: BatchId, change: impl FnOnce(&mut Outbox)) {
        let Some(batch) = self.batches.get_mut(&id).filter(|batch| !batch.inbox.over) else {
            return;
        };
        change(&mut batch.outbox);
        if !batch.outbox.queued {
            batch.outbox.queued = true;
            self.queue.push_back(match batch.kept {
                true => Turn::Rest(id),
                false => Turn::All(id),
            });
        }
    }

    fn cancel(&mut self, id: BatchId, reason: String) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        if !batch.outbox.was_said {
            self.batches.remove(&id);
            return;
        }
        if batch.cancelled.is_some() {
            return;
        }
        self.said_bytes -= batch.outbox.said_bytes();
        batch.outbox.held.clear();
        batch.outbox.said = 0;
        batch.cancelled = Some(reason);
        let segments = batch.inbox.received;
        self.change(id, |outbox| outbox.cancelling = Step::Due);
        self.consume(id, segments);
    }

    fn consume(&mut self, id: BatchId, segments: u32) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        let taken = batch.inbox.consume(segments);
        if taken.is_none() && !batch.is_done() {
            return;
        }
        self.acknowledge_bytes += taken.unwrap_or(0);
        if !batch.inbox.acknowledging {
            batch.inbox.acknowledging = true;
            self.to_acknowledge.push(id);
        }
    }

    fn tick(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        while self.finished.front().is_some_and(|(at, ..)| now - *at >= REMEMBER) {
            self.finished.pop_front();
        }
        if let Some(peer) = self.leader {
            if now - self.said_at >= HEARTBEAT && !self.acknowledge(peer, out) {
                self.say(peer, FromClient::Alive, out);
            }
            if self.batches.values().any(|batch| batch.doubted.is_some()) {
                self.attach(peer, out);
            }
            self.miss_workers(out);
            return;
        }
        self.give_up_visit(out);
        let impatient = |batch: &Batch| batch.is_wanted() && self.patient_until(batch) <= now;
        let lost: Vec<(BatchId, End)> = self
            .batches
            .iter()
            .filter(|(_, batch)| impatient(batch))
            .map(|(id, batch)| (*id, self.given_up(batch)))
            .collect();
        for (batch, end) in lost {
            out.push(Action::End { batch, end });
            self.cancel(batch, "its client had lost all coordinators".into());
        }
    }

    /// The end of a batch that has waited for a leader for as long as it may.
    fn given_up(&self, batch: &Batch) -> End {
        let limit_ms = batch.spec.policy.deadline_ms;
        match limit_ms.filter(|_| batch.deadline().is_some_and(|deadline| deadline <= self.now)) {
            // In the words of the leader that is not there.
            Some(limit_ms) => {
                let cause = Cause::DeadlinePassed { limit_ms };
                let rest = Some(Failed { cause, worker: None, attempt: None, tries: 0 });
                End::Complete { rest }
            }
            None => End::Leaderless(self.now - batch.since.max(self.leaderless_since)),
        }
    }

    /// Says once that calls have been waiting for a worker.
    fn miss_workers(&mut self, out: &mut Vec<Action>) {
        let Some(since) = self.workless_since.filter(|_| !self.workless_told) else {
            return;
        };
        let waits =
            |batch: &Batch| batch.is_wanted() && self.now - batch.since.max(since) >= WORKLESS;
        if self.batches.values().any(waits) {
            self.workless_told = true;
            out.push(Action::NoWorkers);
        }
    }
}

#[cfg(test)]
mod tests;
