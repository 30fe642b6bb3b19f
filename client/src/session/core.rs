//! The session's half of the protocol, as a state machine: events in, actions out, time as an
//! argument. The shell around it ([`super::run`]) owns links and clocks.
//!
//! Everything that is not known to be committed is kept and said again to each new leader; what names
//! itself (a batch by its id, an append by its place) makes saying it twice the same as saying it
//! once. Outcomes are numbered per batch: what was handed on is never handed on again, and what comes
//! early waits. Nothing here survives the process: a client that dies is cancelled by its lease.

mod batch;
mod event;

pub(crate) use event::{Action, End, Event, Peer};

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use allhands_common::id::{BatchId, ClusterId, CoordinatorId, JobId, RequestId, SessionId, Term};
use allhands_common::limit::{DELIVER_BYTES_MAX, HEARTBEAT_MS, SUBMIT_BYTES_MAX};
use allhands_common::policy::BatchSpec;
use allhands_common::program::Program;
use allhands_common::time::Instant;
use allhands_common::wire::client::{FromClient, ToClient};
use bytes::Bytes;

use batch::{Batch, Inbox, Outbox, Step};

/// Something is said to the leader at least so often.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

/// Acknowledgements wait for company, but not beyond this many batches (a frame's worth), ...
const ACKNOWLEDGEMENTS_MAX: usize = 64;

/// ... nor beyond this many consumed bytes: an eighth of what may be on its way keeps it flowing.
const ACKNOWLEDGE_BYTES: usize = DELIVER_BYTES_MAX / 8;

/// Last acknowledgements are said again to a leader that comes within this time: longer than an
/// election, after which the former leader has committed them.
const REMEMBER: Duration = Duration::from_secs(10);

/// A leader that does not know a batch which was committed is asked again, for so long: an answer may
/// be older than the batch, or have come twice, but none is on its way for that long.
const DOUBT: Duration = Duration::from_secs(10);

/// Who speaks and for what.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) cluster: ClusterId,
    pub(crate) session: SessionId,
    pub(crate) program: Program,
    /// Of the job, for people.
    pub(crate) name: String,
    /// How long a call waits for a leader.
    pub(crate) patience: Duration,
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
    /// Number of the request that opens the job.
    request: RequestId,
    sequence: u32,
    batches: BTreeMap<BatchId, Batch>,
    /// Batches that have something to say, in order.
    queue: VecDeque<BatchId>,
    /// Argument bytes said to the leader and not known to be committed.
    said_bytes: usize,
    to_acknowledge: Vec<BatchId>,
    acknowledge_bytes: usize,
    finished: VecDeque<(Instant, BatchId, u32)>,
    said_at: Instant,
}

/// The session's one job: it is opened with the first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Idle,
    Asked,
    Open(JobId),
}

