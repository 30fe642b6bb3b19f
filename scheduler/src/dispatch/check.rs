//! Every invariant of the books, in one place: run after each step by tests and the simulator.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use allhands_common::id::{BatchId, WorkerId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;

use super::Dispatcher;
use crate::State;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// Where and how it is broken.
    pub what: String,
}

pub(super) fn broken(rule: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { rule, what })
}

impl Dispatcher {
    /// Every invariant.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self, state: &State) -> Result<(), Violation> {
        self.check_tasks(state)?;
        self.check_loads()?;
        self.check_attempts()?;
        self.check_ranges()?;
        self.check_blobs()?;
        self.check_graph(state)?;
        self.check_needs(state)?;
        self.check_records()?;
        self.check_queue(state)
    }

    /// What is recorded as under way is.
    fn check_records(&self) -> Result<(), Violation> {
        if !self.records.is_counted_right() {
            return broken("what is recorded is counted", format!("{:?}", self.records));
        }
        match self.records.live().find(|id| !self.attempts.contains_key(id)) {
            Some(id) => broken("only attempts that there are go on in the record", format!("{id}")),
            None => Ok(()),
        }
    }

    /// Each unfinished task of a running batch is in exactly one place.
    fn check_tasks(&self, state: &State) -> Result<(), Violation> {
        let mut held: BTreeMap<BatchId, RangeSet> = BTreeMap::new();
        for (id, attempt) in &self.attempts {
            let set = held.entry(attempt.batch).or_default();
            for range in
                attempt.open.iter().chain(attempt.owed.iter()).chain(attempt.settling.iter())
            {
                if set.intersection(range).next().is_some() {
                    let what = format!("{range} of {}, also in attempt {id}", attempt.batch);
                    return broken("a task is with one attempt", what);
                }
                set.insert(range);
            }
        }
        for (id, active) in &self.active {
            let Some(batch) = state.batches.get(id) else {
                return broken("only known batches are active", format!("{id}"));
            };
            if self.is_capped(*id, batch) != (batch.spec.policy.n_jobs != -1) {
                return broken("a batch with a cap is among the capped", format!("{id}"));
            }
            let whole = TaskRange::new(0, batch.tasks);
            if batch.stopped().is_some() {
                continue;
            }
            let none = RangeSet::new();
            let with_attempts = held.get(id).unwrap_or(&none);
            for task in batch.unfinished(whole).iter().flat_map(|range| range.start..range.end) {
                let places = [
                    active.pending.contains(task),
                    active.delayed.contains_key(&task),
                    active.waits(task),
                    active.charging.contains(task),
                    with_attempts.contains(task),
                ];
                let count = places.iter().filter(|there| **there).count();
                if count != 1 {
                    let what = format!(
                        "task {id}:{task} (pending, delayed, waiting, deciding, held): {places:?}"
                    );
                    return broken("an unfinished task is in one place", what);
                }
                if with_attempts.contains(task) != active.held.contains(task) {
                    return broken("held is what attempts have", format!("task {id}:{task}"));
                }
            }
            let ended = batch.progress().map(|progress| &progress.ended);
            if let Some(task) =
                ended.and_then(|set| active.pending.iter().flat_map(|r| set.intersection(r)).next())
            {
                return broken("an ended task does not wait", format!("{id}:{}", task.start));
            }
        }
        Ok(())
    }

    /// A worker's books add up.
    fn check_loads(&self) -> Result<(), Violation> {
        let mut sums: BTreeMap<WorkerId, Resources> = BTreeMap::new();
        let mut long: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for (id, attempt) in &self.attempts {
            if attempt.blocked.iter().any(|range| !attempt.open.covers(range)) {
                return broken("what is blocked is open", format!("attempt {id}"));
            }
            if attempt.occupies != (attempt.open.len() > attempt.blocked.len()) {
                let what = format!("attempt {id}: {}", attempt.occupies);
                return broken("a range occupies a slot unless all of it waits", what);
            }
        }
        for attempt in self.attempts.values().filter(|attempt| attempt.occupies) {
            sums.entry(attempt.worker).or_insert(Resources::cpus(0)).add(&attempt.need);
            *long.entry(attempt.worker).or_insert(0) += u32::from(!attempt.short);
        }
        for (id, worker) in &self.workers {
            if worker.long != long.remove(id).unwrap_or(0) {
                let what = format!("worker {id}: books say {}", worker.long);
                return broken("a worker's long ranges are counted", what);
            }
            let sum = sums.remove(id).unwrap_or(Resources::cpus(0));
            if occupied(&sum) != occupied(&worker.held) {
                let what = format!("worker {id} holds {sum:?}, books say {:?}", worker.held);
                return broken("a worker's load is the sum of its ranges", what);
            }
            for (number, class) in &self.queues.classes {
                let listed = class.able.iter().filter(|(_, worker)| worker == id).count();
                let able = worker.usable() && worker.suits(&class.need, &class.program);
                let there = class.able.contains(&(worker.load(), *id));
                if listed != usize::from(able) || able != there {
                    let what = format!(
                        "worker {id} in class {number:?}: {listed} times, load {}",
                        worker.load()
                    );
                    return broken("a worker is listed by its load", what);
                }
            }
        }
        let slots: u32 =
            self.workers.values().filter(|worker| worker.usable()).map(|w| w.total.cpus).sum();
        if slots != self.slots {
            return broken(
                "slots are those of usable workers",
                format!("{slots}, not {}", self.slots),
            );
        }
        let idle = self.workers.values().filter(|worker| worker.usable());
        let idle: u32 = idle.map(|w| w.total.cpus.saturating_sub(w.held.cpus)).sum();
        if idle != self.idle_slots {
            let what = format!("{idle}, not {}", self.idle_slots);
            return broken("idle slots are what nothing occupies of usable workers", what);
        }
        Ok(())
    }

    /// Attempts are with workers that know of them, and none is empty.
    fn check_attempts(&self) -> Result<(), Violation> {
        for (id, attempt) in &self.attempts {
            let known = self.workers.get(&attempt.worker);
            let listed = known.is_some_and(|worker| worker.attempts.contains(id));
            if !listed && (!attempt.open.is_empty() || !attempt.owed.is_empty()) {
                return broken("a worker knows its attempts", format!("attempt {id}"));
            }
            if attempt.is_over() {
                return broken("an attempt with nothing left is gone", format!("attempt {id}"));
            }
        }
        for (worker, known) in &self.workers {
            if let Some(id) = known.attempts.iter().find(|id| !self.attempts.contains_key(id)) {
                return broken("a worker's attempts are known", format!("{id} of worker {worker}"));
            }
        }
        Ok(())
    }

    /// Who waits is in the queue, where it belongs, and nobody else is.
    fn check_queue(&self, state: &State) -> Result<(), Violation> {
        let mut waiting: BTreeSet<BatchId> = self.queues.batches().collect();
        for (id, batch) in &state.batches {
            let Some(job) = state.job_of(batch) else { continue };
            let class = self.queues.known_class(&job.program, &batch.spec.policy.resources);
            let place = class.and_then(|class| self.place_of(*id, batch, class));
            let there = waiting.remove(id);
            if place.is_none() && there {
                return broken("a batch that waits has tasks to be given out", format!("{id}"));
            }
            if place.is_some_and(|place| !there || !self.queues.contains(place, *id)) {
                return broken("a batch that is ready waits", format!("{id} at {place:?}"));
            }
            if let Some(active) = self.active.get(id).filter(|active| active.place != place) {
                let what = format!("{id} at {place:?}, books say {:?}", active.place);
                return broken("a batch knows where it waits", what);
            }
        }
        match waiting.first() {
            Some(id) => broken("only known batches wait", format!("{id}")),
            None => Ok(()),
        }
    }

    /// The ranges of attempts, batches and jobs add up.
    fn check_ranges(&self) -> Result<(), Violation> {
        let (mut ranges, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        for attempt in self.attempts.values().filter(|attempt| attempt.occupies) {
            *ranges.entry(attempt.batch).or_insert(0) += 1;
            *jobs.entry(attempt.job).or_insert(0) += 1;
        }
        for (id, active) in &self.active {
            let count = ranges.get(id).copied().unwrap_or(0);
            if count != active.ranges {
                let what = format!("{id}: {count}, books say {}", active.ranges);
                return broken("a batch's ranges are those of its attempts", what);
            }
        }
        if jobs != *self.queues.running() {
            let what = format!("{jobs:?}, books say {:?}", self.queues.running());
            return broken("a job's ranges are those of its attempts", what);
        }
        Ok(())
    }
}

/// What is really occupied: nothing of a thing is as good as no such thing.
fn occupied(held: &Resources) -> Resources {
    let mut occupied = held.clone();
    occupied.custom.retain(|_, count| *count > 0);
    occupied
}
