//! A leader: state, dispatcher and a log that commits at once, or when the test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use allhands_common::failure::Failed;
use allhands_common::id::{
    AttemptId, BatchId, CoordinatorId, JobId, LogIndex, RequestId, SegmentId, Term, WorkerId,
};
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::segment::{ERROR, Segment};
use allhands_common::time::Instant;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{Ended, FromWorker, Held, How, Order, Run};
use allhands_scheduler::{Action, Command, Config, Dispatcher, Effect, Entry, Event, State};
use bytes::Bytes;

use super::words::*;

/// A leader, what it has stored, and what it has proposed.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) state: State,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) now: Instant,
    pub(crate) segments: BTreeMap<SegmentId, Bytes>,
    /// Proposals that are not in the log: all, while `slow`.
    pub(crate) proposed: Vec<Command>,
    /// Whether proposals wait for [`Leader::commit`].
    pub(crate) slow: bool,
}

impl Leader {
    /// A leader that nobody has talked to.
    pub(crate) fn new() -> Self {
        Self::resume(State::default(), Term(1), Instant(0))
    }

    /// The leader of `term`, at its first moment.
    pub(crate) fn resume(state: State, term: Term, now: Instant) -> Self {
        Self::configured(Config::new(CoordinatorId(1), term), state, now)
    }

    pub(crate) fn configured(config: Config, state: State, now: Instant) -> Self {
        let dispatcher = Dispatcher::resume(config, now, &state);
        let (segments, proposed) = (BTreeMap::new(), Vec::new());
        Self { state, dispatcher, now, segments, proposed, slow: false }
    }

    /// This one is deposed, another takes over its state.
    pub(crate) fn succeed(self) -> Self {
        let term = Term(self.dispatcher.term().0 + 1);
        Self { segments: self.segments, ..Self::resume(self.state, term, self.now) }
    }

    /// A leader with a client, job 0, and `workers` workers of `slots` slots.
    pub(crate) fn with_workers(workers: u64, slots: u32) -> Self {
        let mut leader = Self::new();
        for worker in 1..=workers {
            leader.register(worker, Resources::cpus(slots), Vec::new());
        }
        leader.attach(&[]);
        leader.open_job(0);
        leader
    }

