//! Jobs that go on without their client: whoever is of the same identity can attach to one, and its outcomes stay
//! for a while when it is over.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, RequestId, SessionId};
use allhands_common::time::ClusterTime;
use serde::{Deserialize, Serialize};

use super::{Job, State};
use crate::Effect;

/// What a job has that goes on without its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// How long its outcomes stay once it is over and nobody is attached to it, in milliseconds.
    pub retention_ms: u64,
    /// Batches of it that are not over.
    pub open: u32,
    /// When the last of them was, or the last client left.
    pub over_at: ClusterTime,
    /// Whether another client than that which has opened it was attached.
    pub visited: bool,
}

impl Detached {
    pub(super) const fn new(retention_ms: u64) -> Self {
        Self { retention_ms, open: 0, over_at: ClusterTime(0), visited: false }
    }

    /// When its outcomes may go, if it is over and nobody attaches to it.
    pub const fn expires_at(&self) -> Option<ClusterTime> {
        match self.open {
            0 => Some(self.over_at.after(self.retention_ms)),
            _ => None,
        }
    }
}

impl Job {
    /// A batch of it is open more, or one fewer.
    pub(super) fn count_batch(&mut self, more: bool) {
        if let Some(detached) = &mut self.detached {
            detached.open = if more { detached.open + 1 } else { detached.open.saturating_sub(1) };
        }
    }

    /// Whether whoever is attached to it is not who has opened it.
    pub fn is_visited(&self) -> bool {
        self.detached.as_ref().is_some_and(|detached| detached.visited)
    }

    /// Something of it has ended now.
    pub(super) fn note_end(&mut self, at: ClusterTime) {
        if let Some(detached) = &mut self.detached
            && !cfg!(plant = "retention_counts_from_opening")
        {
            detached.over_at = at;
        }
    }
}

impl State {
    /// Whether a client is attached to a job.
    pub fn is_attached(&self, job: &Job) -> bool {
        self.sessions.contains_key(&job.session)
    }

    /// The client of some jobs has gone: those that go on without it have all the tasks that they will have.
    pub(super) fn let_go_of_jobs(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let theirs = |job: &&mut Job| {
            let prolongs = !job.is_visited() || !cfg!(plant = "visits_do_not_prolong");
            job.session == session && job.detached.is_some() && prolongs
        };
        let at = self.at;
        self.jobs.values_mut().filter(theirs).for_each(|job| job.note_end(at));
        let left = |job: &JobId| {
            let job = self.jobs.get(job);
            job.is_some_and(|job| job.session == session && job.detached.is_some())
        };
        let open = self.batches.iter().filter(|(_, batch)| !batch.sealed && left(&batch.job));
        let open = open.filter(|_| !cfg!(plant = "left_batches_stay_open"));
        let open: Vec<(BatchId, u32)> = open.map(|(id, batch)| (*id, batch.tasks)).collect();
        open.into_iter().for_each(|(id, tasks)| self.seal(id, tasks, out));
    }

    /// A client attaches to a job.
    pub(super) fn attach_job(
        &mut self,
        session: SessionId,
        request: RequestId,
        job: JobId,
        out: &mut Vec<Effect>,
    ) {
        let Some(who) = self.sessions.get_mut(&session) else { return };
        let mut refuse = |reason| {
            let request = Some(request);
            out.push(Effect::Refused { session, batch: None, request, reason });
        };
        let lets_in =
            |known: &&mut Job| known.owner == who.owner || cfg!(plant = "any_owner_attaches");
        let Some(known) = self.jobs.get_mut(&job).filter(lets_in) else {
            let what = if job < self.next_job { "is over and forgotten" } else { "does not exist" };
            return refuse(alloc::format!(
                "job {job} {what}, or is of another identity: `allhands jobs` lists those that there are"
            ));
        };
        if known.detached.is_none() {
            return refuse(alloc::format!(
                "job {job} is attached to its client for good: only a detached one can be attached to"
            ));
        }
        who.replies.insert(request, job);
        let before = known.session;
        if before != session && self.sessions.contains_key(&before) {
            if let Some(who) = self.sessions.get_mut(&session) {
                who.replies.remove(&request);
            }
            return refuse(alloc::format!(
                "job {job} is attached to another client: end that one first (one that has died is \
                 given up after 15 s)"
            ));
        }
        if let Some(known) = self.jobs.get_mut(&job) {
            (known.session, known.request) = (session, request);
            if let Some(detached) = &mut known.detached {
                detached.visited = true;
            }
        }
        out.push(Effect::JobAttached { session, request, job });
    }

    /// A job is over, and has been kept long enough.
    pub(super) fn expire_job(&mut self, job: JobId, out: &mut Vec<Effect>) {
        let Some(known) = self.jobs.get(&job) else { return };
        let expires = known.detached.as_ref().and_then(Detached::expires_at);
        // Somebody may have come and gone since that was proposed.
        let late = |at| at <= self.at || cfg!(plant = "visited_job_expires");
        if !expires.is_some_and(late) || self.is_attached(known) {
            return;
        }
        self.jobs.remove(&job);
        let batches: Vec<BatchId> =
            self.batches.iter().filter(|(_, batch)| batch.job == job).map(|(id, _)| *id).collect();
        batches.into_iter().for_each(|batch| self.forget(batch, out));
    }
}
