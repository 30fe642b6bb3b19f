//! Giving work out: the next batch, the least loaded worker that can, a range cut to size.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use allhands_common::function::FunctionName;
use allhands_common::id::{BatchId, WorkerId};
use allhands_common::policy::{Policy, Prefer};
use allhands_common::program::ProgramId;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Order, Run, Shared};
use bytes::Bytes;
use core::time::Duration;

use super::attempt::UNSENT;
use super::queue::ClassId;
use super::size::Cost;
use super::{Attempt, Dispatcher, Timer};
use crate::state::{Batch, Job};
use crate::{Action, Command, State};

/// Workers of a class that are looked at before it counts as full: the least loaded ones come first,
/// so a later one seldom has room where an earlier one has none.
const LOOKED_AT_MAX: usize = 8;

/// How long an idle worker waits before others are asked to give back.
const BALANCE_AFTER: Duration = Duration::from_millis(5);

/// Argument bytes of one range: what a worker gets at once.
const RANGE_BYTES_MAX: u64 = 1 << 20;

impl Dispatcher {
    /// Gives out what there is room for.
    pub(super) fn pump(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        if self.awaited.is_some() {
            return;
        }
        let mut full: Vec<ClassId> = Vec::new();
        while let Some((class, batch)) = self.queues.next(&full) {
            let short = self.is_short(state, batch);
            match self.roomy_worker(class, short) {
                Some(worker) => self.give(now, state, (class, batch), (worker, short), out),
                None => {
                    full.push(class);
                    self.doubt(now, class);
                }
            }
        }
        if self.queues.is_empty() && self.somebody_is_idle() {
            self.plan_balance(now);
        }
    }

    /// The least loaded worker with room for a range of `class`.
    fn roomy_worker(&self, class: ClassId, short: bool) -> Option<WorkerId> {
        let class = self.queues.classes.get(&class)?;
        class
            .able
            .iter()
            .take(LOOKED_AT_MAX)
            .map(|(_, worker)| *worker)
            .find(|id| self.workers.get(id).is_some_and(|known| known.has_room(&class.need, short)))
    }

    /// Whether all that waits of a batch is expected to be done in no time.
    fn is_short(&self, state: &State, id: BatchId) -> bool {
        let Some(batch) = state.batches.get(&id) else { return false };
        let policy = &batch.spec.policy;
        let scarce = policy.resources.memory_bytes > 0 || !policy.resources.custom.is_empty();
        if scarce || policy.prefer == Prefer::Threads || !policy.idempotent {
            return false;
        }
        let (cost, pending) = match self.active.get(&id) {
            Some(active) => (active.cost, active.pending.len()),
            None => (Cost::default(), batch.tasks),
        };
        cost.or(self.learned(state, batch)).is_short(pending)
    }

    /// What a task of a batch's one function took in other batches.
    fn learned(&self, state: &State, batch: &Batch) -> Cost {
        let key = state.job_of(batch).and_then(|job| cost_key(job, batch));
        key.and_then(|key| self.costs.get(&key)).copied().unwrap_or_default()
    }

    /// Tasks of a batch took so long.
    pub(super) fn learn_cost(&mut self, state: &State, id: BatchId, tasks: u32, run_us: u64) {
        if let Some(active) = self.active.get_mut(&id) {
            active.cost.measure(tasks, run_us);
        }
        let Some(batch) = state.batches.get(&id) else { return };
        if let Some(key) = state.job_of(batch).and_then(|job| cost_key(job, batch)) {
            self.costs.entry(key).or_default().measure(tasks, run_us);
        }
    }

