//! Simulated executors: lanes that take tasks from a cell as real ones do, outcomes that are flushed
//! together, deaths.
//!
//! A load's tasks are taken one by one below its limit; taking back lowers the limit. Outcomes wait
//! for the end of the load or for 10 ms; those of tasks that must not run twice do not wait. A
//! process that dies leaves behind what it had flushed, and sometimes the rest.

mod outcome;

use std::collections::{BTreeMap, VecDeque};

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId, ExecutorId, TaskId};
use allhands_common::program::ProgramId;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, Segment, SegmentBuilder};
use allhands_scheduler::{AgentEvent, ExecutorEvent, Load, PIECES_MAX, Share, Spawn};

use super::Violation;
use super::climate::MS;
use super::oracle::ExecutionId;
use super::scripts::Act;
use super::workload::{Fate, argument};
use super::world::{Happening, World};

/// How long outcomes wait for others.
const FLUSH: u64 = 10 * MS;

/// A moment in an executor's life.
#[derive(Debug, Clone)]
pub(super) enum Moment {
    /// A program is in the worker's store.
    Fetched(ProgramId),
    /// It has started, well or not.
    Started,
    /// The task of a lane has ended.
    TaskEnds { lane: usize, execution: ExecutionId },
    /// A task of a graph does the next thing.
    Step { execution: ExecutionId },
    /// The task of a lane has run too long.
    TimesOut { lane: usize, execution: ExecutionId, limit_ms: u64 },
    /// Outcomes have waited long enough.
    Flush,
    /// Its news reaches the agent.
    News(ExecutorEvent),
}

/// A process that runs a program.
#[derive(Debug)]
pub(super) struct Executor {
    spawn: Spawn,
    ready: bool,
    pub(super) lanes: Vec<Option<Running>>,
    loads: VecDeque<Loaded>,
    /// How far its tasks of graphs have come.
    pub(super) acts: BTreeMap<ExecutionId, Act>,
    /// Tasks that wait for others, and those that have what they waited for and no lane.
    pub(super) suspended: Vec<Running>,
    pub(super) resuming: VecDeque<Running>,
    /// When its last news arrives: they stay in order.
    last_news: u64,
    flush_planned: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) execution: ExecutionId,
    pub(super) batch: BatchId,
    pub(super) attempt: AttemptId,
    pub(super) index: u32,
    pub(super) fate: Fate,
    pub(super) run_us: u64,
    /// Whether it has waited for others: it is of no load any more.
    pub(super) late: bool,
    pub(super) made: Made,
}

/// What a task returns besides the number of its execution.
#[derive(Debug, Clone, Copy)]
pub(super) enum Made {
    Nothing,
    /// A value, and a handle in it.
    Value(u64, Option<TaskId>),
    Forward(TaskId),
}

#[derive(Debug)]
struct Loaded {
    load: Load,
    arguments: Vec<(u32, Segment)>,
    next: u32,
    limit: u32,
    /// Ended and not flushed.
    ended: Vec<Running>,
}

impl Executor {
    pub(super) fn running(&self) -> impl Iterator<Item = Running> + '_ {
        self.lanes.iter().flatten().copied()
    }

    pub(super) const fn cpus(&self) -> u32 {
        self.spawn.cpus
    }

    /// What was not begun of a load.
    pub(super) fn give_up_rest(&mut self, attempt: AttemptId) -> TaskRange {
        let load = self.loads.iter_mut().find(|loaded| loaded.load.attempt == attempt);
        let Some(loaded) = load else { return TaskRange::default() };
        let rest = TaskRange::new(loaded.next, loaded.limit);
        loaded.limit = loaded.next;
        rest
    }
}

impl Loaded {
    fn strings(&self, index: u32) -> Option<Vec<u8>> {
        let (first, segment) = self.arguments.iter().rfind(|(first, _)| *first <= index)?;
        let mut strings = [&[][..]; ARITY_MAX];
        segment.row(index - first, &mut strings)?;
        Some(strings[0].to_vec())
    }

    fn flush_each(&self) -> bool {
        !self.load.shared.spec.policy.idempotent
    }
}

