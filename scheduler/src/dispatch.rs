//! The leader's soft half: who holds what, who waits for what, what is to be said to whom.
//!
//! Nothing here is replicated. A new leader calls [`Dispatcher::resume`] once the first entry of its
//! own term is applied, takes the workers' registrations with their inventories, and goes on.
//!
//! Nothing runs before it is committed: batches, cancels and outcomes are learned from applied
//! entries only ([`Event::Applied`]).

mod attempt;
mod balance;
mod batches;
mod blobs;
mod call_off;
mod cap;
mod check;
mod check_graph;
mod circles;
mod clients;
mod defers;
mod deliver;
mod detached;
mod effects;
mod explain;
mod graph;
mod limits;
mod losses;
mod needs;
mod outcomes;
mod place;
mod pump;
mod queue;
mod reconcile;
mod record;
mod recorded;
mod report;
mod said;
mod size;
mod threads;
mod timers;
mod unfetched;
mod unplaceable;
mod view;
mod workers;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::failure::{Cause, Failed};
use allhands_common::function::FunctionName;
use allhands_common::id::{AttemptId, BatchId, CoordinatorId, SessionId, TaskId, Term, WorkerId};
use allhands_common::program::ProgramId;
use allhands_common::range::TaskRange;
use allhands_common::time::{ClusterTime, Instant};
use allhands_common::wire::admin::Question;
use allhands_common::wire::record::Moment;

pub use check::Violation;
pub use explain::Explanation;
pub(crate) use graph::state_gone;

use crate::{Action, Command, Event, State};
use attempt::Attempt;
use batches::Active;
use blobs::Blobs;
use cap::{CallId, Capped};
use clients::Client;
use deliver::Delivery;
use graph::Graph;
use needs::Needs;
use queue::Queues;
use record::Records;
use said::Said;
use size::Cost;
use timers::{Timer, Timers};
use workers::Worker;

/// What a dispatcher is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The leader.
    pub leader: CoordinatorId,
    /// Its term.
    pub term: Term,
    /// Number of its first attempt: beyond those that an earlier dispatcher of the same term gave.
    pub first_attempt: u64,
    /// How long a worker may be silent.
    pub worker_lost: Duration,
    /// How long a client may be silent.
    pub client_lease: Duration,
    /// How long to wait for the workers of the roster before new work is given out.
    pub resume_wait: Duration,
    /// How long work waits that none of the workers there are can hold: one that can may be joining.
    pub unplaceable_grace: Duration,
}

impl Config {
    /// The defaults (`common::limit`) for the leader of `term`.
    pub const fn new(leader: CoordinatorId, term: Term) -> Self {
        use allhands_common::limit;
        Self {
            leader,
            term,
            first_attempt: 0,
            worker_lost: Duration::from_millis(limit::WORKER_LOST_MS),
            client_lease: Duration::from_millis(limit::CLIENT_LEASE_MS),
            resume_wait: Duration::from_millis(limit::WORKER_LOST_MS),
            unplaceable_grace: Duration::from_secs(5),
        }
    }
}

/// The leader's soft half.
#[derive(Debug)]
pub struct Dispatcher {
    config: Config,
    /// Cluster time and own time of one moment.
    epoch: (Instant, ClusterTime),
    /// Boxed: a look-up by id touches ids only.
    workers: BTreeMap<WorkerId, Box<Worker>>,
    /// Slots of the workers that may be given work.
    slots: u32,
    /// Of these, those that nothing occupies.
    idle_slots: u32,
    /// Whether they have changed in the step that is being taken.
    slots_changed: bool,
    /// Workers that may have something to be sent in this step.
    ordered: Vec<WorkerId>,
    attempts: BTreeMap<AttemptId, Attempt>,
    next_attempt: u64,
    /// Batches of which something is or was given out, or that need watching.
    active: BTreeMap<BatchId, Active>,
    /// Batches whose `n_jobs` is not that of all slots, by the call that it caps.
    capped: BTreeMap<CallId, Capped>,
    queues: Queues,
    clients: BTreeMap<SessionId, Client>,
    /// Clients that have something to be told with the next thing that is said to them.
    noticed: BTreeSet<SessionId>,
    /// Clients to whom something is said in this step.
    spoken_to: BTreeSet<SessionId>,
    /// What one task of a function takes, for as long as a job runs its program.
    costs: BTreeMap<(ProgramId, FunctionName), Cost>,
    deliveries: BTreeMap<BatchId, Delivery>,
    blobs: Blobs,
    graph: Graph,
    needs: Needs,
    records: Records,
    said: Said,
    timers: Timers,
    /// Whether a look at who is idle is planned.
    balancing: bool,
    /// How far, from the newest attempt down, the last such look came, if it did not come through.
    balanced_to: Option<AttemptId>,
    /// Workers of the roster that a new leader still waits for; `None` once work is given out.
    awaited: Option<BTreeSet<WorkerId>>,
}

