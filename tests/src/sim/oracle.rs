//! What really ran, and what may come of it.
//!
//! Every execution has a number, which is all that a simulated task returns: an outcome names the
//! very execution that made it.

mod detached;
mod graphs;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use allhands_common::codec;
use allhands_common::execution::TASK_ID_BYTES;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, SessionId, TaskId};
use allhands_common::limit::{EXECUTOR_DEATHS_MAX, SYSTEM_RETRIES};
use allhands_common::policy::Prefer;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::segment::{DONE, ERROR, FAILED, FORWARDED, Segment};
use allhands_common::wire::worker::{Run, Shared};
use allhands_scheduler::{Effect, State};

use super::Violation;
use super::climate::{Climate, MS};
use super::executor::{Executor, Running};
use super::truth::{self, Truths};
use super::worker::Worker;
use super::workload::{Fate, Plan};

/// One run of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExecutionId(pub(super) u64);

#[derive(Debug)]
struct Execution {
    batch: BatchId,
    index: u32,
    attempt: AttemptId,
    fate: Fate,
}

/// What the oracle knows of a task.
#[derive(Debug, Clone, Copy, Default)]
struct Task {
    starts: u32,
    /// Executions that ended in a failure of the function, or would have.
    failures: u32,
    timeouts: u32,
    deaths: u32,
    /// Executions that ended without a result, or would have.
    rounds: u32,
    /// Executions that ended, or waited for others, and whose outcome went with their executor.
    lost: u32,
}

/// What the oracle knows of a batch.
#[derive(Debug)]
struct Known {
    plan: Rc<Plan>,
    /// Which call it is part of.
    call: (SessionId, u32),
    tasks: Vec<Task>,
    /// Tasks whose arguments are committed.
    committed: u32,
    /// When the last of them were.
    committed_at: u64,
    /// Tasks that are running, anywhere.
    running: u32,
    /// Tasks that its client has cancelled, and when each was delivered as cancelled.
    unwanted: RangeSet,
    cancelled: BTreeMap<u32, u64>,
    /// Whether it was stopped, so far as its client knows: what still runs of it is being ended.
    stopped: bool,
    /// Whether an executor has died with a task of it.
    bereaved: bool,
    opened_at: u64,
    /// The task that has called it.
    parent: Option<TaskId>,
    /// Whether the log has stopped it.
    cut: bool,
    /// Whether it is in the log, has all its tasks, and is over.
    opened: bool,
    sealed: bool,
    over: bool,
    /// Tasks that have ended.
    ended: RangeSet,
    /// Whether somebody wants it to end.
    cancel_asked: bool,
}

/// What really happened.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Entries of the log that somebody has applied.
    pub(super) applied: usize,
    /// Crashes, pauses and cuts of workers so far.
    pub(super) worker_faults: u32,
    /// What each worker's machine has.
    pub(super) machines: Vec<Resources>,
    executions: Vec<Execution>,
    batches: BTreeMap<BatchId, Known>,
    /// Committed starts of what must not run twice.
    starts: BTreeSet<AttemptId>,
    forgotten: BTreeSet<BatchId>,
    pub(super) truths: Truths,
    /// Which attempt has called which batch.
    pub(super) claims: BTreeSet<(AttemptId, BatchId)>,
    jobs: detached::Jobs,
    /// When faults end.
    pub(super) faults_end: u64,
}

pub(super) fn broken(rule: &'static str, what: String) -> Violation {
    Violation { rule, what }
}

impl Oracle {
    /// A client is about to submit a batch.
    pub(super) fn submit(
        &mut self,
        now: u64,
        batch: BatchId,
        plan: &Rc<Plan>,
        call: (SessionId, u32),
    ) {
        let tasks = vec![Task::default(); plan.tasks() as usize];
        self.batches.entry(batch).or_insert_with(|| Known {
            plan: plan.clone(),
            call,
            tasks,
            committed: 0,
            committed_at: 0,
            running: 0,
            unwanted: RangeSet::new(),
            cancelled: BTreeMap::new(),
            stopped: false,
            bereaved: false,
            opened_at: now,
            parent: None,
            cut: false,
            opened: false,
            sealed: false,
            over: false,
            ended: RangeSet::new(),
            cancel_asked: false,
        });
    }

