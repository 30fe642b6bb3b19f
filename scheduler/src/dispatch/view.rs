//! What an operator is shown.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId};
use allhands_common::wire::admin::{
    BATCHES_SHOWN_MAX, BatchView, JOBS_SHOWN_MAX, JobSummary, JobView, Jobs, Status,
    TEXT_SHOWN_BYTES_MAX, WorkerView,
};

use super::Dispatcher;
use crate::State;
use crate::state::{Batch, Job};

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

    /// All jobs at a glance. Looks at each batch once.
    pub fn jobs(&self, state: &State) -> Jobs {
        let more = state.jobs.len().saturating_sub(JOBS_SHOWN_MAX);
        let shown = state.jobs.iter().skip(more).map(|(id, job)| (*id, summary(*id, job)));
        let mut shown: BTreeMap<JobId, JobSummary> = shown.collect();
        for (id, batch) in &state.batches {
            if let Some(summary) = shown.get_mut(&batch.job) {
                self.count(*id, batch, summary);
            }
        }
        Jobs { jobs: shown.into_values().collect(), more: more as u64 }
    }

    /// One job with its batches. Looks at each batch once.
    pub fn job(&self, state: &State, id: JobId) -> Option<JobView> {
        let mut summary = summary(id, state.jobs.get(&id)?);
        let mut batches: Vec<(bool, u32, BatchId)> = Vec::new();
        for (id, batch) in state.batches_of(id) {
            self.count(*id, batch, &mut summary);
            batches.push((batch.over(), batch.sequence, *id));
        }
        let more = batches.len().saturating_sub(BATCHES_SHOWN_MAX);
        if more > 0 {
            batches.select_nth_unstable(BATCHES_SHOWN_MAX);
            batches.truncate(BATCHES_SHOWN_MAX);
        }
        batches.sort_unstable();
        let batches = batches.iter().filter_map(|(_, _, id)| self.batch(state, *id)).collect();
        Some(JobView { summary, batches, more: more as u64 })
    }

    fn count(&self, id: BatchId, batch: &Batch, summary: &mut JobSummary) {
        summary.batches += 1;
        summary.tasks += u64::from(batch.tasks);
        summary.ended += u64::from(batch.ended());
        summary.failed += u64::from(batch.progress().map_or(0, |progress| progress.failed));
        summary.running += u64::from(self.running(id));
    }

    /// Tasks of a batch that are with a worker.
    fn running(&self, id: BatchId) -> u32 {
        let theirs = self.active.get(&id).into_iter().flat_map(|active| &active.attempts);
        let held = theirs.filter_map(|attempt| self.attempts.get(attempt));
        held.map(|attempt| attempt.open.len()).sum()
    }

    fn batch(&self, state: &State, id: BatchId) -> Option<BatchView> {
        let batch = state.batches.get(&id)?;
        Some(BatchView {
            batch: id,
            name: shown(&batch.spec.name),
            group: batch.spec.policy.group.as_deref().map(shown),
            tasks: batch.tasks,
            sealed: batch.sealed,
            ended: batch.ended(),
            failed: batch.progress().map_or(0, |progress| progress.failed),
            running: self.running(id),
            stopped: batch.stopped().is_some(),
        })
    }
}

/// A job whose batches are not counted yet.
fn summary(id: JobId, job: &Job) -> JobSummary {
    JobSummary {
        job: id,
        name: shown(&job.name),
        owner: shown(&job.owner),
        batches: 0,
        tasks: 0,
        ended: 0,
        failed: 0,
        running: 0,
    }
}

/// As much of a text as is shown.
pub(super) fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_SHOWN_BYTES_MAX)].into()
}
