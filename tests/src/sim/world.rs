//! The clock, and everybody in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use allhands_common::id::{ExecutorId, Term};
use allhands_common::resources::Resources;
use allhands_scheduler::Entry;

use super::client::Client;
use super::climate::{Climate, FAULTS, Fault, MS, SECOND};
use super::connection::{Connection, ConnectionId, End, Message, Peer};
use super::consensus::Replica;
use super::executor::Moment;
use super::leader::Leader;
use super::oracle::Oracle;
use super::rng::{Rng, mix};
use super::stats::Stats;
use super::trace::Trace;
use super::worker::Worker;
use super::{Outcome, Violation};

/// Replicas of the log.
pub(super) const REPLICAS: usize = 3;

/// How long after the last fault everything must have ended: leases, lost workers and the slowest
/// batch that a client can submit, several times over.
const LIVENESS: u64 = 150 * SECOND;

/// Of the seeds of jobs that go on without their clients.
const DETACHED: u64 = 0xde7a_c4ed;

/// How long after all clients have gone a cluster is looked at: leases may have to run out, reports to be settled,
/// snapshots to be taken, jobs to be forgotten.
const AFTERWARDS: u64 = 40 * SECOND;

/// Steps after which a cluster counts as going in circles.
const STEPS_MAX: u64 = 2_000_000;

/// Everything that can be planned.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// A message arrives.
    Deliver(ConnectionId, End, Message),
    /// One end learns that a connection is dead.
    Broken(ConnectionId, End),
    /// The oldest proposal of a term's leader has its quorum.
    Committed(Term),
    /// A replica applies what it has of the log.
    Apply(usize),
    /// A coordinator becomes leader.
    Elect,
    /// A deposed leader, which did not know, notices.
    Notice(Term),
    /// A leader's deadline.
    LeaderTick(Term),
    /// A worker's deadline.
    WorkerTick(usize),
    /// A worker looks for the leader.
    WorkerSeeks(usize),
    /// A worker's process is started.
    WorkerStarts(usize),
    /// A worker's process goes on.
    WorkerWakes(usize),
    /// News of an executor reaches its worker; of which start of the worker.
    Executor(usize, u32, ExecutorId, Moment),
    /// A worker is told who leads.
    TellWorker(usize, Term),
    /// A client is told who leads.
    TellClient(usize, Term),
    /// A client does the next thing that it has to do.
    ClientActs(usize),
    /// Something breaks.
    Break(Fault),
}

/// A cluster, its clients and its clock.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) climate: Climate,
    planned: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next_planned: u64,
    pub(super) connections: Vec<Connection>,
    /// The committed log.
    pub(super) log: Vec<Entry>,
    /// Digests of the state by index, as the first replica there had them.
    pub(super) digests: BTreeMap<u64, [u8; 32]>,
    pub(super) replicas: Vec<Replica>,
    /// Every leader there was, by term from 1.
    pub(super) leaders: Vec<Leader>,
    /// Proposals of the present leader, oldest first.
    pub(super) in_flight: VecDeque<Entry>,
    pub(super) last_commit: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) clients: Vec<Client>,
    pub(super) oracle: Oracle,
    pub(super) stats: Stats,
    pub(super) trace: Trace,
}

impl World {
    pub(super) fn new(seed: u64, keep: bool) -> Self {
        let mut rng = Rng::new(seed);
        let climate = Climate::of(&mut rng);
        let mut world = Self {
            now: 0,
            planned: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next_planned: 0,
            connections: Vec::new(),
            log: Vec::new(),
            digests: BTreeMap::new(),
            replicas: (0..REPLICAS).map(|_| Replica::default()).collect(),
            leaders: Vec::new(),
            in_flight: VecDeque::new(),
            last_commit: 0,
            workers: Vec::new(),
            clients: Vec::new(),
            oracle: Oracle::default(),
            stats: Stats::default(),
            trace: Trace::new(keep),
            climate,
            rng,
        };
        world.trace.say(0, format_args!("seed {seed}: {:?}", world.climate));
        world.plan(0, Happening::Elect);
        let count = world.rng.within(1..5) as usize;
        // Worker 0 is the biggest: what a task can need, it has.
        let biggest = Resources::cpus(world.rng.within(1..5) as u32).with("gpu", 1).memory(64);
        for number in 0..count {
            let cpus = world.rng.within(1..u64::from(biggest.cpus) + 1) as u32;
            let resources = match number {
                0 => biggest.clone(),
                _ if world.rng.chance(500) => Resources::cpus(cpus).memory(32),
                _ => Resources::cpus(cpus).with("gpu", 2).memory(64),
            };
            world.oracle.machines.push(resources.clone());
            world.workers.push(Worker::new(number as u64 + 1, resources));
            let at = world.rng.skewed(0..SECOND);
            world.plan(at, Happening::WorkerStarts(number));
        }
        for number in 0..world.rng.within(1..4) as usize {
            let (rng, climate, others) = (&mut world.rng, &world.climate, &world.clients);
            let client = Client::new(number, rng, climate, &biggest, others, None);
            world.oracle.truths.wild |= client.wild;
            world.clients.push(client);
            let at = world.rng.skewed(0..SECOND);
            world.plan(at, Happening::ClientActs(number));
        }
        // Of a stream of their own: seeds without such jobs are what they were before there were any.
        let mut rng = Rng::new(mix(seed ^ DETACHED));
        if rng.chance(300) {
            world.add_detached(&mut rng, &biggest);
        }
        world.oracle.faults_end = world.climate.faults_end;
        for fault in FAULTS {
            world.plan_fault(fault);
        }
        world
    }

