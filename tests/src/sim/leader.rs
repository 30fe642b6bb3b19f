//! A leader's shell: carries out what the dispatcher asks for.

use std::collections::{BTreeMap, BTreeSet};

use allhands_common::bulk::Bulk;
use allhands_common::codec;
use allhands_common::execution::{Awaited, Given};
use allhands_common::id::{SessionId, Term, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, Segment, SegmentBuilder};
use allhands_common::time::Instant;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, Order, ToWorker};
use allhands_scheduler::{Action, Command, Dispatcher, Entry, Event, Located};
use bytes::Bytes;

use super::Violation;
use super::connection::{ConnectionId, End, Message, Peer};
use super::consensus::Replica;
use super::world::{Happening, World};

/// Entries that may wait for their quorum at once.
const IN_FLIGHT_MAX: usize = 4;

/// The leader of a term, whether it still is one or not.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) term: Term,
    pub(super) replica: usize,
    pub(super) dispatcher: Dispatcher,
    /// Whether its process still believes to lead.
    pub(super) alive: bool,
    /// Whether what it proposes goes nowhere.
    pub(super) deposed: bool,
    pub(super) in_flight: usize,
    /// When it began, on the world's clock and on its own.
    began: u64,
    clock: u64,
    proposals: Vec<Command>,
    workers: BTreeMap<WorkerId, ConnectionId>,
    clients: BTreeMap<SessionId, ConnectionId>,
    ticks: BTreeSet<u64>,
}

impl Leader {
    pub(super) const fn new(
        term: Term,
        replica: usize,
        dispatcher: Dispatcher,
        began: u64,
        clock: u64,
    ) -> Self {
        Self {
            term,
            replica,
            dispatcher,
            alive: true,
            deposed: false,
            in_flight: 0,
            began,
            clock,
            proposals: Vec::new(),
            workers: BTreeMap::new(),
            clients: BTreeMap::new(),
            ticks: BTreeSet::new(),
        }
    }

    /// The world's time on its own clock.
    pub(super) const fn instant(&self, now: u64) -> Instant {
        Instant(self.clock + (now - self.began))
    }
}

impl World {
    fn leader(&mut self, term: Term) -> &mut Leader {
        &mut self.leaders[term.0 as usize - 1]
    }

    /// Gives an event to the leader of `term` and does what it asks for.
    pub(super) fn lead(&mut self, term: Term, event: Event) -> Result<(), Violation> {
        let now = self.now;
        let leader = &mut self.leaders[term.0 as usize - 1];
        if !leader.alive {
            return Ok(());
        }
        let state = &self.replicas[leader.replica].state;
        let mut out = Vec::new();
        leader.dispatcher.handle(leader.instant(now), state, [event], &mut out);
        leader.dispatcher.check(state).map_err(|violation| Violation {
            rule: violation.rule,
            what: format!("{} (term {term}, {} ms)", violation.what, now / 1000),
        })?;
        self.trace.mix(&[now, term.0, out.len() as u64]);
        for action in out {
            self.act(term, action)?;
        }
        self.flush_proposals(term);
        self.schedule_leader(term);
        Ok(())
    }

    fn act(&mut self, term: Term, action: Action) -> Result<(), Violation> {
        match action {
            Action::Propose(command) => {
                self.trace.say(self.now, format_args!("term {term} proposes {command:?}"));
                self.leader(term).proposals.push(command);
            }
            Action::Order { worker, number, mut orders } => {
                let replica = &self.replicas[self.leaders[term.0 as usize - 1].replica];
                for order in &mut orders {
                    fill(replica, order)?;
                }
                self.send_worker(term, worker, ToWorker::Orders { term, number, orders });
            }
            Action::Welcome { worker } => {
                self.send_worker(term, worker, ToWorker::Registered { term });
            }
            Action::Holders { worker, blob, holders } => {
                self.send_worker(term, worker, ToWorker::Holders { blob, holders });
            }
            Action::Give { session, of } => {
                let replica = &self.replicas[self.leaders[term.0 as usize - 1].replica];
                let given =
                    of.into_iter().map(|of| Ok(Given { of, outcome: outcome(replica, of)? }));
                let given = given.collect::<Result<_, Violation>>()?;
                self.send_client(term, session, ToClient::Given(given));
            }
            Action::Tell { session, message } => self.send_client(term, session, message),
            Action::Deliver { session, batch, sequence, outcome, last } => {
                let replica = &self.replicas[self.leaders[term.0 as usize - 1].replica];
                let lost = |what| Violation { rule: "bytes are there while named", what };
                let bytes = replica
                    .segments
                    .get(&outcome.segment)
                    .ok_or_else(|| lost(format!("outcomes {sequence} of {batch}")))?;
                let rows = TaskRange::new(
                    outcome.tasks.start - outcome.first,
                    outcome.tasks.end - outcome.first,
                );
                let segment = Segment::parse(bytes.clone()).and_then(|all| all.slice(rows));
                let segment = segment.map_err(|error| lost(error.to_string()))?.into();
                let range = outcome.tasks;
                self.send_client(
                    term,
                    session,
                    ToClient::Outcomes { batch, sequence, range, segment, last },
                );
            }
        }
        Ok(())
    }

