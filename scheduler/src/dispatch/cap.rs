//! `n_jobs`: how many tasks of a call run at once, be it one batch or, where its tasks have policies of
//! their own, several.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, WorkerId};
use allhands_common::policy::Prefer;

use super::Dispatcher;
use crate::State;
use crate::state::Batch;

/// A call of a job: its first batch's number in the session.
pub(super) type CallId = (JobId, u32);

/// The batches of a call that has a cap.
#[derive(Debug, Default)]
pub(super) struct Capped {
    batches: BTreeSet<BatchId>,
    /// Those of them that prefer threads.
    threaded: BTreeSet<BatchId>,
    /// Ranges out of the others.
    ranges: u32,
}

/// What of a call is out.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Ranges that run in processes, one task at a time each.
    pub(super) ranges: u32,
    /// Threads at each worker.
    pub(super) lanes: BTreeMap<WorkerId, u32>,
}

impl Out {
    /// How many tasks may be running.
    pub(super) fn tasks(&self) -> u32 {
        self.ranges + self.lanes.values().sum::<u32>()
    }
}

const fn call_of(batch: &Batch) -> CallId {
    (batch.job, batch.call)
}

impl Dispatcher {
    /// Notes a batch that has a cap.
    pub(super) fn cap(&mut self, id: BatchId, batch: &Batch) {
        let policy = &batch.spec.policy;
        if policy.n_jobs != -1 {
            let capped = self.capped.entry(call_of(batch)).or_default();
            capped.batches.insert(id);
            if policy.prefer == Prefer::Threads {
                capped.threaded.insert(id);
            }
        }
    }

    /// A batch is gone, of which so many ranges were out: the others of its call may go on.
    pub(super) fn uncap(&mut self, state: &State, id: BatchId, call: CallId, ranges: u32) {
        let Some(capped) = self.capped.get_mut(&call) else { return };
        capped.batches.remove(&id);
        if !capped.threaded.remove(&id) {
            capped.ranges -= ranges;
        }
        if capped.batches.is_empty() {
            self.capped.remove(&call);
        } else {
            self.requeue_all_of(state, call);
        }
    }

    /// What is out of the call that a batch with a cap is part of.
    pub(super) fn out_of_call(&self, batch: &Batch) -> Out {
        let Some(capped) = self.capped.get(&call_of(batch)) else { return Out::default() };
        let mut out = Out { ranges: capped.ranges, lanes: BTreeMap::new() };
        let threaded = capped.threaded.iter().filter_map(|id| self.active.get(id));
        // Of one call's ranges at a worker one runs, the others are next.
        for (worker, threads) in threaded.flat_map(|active| self.lanes(active)) {
            let lanes = out.lanes.entry(worker).or_default();
            *lanes = (*lanes).max(threads);
        }
        out
    }

    /// One range of a batch more is out, or one less: it has its place by that, and so have the others
    /// of its call where that makes the difference.
    pub(super) fn count_range(&mut self, state: &State, id: BatchId, more: bool) {
        let Some(active) = self.active.get_mut(&id) else { return };
        active.ranges = if more { active.ranges + 1 } else { active.ranges.saturating_sub(1) };
        let Some(batch) = state.batches.get(&id) else { return self.requeue(state, id) };
        let (call, cap) = (call_of(batch), batch.spec.policy.cap(self.slots));
        let Some(capped) = self.capped.get_mut(&call) else { return self.requeue(state, id) };
        let threaded = !capped.threaded.is_empty();
        if batch.spec.policy.prefer == Prefer::Processes {
            capped.ranges = if more { capped.ranges + 1 } else { capped.ranges.saturating_sub(1) };
        }
        // The cap is reached, or no longer.
        let turns = threaded || (cap.saturating_sub(1)..=cap).contains(&capped.ranges);
        if turns && capped.batches.len() > 1 {
            self.requeue_all_of(state, call);
        } else {
            self.requeue(state, id);
        }
    }

    fn requeue_all_of(&mut self, state: &State, call: CallId) {
        let all = self.capped.get(&call).into_iter().flat_map(|capped| &capped.batches);
        let all: Vec<BatchId> = all.copied().collect();
        all.into_iter().for_each(|id| self.requeue(state, id));
    }

    /// The slots have changed: what a cap counts from may have, too.
    pub(super) fn requeue_capped(&mut self, state: &State) {
        let all = self.capped.values().flat_map(|capped| &capped.batches);
        let all: Vec<BatchId> = all.copied().collect();
        all.into_iter().for_each(|id| self.requeue(state, id));
    }

    /// Whether a batch is noted as one with a cap, and its call's ranges are counted.
    pub(super) fn is_capped(&self, id: BatchId, batch: &Batch) -> bool {
        let Some(capped) = self.capped.get(&call_of(batch)) else { return false };
        let ranges = |id: &BatchId| self.active.get(id).map_or(0, |active| active.ranges);
        let counted = capped.batches.difference(&capped.threaded).map(ranges).sum::<u32>();
        capped.batches.contains(&id) && capped.ranges == counted
    }
}
