//! A worker's shell: a real agent, its process that may crash or stand still, its connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use allhands_common::failure::Cause;
use allhands_common::id::{BootId, ExecutorId, Term, WorkerId};
use allhands_common::program::ProgramId;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Order, ToWorker};
use allhands_scheduler::{Agent, AgentAction, AgentConfig, AgentEvent};

use super::Violation;
use super::climate::{MS, SECOND};
use super::connection::{ConnectionId, End, Message, Peer};
use super::executor::{Executor, Moment};
use super::workload::platform;
use super::world::{Happening, World};

/// A worker's machine.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) resources: Resources,
    /// Starts of its process.
    pub(super) start: u32,
    /// `None` while its process is down.
    pub(super) agent: Option<Agent>,
    connection: Option<ConnectionId>,
    /// The highest term that it was told of.
    told: Term,
    /// What waits while the process stands still.
    standing: Option<VecDeque<AgentEvent>>,
    pub(super) executors: BTreeMap<ExecutorId, Executor>,
    /// Programs of which an executor has died before it was ready, and none has since.
    pub(super) doubtful: BTreeSet<ProgramId>,
    ticks: BTreeSet<u64>,
}

impl Worker {
    pub(super) const fn new(id: u64, resources: Resources) -> Self {
        Self {
            id: WorkerId(id),
            resources,
            start: 0,
            agent: None,
            connection: None,
            told: Term(0),
            standing: None,
            executors: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            ticks: BTreeSet::new(),
        }
    }

    const fn is_up(&self) -> bool {
        self.agent.is_some() && self.standing.is_none()
    }
}

impl World {
    pub(super) fn worker_starts(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.start += 1;
        let mut boot = [0; 16];
        boot[0] = worker.id.0 as u8;
        boot[1..5].copy_from_slice(&worker.start.to_le_bytes());
        let config = AgentConfig {
            worker: worker.id,
            boot: BootId(boot),
            name: format!("host{}", worker.id),
            resources: worker.resources.clone(),
            platform: platform(),
        };
        worker.agent = Some(Agent::new(config, Instant(self.now)));
        worker.ticks.clear();
        self.trace.say(self.now, format_args!("worker {} starts", self.workers[number].id));
        self.plan(self.now + 100, Happening::WorkerSeeks(number));
    }

    /// The worker looks for the leader that it was told of, or a newer one.
    pub(super) fn worker_seeks(&mut self, number: usize) -> Result<(), Violation> {
        let newest = self.leaders.last().map_or(Term(0), |leader| leader.term);
        let worker = &mut self.workers[number];
        if !worker.is_up() || worker.connection.is_some() {
            return Ok(());
        }
        let there = |term: Term| term.0 > 0 && self.leaders[term.0 as usize - 1].alive;
        if !there(worker.told) {
            // It asks the other coordinators, who may know.
            worker.told = worker.told.max(newest);
        }
        let term = worker.told;
        if !there(term) {
            let at = self.now + self.rng.skewed(MS..SECOND);
            self.plan(at, Happening::WorkerSeeks(number));
            return Ok(());
        }
        let id = self.connect(Peer::Worker(number), term);
        self.workers[number].connection = Some(id);
        self.work(number, AgentEvent::Connected { term })
    }

    pub(super) fn tell_worker(&mut self, number: usize, term: Term) -> Result<(), Violation> {
        let worker = &mut self.workers[number];
        if worker.told >= term {
            return Ok(());
        }
        worker.told = term;
        if !worker.is_up() {
            return Ok(());
        }
        if let Some(id) = worker.connection.take() {
            self.close(id, End::Peer);
            self.work(number, AgentEvent::Disconnected)?;
        }
        self.plan(self.now + 100, Happening::WorkerSeeks(number));
        Ok(())
    }

    pub(super) fn worker_loses(
        &mut self,
        number: usize,
        id: ConnectionId,
    ) -> Result<(), Violation> {
        if self.workers[number].connection != Some(id) {
            return Ok(());
        }
        self.workers[number].connection = None;
        let at = self.now + self.rng.skewed(100..SECOND);
        self.plan(at, Happening::WorkerSeeks(number));
        self.work(number, AgentEvent::Disconnected)
    }

    pub(super) fn worker_hears(
        &mut self,
        number: usize,
        message: ToWorker,
    ) -> Result<(), Violation> {
        if let ToWorker::Orders { orders, .. } = &message {
            for order in orders {
                if let Order::Run(run) = order {
                    self.oracle.given(run, self.climate.is_calm())?;
                }
            }
        }
        self.work(number, AgentEvent::Leader(message))
    }

    /// Gives an event to a worker's agent and does what it asks for.
    pub(super) fn work(&mut self, number: usize, event: AgentEvent) -> Result<(), Violation> {
        let now = self.now;
        let worker = &mut self.workers[number];
        if let Some(waiting) = &mut worker.standing {
            waiting.push_back(event);
            return Ok(());
        }
        let Some(agent) = &mut worker.agent else { return Ok(()) };
        let mut out = Vec::new();
        agent.handle(Instant(now), [event], &mut out);
        let checked = agent.check();
        self.trace.mix(&[now, number as u64, out.len() as u64]);
        for action in out {
            self.do_for(number, action)?;
        }
        checked.map_err(|violation| Violation { rule: violation.rule, what: violation.what })?;
        self.schedule_worker(number);
        Ok(())
    }

