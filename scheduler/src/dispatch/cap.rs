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
        if batch.spec.policy.n_jobs != -1 {
            self.capped.entry(call_of(batch)).or_default().insert(id);
        }
    }

    /// A batch is gone.
    pub(super) fn uncap(&mut self, id: BatchId, call: CallId) {
        if let Some(batches) = self.capped.get_mut(&call) {
            batches.remove(&id);
            if batches.is_empty() {
                self.capped.remove(&call);
            }
        }
    }

    /// What is out of the call that a batch with a cap is part of.
    pub(super) fn out_of_call(&self, batch: &Batch) -> Out {
        let mut out = Out::default();
        for id in self.capped.get(&call_of(batch)).into_iter().flatten() {
            let Some(active) = self.active.get(id) else { continue };
            match active.prefer {
                Prefer::Processes => out.ranges += active.ranges,
                // Of one call's ranges at a worker one runs, the others are next.
                Prefer::Threads => self.lanes(active).for_each(|(worker, threads)| {
                    let lanes = out.lanes.entry(worker).or_default();
                    *lanes = (*lanes).max(threads);
                }),
            }
        }
        out
    }

    /// More of a batch is out, or less: the others of its call may be at the cap now, or no longer.
    pub(super) fn requeue_call(&mut self, state: &State, id: BatchId) {
        self.requeue(state, id);
        if let Some(call) = state.batches.get(&id).map(call_of)
            && self.capped.get(&call).is_some_and(|all| all.len() > 1)
        {
            self.requeue_all_of(state, call);
        }
    }

    pub(super) fn requeue_all_of(&mut self, state: &State, call: CallId) {
        let all = self.capped.get(&call).into_iter().flatten();
        let all: Vec<BatchId> = all.copied().collect();
        all.into_iter().for_each(|id| self.requeue(state, id));
    }

    /// The slots have changed: what a cap counts from may have, too.
    pub(super) fn requeue_capped(&mut self, state: &State) {
        let capped: Vec<BatchId> = self.capped.values().flatten().copied().collect();
        capped.into_iter().for_each(|id| self.requeue(state, id));
    }

    /// Whether a batch is noted as one with a cap.
    pub(super) fn is_capped(&self, id: BatchId, batch: &Batch) -> bool {
        let batches: Option<&BTreeSet<BatchId>> = self.capped.get(&call_of(batch));
        batches.is_some_and(|batches| batches.contains(&id))
    }
}