    /// A client cancels tasks of a batch.
    pub(super) fn unwanted(&mut self, batch: BatchId, range: TaskRange) {
        if let Some(known) = self.batches.get_mut(&batch) {
            known.unwanted.insert(range);
        }
    }

    /// Somebody cancels a batch.
    pub(super) fn cancels(&mut self, batch: BatchId) {
        if let Some(known) = self.batches.get_mut(&batch) {
            known.cancel_asked = true;
        }
    }

    /// What the first replica to apply an entry learned from it.
    pub(super) fn learn(
        &mut self,
        now: u64,
        effects: &[Effect],
        state: &State,
        calm: bool,
    ) -> Result<(), Violation> {
        let mut kept = None;
        for effect in effects {
            let outcomes = kept.take();
            self.learn_of_jobs(now, effect, state)?;
            match effect {
                Effect::Keep { bytes, .. } => kept = Some(bytes),
                Effect::Ended { batch, range } => {
                    if let Some(known) = self.batches.get_mut(batch) {
                        known.ended.insert(*range);
                    }
                    if let Some(outcomes) = outcomes {
                        self.note(now, *batch, *range, outcomes, calm)?;
                    }
                }
                Effect::Called { batch, new: true, .. } => {
                    let Some(known) = self.batches.get_mut(batch) else { continue };
                    if known.committed > 0 {
                        let what = format!("{batch}");
                        return Err(broken("what a task calls is opened once", what));
                    }
                    (known.committed, known.committed_at) = (1, now);
                    (known.opened, known.sealed) = (true, true);
                }
                Effect::BatchOver { batch } => {
                    let Some(known) = self.batches.get_mut(batch) else { continue };
                    known.over = true;
                    let task = TaskId { batch: *batch, index: 0 };
                    match known.parent {
                        Some(parent) if !self.truths.has(task) => {
                            known.cut = true;
                            self.check_unwanted(*batch, parent)?;
                        }
                        Some(_) => {}
                        None => {
                            let state = state.batches.get(batch);
                            known.cut = state.is_some_and(|known| known.stopped().is_some());
                        }
                    }
                }
                Effect::BatchOpened { batch, tasks } => {
                    let Some(known) = self.batches.get_mut(batch) else { continue };
                    if known.committed > 0 {
                        let what = format!("{batch}, which has {} tasks", known.committed);
                        return Err(broken("a batch is opened once", what));
                    }
                    (known.committed, known.committed_at) = (*tasks, now);
                    known.opened = true;
                }
                Effect::Sealed { batch } => {
                    if let Some(known) = self.batches.get_mut(batch) {
                        known.sealed = true;
                    }
                }
                Effect::Appended { batch, range } => {
                    let Some(known) = self.batches.get_mut(batch) else { continue };
                    if range.start != known.committed {
                        let what = format!("{range} of {batch} after {}", known.committed);
                        return Err(broken("a batch grows at its end", what));
                    }
                    (known.committed, known.committed_at) = (range.end, now);
                }
                Effect::Started { attempt, .. } => {
                    self.starts.insert(*attempt);
                }
                Effect::BatchForgotten { batch, .. } => {
                    self.forgotten.insert(*batch);
                    if state.batches.contains_key(batch) {
                        let what = format!("{batch}");
                        return Err(broken("what is forgotten is gone", what));
                    }
                }
                _ => {}
            }
        }
        self.settle_jobs(now, state)
    }

    /// A range reaches a worker.
    pub(super) fn given(&self, run: &Run, calm: bool) -> Result<(), Violation> {
        let Some(known) = self.batches.get(&run.batch) else { return Ok(()) };
        if run.range.end > known.committed {
            let what = format!("{} of {}, committed {}", run.range, run.batch, known.committed);
            return Err(broken("nothing runs before it is committed", what));
        }
        let policy = &known.plan.spec.policy;
        if !policy.idempotent && !self.starts.contains(&run.attempt) {
            let what = format!("{} of {} as {}", run.range, run.batch, run.attempt);
            return Err(broken("what must not run twice is written down first", what));
        }
        let Some(size) = policy.batch_size.filter(|_| policy.prefer == Prefer::Processes) else {
            return Ok(());
        };
        let block = run.range.start / size;
        // One whose client has left it has the tasks that it has.
        let tasks = if known.sealed { known.committed } else { known.plan.tasks() };
        let whole = TaskRange::new(block * size, ((block + 1) * size).min(tasks));
        let exact = calm
            && known.plan.nodes.is_empty()
            && known.plan.behaves()
            && policy.queue_timeout_ms.is_none()
            && known.unwanted.is_empty();
        if !whole.covers(run.range) || exact && run.range != whole {
            let what = format!("{} of {}, size {size}", run.range, run.batch);
            return Err(broken("a fixed batch_size is honoured", what));
        }
        Ok(())
    }