    fn do_for(&mut self, number: usize, action: AgentAction) -> Result<(), Violation> {
        self.trace.say(self.now, format_args!("worker {} does {action:?}", number + 1));
        match action {
            AgentAction::Send(message) => {
                if let Some(id) = self.workers[number].connection {
                    self.send(id, End::Leader, Message::FromWorker(message));
                }
            }
            AgentAction::FetchProgram(program) => {
                let (start, nobody) = (self.workers[number].start, ExecutorId(u32::MAX));
                let at = self.now + self.rng.skewed(100..500 * MS);
                let moment = Moment::Fetched(program.id);
                self.plan(at, Happening::Executor(number, start, nobody, moment));
            }
            AgentAction::Spawn(spawn) => self.spawn(number, spawn),
            AgentAction::Load { executor, load } => return self.load(number, executor, load),
            AgentAction::Take { executor, attempt, share } => {
                self.take(number, executor, attempt, share);
            }
            AgentAction::Kill { executor } => self.kill(
                number,
                executor,
                None,
                Cause::ExecutorDied {
                    signal: Some(9),
                    exit: None,
                    stderr_tail: String::new(),
                    deaths: 1,
                },
            ),
            AgentAction::Stop { executor } => self.stop_executor(number, executor),
            // A task here ends when it ends, told or not.
            AgentAction::Cancel { .. } => {}
            AgentAction::Opened { .. } => {}
            AgentAction::Give { executor, given } => return self.give(number, executor, &given),
            AgentAction::Exit => {
                self.stats.count("workers drained");
                self.end_process(number, 500 * MS);
            }
        }
        Ok(())
    }

    fn schedule_worker(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let next = worker.agent.as_ref().and_then(Agent::next_deadline);
        if let Some(Instant(at)) = next
            && worker.ticks.insert(at)
        {
            self.plan(at, Happening::WorkerTick(number));
        }
    }

    pub(super) fn worker_tick(&mut self, number: usize) -> Result<(), Violation> {
        let worker = &mut self.workers[number];
        worker.ticks = worker.ticks.split_off(&(self.now + 1));
        if worker.is_up() { self.work(number, AgentEvent::Tick) } else { Ok(()) }
    }

    /// The process goes on: what waited comes at once.
    pub(super) fn worker_wakes(&mut self, number: usize) -> Result<(), Violation> {
        let Some(waiting) = self.workers[number].standing.take() else { return Ok(()) };
        self.trace.say(self.now, format_args!("worker {} goes on", number + 1));
        for event in waiting {
            self.work(number, event)?;
        }
        let worker = &mut self.workers[number];
        let lost = worker.connection.take_if(|id| self.connections[id.0].term < worker.told);
        if let Some(id) = lost {
            self.close(id, End::Peer);
            self.work(number, AgentEvent::Disconnected)?;
        }
        self.plan(self.now + 100, Happening::WorkerSeeks(number));
        self.work(number, AgentEvent::Tick)
    }

    /// The process is gone, with all its executors; another starts after a while.
    fn end_process(&mut self, number: usize, away_max: u64) {
        let worker = &mut self.workers[number];
        worker.agent = None;
        worker.standing = None;
        worker.doubtful.clear();
        let executors = std::mem::take(&mut worker.executors);
        executors.into_values().for_each(|executor| self.oracle.gone(executor.running()));
        if let Some(id) = self.workers[number].connection.take() {
            self.close(id, End::Peer);
        }
        let at = self.now + self.rng.skewed(10 * MS..away_max.max(11 * MS));
        self.plan(at, Happening::WorkerStarts(number));
    }

    fn any_up(&mut self) -> Option<usize> {
        let up: Vec<usize> =
            (0..self.workers.len()).filter(|number| self.workers[*number].is_up()).collect();
        if up.is_empty() { None } else { Some(self.rng.pick(&up)) }
    }

    pub(super) fn crash_worker(&mut self) {
        let Some(number) = self.any_up() else { return };
        self.stats.count("fault: worker crashes");
        self.oracle.worker_faults += 1;
        self.end_process(number, 6 * SECOND);
    }

    pub(super) fn pause_worker(&mut self) {
        let Some(number) = self.any_up() else { return };
        self.stats.count("fault: worker pauses");
        self.oracle.worker_faults += 1;
        self.workers[number].standing = Some(VecDeque::new());
        let at = self.now + self.rng.skewed(10 * MS..12 * SECOND);
        self.plan(at, Happening::WorkerWakes(number));
        // Its kernel answers for a while, or its peer's patience ends.
        if let Some(id) = self.workers[number].connection
            && self.rng.chance(500)
        {
            self.cut(id);
        }
    }

    pub(super) fn cut_worker(&mut self) {
        let Some(number) = self.any_up() else { return };
        if let Some(id) = self.workers[number].connection {
            self.stats.count("fault: worker connections cut");
            self.oracle.worker_faults += 1;
            self.cut(id);
        }
    }

    pub(super) fn drain_worker(&mut self) -> Result<(), Violation> {
        let Some(number) = self.any_up() else { return Ok(()) };
        self.stats.count("fault: workers told to stop");
        self.oracle.worker_faults += 1;
        self.work(number, AgentEvent::Drain)
    }
}