    fn send_worker(&mut self, term: Term, worker: WorkerId, message: ToWorker) {
        if let Some(id) = self.leader(term).workers.get(&worker).copied() {
            self.send(id, End::Peer, Message::ToWorker(message));
        }
    }

    fn send_client(&mut self, term: Term, session: SessionId, message: ToClient) {
        if let Some(id) = self.leader(term).clients.get(&session).copied() {
            self.send(id, End::Peer, Message::ToClient(message));
        }
    }

    /// Everything that arrived while the last entries were in flight becomes one.
    fn flush_proposals(&mut self, term: Term) {
        let now = self.now;
        let leader = self.leader(term);
        if leader.proposals.is_empty() || leader.in_flight >= IN_FLIGHT_MAX {
            return;
        }
        let at = leader.dispatcher.cluster_time(leader.instant(now));
        let commands = std::mem::take(&mut leader.proposals);
        leader.in_flight += 1;
        if !leader.deposed {
            self.propose(term, Entry { at, commands });
        }
    }

    /// Plans the leader's next tick.
    pub(super) fn schedule_leader(&mut self, term: Term) {
        let leader = self.leader(term);
        let Some(next) = leader.dispatcher.next_deadline() else { return };
        let at = leader.began + next.0.saturating_sub(leader.clock);
        if leader.ticks.insert(at) {
            self.plan(at, Happening::LeaderTick(term));
        }
    }

    pub(super) fn leader_tick(&mut self, term: Term) -> Result<(), Violation> {
        let now = self.now;
        let leader = self.leader(term);
        leader.ticks = leader.ticks.split_off(&(now + 1));
        self.lead(term, Event::Tick)
    }

    pub(super) fn leader_hears(
        &mut self,
        term: Term,
        id: ConnectionId,
        message: FromWorker,
    ) -> Result<(), Violation> {
        let Peer::Worker(number) = self.connections[id.0].peer else { return Ok(()) };
        let worker = self.workers[number].id;
        let leader = self.leader(term);
        if !leader.alive {
            return Ok(());
        }
        if let FromWorker::Register(_) = message {
            let old = leader.workers.insert(worker, id);
            if let Some(old) = old.filter(|old| *old != id) {
                self.close(old, End::Leader);
            }
        } else if leader.workers.get(&worker) != Some(&id) {
            return Ok(());
        }
        self.lead(term, Event::Worker { worker, message })
    }

    pub(super) fn leader_hears_client(
        &mut self,
        term: Term,
        id: ConnectionId,
        client: usize,
        message: FromClient,
    ) -> Result<(), Violation> {
        let session = self.clients[client].session;
        let owner = self.clients[client].owner.clone();
        let leader = self.leader(term);
        if !leader.alive {
            return Ok(());
        }
        if let FromClient::Attach { .. } = message {
            let old = leader.clients.insert(session, id);
            if let Some(old) = old.filter(|old| *old != id) {
                self.close(old, End::Leader);
            }
        } else if leader.clients.get(&session) != Some(&id) {
            return Ok(());
        }
        if !self.leaders[term.0 as usize - 1].deposed {
            self.client_is_heard(client, true);
        }
        self.lead(term, Event::Client { session, owner, message })
    }

