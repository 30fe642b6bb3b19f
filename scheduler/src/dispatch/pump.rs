//! Giving work out: the next batch, the least loaded worker that can, a range cut to size.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use allhands_common::bulk::Bulk;
use allhands_common::execution::{Awaited, Given};
use allhands_common::function::FunctionName;
use allhands_common::id::{BatchId, TaskId, WorkerId};
use allhands_common::limit::{BUNDLE_BYTES_MAX, SEGMENT_BYTES_MAX};
use allhands_common::policy::{BatchSpec, Policy, Prefer};
use allhands_common::program::ProgramId;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Order, Run, Shared};
use bytes::Bytes;

use super::attempt::UNSENT;
use super::batches::Active;
use super::graph::outcome_bytes;
use super::place::Choice;
use super::queue::ClassId;
use super::size::Cost;
use super::threads::Seat;
use super::workers::Worker;
use super::{Attempt, Dispatcher, Timer};
use crate::state::{Batch, Job};
use crate::{Action, Command, State};

/// Workers of a class that are looked at before it counts as full: the least loaded ones come first,
/// so a later one seldom has room where an earlier one has none.
const LOOKED_AT_MAX: usize = 8;

/// Argument bytes of one range: what a worker gets at once.
const RANGE_BYTES_MAX: u64 = 1 << 20;

/// The same of a range whose length the user has fixed: what one message holds.
const FIXED_RANGE_BYTES_MAX: u64 = BUNDLE_BYTES_MAX as u64;

/// What a range counts in a message besides its arguments: some 120 bytes of head.
const RUN_BYTES: usize = 4 * 120;

/// What an outcome that goes along with a range counts besides itself.
const GIVEN_BYTES: usize = 4 * 30;

impl Dispatcher {
    /// Gives out what there is room for.
    pub(super) fn pump(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        if self.awaited.is_some() {
            return;
        }
        let (mut full, mut passed) = (Vec::new(), Vec::new());
        while let Some((class, batch)) = self.queues.next(&full, &passed) {
            let short = self.is_short(state, batch);
            let Some(roomy) = self.roomy_worker(class, short) else {
                full.push(class);
                self.doubt(now, class);
                continue;
            };
            match self.choose(now, state, (class, batch), (roomy, short)) {
                Choice::Give(worker, within) => {
                    let (worker, within) = self.avoid((class, batch), short, (worker, within));
                    match self.seat(state, (class, batch), worker) {
                        Some(seat) => {
                            self.give(now, state, (class, batch), (seat, short), within, out);
                        }
                        None => passed.push(batch),
                    }
                }
                Choice::Wait(until) => {
                    passed.push(batch);
                    until.into_iter().for_each(|until| self.timers.set(until, Timer::Send));
                }
            }
        }
        // Nothing that waits can be given to them: that would have been.
        if self.somebody_is_idle() {
            self.plan_balance(now);
        }
    }

    /// The least loaded worker with room for a range of `class`.
    fn roomy_worker(&self, class: ClassId, short: bool) -> Option<WorkerId> {
        let class = self.queues.classes.get(&class)?;
        // Of slots the least loaded worker has most; other things may be free anywhere.
        let looked_at = if class.need == Resources::cpus(1) { LOOKED_AT_MAX } else { usize::MAX };
        class
            .below(Worker::full_load(short))
            .take(looked_at)
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
    pub(super) fn learned(&self, state: &State, batch: &Batch) -> Cost {
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

    /// Cuts a range of `batch`, of the tasks `within`, and gives it to `worker`.
    fn give(
        &mut self,
        now: Instant,
        state: &State,
        (class, id): (ClassId, BatchId),
        (Seat { worker, threads }, short): (Seat, bool),
        within: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let slots = self.slots;
        let Some(batch) = state.batches.get(&id) else { return };
        let policy = &batch.spec.policy;
        let Some(total) = self.workers.get(&worker).map(|worker| worker.total.clone()) else {
            return;
        };
        let learned = self.learned(state, batch);
        let Some(active) = self.activate(state, id) else { return };
        let task_ns = active.cost.or(learned).task_ns;
        let cut = cut((state, batch), active, learned, (slots, threads), within);
        let Some((range, alone)) = cut else {
            // Everything that waited has ended meanwhile.
            return self.requeue(state, id);
        };
        active.pending.remove(range);
        active.held.insert(range);
        self.needs_given(worker, id, range);
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
                blocked: RangeSet::new(),
                occupies: true,
                owed: RangeSet::new(),
                settling: RangeSet::new(),
                sent: UNSENT,
                running: false,
                asked: None,
                spared: None,
                called_off: false,
                since: now,
                short,
                threads,
                need: need.clone(),
            },
        );
        self.records.assigned((id, batch), range, (attempt, worker), 0);
        self.change_worker(worker, |worker| {
            worker.held.add(&need);
            worker.long += u32::from(!short);
            worker.attempts.insert(attempt);
        });
        self.queues.count(batch.job, true);
        self.count_range(state, id, true);
        let segments = Vec::new();
        let (given, rounds) = (Vec::new(), Vec::new());
        let run =
            Run { attempt, batch: id, range, segments, threads, alone, task_ns, given, rounds };
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
            let context = batch.progress().is_some_and(|progress| progress.context.is_some());
            let bytes = 4 * head_bytes(&batch.spec) + usize::from(context) * SEGMENT_BYTES_MAX;
            self.order_of(id, Order::Batch(Box::new(shared)), bytes);
        }
        // Tasks of one segment may differ in length: more than the segments that they lie in it is not.
        let arguments = batch.arguments_of(run.range).map(|segment| segment.bytes as usize);
        let attempt = run.attempt;
        let mut bytes = arguments.sum::<usize>() + RUN_BYTES;
        let given = taken(batch, run.range).map(|task| Awaited { task, follow: true });
        // One that several of the tasks take goes along once.
        let given: BTreeSet<Awaited> = given.collect();
        bytes += given.iter().map(|of| GIVEN_BYTES + outcome_bytes(state, of.task)).sum::<usize>();
        let given = given.into_iter().map(|of| Given { of, outcome: Bulk::default() }).collect();
        let rounds = rounds_of(batch, run.range);
        self.order_of(id, Order::Run(Run { given, rounds, ..run }), bytes);
        let number = self.workers.get(&id).map(|worker| worker.sent + 1 + worker.cuts.len() as u64);
        if let (Some(attempt), Some(number)) = (self.attempts.get_mut(&attempt), number) {
            attempt.sent = number;
        }
    }
}