    /// Takes an event; what has to be done besides proposing.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let (mut out, mut done) = (Vec::new(), Vec::new());
        self.dispatcher.handle(self.now, &self.state, [event], &mut out);
        self.sort(out, &mut done);
        if !self.slow {
            done.extend(self.commit());
        }
        self.dispatcher.check(&self.state).unwrap();
        done
    }

    /// Everything proposed is applied, and what is proposed thereupon.
    pub(crate) fn commit(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        while !self.proposed.is_empty() {
            let commands = std::mem::take(&mut self.proposed);
            let effects = self.apply(commands);
            let mut out = Vec::new();
            let applied = [Event::Applied(effects)];
            self.dispatcher.handle(self.now, &self.state, applied, &mut out);
            self.sort(out, &mut done);
            self.dispatcher.check(&self.state).unwrap();
        }
        done
    }

    /// Applies commands as one entry, without telling the dispatcher.
    pub(crate) fn apply(&mut self, commands: Vec<Command>) -> Vec<Effect> {
        let at = self.dispatcher.cluster_time(self.now);
        let index = LogIndex(self.state.applied.0 + 1);
        let mut effects = Vec::new();
        self.state.apply(index, Entry { at, commands }, &mut effects);
        self.state.check().unwrap();
        for effect in &effects {
            if let Effect::Keep { segment, bytes } = effect {
                self.segments.insert(*segment, bytes.clone());
            }
            if let Effect::Drop { segment } = effect {
                self.segments.remove(segment).expect("only kept segments are dropped");
            }
        }
        effects
    }

    fn sort(&mut self, out: Vec<Action>, done: &mut Vec<Action>) {
        for action in out {
            match action {
                Action::Propose(command) => self.proposed.push(command),
                other => done.push(other),
            }
        }
    }

    /// Time passes; every deadline on the way is kept.
    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Action> {
        let until = self.now + Duration::from_millis(ms);
        let mut done = Vec::new();
        while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            done.extend(self.step(Event::Tick));
        }
        self.now = until;
        done
    }

    /// Time passes in which these workers show that they are alive, and say nothing else.
    pub(crate) fn live(&mut self, workers: &[u64], ms: u64) -> Vec<Action> {
        let (mut done, until) = (Vec::new(), self.now + Duration::from_millis(ms));
        while self.now < until {
            for worker in workers {
                done.extend(self.heartbeat(*worker, self.now.0, 0, Vec::new()));
            }
            let left = u64::try_from(until.since(self.now).as_millis()).unwrap();
            done.extend(self.wait(left.min(100)));
        }
        done
    }

    pub(crate) fn client(&mut self, message: FromClient) -> Vec<Action> {
        self.step(Event::Client { session: SESSION, owner: "ann".into(), message })
    }

    /// The client comes, with what it has received of its batches.
    pub(crate) fn attach(&mut self, batches: &[(BatchId, u32)]) -> Vec<Action> {
        let (low, batches) = (RequestId(0), batches.into());
        self.client(FromClient::Attach { session: SESSION, low, batches })
    }

    pub(crate) fn open_job(&mut self, request: u64) -> Vec<Action> {
        let request = RequestId(request);
        self.client(FromClient::OpenJob {
            request,
            program: program(),
            name: "job".into(),
            detached: None,
        })
    }

    /// The client submits its `sequence`-th batch, of `tasks` tasks, sealed.
    pub(crate) fn submit(&mut self, sequence: u32, tasks: u32, policy: Policy) -> Vec<Action> {
        self.submit_in(JobId(0), sequence, tasks, policy)
    }

    pub(crate) fn submit_in(
        &mut self,
        job: JobId,
        sequence: u32,
        tasks: u32,
        policy: Policy,
    ) -> Vec<Action> {
        let mut done = self.open(job, sequence, policy);
        done.extend(self.append(sequence, range(0, tasks)));
        done.extend(self.client(FromClient::Seal { batch: batch(sequence), tasks }));
        done
    }

    pub(crate) fn open(&mut self, job: JobId, sequence: u32, policy: Policy) -> Vec<Action> {
        self.open_part(job, sequence, sequence, policy)
    }

    /// Opens a batch of the call whose first one is the `call`-th.
    pub(crate) fn open_part(
        &mut self,
        job: JobId,
        sequence: u32,
        call: u32,
        policy: Policy,
    ) -> Vec<Action> {
        let (batch, spec, empty) = (batch(sequence), spec(policy).into(), Bytes::new);
        self.client(FromClient::OpenBatch {
            batch,
            sequence,
            call,
            job,
            spec,
            context: empty().into(),
            tasks: 0,
            segment: empty().into(),
            sealed: false,
            kept: false,
            mentions: Vec::new(),
        })
    }

    pub(crate) fn append(&mut self, sequence: u32, range: TaskRange) -> Vec<Action> {
        let (first, tasks, segment) = (range.start, range.len(), arguments(range).into());
        self.client(FromClient::Append {
            batch: batch(sequence),
            first,
            tasks,
            segment,
            mentions: Vec::new(),
        })
    }

    pub(crate) fn acknowledge(&mut self, sequence: u32, segments: u32) -> Vec<Action> {
        self.client(FromClient::Acknowledge(vec![(batch(sequence), segments)]))
    }

    pub(crate) fn cancel(&mut self, sequence: u32) -> Vec<Action> {
        self.client(FromClient::Cancel { batch: batch(sequence), reason: "enough".into() })
    }

    pub(crate) fn worker(&mut self, worker: u64, message: FromWorker) -> Vec<Action> {
        self.step(Event::Worker { worker: WorkerId(worker), message })
    }

    pub(crate) fn register(
        &mut self,
        worker: u64,
        resources: Resources,
        held: Vec<Held>,
    ) -> Vec<Action> {
        self.worker(worker, FromWorker::Register(registration(worker, resources, held)))
    }

    pub(crate) fn heartbeat(
        &mut self,
        worker: u64,
        number: u64,
        processed: u64,
        held: Vec<Held>,
    ) -> Vec<Action> {
        self.worker(worker, FromWorker::Heartbeat { number, processed, held })
    }

    pub(crate) fn report(&mut self, worker: u64, ended: Vec<Ended>) -> Vec<Action> {
        self.worker(worker, FromWorker::Report { processed: 0, ended })
    }

    /// A worker reports how tasks of an attempt at the `sequence`-th batch ended.
    pub(crate) fn end(
        &mut self,
        worker: u64,
        id: AttemptId,
        sequence: u32,
        range: TaskRange,
        how: How,
    ) -> Vec<Action> {
        self.report(worker, vec![ended(id, batch(sequence), range, how)])
    }

    /// The error that a task of the `sequence`-th batch ended with.
    pub(crate) fn failure(&self, sequence: u32, index: u32) -> Failed {
        let progress = self.state.batches[&batch(sequence)].progress().unwrap();
        let outcome = progress.outcomes.iter().find(|outcome| outcome.tasks.contains(index));
        let outcome = outcome.expect("the task has ended");
        let segment = Segment::parse(self.segments[&outcome.segment].clone()).unwrap();
        let (tag, text) = segment.value(index - outcome.first).unwrap();
        assert_eq!(tag, ERROR, "task {index} ended without a value");
        allhands_common::codec::decode(text).unwrap()
    }

    /// A worker reports values.
    pub(crate) fn finish(
        &mut self,
        worker: u64,
        id: AttemptId,
        sequence: u32,
        range: TaskRange,
    ) -> Vec<Action> {
        self.end(worker, id, sequence, range, ran(values(range), range))
    }
}

/// The orders among `actions`, with whom they are for.
pub(crate) fn orders(actions: &[Action]) -> Vec<(u64, Order)> {
    let orders = actions.iter().filter_map(|action| match action {
        Action::Order { worker, orders, .. } => Some(orders.iter().map(|o| (worker.0, o.clone()))),
        _ => None,
    });
    orders.flatten().collect()
}

/// The ranges that `actions` give out, whole.
pub(crate) fn full_runs(actions: &[Action]) -> Vec<(u64, Run)> {
    let runs = orders(actions).into_iter().filter_map(|(worker, order)| match order {
        Order::Run(run) => Some((worker, run)),
        _ => None,
    });
    runs.collect()
}

/// The ranges that `actions` give out: worker, attempt, range.
pub(crate) fn runs(actions: &[Action]) -> Vec<(u64, AttemptId, TaskRange)> {
    full_runs(actions).into_iter().map(|(worker, run)| (worker, run.attempt, run.range)).collect()
}

/// What `actions` deliver: place in the order of commit, and tasks.
pub(crate) fn delivered(actions: &[Action]) -> Vec<(u32, TaskRange)> {
    let delivered = actions.iter().filter_map(|action| match action {
        Action::Deliver { sequence, outcome, .. } => Some((*sequence, outcome.tasks)),
        _ => None,
    });
    delivered.collect()
}

/// What `actions` tell the client.
pub(crate) fn told(actions: &[Action]) -> Vec<ToClient> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Tell { message, .. } => Some(message.clone()),
        _ => None,
    });
    told.collect()
}
