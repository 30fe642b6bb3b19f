//! What an operator is shown.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId};
use allhands_common::wire::admin::{BatchView, JobView, Status, WorkerView};

use super::Dispatcher;
use crate::State;

impl Dispatcher {
    /// The cluster at a glance; the shell adds the coordinators.
    pub fn status(&self, state: &State) -> Status {
        let held = |worker: &_| -> u64 {
            let theirs = self.workers.get(worker).into_iter().flat_map(|known| &known.attempts);
            let open = theirs.filter_map(|id| self.attempts.get(id));
            open.map(|attempt| u64::from(attempt.open.len())).sum()
        };
        let workers = state.workers.iter().map(|(id, record)| {
            let known = self.workers.get(id);
            WorkerView {
                worker: *id,
                name: record.name.clone(),
                present: known.is_some_and(|worker| worker.present),
                draining: known.is_some_and(|worker| worker.draining),
                resources: record.resources.clone(),
                tasks: held(id),
            }
        });
        let unfinished: u64 = state
            .batches
            .values()
            .filter(|batch| batch.stopped().is_none())
            .map(|batch| u64::from(batch.tasks - batch.ended()))
            .sum();
        let running: u64 = self.attempts.values().map(|a| u64::from(a.open.len())).sum();
        Status {
            term: self.config.term,
            leader: self.config.leader,
            coordinators: Vec::new(),
            workers: workers.collect(),
            jobs: u32::try_from(state.jobs.len()).unwrap_or(u32::MAX),
            pending: unfinished.saturating_sub(running),
            running,
        }
    }

    /// One job at a glance.
    pub fn job(&self, state: &State, id: JobId) -> Option<JobView> {
        let job = state.jobs.get(&id)?;
        let mut batches: Vec<(u32, BatchId)> =
            state.batches_of(id).map(|(batch, known)| (known.sequence, *batch)).collect();
        batches.sort_unstable();
        Some(JobView {
            job: id,
            name: job.name.clone(),
            owner: job.owner.clone(),
            batches: batches.iter().filter_map(|(_, id)| self.batch(state, *id)).collect(),
        })
    }

    fn batch(&self, state: &State, id: BatchId) -> Option<BatchView> {
        let batch = state.batches.get(&id)?;
        let mine = self.active.get(&id).into_iter().flat_map(|active| &active.attempts);
        let mine = mine.filter_map(|attempt| self.attempts.get(attempt));
        Some(BatchView {
            batch: id,
            name: batch.spec.name.clone(),
            tasks: batch.tasks,
            sealed: batch.sealed,
            ended: batch.ended(),
            failed: batch.progress().map_or(0, |progress| progress.failed),
            running: mine.map(|attempt| attempt.open.len()).sum(),
            stopped: batch.stopped().is_some(),
        })
    }
}