    /// A leader learns that a connection is dead.
    pub(super) fn leader_loses(
        &mut self,
        term: Term,
        id: ConnectionId,
        peer: Peer,
    ) -> Result<(), Violation> {
        match peer {
            Peer::Worker(number) => {
                let worker = self.workers[number].id;
                if self.leader(term).workers.get(&worker) == Some(&id) {
                    self.leader(term).workers.remove(&worker);
                    return self.lead(term, Event::WorkerGone { worker });
                }
            }
            Peer::Client(number) => {
                let session = self.clients[number].session;
                if self.leader(term).clients.get(&session) == Some(&id) {
                    self.leader(term).clients.remove(&session);
                    return self.lead(term, Event::ClientGone { session });
                }
            }
        }
        Ok(())
    }

    /// A deposed leader knows, or its process is gone: its connections end.
    pub(super) fn stop_leader(&mut self, term: Term) {
        let leader = self.leader(term);
        leader.alive = false;
        let replica = leader.replica;
        self.replicas[replica].frozen = false;
        let all = self.connections.iter().enumerate();
        let open: Vec<ConnectionId> = all
            .filter(|(_, connection)| connection.term == term && connection.leader_open)
            .map(|(id, _)| ConnectionId(id))
            .collect();
        open.into_iter().for_each(|id| self.close(id, End::Leader));
    }
}

/// The outcome that somebody asks for, or why there is none.
fn outcome(replica: &Replica, of: Awaited) -> Result<Bulk, Violation> {
    match replica.state.locate(of, None) {
        Located::Row { segment, row } => {
            let lost = |what: String| Violation { rule: "bytes are there while named", what };
            let bytes = replica.segments.get(&segment).cloned();
            let bytes = bytes.ok_or_else(|| lost(format!("the outcome of {}", of.task)))?;
            let row = TaskRange::new(row, row + 1);
            let slice = Segment::parse(bytes).and_then(|all| all.slice(row));
            Ok(slice.map_err(|error| lost(error.to_string()))?.into())
        }
        Located::Failed(failed) => {
            let mut text = Vec::new();
            let encoded = codec::encode(&failed, &mut text);
            encoded.map_err(|error| Violation {
                rule: "a failure encodes",
                what: error.to_string(),
            })?;
            Ok(SegmentBuilder::repeated(0, ERROR, &text, 1).into())
        }
    }
}

/// Puts the bytes into an order.
fn fill(replica: &Replica, order: &mut Order) -> Result<(), Violation> {
    let lost = |what: String| Violation { rule: "bytes are there while named", what };
    match order {
        Order::Batch(shared) => {
            let batch = replica.state.batches.get(&shared.batch);
            let context = batch.and_then(|batch| batch.progress()).and_then(|p| p.context);
            if let Some(segment) = context {
                let bytes = replica.segments.get(&segment).cloned();
                shared.context = bytes.ok_or_else(|| lost("a context".into()))?.into();
            }
        }
        Order::Run(run) => {
            let Some(batch) = replica.state.batches.get(&run.batch) else {
                return Err(lost(format!("a run of batch {}, which is not there", run.batch)));
            };
            for argument in batch.arguments_of(run.range) {
                let part = argument.tasks.intersection(run.range);
                let rows = TaskRange::new(
                    part.start - argument.tasks.start,
                    part.end - argument.tasks.start,
                );
                let bytes: Bytes = replica
                    .segments
                    .get(&argument.segment)
                    .cloned()
                    .ok_or_else(|| lost(format!("arguments of {} of {}", part, run.batch)))?;
                let slice = Segment::parse(bytes).and_then(|all| all.slice(rows));
                run.segments.push(slice.map_err(|error| lost(error.to_string()))?.into());
            }
            for given in &mut run.given {
                given.outcome = outcome(replica, given.of)?;
            }
        }
        Order::Give(given) => given.outcome = outcome(replica, given.of)?,
        Order::Retract { .. }
        | Order::Cancel { .. }
        | Order::Opened { .. }
        | Order::Committed { .. }
        | Order::Forget { .. }
        | Order::Keep { .. }
        | Order::LetGo { .. }
        | Order::Fetched { .. } => {}
    }
    Ok(())
}
