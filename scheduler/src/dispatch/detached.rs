//! Jobs that go on without their client: who attaches to one, and when one has been kept long enough.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, RequestId, SessionId};
use allhands_common::limit::READING_MAX;
use allhands_common::time::Instant;
use allhands_common::wire::client::{JobBatch, ToClient};

use super::{Dispatcher, Timer};
use crate::state::Batch;
use crate::{Action, Command, State};

/// Batches in one message: a name of some 60 bytes each, in a head that may have 6 MiB.
const BATCHES_NAMED_MAX: usize = 4096;

/// Longest name of a batch that is told, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl Dispatcher {
    /// A client is attached to a job: it is told of its batches.
    pub(super) fn job_attached(
        &mut self,
        state: &State,
        session: SessionId,
        request: RequestId,
        job: JobId,
        out: &mut Vec<Action>,
    ) {
        let Some(known) = state.jobs.get(&job) else { return };
        let roots = state.batches_of(job).filter(|(_, batch)| batch.depth() == 0);
        let mut roots: Vec<(BatchId, &Batch)> = roots.map(|(id, batch)| (*id, batch)).collect();
        roots.sort_by_key(|(id, batch)| (batch.opened, batch.sequence, *id));
        let named = |(id, batch): &(BatchId, &Batch)| {
            let name = &batch.spec.name;
            let name = name[..name.floor_char_boundary(NAME_BYTES_MAX)].into();
            let mut types = batch.spec.functions.iter().map(|function| &*function.returns);
            let returns = types.next().filter(|first| types.all(|other| other == *first));
            // What comes of one that is run until it returns something is what is in that.
            let returns = returns.filter(|_| batch.spec.policy.recurs.is_none());
            let returns =
                returns.map(|name| name[..name.floor_char_boundary(NAME_BYTES_MAX)].into());
            JobBatch { batch: *id, name, returns: returns.unwrap_or_default(), tasks: batch.tasks }
        };
        let mut parts = roots.chunks(BATCHES_NAMED_MAX).peekable();
        loop {
            let batches = parts.next().into_iter().flatten().map(named).collect();
            let (name, more) = (known.name.clone(), parts.peek().is_some());
            self.tell(session, ToClient::JobAttached { request, job, name, batches, more }, out);
            if !more {
                break;
            }
        }
    }

    /// A client reads batches of a job that it has attached to.
    pub(super) fn read(
        &mut self,
        state: &State,
        session: SessionId,
        batches: Vec<(BatchId, u32)>,
        out: &mut Vec<Action>,
    ) {
        let theirs = |id: &BatchId| {
            let batch = state.batches.get(id).filter(|batch| batch.depth() == 0);
            batch.and_then(|batch| state.job_of(batch)).is_some_and(|job| job.session == session)
        };
        for (id, from) in batches.into_iter().take(READING_MAX).filter(|(id, _)| theirs(id)) {
            self.redeliver(state, id, from, out);
        }
    }

    /// A client wants to see how far a job is. Nothing is said of one that is not its own.
    pub(super) fn look_at_job(
        &mut self,
        state: &State,
        session: SessionId,
        id: JobId,
        out: &mut Vec<Action>,
    ) {
        if state.jobs.get(&id).is_some_and(|job| job.session == session)
            && let Some(view) = self.job(state, id)
        {
            self.tell(session, ToClient::JobSeen(view.summary), out);
        }
    }

    /// A client has gone: its jobs that go on are kept for a while.
    pub(super) fn watch_jobs_of(&mut self, state: &State, session: SessionId) {
        let theirs = state.jobs.iter().filter(|(_, job)| job.session == session);
        let theirs: Vec<JobId> = theirs.map(|(id, _)| *id).collect();
        theirs.into_iter().for_each(|job| self.watch_job(state, job));
    }

    /// A job may have to be forgotten at some time.
    pub(super) fn watch_job(&mut self, state: &State, id: JobId) {
        let Some(job) = state.jobs.get(&id).filter(|job| !state.is_attached(job)) else { return };
        if let Some(at) = job.detached.as_ref().and_then(|detached| detached.expires_at()) {
            self.timers.set(self.instant_of(at), Timer::Job(id));
        }
    }

    /// Looks whether a job has been kept long enough.
    pub(super) fn check_job(&self, now: Instant, state: &State, id: JobId, out: &mut Vec<Action>) {
        let Some(job) = state.jobs.get(&id).filter(|job| !state.is_attached(job)) else { return };
        let expires = job.detached.as_ref().and_then(|detached| detached.expires_at());
        if expires.is_some_and(|at| at <= self.cluster_time(now)) {
            out.push(Action::Propose(Command::ExpireJob { job: id }));
        }
    }
}
