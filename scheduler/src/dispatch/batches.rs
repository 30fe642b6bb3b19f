//! What the leader knows of a batch beyond the state: which of its tasks wait and which are out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use allhands_common::id::{AttemptId, BatchId, WorkerId};
use allhands_common::limit::UNREAD_BYTES_MAX;
use allhands_common::policy::{Policy, Prefer};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::ClusterTime;

use super::limits::{could_start, passed};
use super::queue::{ClassId, Place};
use super::size::Cost;
use super::unfetched::Unfetched;
use super::{Dispatcher, Timer};
use crate::State;
use crate::state::{Batch, Job};

/// A batch of which something is out, or that has tasks to be tried again.
#[derive(Debug)]
pub(super) struct Active {
    /// Tasks that may be given out now.
    pub(super) pending: RangeSet,
    /// Tasks of some attempt.
    pub(super) held: RangeSet,
    /// Tasks to be tried again later: when.
    pub(super) delayed: BTreeMap<u32, ClusterTime>,
    /// Tasks that wait for others to end: for how many.
    waiting: BTreeMap<u32, u32>,
    /// Tasks that have waited for others: since when they could be given out. Noted only where a queue timeout counts
    /// from there.
    pub(super) ready: BTreeMap<u32, ClusterTime>,
    /// Whether a task of it has ever waited for another after it had begun.
    pub(super) blocks: bool,
    /// Tasks that wait for an entry about them to come back.
    pub(super) charging: RangeSet,
    /// Ranges given out and not reported.
    pub(super) ranges: u32,
    /// Its attempts.
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Workers that have what its tasks share.
    pub(super) known_by: BTreeSet<WorkerId>,
    /// What a task takes.
    pub(super) cost: Cost,
    /// Where it waits, while it does.
    pub(super) place: Option<Place>,
    /// Its long results that lie with workers.
    pub(super) unfetched: Unfetched,
}

impl Active {
    fn of(batch: &Batch) -> Self {
        let mut active = Self {
            pending: batch.unfinished(TaskRange::new(0, batch.tasks)),
            held: RangeSet::new(),
            delayed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeMap::new(),
            blocks: false,
            charging: RangeSet::new(),
            ranges: 0,
            attempts: BTreeSet::new(),
            known_by: BTreeSet::new(),
            cost: Cost::default(),
            place: None,
            unfetched: Unfetched::default(),
        };
        if let Some(progress) = batch.progress() {
            for (index, exception) in &progress.exceptions {
                active.delay(*index, exception.not_before);
            }
            for started in &progress.started {
                active.hold(started.range);
                active.held.remove(started.range);
                active.charging.insert(started.range);
            }
        }
        active
    }

    /// Tasks are with an attempt, wherever they were before.
    pub(super) fn hold(&mut self, range: TaskRange) {
        self.pending.remove(range);
        self.charging.remove(range);
        self.delayed.retain(|index, _| !range.contains(*index));
        self.wait_no_more(range);
        self.held.insert(range);
    }

    /// A task that waits for a slot waits for so many others first; none: for what will never come. Whether
    /// it waited.
    pub(super) fn hold_back(&mut self, index: u32, others: u32) -> bool {
        let waits = self.pending.contains(index);
        if waits {
            self.pending.remove(TaskRange::new(index, index + 1));
            self.waiting.insert(index, others);
        }
        waits
    }

    /// Whether a task waits for others.
    pub(super) fn waits(&self, index: u32) -> bool {
        self.waiting.contains_key(&index)
    }