impl World {
    pub(super) fn spawn(&mut self, number: usize, spawn: Spawn) {
        self.stats.count("executors");
        let id = spawn.executor;
        let lanes = vec![None; usize::from(spawn.threads)];
        let executor = Executor {
            spawn,
            ready: false,
            lanes,
            loads: VecDeque::new(),
            acts: BTreeMap::new(),
            suspended: Vec::new(),
            resuming: VecDeque::new(),
            last_news: 0,
            flush_planned: false,
        };
        let start = self.workers[number].start;
        self.workers[number].executors.insert(id, executor);
        let at = self.now + self.rng.skewed(MS..100 * MS);
        self.plan(at, Happening::Executor(number, start, id, Moment::Started));
    }

    /// Something happens in an executor, or is told of it.
    pub(super) fn moment(
        &mut self,
        number: usize,
        start: u32,
        id: ExecutorId,
        moment: Moment,
    ) -> Result<(), Violation> {
        if self.workers[number].start != start || self.workers[number].agent.is_none() {
            return Ok(());
        }
        self.trace.mix(&[self.now, number as u64, id.0.into()]);
        match moment {
            Moment::Fetched(program) => self.work(number, AgentEvent::ProgramReady(program)),
            Moment::News(event) => {
                self.trace.say(
                    self.now,
                    format_args!("executor {id} of worker {}: {event:?}", number + 1),
                );
                self.work(number, AgentEvent::Executor(id, event))
            }
            Moment::Started => {
                self.started(number, id);
                Ok(())
            }
            Moment::Step { execution } => self.step(number, id, execution),
            Moment::TaskEnds { lane, execution } => self.task_ends(number, id, lane, execution),
            Moment::TimesOut { lane, execution, limit_ms } => {
                let executor = self.workers[number].executors.get(&id);
                let running = executor.and_then(|executor| executor.lanes[lane]);
                if let Some(running) = running.filter(|running| running.execution == execution) {
                    let culprit = Some((running.attempt, running.index));
                    self.kill(number, id, culprit, Cause::TimedOut { limit_ms });
                }
                Ok(())
            }
            Moment::Flush => {
                if let Some(executor) = self.workers[number].executors.get_mut(&id) {
                    executor.flush_planned = false;
                    self.flush(number, id);
                    self.finish_loads(number, id, false);
                }
                Ok(())
            }
        }
    }

    /// Its agent will hear.
    pub(super) fn news(&mut self, number: usize, id: ExecutorId, event: ExecutorEvent) {
        let delay = self.rng.skewed(5..200);
        let worker = &mut self.workers[number];
        let Some(executor) = worker.executors.get_mut(&id) else { return };
        executor.last_news = (executor.last_news + 1).max(self.now + delay);
        let (at, start) = (executor.last_news, worker.start);
        self.plan(at, Happening::Executor(number, start, id, Moment::News(event)));
    }

    fn started(&mut self, number: usize, id: ExecutorId) {
        let faults = self.now < self.climate.faults_end;
        let false_start = faults && self.rng.chance(self.climate.false_start);
        let worker = &mut self.workers[number];
        let Some(executor) = worker.executors.get_mut(&id) else { return };
        let program = executor.spawn.program.id;
        // One false start of a worker is bad luck; two that are heard of before a start that went well would
        // mean that the program cannot run there.
        if false_start && worker.doubtful.insert(program) {
            self.stats.count("fault: false starts of executors");
            return self.kill(number, id, None, Cause::Program { message: "bad luck".into() });
        }
        executor.ready = true;
        self.news(number, id, ExecutorEvent::Ready);
    }