    /// A task starts: its number, what it will do and for how long.
    pub(super) fn start(
        &mut self,
        now: u64,
        shared: &Shared,
        index: u32,
        attempt: AttemptId,
        climate: &Climate,
    ) -> Result<(ExecutionId, Fate, u64), Violation> {
        let batch = shared.batch;
        let unknown = || broken("only what was submitted runs", format!("{batch}:{index}"));
        let known = self.batches.get_mut(&batch).ok_or_else(unknown)?;
        if *shared.spec != known.plan.spec || shared.context.bytes != known.plan.context {
            let what = format!("{batch}: {:?} {:?}", shared.spec, shared.context);
            return Err(broken("a task runs as its client said, with its context", what));
        }
        let task = known.tasks.get_mut(index as usize).ok_or_else(unknown)?;
        if task.starts > 0 && !known.plan.spec.policy.idempotent {
            let what = format!("{batch}:{index}, now as {attempt}");
            return Err(broken("what is not idempotent is started once", what));
        }
        let policy = &known.plan.spec.policy;
        let waits = climate.is_calm() && policy.idempotent && task.starts == 0;
        if let Some(limit) = policy.queue_timeout_ms.filter(|_| waits) {
            // What it takes to ask for it back.
            let limit = limit + policy.delay_ms.unwrap_or(0);
            let late = limit * MS + 3 * climate.delay_max + 2 * climate.commit_max + 2 * MS;
            if known.committed_at + late < now {
                let what = format!("{batch}:{index} at {} ms", now / MS);
                return Err(broken("what has waited too long is not started", what));
            }
        }
        if let Some(since) = known.cancelled.get(&index).filter(|_| climate.is_calm()) {
            // What it takes to ask for it back.
            let late = 3 * climate.delay_max + 2 * climate.commit_max + MS;
            if since + late < now {
                let what = format!("{batch}:{index} at {} ms", now / MS);
                return Err(broken("what was cancelled is not started", what));
            }
        }
        let delay_ms = policy.delay_ms.unwrap_or(0);
        if now < known.opened_at + delay_ms * MS {
            let what =
                format!("{batch}:{index} at {} ms, opened at {} us", now / MS, known.opened_at);
            return Err(broken("nothing starts before its delay is over", what));
        }
        // Each try but the first follows one that failed, or that somebody has cut short.
        let ended = task.failures + task.deaths + task.lost + task.rounds;
        if climate.is_calm() && task.starts > ended {
            let what = format!("{batch}:{index}, now as {attempt}: {task:?}");
            return Err(broken("a task runs no more than its attempts say", what));
        }
        let (fate, run_us) = known.plan.fate(index, task.starts);
        task.starts += 1;
        task.failures += u32::from(matches!(fate, Fate::Panic | Fate::Err));
        task.rounds += u32::from(fate == Fate::Again);
        known.running += 1;
        let id = ExecutionId(self.executions.len() as u64);
        self.executions.push(Execution { batch, index, attempt, fate });
        let task = TaskId { batch, index };
        if let Some(node) = self.node(task).filter(|_| !self.is_moot(task)) {
            self.check_ready(task, &node)?;
        }
        Ok((id, fate, run_us))
    }

    /// Tasks run no more, in whatever way.
    pub(super) fn gone(&mut self, running: impl Iterator<Item = Running>) {
        for one in running {
            if let Some(known) = self.batches.get_mut(&one.batch) {
                known.running -= 1;
            }
        }
    }