    /// Tasks that wait for others, each with for how many.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.waiting.iter().map(|(index, others)| (*index, *others))
    }

    /// Of `range`, what is with no attempt and nothing is being decided about.
    pub(super) fn idle(&self, range: TaskRange) -> impl Iterator<Item = TaskRange> + '_ {
        let waiting = self.waiting.range(range.start..range.end).map(|(index, _)| *index);
        let delayed = self.delayed.range(range.start..range.end).map(|(index, _)| *index);
        let single = waiting.chain(delayed).map(|index| TaskRange::new(index, index + 1));
        self.pending.intersection(range).chain(single)
    }

    /// One of those that a task waits for is there. Whether it was the last.
    pub(super) fn let_go(&mut self, index: u32) -> bool {
        let Some(others) = self.waiting.get_mut(&index) else { return false };
        *others = others.saturating_sub(1);
        let last = *others == 0;
        if last {
            self.waiting.remove(&index);
            self.pending.insert(TaskRange::new(index, index + 1));
        }
        last
    }

    /// What a task waits for will never come: the log has to know.
    pub(super) fn give_up(&mut self, index: u32) {
        self.waiting.remove(&index);
        self.charging.insert(TaskRange::new(index, index + 1));
    }

    /// A task that is with no attempt waits for an entry about it. Whether it is one.
    pub(super) fn take_unbegun(&mut self, index: u32) -> bool {
        let one = TaskRange::new(index, index + 1);
        let here = self.pending.contains(index)
            || self.delayed.contains_key(&index)
            || self.waiting.contains_key(&index);
        if here {
            self.pending.remove(one);
            self.delayed.remove(&index);
            self.waiting.remove(&index);
            self.charging.insert(one);
        }
        here
    }

    /// Tasks have ended, or are with an attempt: whatever they named.
    pub(super) fn wait_no_more(&mut self, range: TaskRange) {
        let gone: Vec<u32> =
            self.waiting.range(range.start..range.end).map(|(index, _)| *index).collect();
        gone.iter().for_each(|index| _ = self.waiting.remove(index));
    }

    pub(super) fn delay(&mut self, index: u32, until: ClusterTime) {
        let one = TaskRange::new(index, index + 1);
        if self.pending.contains(index) {
            self.pending.remove(one);
            self.delayed.insert(index, until);
        }
    }
}

impl Dispatcher {
    /// A batch may have become ready to be given out, or no longer be.
    pub(super) fn requeue(&mut self, state: &State, id: BatchId) {
        let Some(batch) = state.batches.get(&id) else { return self.unqueue(id) };
        let Some(job) = state.job_of(batch) else { return };
        let class = self.class_of(job, &batch.spec.policy);
        let place = self.place_of(id, batch, class);
        let Some(active) = self.active.get_mut(&id) else {
            match place {
                Some(place) => self.queues.insert(place, id),
                None => self.queues.remove(untouched(batch, class), id),
            }
            return;
        };
        let old = core::mem::replace(&mut active.place, place);
        if let Some(old) = old.filter(|old| place != Some(*old)) {
            self.queues.remove(old, id);
        }
        if let Some(place) = place {
            self.queues.insert(place, id);
        }
    }

    /// Where a batch has to wait: if there is something to cut and more of it may be out.
    pub(super) fn place_of(&self, id: BatchId, batch: &Batch, class: ClassId) -> Option<Place> {
        let policy = &batch.spec.policy;
        let unread = batch.progress().map_or(0, |progress| progress.unread_bytes);
        let is_full = self.active.get(&id).is_some_and(|active| active.unfetched.is_full());
        if batch.stopped().is_some() || unread > UNREAD_BYTES_MAX || is_full {
            return None;
        }
        let fixed = policy.batch_size;
        let place = untouched(batch, class);
        // With threads it is a matter of where: `seat` looks at the cap.
        if policy.n_jobs != -1 && policy.prefer == Prefer::Processes {
            let cap = policy.cap(self.slots);
            let most = cap.saturating_add(u32::from(cfg!(plant = "cap_off_by_one")));
            if cap < self.slots && self.out_of_call(batch).tasks() >= most {
                return None;
            }
        }
        let Some(active) = self.active.get(&id) else {
            // Nothing of it is out and nothing was ever tried: all its tasks wait.
            let all = RangeSet::of(TaskRange::new(0, batch.tasks));
            return enough(&all, fixed, batch.sealed).then_some(place);
        };
        let last = batch.sealed || !active.delayed.is_empty() || !active.waiting.is_empty();
        enough(&active.pending, fixed, last).then_some(Place { running: active.ranges, ..place })
    }

    /// A batch waits no more.
    fn unqueue(&mut self, id: BatchId) {
        if let Some(active) = self.active.get_mut(&id)
            && let Some(place) = active.place.take()
        {
            self.queues.remove(place, id);
        }
    }

    /// The soft part of a batch, made at need: its place in the queue moves along.
    pub(super) fn activate(&mut self, state: &State, id: BatchId) -> Option<&mut Active> {
        let batch = state.batches.get(&id)?;
        if !self.active.contains_key(&id) {
            let mut active = Active::of(batch);
            if let Some(job) = state.job_of(batch) {
                let place = untouched(batch, self.class_of(job, &batch.spec.policy));
                active.place = self.queues.contains(place, id).then_some(place);
            }
            self.active.insert(id, active);
        }
        self.active.get_mut(&id)
    }