impl Dispatcher {
    /// The dispatcher of a new leader, whose first own entry is applied to `state`.
    pub fn resume(config: Config, now: Instant, state: &State) -> Self {
        let mut timers = Timers::default();
        let awaited: BTreeSet<WorkerId> = state.workers.keys().copied().collect();
        let wait = if awaited.is_empty() { Duration::ZERO } else { config.resume_wait };
        timers.set(now + wait, Timer::Resume);
        let mut dispatcher = Self {
            epoch: (now, state.at),
            workers: BTreeMap::new(),
            slots: 0,
            idle_slots: 0,
            slots_changed: false,
            ordered: Vec::new(),
            attempts: BTreeMap::new(),
            next_attempt: config.first_attempt,
            active: BTreeMap::new(),
            capped: BTreeMap::new(),
            queues: Queues::default(),
            clients: BTreeMap::new(),
            noticed: BTreeSet::new(),
            spoken_to: BTreeSet::new(),
            costs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            blobs: Blobs::default(),
            graph: Graph::default(),
            needs: Needs::default(),
            records: Records::default(),
            said: Said::default(),
            timers,
            balancing: false,
            balanced_to: None,
            awaited: Some(awaited),
            config,
        };
        for session in state.sessions.keys() {
            let lease = now + dispatcher.config.client_lease;
            dispatcher.timers.set(lease, Timer::Session(*session));
            dispatcher.clients.insert(*session, Client::absent(now));
        }
        for worker in state.workers.keys() {
            let lost = now + dispatcher.config.worker_lost;
            dispatcher.timers.set(lost, Timer::Worker(*worker));
        }
        for id in state.batches.keys() {
            dispatcher.watch_batch(state, *id);
        }
        for job in state.jobs.keys().filter(|_| !cfg!(plant = "new_leader_keeps_jobs")) {
            dispatcher.watch_job(state, *job);
        }
        dispatcher
    }

    /// Takes the events of one step: together, because work is given out and messages are made once a
    /// step. What must happen is appended to `out`, in order.
    pub fn handle(
        &mut self,
        now: Instant,
        state: &State,
        events: impl IntoIterator<Item = Event>,
        out: &mut Vec<Action>,
    ) {
        self.records.now = self.moment(now);
        events.into_iter().for_each(|event| self.take(now, state, event, out));
        self.fire_timers(now, state, out);
        if core::mem::take(&mut self.slots_changed) {
            self.requeue_capped(state);
        }
        self.settle_graph(now, state, out);
        self.pump(now, state, out);
        self.flush_orders(now, out);
        self.flush_notices(now, state, out);
    }

    fn take(&mut self, now: Instant, state: &State, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Applied(effects) => {
                effects.into_iter().for_each(|effect| self.learn(now, state, effect, out));
            }
            Event::Client { session, owner, message } => {
                self.hear_client(now, state, session, owner, message, out);
            }
            Event::ClientGone { session } => {
                if let Some(client) = self.clients.get_mut(&session) {
                    client.attached = false;
                }
                self.blobs.forget_session_wants(session);
            }
            Event::Worker { worker, message } => self.hear_worker(now, state, worker, message, out),
            Event::WorkerGone { worker } => self.worker_gone(worker),
            Event::Operator { name, question } => operator(state, &name, &question, out),
        }
    }

    /// When [`Event::Tick`] must come at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The cluster's time, for the next entry.
    pub fn cluster_time(&self, now: Instant) -> ClusterTime {
        let (then, at) = self.epoch;
        at.after(u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX))
    }

    /// The same, to the microsecond, for what is recorded.
    fn moment(&self, now: Instant) -> Moment {
        let (then, at) = self.epoch;
        let since = u64::try_from(now.since(then).as_micros()).unwrap_or(u64::MAX);
        Moment(at.0.saturating_mul(1000).saturating_add(since))
    }

    /// Own time of a moment of the cluster.
    fn instant_of(&self, at: ClusterTime) -> Instant {
        let (then, epoch) = self.epoch;
        then + Duration::from_millis(at.0.saturating_sub(epoch.0))
    }

    /// The leader's term.
    pub const fn term(&self) -> Term {
        self.config.term
    }

    /// Number that the next attempt of this term has to have.
    pub const fn next_attempt(&self) -> u64 {
        self.next_attempt
    }

    fn name_attempt(&mut self) -> AttemptId {
        let number = self.next_attempt;
        self.next_attempt += 1;
        let term = if cfg!(plant = "attempts_reused") { Term(0) } else { self.config.term };
        AttemptId { term, number }
    }
}

/// Carries out what an operator orders.
fn operator(state: &State, name: &str, question: &Question, out: &mut Vec<Action>) {
    let rest = cancelled(alloc::format!("by {name}"));
    match question {
        Question::CancelJob(job) if state.jobs.contains_key(job) => {
            out.push(Action::Propose(Command::StopJob { job: *job, rest }));
        }
        Question::CancelBatch(batch) if state.batches.contains_key(batch) => {
            out.push(Action::Propose(Command::Stop { batch: *batch, rest }));
        }
        Question::CancelTask(TaskId { batch, index }) if state.batches.contains_key(batch) => {
            let (batch, range, failed) = (*batch, TaskRange::new(*index, *index + 1), rest);
            out.push(Action::Propose(Command::CancelTasks { batch, range, failed }));
        }
        Question::CancelGroup(job, group) => {
            let (job, group, failed) = (*job, group.clone(), rest);
            out.push(Action::Propose(Command::CancelGroup { job, group, failed }));
        }
        Question::CancelJob(_)
        | Question::CancelBatch(_)
        | Question::CancelTask(_)
        | Question::Status
        | Question::Jobs
        | Question::Job(_)
        | Question::Explain(_)
        | Question::Record { .. }
        | Question::Said(_)
        | Question::Blobs => {}
    }
}

fn cancelled(reason: String) -> Failed {
    Failed { cause: Cause::Cancelled { reason }, worker: None, attempt: None, tries: 0 }
}