    /// A task's executor died while it ran; because it ran too long where `timed_out`.
    pub(super) fn killed(&mut self, execution: ExecutionId, timed_out: bool) {
        let Execution { batch, index, .. } = self.executions[execution.0 as usize];
        let Some(known) = self.batches.get_mut(&batch) else { return };
        known.bereaved = true;
        let task = &mut known.tasks[index as usize];
        task.deaths += 1;
        task.timeouts += u32::from(timed_out);
    }

    /// A worker runs no more than it has room for.
    pub(super) fn check_worker(&self, worker: &Worker) -> Result<(), Violation> {
        let mut used = Resources::cpus(0);
        let running = |executor: &Executor| executor.running().collect::<Vec<_>>();
        if worker.executors.values().flat_map(running).any(|one| one.late) {
            // Who has waited goes on, whatever is occupied.
            return Ok(());
        }
        for executor in worker.executors.values() {
            let Some(running) = executor.running().next() else { continue };
            let Some(known) = self.batches.get(&running.batch) else { continue };
            let need = known.plan.spec.policy.resources.clone();
            used.add(&Resources { cpus: executor.cpus(), ..need });
        }
        match used.missing(&worker.resources) {
            None => Ok(()),
            Some((name, uses, has)) => {
                let what = format!("worker {} uses {uses} {name} of {has}", worker.id);
                Err(broken("a worker runs what it has room for", what))
            }
        }
    }

    /// A call runs no more tasks at once than it asked for. Only while nobody is cut off: a worker that
    /// is given up runs on for a while.
    pub(super) fn check_cap(&self, batch: BatchId) -> Result<(), Violation> {
        let Some(known) = self.batches.get(&batch) else { return Ok(()) };
        let policy = &known.plan.spec.policy;
        let same_call = |other: &&Known| other.call == known.call && !other.stopped;
        let parts = self.batches.values().filter(same_call);
        let running: u32 = parts.map(|part| part.running).sum();
        match u32::try_from(policy.n_jobs) {
            Ok(cap) if running > cap => {
                let what = format!("{running} of the call of {batch}, n_jobs {cap}");
                Err(broken("n_jobs caps what runs at once", what))
            }
            _ => Ok(()),
        }
    }