    /// Puts `happening` into the calendar.
    pub(super) fn plan(&mut self, at: u64, happening: Happening) {
        let number = self.next_planned;
        self.next_planned += 1;
        self.planned.push(Reverse((at.max(self.now), number)));
        self.happenings.insert(number, happening);
    }

    fn plan_fault(&mut self, fault: Fault) {
        let place = FAULTS.iter().position(|kind| *kind == fault).unwrap_or(0);
        let every = self.climate.every[place];
        if every > 0 {
            let at = self.now + self.rng.within(1..2 * every);
            if at < self.climate.faults_end {
                self.plan(at, Happening::Break(fault));
            }
        }
    }

    /// Runs until all is done, or a rule is broken.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        let end = self.climate.faults_end + LIVENESS;
        let mut done_at = None;
        for step in 0.. {
            let Some(Reverse((at, number))) = self.planned.pop() else { break };
            self.now = at;
            let Some(happening) = self.happenings.remove(&number) else { continue };
            self.stats.count("steps");
            self.happen(happening)?;
            let done = self.clients.iter().all(|client| client.left);
            if done && done_at.is_none() {
                done_at = Some(self.now.max(self.climate.faults_end) + AFTERWARDS);
            }
            if done_at.is_some_and(|at| at <= self.now) {
                break;
            }
            if self.now > end || step > STEPS_MAX {
                return Err(self.hang());
            }
        }
        self.check_end()
    }

    fn hang(&self) -> Violation {
        let stuck = self.clients.iter().enumerate().find(|(_, client)| !client.left);
        let what = stuck.map(|(number, client)| {
            let state = &self.newest().state;
            let leader = self.leaders.last();
            let stuck: Vec<String> = client
                .unfinished()
                .map(|batch| {
                    let known = state.batches.get(&batch.id);
                    let task = known.map_or(0, |known| {
                        (0..known.tasks).find(|index| !known.has_ended(*index)).unwrap_or(0)
                    });
                    let task = allhands_common::id::TaskId { batch: batch.id, index: task };
                    let why = leader.map(|leader| {
                        leader.dispatcher.explain(leader.instant(self.now), state, task)
                    });
                    format!(
                        "batch {} received {}; task {task}: {why:?}",
                        batch.sequence, batch.received
                    )
                })
                .collect();
            let visit = self.visit_waits(number);
            format!("client {} waits for {stuck:?} {visit}", client.session)
        });
        Violation {
            rule: "without faults everything ends",
            what: format!("at {} ms: {}", self.now / MS, what.unwrap_or_default()),
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Deliver(id, end, message) => self.deliver(id, end, message),
            Happening::Broken(id, end) => self.broken(id, end),
            Happening::Committed(term) => self.committed(term),
            Happening::Apply(replica) => self.catch_up(replica),
            Happening::Elect => self.elect(),
            Happening::Notice(term) => {
                self.stop_leader(term);
                Ok(())
            }
            Happening::LeaderTick(term) => self.leader_tick(term),
            Happening::WorkerTick(worker) => self.worker_tick(worker),
            Happening::WorkerSeeks(worker) => self.worker_seeks(worker),
            Happening::WorkerStarts(worker) => {
                self.worker_starts(worker);
                Ok(())
            }
            Happening::WorkerWakes(worker) => self.worker_wakes(worker),
            Happening::Executor(worker, start, executor, moment) => {
                self.moment(worker, start, executor, moment)
            }
            Happening::TellWorker(worker, term) => self.tell_worker(worker, term),
            Happening::TellClient(client, term) => {
                self.tell_client(client, term);
                Ok(())
            }
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::Break(fault) => self.break_something(fault),
        }
    }

    fn deliver(&mut self, id: ConnectionId, end: End, message: Message) -> Result<(), Violation> {
        if !self.is_open(id, end) {
            return Ok(());
        }
        self.trace.mix(&[self.now, id.0 as u64, u64::from(end == End::Peer)]);
        self.trace.say(self.now, format_args!("{id:?} to {end:?}: {message:?}"));
        let (peer, term) = (self.connections[id.0].peer, self.connections[id.0].term);
        match (peer, message) {
            (Peer::Worker(_), Message::FromWorker(message)) => self.leader_hears(term, id, message),
            (Peer::Worker(worker), Message::ToWorker(message)) => {
                self.worker_hears(worker, message)
            }
            (Peer::Client(client), Message::FromClient(message)) => {
                self.leader_hears_client(term, id, client, message)
            }
            (Peer::Client(client), Message::ToClient(message)) => {
                self.client_hears(client, message)
            }
            _ => Ok(()),
        }
    }

    fn broken(&mut self, id: ConnectionId, end: End) -> Result<(), Violation> {
        if !self.is_open(id, end) {
            return Ok(());
        }
        self.trace.mix(&[self.now, id.0 as u64, 7]);
        self.trace.say(self.now, format_args!("{id:?} is broken for {end:?}"));
        self.close(id, end);
        let (peer, term) = (self.connections[id.0].peer, self.connections[id.0].term);
        match (end, peer) {
            (End::Leader, _) => self.leader_loses(term, id, peer),
            (End::Peer, Peer::Worker(worker)) => self.worker_loses(worker, id),
            (End::Peer, Peer::Client(client)) => {
                self.client_loses(client, id);
                Ok(())
            }
        }
    }

    fn break_something(&mut self, fault: Fault) -> Result<(), Violation> {
        self.trace.mix(&[self.now, fault as u64]);
        self.trace.say(self.now, format_args!("FAULT {fault:?}"));
        self.plan_fault(fault);
        match fault {
            Fault::WorkerCrash => self.crash_worker(),
            Fault::WorkerPause => self.pause_worker(),
            Fault::WorkerCut => self.cut_worker(),
            Fault::WorkerDrain => return self.drain_worker(),
            Fault::LeaderChange => self.depose(),
            Fault::ClientCut => self.cut_client(),
            Fault::ClientLeave => self.leave_client(),
            Fault::Snapshot => return self.install_snapshot(),
        }
        Ok(())
    }

    /// Nothing is left of anybody.
    fn check_end(&mut self) -> Result<(), Violation> {
        for replica in 0..REPLICAS {
            self.replicas[replica].frozen = false;
            self.catch_up(replica)?;
            self.check_digest(replica)?;
        }
        let values = self.oracle.check_values()?;
        self.stats.add("values compared", values);
        let state = &self.newest().state;
        if !state.sessions.is_empty() || !state.jobs.is_empty() || !state.batches.is_empty() {
            let open = state.batches.iter().filter(|(_, batch)| !batch.over()).map(|(id, _)| id);
            let what = format!(
                "{} sessions, {} jobs, {} batches, open {:?}, {:?}",
                state.sessions.len(),
                state.jobs.len(),
                state.batches.len(),
                open.take(3).collect::<Vec<_>>(),
                state.jobs.values().map(|job| &job.detached).collect::<Vec<_>>(),
            );
            return Err(Violation { rule: "what is consumed or abandoned leaves the state", what });
        }
        if !self.newest().segments.is_empty() {
            let what = format!("{} segments", self.newest().segments.len());
            return Err(Violation { rule: "bytes that nobody names are dropped", what });
        }
        let leader = self.leaders.last();
        let running = leader.map(|leader| leader.dispatcher.status(state).running);
        if running.is_some_and(|running| running > 0) {
            let what = format!("{running:?} tasks");
            return Err(Violation { rule: "nothing is left running", what });
        }
        for worker in self.workers.iter().filter_map(|worker| worker.agent.as_ref()) {
            if !worker.is_idle() {
                let what = format!("{worker:?}");
                return Err(Violation { rule: "a worker is left with nothing", what });
            }
        }
        Ok(())
    }

    pub(super) fn outcome(self, violation: Option<Violation>) -> Outcome {
        let mut stats = self.stats;
        stats.add("virtual seconds", self.now / SECOND);
        Outcome { trace: self.trace.hash(), stats, violation, lines: self.trace.lines }
    }
}