    /// Cuts a range of `batch` and gives it to `worker`.
    fn give(
        &mut self,
        now: Instant,
        state: &State,
        (class, id): (ClassId, BatchId),
        (worker, short): (WorkerId, bool),
        out: &mut Vec<Action>,
    ) {
        let slots = self.slots;
        let Some(batch) = state.batches.get(&id) else { return };
        let policy = &batch.spec.policy;
        let Some(total) = self.workers.get(&worker).map(|worker| worker.total.clone()) else {
            return;
        };
        let threads = threads(policy, &total, self.workers.len());
        let learned = self.learned(state, batch);
        let Some(active) = self.activate(state, id) else { return };
        let task_ns = active.cost.or(learned).task_ns;
        let Some((range, alone)) = cut(batch, &active.pending, active.cost, slots, threads) else {
            // Everything that waited has ended meanwhile.
            return self.requeue(state, id);
        };
        active.pending.remove(range);
        active.held.insert(range);
        active.ranges += 1;
        let need = occupied(policy, &total);
        let attempt = self.name_attempt();
        if let Some(active) = self.active.get_mut(&id) {
            active.attempts.insert(attempt);
        }
        self.attempts.insert(
            attempt,
            Attempt {
                batch: id,
                job: batch.job,
                class,
                worker,
                open: RangeSet::of(range),
                owed: RangeSet::new(),
                settling: RangeSet::new(),
                sent: UNSENT,
                running: false,
                asked: None,
                since: now,
                short,
                need: need.clone(),
            },
        );
        self.change_worker(worker, |worker| {
            worker.held.add(&need);
            worker.long += u32::from(!short);
            worker.attempts.insert(attempt);
        });
        self.queues.count(batch.job, true);
        self.requeue(state, id);
        let segments = Vec::new();
        let run = Run { attempt, batch: id, range, segments, threads, alone, task_ns };
        if policy.idempotent || cfg!(plant = "run_before_commit") {
            self.send_run(state, worker, run);
        } else {
            out.push(Action::Propose(Command::Start { batch: id, attempt, worker, range }));
        }
    }

    /// Sends a range, after what its batch shares where the worker does not have that.
    pub(super) fn send_run(&mut self, state: &State, id: WorkerId, run: Run) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.present) else {
            return;
        };
        let Some(batch) = state.batches.get(&run.batch).filter(|b| b.stopped().is_none()) else {
            return;
        };
        let Some(job) = state.job_of(batch) else { return };
        if let Some(attempt) = self.attempts.get_mut(&run.attempt) {
            attempt.sent = worker.sent + 1;
        }
        if worker.known.insert(run.batch) {
            if let Some(active) = self.active.get_mut(&run.batch) {
                active.known_by.insert(id);
            }
            let shared = Shared {
                batch: run.batch,
                job: batch.job,
                owner: job.owner.clone(),
                program: job.program.clone(),
                spec: batch.spec.clone(),
                context: Bytes::new().into(),
            };
            self.order(id, Order::Batch(Box::new(shared)));
        }
        self.order(id, Order::Run(run));
    }

    /// A committed start of a range that must not run twice.
    pub(super) fn start_range(&mut self, state: &State, worker: WorkerId, mut run: Run) {
        let policy = state.batches.get(&run.batch).map(|batch| &batch.spec.policy);
        let total = self.workers.get(&worker).map(|worker| &worker.total);
        if let (Some(policy), Some(total)) = (policy, total) {
            run.threads = threads(policy, total, self.workers.len());
        }
        self.send_run(state, worker, run);
    }

    fn somebody_is_idle(&self) -> bool {
        self.workers.len() > 1
            && !self.attempts.is_empty()
            && self.queues.classes.keys().any(|class| self.idle_worker(*class).is_some())
    }

    /// A worker that could start a task of `class` at once.
    fn idle_worker(&self, class: ClassId) -> Option<WorkerId> {
        let class = self.queues.classes.get(&class)?;
        let (_, id) = class.able.first()?;
        self.workers.get(id).filter(|worker| worker.is_idle_for(&class.need)).map(|_| *id)
    }

    fn plan_balance(&mut self, now: Instant) {
        if !self.balancing {
            self.balancing = true;
            self.timers.set(now + BALANCE_AFTER, Timer::Balance);
        }
    }

    /// Asks those who hold more than they run to give some back, when others have nothing.
    pub(super) fn balance(&mut self, now: Instant, state: &State) {
        self.balancing = false;
        if !self.queues.is_empty() || !self.somebody_is_idle() {
            return;
        }
        let mut idle: u32 = self
            .workers
            .values()
            .filter(|worker| worker.usable())
            .map(|worker| worker.total.cpus.saturating_sub(worker.held.cpus))
            .sum();
        let mut asked: Vec<(WorkerId, Order)> = Vec::new();
        let idle_workers: BTreeMap<ClassId, WorkerId> = self
            .queues
            .classes
            .keys()
            .filter_map(|class| Some((*class, self.idle_worker(*class)?)))
            .collect();
        for (id, attempt) in self.attempts.iter_mut().rev() {
            if idle == 0 {
                break;
            }
            if idle_workers.get(&attempt.class).is_none_or(|idle| *idle == attempt.worker) {
                continue;
            }
            let Some(worker) = self.workers.get(&attempt.worker) else { continue };
            let fixed = state
                .batches
                .get(&attempt.batch)
                .is_none_or(|b| b.spec.policy.batch_size.is_some());
            // A worker with more ranges than slots has some that only wait; of one that runs, half.
            let waits = worker.held.cpus > worker.total.cpus;
            let open = attempt.open.len();
            let tasks = if waits { open } else { open / 2 };
            if !attempt.may_be_asked(now) || tasks == 0 || (fixed && !waits) {
                continue;
            }
            attempt.asked = Some(now);
            idle -= 1;
            asked.push((attempt.worker, Order::Retract { attempt: *id, tasks }));
        }
        let any = !asked.is_empty();
        asked.into_iter().for_each(|(worker, order)| self.order(worker, order));
        if any {
            self.plan_balance(now);
        }
    }
}