    /// An outcome segment reaches its client: what each task ended of, and whether that can be. How
    /// many of them count for `fail_after`.
    pub(super) fn judge(
        &mut self,
        now: u64,
        batch: BatchId,
        range: TaskRange,
        segment: &Segment,
        calm: bool,
    ) -> Result<u32, Violation> {
        let mut cancelled = Vec::new();
        let Some(known) = self.batches.get(&batch) else {
            return Err(broken("outcomes are of batches that were submitted", format!("{batch}")));
        };
        let mut counted = 0;
        for index in range.start..range.end {
            let wrong = |what: &str| {
                broken(
                    "an outcome is one that its task had",
                    format!("task {batch}:{index}: {what}"),
                )
            };
            let (tag, bytes) = segment.value(index - range.start).ok_or_else(|| wrong("no row"))?;
            let task = known.tasks[index as usize];
            let policy = &known.plan.spec.policy;
            // What must not run twice has one try, whatever its retries.
            let retries = if policy.idempotent { policy.retries } else { 0 };
            let tried = task.failures + task.timeouts > retries;
            let is = |number: u64, fates: &[Fate]| {
                let execution = self.executions.get(number as usize);
                execution.is_some_and(|execution| {
                    execution.batch == batch
                        && execution.index == index
                        && fates.contains(&execution.fate)
                })
            };
            let at = if tag == FORWARDED { TASK_ID_BYTES } else { 0 };
            let number = || {
                let number = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                number.map_or(u64::MAX, u64::from_le_bytes)
            };
            let id = TaskId { batch, index };
            let node = known.plan.nodes.get(index as usize);
            if node.is_some() && truth::read(tag, bytes).as_ref() != self.truth(id) {
                let what =
                    format!("{:?}, the log has {:?}", truth::read(tag, bytes), self.truth(id));
                return Err(wrong(&what));
            }
            counted += u32::from(tag == ERROR || tag == FAILED && policy.errors_count);
            let cause = match tag {
                DONE if is(number(), &[Fate::Value, Fate::Hang]) => continue,
                FORWARDED if node.is_some() && is(number(), &[Fate::Value]) => continue,
                FAILED if is(number(), &[Fate::Err]) && tried => continue,
                ERROR => codec::decode::<Failed>(bytes).map_err(|_| wrong("no error"))?.cause,
                _ => return Err(wrong(&format!("tag {tag}, execution {}", number()))),
            };
            let text = format!("{cause} ({task:?}, {policy:?})");
            let passed = |limit_ms: u64| now >= known.opened_at + limit_ms * MS;
            let possible = match cause {
                Cause::Panicked { message, .. } => {
                    is(message.parse().unwrap_or(u64::MAX), &[Fate::Panic]) && tried
                }
                Cause::ExecutorDied { deaths, .. } => {
                    let least = if policy.idempotent { EXECUTOR_DEATHS_MAX } else { 1 };
                    deaths >= least && task.deaths >= u32::from(deaths)
                }
                Cause::TimedOut { .. } => task.timeouts > 0 && tried,
                Cause::QueueTimedOut { limit_ms } => {
                    let waited = task.starts == 0 || !calm || known.bereaved;
                    let since = policy.delay_ms.unwrap_or(0);
                    policy.queue_timeout_ms == Some(limit_ms) && passed(limit_ms + since) && waited
                }
                Cause::Lost { workers } => {
                    !calm && workers > SYSTEM_RETRIES && self.worker_faults >= workers.into()
                }
                Cause::Unplaceable { .. } => {
                    let able =
                        self.machines.iter().filter(|has| policy.resources.fits(has)).count();
                    // While those that can are away, it looks as if there were none.
                    able == 0 || !calm && able < self.machines.len()
                }
                Cause::Abandoned => !policy.idempotent && (!calm || known.bereaved),
                Cause::Cancelled { .. } => {
                    cancelled.push(index);
                    known.unwanted.contains(index)
                }
                Cause::DeadlinePassed { limit_ms } => {
                    // What of it still runs is asked back, as if it had been cancelled.
                    cancelled.push(index);
                    policy.task_deadline_ms == Some(limit_ms) && passed(limit_ms)
                }
                Cause::BadArgument { .. }
                | Cause::BadResult { .. }
                | Cause::BlobLost { .. }
                | Cause::SourceChanged { .. }
                | Cause::Unlent { .. }
                | Cause::ResultLost { .. }
                | Cause::Program { .. } => false,
                Cause::DependencyFailed { root, .. } => {
                    task.starts == 0 && node.is_some_and(|node| self.depends_on_failed(node, root))
                }
                Cause::Expired { .. } => {
                    task.starts == 0
                        && node.is_some_and(|node| {
                            node.names.iter().any(|named| !named.sure || !self.surely(named.on))
                        })
                }
                Cause::Cycle { .. } => task.starts == 0 && node.is_some() && self.truths.wild,
            };
            if !possible {
                return Err(wrong(&text));
            }
        }
        if let Some(known) = self.batches.get_mut(&batch) {
            cancelled.into_iter().for_each(|index| _ = known.cancelled.entry(index).or_insert(now));
        }
        Ok(counted)
    }

    /// Why the rest of a batch has no outcomes, and whether that can be.
    pub(super) fn judge_rest(
        &mut self,
        now: u64,
        batch: BatchId,
        rest: &Failed,
        counted: u32,
    ) -> Result<(), Violation> {
        let cancelled = self.is_of_cancelled_job(batch);
        let Some(known) = self.batches.get_mut(&batch) else { return Ok(()) };
        known.stopped = true;
        let policy = &known.plan.spec.policy;
        let possible = match &rest.cause {
            Cause::Cancelled { reason } if reason == "enough" => cancelled || known.cancel_asked,
            Cause::Cancelled { .. } => policy.fail_after.is_some_and(|limit| counted >= limit),
            Cause::DeadlinePassed { limit_ms } => {
                policy.deadline_ms == Some(*limit_ms) && now >= known.opened_at + limit_ms * MS
            }
            _ => false,
        };
        if !possible {
            let what = format!("{batch}: {} ({counted} counted)", rest.cause);
            return Err(broken("a batch is stopped for a reason", what));
        }
        Ok(())
    }
}