impl Core {
    pub(crate) const fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            now,
            peers: BTreeMap::new(),
            term: Term(0),
            leader: None,
            leaderless_since: now,
            job: Job::Idle,
            request: RequestId(0),
            sequence: 0,
            batches: BTreeMap::new(),
            queue: VecDeque::new(),
            said_bytes: 0,
            to_acknowledge: Vec::new(),
            acknowledge_bytes: 0,
            finished: VecDeque::new(),
            said_at: now,
        }
    }

    /// The name of the next batch to be opened.
    pub(crate) fn name_batch(&mut self) -> (BatchId, u32) {
        let sequence = self.sequence;
        self.sequence += 1;
        let Config {
            cluster, session, ..
        } = self.config;
        (
            BatchId::of_session(cluster, session, sequence.into()),
            sequence,
        )
    }

    /// When a [`Event::Tick`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.leader {
            Some(_) => Some(self.said_at + HEARTBEAT),
            None => {
                let oldest = self
                    .batches
                    .values()
                    .filter(|batch| batch.cancelled.is_none());
                oldest.map(|batch| self.patient_until(batch)).min()
            }
        }
    }

    fn patient_until(&self, batch: &Batch) -> Instant {
        batch.since.max(self.leaderless_since) + self.config.patience
    }

    /// One step.
    pub(crate) fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.now = now;
        match event {
            Event::LinkUp { peer, coordinator } => {
                self.peers.insert(peer, coordinator);
                self.attach(peer, out);
            }
            Event::LinkDown { peer } => {
                self.peers.remove(&peer);
                if self.leader == Some(peer) {
                    self.lose_leader();
                }
            }
            Event::Said { peer, message } => self.hear(peer, message, out),
            Event::Open {
                batch,
                sequence,
                spec,
                context,
            } => {
                self.open(batch, sequence, spec, context);
            }
            Event::Append {
                batch,
                tasks,
                segment,
            } => {
                self.change(batch, |outbox| outbox.give(tasks, segment));
            }
            Event::Seal { batch } => self.change(batch, |outbox| outbox.sealing = Step::Due),
            Event::Consumed { batch, segments } => self.consume(batch, segments),
            Event::Cancel { batch, reason } => self.cancel(batch, reason),
            Event::Tick => self.tick(out),
            Event::Detach => {
                let all = || self.peers.keys().copied().collect();
                let peers: Vec<Peer> = self.leader.map_or_else(all, |leader| vec![leader]);
                let detach = |peer| Action::Send {
                    peer,
                    message: FromClient::Detach,
                };
                out.extend(peers.into_iter().map(detach));
                return;
            }
        }
        self.speak(out);
    }

    fn open(&mut self, batch: BatchId, sequence: u32, spec: BatchSpec, context: Bytes) {
        let outbox = Outbox {
            opening: Step::Due,
            queued: true,
            ..Outbox::default()
        };
        let opened = Batch {
            sequence,
            spec,
            context,
            since: self.now,
            outbox,
            inbox: Inbox::default(),
            cancelled: None,
            doubted: None,
        };
        self.batches.insert(batch, opened);
        self.queue.push_back(batch);
    }

    /// Changes what a batch has to say, unless nobody listens any more.
    fn change(&mut self, id: BatchId, change: impl FnOnce(&mut Outbox)) {
        let Some(batch) = self.batches.get_mut(&id).filter(|batch| !batch.inbox.over) else {
            return;
        };
        change(&mut batch.outbox);
        if !batch.outbox.queued {
            batch.outbox.queued = true;
            self.queue.push_back(id);
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
        if taken.is_none() && !batch.inbox.is_finished() {
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
        while self
            .finished
            .front()
            .is_some_and(|(at, ..)| now - *at >= REMEMBER)
        {
            self.finished.pop_front();
        }
        if let Some(peer) = self.leader {
            if now - self.said_at >= HEARTBEAT && !self.acknowledge(peer, out) {
                self.say(peer, FromClient::Alive, out);
            }
            if self.batches.values().any(|batch| batch.doubted.is_some()) {
                self.attach(peer, out);
            }
            return;
        }
        let waited = |batch: &Batch| now - batch.since.max(self.leaderless_since);
        let lost: Vec<(BatchId, Duration)> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.cancelled.is_none() && !batch.inbox.over)
            .map(|(id, batch)| (*id, waited(batch)))
            .filter(|(_, waited)| *waited >= self.config.patience)
            .collect();
        for (batch, waited) in lost {
            out.push(Action::End {
                batch,
                end: End::Leaderless(waited),
            });
            self.cancel(batch, "its client had lost all coordinators".into());
        }
    }

    fn hear(&mut self, peer: Peer, message: ToClient, out: &mut Vec<Action>) {
        match message {
            ToClient::Attached {
                term,
                batches,
                slots,
            } => {
                if term < self.term {
                    return;
                }
                self.term = term;
                self.leader = Some(peer);
                out.push(Action::Slots(slots));
                self.resume(&batches.into_iter().collect(), peer, out);
            }
            ToClient::Leader { term, leader } => self.follow(term, leader, out),
            ToClient::JobOpened { request, job } => {
                if request == self.request && self.job == Job::Asked {
                    self.job = Job::Open(job);
                    self.request.0 += 1;
                }
            }
            ToClient::Appended {
                batch: id,
                tasks,
                sealed,
            } => {
                let Some(batch) = self.batches.get_mut(&id) else {
                    return;
                };
                self.said_bytes -= batch.outbox.commit(tasks);
                batch.outbox.opening = Step::Done;
                if sealed {
                    batch.outbox.sealing = Step::Done;
                }
                out.push(Action::Committed { batch: id, tasks });
            }
            ToClient::Outcomes {
                batch: id,
                sequence,
                range,
                segment,
            } => {
                let Some(batch) = self.batches.get_mut(&id) else {
                    return;
                };
                let wanted = batch.cancelled.is_none();
                batch
                    .inbox
                    .take_in(sequence, range, segment.bytes, |range, segment| {
                        if wanted {
                            out.push(Action::Deliver {
                                batch: id,
                                range,
                                segment,
                            });
                        }
                    });
                self.settle(id, out);
            }
            ToClient::Ended {
                batch: id,
                segments,
                rest,
            } => {
                let Some(batch) = self.batches.get_mut(&id) else {
                    return;
                };
                batch.inbox.end = Some((segments, rest));
                if batch.cancelled.is_some() {
                    batch.inbox.received = segments;
                }
                self.settle(id, out);
            }
            ToClient::WantProgram {
                program,
                offset,
                bytes,
            } => {
                out.push(Action::SendProgram {
                    peer,
                    program,
                    offset,
                    bytes,
                });
            }
            ToClient::Refused {
                batch: Some(id),
                reason,
                ..
            } => {
                self.end(id, End::Refused(reason), out);
            }
            ToClient::Refused {
                batch: None,
                request: Some(request),
                reason,
            } => {
                if request == self.request && self.job == Job::Asked {
                    self.job = Job::Idle;
                    self.request.0 += 1;
                    self.end_all(&End::ProgramRefused(reason), out);
                }
            }
            ToClient::Refused {
                batch: None,
                request: None,
                reason,
            } => {
                self.end_all(&End::Refused(reason), out);
            }
            ToClient::SessionExpired => self.expire(peer, out),
            ToClient::SegmentUnreadable {
                batch,
                segment,
                reason,
            } => {
                if self.batches.contains_key(&batch) {
                    let end = End::Unreadable(format!("segment {segment}: {reason}"));
                    out.push(Action::End { batch, end });
                    self.cancel(batch, "its outcomes cannot be read".into());
                }
            }
            ToClient::Slots { slots } => out.push(Action::Slots(slots)),
        }
    }

    /// Hands on the end of a batch, if this is it.
    fn settle(&mut self, id: BatchId, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        let received = batch.inbox.received;
        if let Some(rest) = batch.inbox.ends_now() {
            self.said_bytes -= batch.outbox.said_bytes();
            batch.outbox.held.clear();
            batch.outbox.said = 0;
            if batch.cancelled.is_none() {
                out.push(Action::End {
                    batch: id,
                    end: End::Complete { rest },
                });
            }
        }
        if batch.cancelled.is_some() {
            self.consume(id, received);
        } else if batch.inbox.is_finished() {
            let consumed = batch.inbox.consumed;
            self.consume(id, consumed);
        }
    }

    /// A batch that the cluster does not have (any more).
    fn end(&mut self, id: BatchId, end: End, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.remove(&id) else {
            return;
        };
        self.said_bytes -= batch.outbox.said_bytes();
        if batch.cancelled.is_none() && !batch.inbox.over {
            out.push(Action::End { batch: id, end });
        }
    }

    fn end_all(&mut self, end: &End, out: &mut Vec<Action>) {
        let ids: Vec<BatchId> = self.batches.keys().copied().collect();
        ids.into_iter()
            .for_each(|id| self.end(id, end.clone(), out));
    }

    /// The lease had run out while nobody could be reached: a new stay begins, of another name.
    fn expire(&mut self, peer: Peer, out: &mut Vec<Action>) {
        self.end_all(&End::Expired, out);
        self.finished.clear();
        let renewed = blake3::derive_key("allhands 2026 next session", &self.config.session.0);
        self.config.session = SessionId::from_hash(renewed.into());
        self.job = Job::Idle;
        self.lose_leader();
        self.attach(peer, out);
    }

    fn lose_leader(&mut self) {
        if self.leader.take().is_some() {
            self.leaderless_since = self.now;
        }
    }

    /// A coordinator knows of a leader.
    fn follow(&mut self, term: Term, leader: CoordinatorId, out: &mut Vec<Action>) {
        if term < self.term {
            return;
        }
        if term > self.term {
            self.term = term;
            self.lose_leader();
        }
        if self.leader.is_some() {
            return;
        }
        let is_it = |id: &Option<CoordinatorId>| id.is_none_or(|id| id == leader);
        let peers: Vec<Peer> = self
            .peers
            .iter()
            .filter(|(_, id)| is_it(id))
            .map(|(peer, _)| *peer)
            .collect();
        peers.into_iter().for_each(|peer| self.attach(peer, out));
    }

    fn attach(&self, peer: Peer, out: &mut Vec<Action>) {
        let open = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.outbox.was_said && !batch.inbox.over);
        let message = FromClient::Attach {
            session: self.config.session,
            low: self.request,
            batches: open
                .map(|(id, batch)| (*id, batch.inbox.received))
                .collect(),
        };
        out.push(Action::Send { peer, message });
    }

    /// A leader has said what it knows: everything else is to be said again.
    fn resume(&mut self, known: &BTreeMap<BatchId, u32>, peer: Peer, out: &mut Vec<Action>) {
        if self.job == Job::Asked {
            self.job = Job::Idle;
        }
        let mut forgotten = Vec::new();
        self.queue.clear();
        for (id, batch) in &mut self.batches {
            batch.outbox.again();
            if let Some(tasks) = known.get(id) {
                batch.outbox.commit(*tasks);
                batch.outbox.opening = Step::Done;
                batch.doubted = None;
                out.push(Action::Committed {
                    batch: *id,
                    tasks: *tasks,
                });
            } else if batch.outbox.opening == Step::Done && !batch.inbox.over {
                // It may be the answer to an attach of before the batch.
                let since = *batch.doubted.get_or_insert(self.now);
                if self.now - since >= DOUBT {
                    forgotten.push(*id);
                }
            }
            batch.outbox.queued = true;
            self.queue.push_back(*id);
        }
        self.said_bytes = 0;
        forgotten
            .into_iter()
            .for_each(|id| self.end(id, End::Forgotten, out));
        for (_, batch, segments) in &self.finished {
            let message = FromClient::Acknowledge {
                batch: *batch,
                segments: *segments,
            };
            out.push(Action::Send { peer, message });
        }
    }

    fn say(&mut self, peer: Peer, message: FromClient, out: &mut Vec<Action>) {
        self.said_at = self.now;
        out.push(Action::Send { peer, message });
    }

    /// Says what there is to say, as far as the credit goes.
    fn speak(&mut self, out: &mut Vec<Action>) {
        let Some(peer) = self.leader else { return };
        let before = out.len();
        while let Some(id) = self.queue.front().copied() {
            if !self.batches.contains_key(&id) {
                self.queue.pop_front();
                continue;
            }
            let Job::Open(job) = self.job else {
                self.ask_for_job(peer, out);
                break;
            };
            if !self.speak_of(id, job, peer, out) {
                break;
            }
            self.queue.pop_front();
        }
        let said = out.len() > before;
        if said
            || self.to_acknowledge.len() >= ACKNOWLEDGEMENTS_MAX
            || self.acknowledge_bytes >= ACKNOWLEDGE_BYTES
        {
            self.said_at = self.now;
            self.acknowledge(peer, out);
        }
    }

    fn ask_for_job(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if self.job == Job::Idle {
            self.job = Job::Asked;
            let Config { program, name, .. } = &self.config;
            let (program, name) = (program.clone(), name.clone());
            self.say(
                peer,
                FromClient::OpenJob {
                    request: self.request,
                    program,
                    name,
                },
                out,
            );
        }
    }

    /// Says what a batch has to say; `false` when the credit ended before.
    fn speak_of(&mut self, id: BatchId, job: JobId, peer: Peer, out: &mut Vec<Action>) -> bool {
        let Some(batch) = self.batches.get_mut(&id) else {
            return true;
        };
        let Batch {
            sequence,
            spec,
            context,
            outbox,
            cancelled,
            ..
        } = batch;
        let mut say = |message| out.push(Action::Send { peer, message });
        // Also of one that is cancelled: an earlier word of it may still be on its way to this leader.
        if outbox.opening == Step::Due {
            (outbox.opening, outbox.was_said) = (Step::Said, true);
            say(FromClient::OpenBatch {
                batch: id,
                sequence: *sequence,
                job,
                spec: spec.clone(),
                context: context.clone().into(),
            });
        }
        if let Some(reason) = cancelled {
            if outbox.cancelling == Step::Due {
                outbox.cancelling = Step::Said;
                say(FromClient::Cancel {
                    batch: id,
                    reason: reason.clone(),
                });
            }
            outbox.queued = false;
            return true;
        }
        while let Some(held) = outbox.held.get(outbox.said) {
            if self.said_bytes > 0 && self.said_bytes + held.segment.len() > SUBMIT_BYTES_MAX {
                return false;
            }
            self.said_bytes += held.segment.len();
            outbox.said += 1;
            say(FromClient::Append {
                batch: id,
                first: held.first,
                tasks: held.tasks,
                segment: held.segment.clone().into(),
            });
        }
        if outbox.sealing == Step::Due {
            outbox.sealing = Step::Said;
            say(FromClient::Seal {
                batch: id,
                tasks: outbox.given,
            });
        }
        outbox.queued = false;
        true
    }

    /// Says which outcomes were consumed; whether there was anything to say.
    fn acknowledge(&mut self, peer: Peer, out: &mut Vec<Action>) -> bool {
        let due = std::mem::take(&mut self.to_acknowledge);
        self.acknowledge_bytes = 0;
        for id in &due {
            let Some(batch) = self.batches.get_mut(id) else {
                continue;
            };
            batch.inbox.acknowledging = false;
            let segments = batch.inbox.consumed;
            self.said_at = self.now;
            out.push(Action::Send {
                peer,
                message: FromClient::Acknowledge {
                    batch: *id,
                    segments,
                },
            });
            if batch.inbox.is_finished() {
                self.batches.remove(id);
                self.finished.push_back((self.now, *id, segments));
            }
        }
        !due.is_empty()
    }
}

#[cfg(test)]
mod tests;