/// By what the run time of a batch's tasks is remembered.
fn cost_key(job: &Job, batch: &Batch) -> Option<(ProgramId, FunctionName)> {
    match batch.spec.functions.as_slice() {
        [only] => Some((job.program.id, only.name)),
        _ => None,
    }
}

/// How many threads take the tasks of one range from one another.
fn threads(policy: &Policy, total: &Resources, workers: usize) -> u16 {
    let threads = match (policy.prefer, u32::try_from(policy.n_jobs)) {
        (Prefer::Processes, _) => 1,
        (Prefer::Threads, Err(_)) => policy.cap(total.cpus),
        (Prefer::Threads, Ok(wanted)) => {
            wanted.div_ceil(u32::try_from(workers.max(1)).unwrap_or(1))
        }
    };
    u16::try_from(threads).unwrap_or(u16::MAX).max(1)
}

/// What a range of this policy occupies on a worker of `total`: a process what its task needs; threads
/// the whole worker, of which they are the one executor.
pub(super) fn occupied(policy: &Policy, total: &Resources) -> Resources {
    match policy.prefer {
        Prefer::Processes => policy.resources.clone(),
        Prefer::Threads => Resources { cpus: total.cpus, ..policy.resources.clone() },
    }
}

/// The next range of a batch, and whether it has to run alone.
fn cut(
    batch: &Batch,
    pending: &RangeSet,
    cost: Cost,
    slots: u32,
    threads: u16,
) -> Option<(TaskRange, bool)> {
    let policy = &batch.spec.policy;
    let first = pending.first()?;
    // Threads share a range: it has to keep each of them as busy as a range of its own would.
    let lanes = u32::from(threads);
    let one = TaskRange::new(first.start, first.start + 1);
    if batch.exception(first.start).suspect {
        return Some((one, true));
    }
    let tasks = match policy.batch_size {
        Some(size) => size.saturating_mul(lanes) - first.start % size,
        None if !policy.idempotent => lanes,
        None => cost.range_tasks(pending.len(), slots.max(lanes)).saturating_mul(lanes),
    };
    let mut range = TaskRange::new(first.start, first.end.min(first.start.saturating_add(tasks)));
    if let Some(progress) = batch.progress() {
        let mut suspects = progress.exceptions.range(range.start..range.end);
        if let Some((index, _)) = suspects.find(|(_, exception)| exception.suspect) {
            range.end = *index;
        }
    }
    if policy.batch_size.is_none() {
        range.end = range.end.min(end_within_bytes(batch, range));
    }
    Some((range, false))
}

/// Where `range` has to end so that its arguments stay below the bound. Tasks of one segment count as
/// equally long.
fn end_within_bytes(batch: &Batch, range: TaskRange) -> u32 {
    let mut bytes = 0u64;
    for argument in batch.arguments_of(range) {
        let part = argument.tasks.intersection(range);
        let each = u64::from(argument.bytes).div_ceil(u64::from(argument.tasks.len().max(1)));
        let fit = (RANGE_BYTES_MAX - bytes) / each.max(1);
        if u64::from(part.len()) > fit {
            let end = part.start + u32::try_from(fit).unwrap_or(u32::MAX);
            return end.max(range.start + 1);
        }
        bytes += each * u64::from(part.len());
    }
    range.end
}