    pub(super) fn load(
        &mut self,
        number: usize,
        id: ExecutorId,
        load: Load,
    ) -> Result<(), Violation> {
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return Ok(()) };
        if executor.loads.len() >= PIECES_MAX || !executor.ready {
            let what = format!("executor {id} of worker {}", number + 1);
            return Err(Violation {
                rule: "an executor has a slot for each load, once ready",
                what,
            });
        }
        let (mut arguments, mut first) = (Vec::new(), load.range.start);
        for bytes in &load.segments {
            let Ok(segment) = Segment::parse(bytes.clone()) else { continue };
            let tasks = segment.tasks();
            arguments.push((first, segment));
            first += tasks;
        }
        let (next, limit) = (load.range.start, load.range.end);
        executor.loads.push_back(Loaded { load, arguments, next, limit, ended: Vec::new() });
        self.take_tasks(number, id)
    }

    /// Every free lane takes a task, as long as there are any.
    pub(super) fn take_tasks(&mut self, number: usize, id: ExecutorId) -> Result<(), Violation> {
        loop {
            let worker = &mut self.workers[number];
            let Some(executor) = worker.executors.get_mut(&id) else { return Ok(()) };
            let Some(lane) = executor.lanes.iter().position(Option::is_none) else { return Ok(()) };
            if let Some(one) = executor.resuming.pop_front() {
                self.resume(number, id, lane, one);
                continue;
            }
            let Some(loaded) = executor.loads.iter_mut().find(|loaded| loaded.next < loaded.limit)
            else {
                break;
            };
            let index = loaded.next;
            loaded.next += 1;
            let (batch, attempt) = (loaded.load.shared.batch, loaded.load.attempt);
            let strings = loaded.strings(index).unwrap_or_default();
            if strings.get(..8) != Some(&argument(batch, index).to_le_bytes()[..]) {
                let what = format!("task {batch}:{index} got {strings:?}");
                return Err(Violation { rule: "a task gets its own argument", what });
            }
            let shared = loaded.load.shared.clone();
            let (execution, fate, run_us) =
                self.oracle.start(self.now, &shared, index, attempt, &self.climate)?;
            self.stats.count("executions");
            if fate == Fate::Again {
                self.stats.count("rounds");
            }
            if shared.spec.policy.delay_ms.is_some() {
                self.stats.count("tasks that were delayed");
            }
            let (late, made) = (false, Made::Nothing);
            let running = Running { execution, batch, attempt, index, fate, run_us, late, made };
            let given = loaded.load.given.clone();
            let start = worker.start;
            executor.lanes[lane] = Some(running);
            self.oracle.check_worker(worker)?;
            if self.climate.is_calm() {
                self.oracle.check_cap(batch)?;
            }
            if let Some(node) = self.oracle.node(TaskId { batch, index }) {
                self.begin(number, id, running, node, &given)?;
                continue;
            }
            let timeout = shared.spec.policy.timeout_ms;
            if let Some(limit_ms) =
                timeout.filter(|limit| *limit * MS <= run_us || fate == Fate::Hang)
            {
                let moment = Moment::TimesOut { lane, execution, limit_ms };
                self.plan(self.now + limit_ms * MS, Happening::Executor(number, start, id, moment));
            } else {
                let moment = Moment::TaskEnds { lane, execution };
                self.plan(self.now + run_us, Happening::Executor(number, start, id, moment));
            }
        }
        let planned = self.workers[number].executors.get(&id).is_some_and(|e| e.flush_planned);
        let waits = planned && self.rng.chance(500);
        self.finish_loads(number, id, waits);
        Ok(())
    }

    pub(super) fn task_ends(
        &mut self,
        number: usize,
        id: ExecutorId,
        lane: usize,
        execution: ExecutionId,
    ) -> Result<(), Violation> {
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return Ok(()) };
        let Some(running) = executor.lanes[lane].filter(|running| running.execution == execution)
        else {
            return Ok(());
        };
        if running.fate == Fate::Death {
            self.stats.count("fault: executors killed by their task");
            let (signal, exit) = (Some(11), None);
            let cause = Cause::ExecutorDied { signal, exit, stderr_tail: String::new(), deaths: 1 };
            self.kill(number, id, None, cause);
            return Ok(());
        }
        executor.lanes[lane] = None;
        self.oracle.gone(std::iter::once(running));
        if running.late {
            self.late_outcome(number, id, running);
            return self.take_tasks(number, id);
        }
        let mut flush = false;
        for loaded in &mut executor.loads {
            if loaded.load.attempt == running.attempt {
                loaded.ended.push(running);
                flush = loaded.flush_each();
            }
        }
        if flush {
            self.flush(number, id);
        } else if !std::mem::replace(&mut executor.flush_planned, true) {
            let (at, start) = (self.now + FLUSH, self.workers[number].start);
            self.plan(at, Happening::Executor(number, start, id, Moment::Flush));
        }
        self.take_tasks(number, id)
    }

    /// What has ended goes to the agent, contiguous tasks together.
    pub(super) fn flush(&mut self, number: usize, id: ExecutorId) {
        let worker_id = self.workers[number].id;
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return };
        let mut news = Vec::new();
        for loaded in &mut executor.loads {
            let mut ended = std::mem::take(&mut loaded.ended);
            ended.sort_by_key(|running| running.index);
            for run in ended.chunk_by(|one, next| one.index + 1 == next.index) {
                let range = TaskRange::new(run[0].index, run[0].index + run.len() as u32);
                let (mut builder, mut mentions) = (SegmentBuilder::new(1), Vec::new());
                run.iter().for_each(|running| running.write(&mut builder, worker_id));
                run.iter().for_each(|running| mentions.extend(running.mention()));
                news.push(ExecutorEvent::Outcomes {
                    attempt: loaded.load.attempt,
                    range,
                    segment: builder.finish(),
                    run_us: run.iter().map(|running| running.run_us).sum(),
                    mentions,
                });
            }
        }
        news.into_iter().for_each(|event| self.news(number, id, event));
    }

    /// Loads of which nothing is left are over. That word may wait for the next one's.
    fn finish_loads(&mut self, number: usize, id: ExecutorId, waits: bool) {
        loop {
            let Some(executor) = self.workers[number].executors.get(&id) else { return };
            let Some(front) = executor.loads.front() else { return };
            let attempt = front.load.attempt;
            let mut running = executor.running();
            let busy = running.any(|running| running.attempt == attempt && !running.late);
            drop(running);
            if front.next < front.limit || busy || waits && executor.loads.len() > 1 {
                return;
            }
            self.flush(number, id);
            if let Some(executor) = self.workers[number].executors.get_mut(&id) {
                executor.loads.pop_front();
            }
            self.news(number, id, ExecutorEvent::Finished { attempt });
        }
    }

    pub(super) fn take(&mut self, number: usize, id: ExecutorId, attempt: AttemptId, share: Share) {
        self.stats.count("takes");
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return };
        let mut range = TaskRange::default();
        if let Some(loaded) = executor.loads.iter_mut().find(|l| l.load.attempt == attempt) {
            let left = loaded.limit - loaded.next;
            let tasks = match share {
                Share::All => left,
                Share::Half => left.div_ceil(2),
            };
            range = TaskRange::new(loaded.limit - tasks, loaded.limit);
            loaded.limit -= tasks;
        }
        self.news(number, id, ExecutorEvent::Taken { attempt, range });
        self.finish_loads(number, id, false);
    }

    /// The process dies; sometimes what it had not flushed is found.
    pub(super) fn kill(
        &mut self,
        number: usize,
        id: ExecutorId,
        culprit: Option<(AttemptId, u32)>,
        cause: Cause,
    ) {
        if self.rng.chance(500) {
            self.flush(number, id);
        }
        let Some(executor) = self.workers[number].executors.get(&id) else { return };
        let running: Vec<Running> = executor.running().collect();
        let ended = executor.loads.iter().flat_map(|loaded| &loaded.ended);
        for one in ended.chain(&executor.suspended).chain(&executor.resuming) {
            self.oracle.lost(one.execution);
        }
        for one in &running {
            let timed_out = culprit == Some((one.attempt, one.index));
            self.oracle.killed(one.execution, timed_out);
        }
        self.oracle.gone(running.iter().copied());
        let running = running.iter().map(|one| (one.attempt, one.index)).collect();
        self.news(number, id, ExecutorEvent::Died { running, culprit, cause });
        self.workers[number].executors.remove(&id);
    }

    pub(super) fn stop_executor(&mut self, number: usize, id: ExecutorId) {
        let (signal, exit) = (None, Some(0));
        let cause = Cause::ExecutorDied { signal, exit, stderr_tail: String::new(), deaths: 1 };
        self.kill(number, id, None, cause);
    }
}