    /// A batch is new to this leader.
    pub(super) fn watch_batch(&mut self, state: &State, id: BatchId) {
        let Some(batch) = state.batches.get(&id) else { return };
        if batch.stopped().is_some() {
            return;
        }
        self.cap(id, batch);
        let policy = &batch.spec.policy;
        let limits = [policy.deadline_ms, policy.queue_timeout_ms, policy.task_deadline_ms];
        let waits = limits.into_iter().flatten().min();
        if let Some(wait) = waits {
            let at = self.instant_of(passed(batch.opened, wait));
            self.timers.set(at, Timer::Batch(id));
        }
        if batch.progress().is_some() || policy.delay_ms.is_some() {
            self.activate(state, id);
            if !cfg!(plant = "new_leader_forgets_dependants") || self.awaited.is_none() {
                self.depend(state, id, TaskRange::new(0, batch.tasks));
            }
            self.put_off(state, id, TaskRange::new(0, batch.tasks));
            let delayed = self.active.get(&id).map(|active| active.delayed.values().min().copied());
            if let Some(Some(until)) = delayed {
                self.timers.set(self.instant_of(until), Timer::Batch(id));
            }
        }
        self.requeue(state, id);
    }

    /// Lets those of the tasks `range` that could start wait until they may.
    pub(super) fn put_off(&mut self, state: &State, id: BatchId, range: TaskRange) {
        // One that was stopped before this leader knew of it is not watched, nor has it anything to put off.
        let Some(batch) = state.batches.get(&id).filter(|batch| batch.stopped().is_none()) else {
            return;
        };
        if batch.spec.policy.delay_ms.is_none() || cfg!(plant = "delay_ignored") {
            return;
        }
        let Some(active) = self.activate(state, id) else { return };
        let mut first = None;
        for argument in batch.arguments_of(range) {
            let until = could_start(batch, argument);
            let tasks = argument.tasks.intersection(range);
            (tasks.start..tasks.end).for_each(|index| active.delay(index, until));
            first = first.min(Some(until)).or(Some(until));
        }
        if let Some(until) = first {
            self.timers.set(self.instant_of(until), Timer::Batch(id));
        }
    }

    /// Whom a task has waited for is there: its queue timeout counts from now, or from when its delay is over. When
    /// that was, the log does not say: where nobody saw it, as when the leader has changed, it is now.
    pub(super) fn note_ready(&mut self, state: &State, id: BatchId, index: u32) {
        let Some(batch) = state.batches.get(&id) else { return };
        let policy = &batch.spec.policy;
        if policy.queue_timeout_ms.is_none() {
            return;
        }
        let one = TaskRange::new(index, index + 1);
        let Some(argument) = batch.arguments_of(one).next() else { return };
        let due = could_start(batch, argument);
        if let Some(active) = self.activate(state, id) {
            active.ready.insert(index, due.max(state.at));
            self.check_queue_timeout(batch, id);
        }
    }

    /// Tasks of an attempt that nobody has any more wait again, but for those that have ended.
    pub(super) fn put_back(&mut self, state: &State, id: BatchId, range: TaskRange) {
        let Some(batch) = state.batches.get(&id) else { return };
        let Some(active) = self.active.get_mut(&id) else { return };
        active.held.remove(range);
        if batch.stopped().is_none() {
            for part in batch.unfinished(range).iter() {
                active.pending.insert(part);
                self.records.became_ready(id, part, self.records.now);
            }
            self.check_queue_timeout(batch, id);
        }
        self.requeue(state, id);
    }

    /// The class of a batch's tasks.
    pub(super) fn class_of(&mut self, job: &Job, policy: &Policy) -> ClassId {
        let (class, new) = self.queues.class(&job.program, &policy.resources);
        if new {
            self.fill_class(class);
        }
        class
    }

    /// Puts every worker that can into a new class.
    fn fill_class(&mut self, id: ClassId) {
        let Some(class) = self.queues.classes.get_mut(&id) else { return };
        for (worker, known) in self.workers.iter().filter(|(_, known)| known.usable()) {
            if known.suits(&class.need, &class.program) {
                class.able.insert((known.load(), *worker));
            }
        }
    }
}

/// Where a batch waits of which nothing is out.
fn untouched(batch: &Batch, class: ClassId) -> Place {
    let (priority, sequence) = (batch.spec.policy.priority, batch.sequence);
    let depth = Reverse(batch.depth());
    Place { priority, class, job: batch.job, depth, running: 0, sequence }
}

/// Whether there is something to cut: any task, or a whole range where its length is fixed.
fn enough(pending: &RangeSet, fixed: Option<u32>, last: bool) -> bool {
    match (pending.first(), fixed) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(_), Some(_)) if last => true,
        (Some(first), Some(size)) => first.len() >= size - first.start % size,
    }
}