/// The tasks of `range` that have had rounds before.
fn rounds_of(batch: &Batch, range: TaskRange) -> Vec<(u32, u32)> {
    if batch.spec.policy.recurs.is_none() {
        return Vec::new();
    }
    let exceptions = batch.progress().into_iter().flat_map(|progress| {
        progress
            .exceptions
            .range(range.start..range.end)
            .map(|(index, known)| (*index, known.rounds))
    });
    exceptions.filter(|(_, rounds)| *rounds > 0).collect()
}

/// The tasks whose values those of `range` take.
fn taken(batch: &Batch, range: TaskRange) -> impl Iterator<Item = TaskId> + '_ {
    let links = batch.links().into_iter();
    let named = links.flat_map(move |links| links.mentions.range(range.start..range.end));
    let takes = named.flat_map(|(_, named)| named).filter(|(_, need)| need.takes());
    takes.map(|(task, _)| *task)
}

/// Where `range` has to end so that what its tasks take of others stays below `most` bytes.
fn end_within_given(state: &State, batch: &Batch, range: TaskRange, most: u64) -> u32 {
    let mut bytes = 0;
    for index in range.start..range.end {
        let takes = taken(batch, TaskRange::new(index, index + 1));
        bytes += takes.map(|task| outcome_bytes(state, task) as u64).sum::<u64>();
        if bytes > most && index > range.start {
            return index;
        }
    }
    range.end
}

/// How long a specification is, about.
fn head_bytes(spec: &BatchSpec) -> usize {
    let functions = spec.functions.iter().map(|function| 32 + function.label.len());
    let env = spec.env.iter().map(|(name, value)| 16 + name.len() + value.len());
    let custom = spec.policy.resources.custom.keys().map(|name| 16 + name.len());
    512 + spec.name.len() + functions.chain(env).chain(custom).sum::<usize>()
}

/// By what the run time of a batch's tasks is remembered.
fn cost_key(job: &Job, batch: &Batch) -> Option<(ProgramId, FunctionName)> {
    match batch.spec.functions.as_slice() {
        [only] => Some((job.program.id, only.name)),
        _ => None,
    }
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
    (state, batch): (&State, &Batch),
    active: &Active,
    learned: Cost,
    (slots, threads): (u32, u16),
    within: TaskRange,
) -> Option<(TaskRange, bool)> {
    let policy = &batch.spec.policy;
    let pending = &active.pending;
    let first = pending.intersection(within).next()?;
    // Threads share a range: it has to keep each of them as busy as a range of its own would.
    let lanes = u32::from(threads);
    let one = TaskRange::new(first.start, first.start + 1);
    if batch.exception(first.start).suspect {
        return Some((one, true));
    }
    let tasks = match policy.batch_size {
        Some(size) => size.saturating_mul(lanes) - first.start % size,
        // A task that waits lets go of its slot, and so should not have others behind it.
        None if !policy.idempotent || active.blocks => lanes,
        None => {
            let slots = slots.max(lanes);
            active.cost.range_tasks(pending.len(), slots, learned).saturating_mul(lanes)
        }
    };
    let mut range = TaskRange::new(first.start, first.end.min(first.start.saturating_add(tasks)));
    if let Some(progress) = batch.progress() {
        let mut suspects = progress.exceptions.range(range.start..range.end);
        if let Some((index, _)) = suspects.find(|(_, exception)| exception.suspect) {
            range.end = *index;
        }
    }
    let most = if policy.batch_size.is_some() { FIXED_RANGE_BYTES_MAX } else { RANGE_BYTES_MAX };
    range.end = range.end.min(end_within_bytes(batch, range, most));
    if batch.links().is_some_and(|links| !links.mentions.is_empty()) {
        range.end = end_within_given(state, batch, range, most);
    }
    Some((range, false))
}

/// Where `range` has to end so that its arguments stay below `most` bytes. Tasks of one segment count as
/// equally long.
fn end_within_bytes(batch: &Batch, range: TaskRange, most: u64) -> u32 {
    let mut bytes = 0u64;
    for argument in batch.arguments_of(range) {
        let part = argument.tasks.intersection(range);
        let each = u64::from(argument.bytes).div_ceil(u64::from(argument.tasks.len().max(1)));
        let fit = (most - bytes) / each.max(1);
        if u64::from(part.len()) > fit {
            let end = part.start + u32::try_from(fit).unwrap_or(u32::MAX);
            return end.max(range.start + 1);
        }
        bytes += each * u64::from(part.len());
    }
    range.end
}
