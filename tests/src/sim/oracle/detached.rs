//! What the oracle knows of jobs that go on without their client: whose they are, who is attached to each, what is in
//! it, when it was over and left, and what was read of it.

use std::collections::BTreeMap;

use allhands_common::id::{BatchId, JobId, SessionId};
use allhands_common::range::TaskRange;
use allhands_common::time::ClusterTime;
use allhands_scheduler::{Effect, State};
use bytes::Bytes;

use super::{Oracle, broken};
use crate::sim::Violation;
use crate::sim::climate::{MS, SECOND};

/// How much longer than it has to a job stays, at most, where nothing breaks: what it takes to commit that.
const FORGETTING: u64 = 3 * SECOND;

/// All such jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Clients that open one: who they are, and for how many milliseconds it is kept.
    openers: BTreeMap<SessionId, (String, u64)>,
    /// Which job each client comes for, and who it is.
    visitors: BTreeMap<SessionId, (JobId, String)>,
    of: BTreeMap<JobId, Job>,
    by_opener: BTreeMap<SessionId, JobId>,
    /// What was first read of each batch, by its place.
    read: BTreeMap<(BatchId, u32), (TaskRange, Bytes)>,
    closed: Vec<SessionId>,
}

#[derive(Debug)]
struct Job {
    opener: SessionId,
    attached: Option<SessionId>,
    /// Batches that are not over, those that tasks have called among them.
    open: u32,
    /// When the last of them was, or the last client left, on the cluster's clock and on the world's.
    quiet: (ClusterTime, u64),
    cancelled: bool,
    forgotten: bool,
}

impl Oracle {
    /// There is a client whose job goes on without it.
    pub(in crate::sim) fn opens(&mut self, session: SessionId, owner: &str, retention_ms: u64) {
        self.jobs.openers.insert(session, (owner.into(), retention_ms));
    }

    /// A client asks for a job.
    pub(in crate::sim) fn visits(&mut self, session: SessionId, job: JobId, owner: &str) {
        self.jobs.visitors.insert(session, (job, owner.into()));
    }

    /// A client wants a job to end.
    pub(in crate::sim) fn job_cancelled(&mut self, job: JobId) {
        if let Some(known) = self.jobs.of.get_mut(&job) {
            known.cancelled = true;
        }
    }

    /// Whether somebody wanted all of the job to end that a batch is of.
    pub(in crate::sim) fn is_of_cancelled_job(&self, batch: BatchId) -> bool {
        self.job_of(batch).and_then(|job| self.jobs.of.get(&job)).is_some_and(|job| job.cancelled)
    }

    pub(in crate::sim) fn job_of_client(&self, opener: SessionId) -> Option<JobId> {
        self.jobs.by_opener.get(&opener).copied()
    }

    fn job_of(&self, batch: BatchId) -> Option<JobId> {
        self.job_of_client(self.batches.get(&batch)?.call.0)
    }

    fn owner_of(&self, job: JobId) -> Option<&(String, u64)> {
        self.jobs.openers.get(&self.jobs.of.get(&job)?.opener)
    }

    pub(in crate::sim) fn may_visit(&self, job: JobId, owner: &str) -> bool {
        self.owner_of(job).is_some_and(|(theirs, _)| theirs == owner)
    }

    pub(in crate::sim) fn is_forgotten(&self, job: JobId) -> bool {
        self.jobs.of.get(&job).is_some_and(|job| job.forgotten)
    }

    /// When a job will be forgotten, if nothing of it is open and nobody comes to it.
    pub(in crate::sim) fn forgets_at(&self, job: JobId) -> Option<ClusterTime> {
        let known = self.jobs.of.get(&job)?;
        let over = known.open == 0 && known.attached.is_none() && !known.forgotten;
        over.then_some(known.quiet.0.after(self.owner_of(job)?.1))
    }

    /// The batches of a job that its client has opened, and how many tasks each has.
    pub(in crate::sim) fn batches_of_job(&self, job: JobId) -> BTreeMap<BatchId, u32> {
        let opener = self.jobs.of.get(&job).map(|job| job.opener);
        let theirs = self.batches.iter().filter(|(_, known)| {
            known.opened && known.parent.is_none() && Some(known.call.0) == opener
        });
        theirs.map(|(id, known)| (*id, known.committed)).collect()
    }

    /// A session is told something of a job, or of what is in it, by the log.
    pub(super) fn learn_of_jobs(
        &mut self,
        now: u64,
        effect: &Effect,
        state: &State,
    ) -> Result<(), Violation> {
        let quiet = (state.at, now);
        match effect {
            Effect::JobOpened { session, job, .. } if self.jobs.openers.contains_key(session) => {
                let (opener, attached) = (*session, Some(*session));
                self.jobs.by_opener.insert(opener, *job);
                self.jobs.of.entry(*job).or_insert(Job {
                    opener,
                    attached,
                    open: 0,
                    quiet,
                    cancelled: false,
                    forgotten: false,
                });
            }
            Effect::BatchOpened { batch, .. } | Effect::Called { batch, new: true, .. } => {
                if let Some(job) = self.job_of(*batch).and_then(|job| self.jobs.of.get_mut(&job)) {
                    job.open += 1;
                }
            }
            Effect::BatchOver { batch } => {
                if let Some(job) = self.job_of(*batch).and_then(|job| self.jobs.of.get_mut(&job)) {
                    (job.open, job.quiet) = (job.open.saturating_sub(1), quiet);
                }
            }
            Effect::SessionClosed { session } => {
                self.jobs.closed.push(*session);
                for job in self.jobs.of.values_mut() {
                    if job.attached.take_if(|attached| attached == session).is_some() {
                        job.quiet = quiet;
                    }
                }
            }
            Effect::JobAttached { session, job, .. } => return self.attaches(*session, *job),
            Effect::Refused { session, request: Some(_), reason, .. } => {
                return self.check_refusal(*session, reason, state);
            }
            _ => {}
        }
        Ok(())
    }

    fn attaches(&mut self, session: SessionId, job: JobId) -> Result<(), Violation> {
        let wrong = |what: &str| {
            let what = format!("{session} to job {job}: {what}");
            Err(broken("who may attaches to a job, one at a time", what))
        };
        let visitor = self.jobs.visitors.get(&session);
        let Some((asked, owner)) = visitor.filter(|(asked, _)| *asked == job) else {
            return wrong("it has not asked");
        };
        if !self.may_visit(*asked, owner) {
            return wrong("it is another's");
        }
        match self.jobs.of.get_mut(&job) {
            Some(known) if known.forgotten => wrong("it is forgotten"),
            Some(known) if known.attached.is_some_and(|attached| attached != session) => {
                wrong("another client is attached")
            }
            Some(known) => {
                known.attached = Some(session);
                Ok(())
            }
            None => wrong("there is none"),
        }
    }

    /// A client was not let have a job: whether what it is told is so.
    fn check_refusal(
        &self,
        session: SessionId,
        reason: &str,
        state: &State,
    ) -> Result<(), Violation> {
        let Some((job, owner)) = self.jobs.visitors.get(&session) else { return Ok(()) };
        let Some(known) = self.jobs.of.get(job) else { return Ok(()) };
        let says = match () {
            () if !state.jobs.contains_key(job) => "is over and forgotten",
            () if !self.may_visit(*job, owner) => "is of another identity",
            () if known.attached.is_some_and(|attached| attached != session) => {
                "is attached to another client"
            }
            () => "nothing: nobody is attached to it",
        };
        if reason.contains(says) {
            return Ok(());
        }
        let what = format!("{session} to job {job}: {reason:?}, not {says:?}");
        Err(broken("who does not get a job is told why", what))
    }

    /// After an entry: jobs have ended with their clients, or stay for as long as they are to.
    pub(super) fn settle_jobs(&mut self, now: u64, state: &State) -> Result<(), Violation> {
        for session in std::mem::take(&mut self.jobs.closed) {
            let goes_on = |job: &JobId| self.jobs.of.contains_key(job);
            let mut theirs = state.jobs.iter().filter(|(_, job)| job.session == session);
            if let Some((job, _)) = theirs.find(|(job, _)| !goes_on(job)) {
                let what = format!("job {job} of {session}");
                return Err(broken("an attached job ends with its client", what));
            }
        }
        let gone = |(id, job): &(&JobId, &Job)| !job.forgotten && !state.jobs.contains_key(id);
        let gone: Vec<JobId> = self.jobs.of.iter().filter(gone).map(|(id, _)| *id).collect();
        for id in gone {
            self.check_forgotten(id, now, state)?;
            if let Some(job) = self.jobs.of.get_mut(&id) {
                job.forgotten = true;
            }
        }
        Ok(())
    }

    /// A job was forgotten: whether it was time, and all of it had come to its end.
    fn check_forgotten(&self, id: JobId, now: u64, state: &State) -> Result<(), Violation> {
        let (Some(job), Some((_, retention_ms))) = (self.jobs.of.get(&id), self.owner_of(id))
        else {
            return Ok(());
        };
        let theirs = self.batches.iter().filter(|(_, known)| known.call.0 == job.opener);
        for (batch, known) in theirs.filter(|(_, known)| known.opened) {
            let whole = TaskRange::new(0, known.committed);
            if !known.over || !known.cut && !known.ended.covers(whole) {
                let what = format!("{batch} of job {id}: {:?} of {whole}", known.ended);
                return Err(broken("all tasks of a detached job end", what));
            }
        }
        let wrong = |what: String| Err(broken("a job is kept for its retention", what));
        if job.open > 0 || job.attached.is_some() {
            return wrong(format!("job {id}: {job:?}"));
        }
        let (kept, since) = (state.at.0 - job.quiet.0.0, job.quiet.1);
        if kept < *retention_ms {
            return wrong(format!("job {id}: forgotten after {kept} ms of {retention_ms}"));
        }
        let late = now - since > retention_ms * MS + FORGETTING;
        if late && since > self.faults_end {
            let kept = (now - since) / MS;
            return wrong(format!("job {id}: forgotten after {kept} ms of {retention_ms}"));
        }
        Ok(())
    }

    /// Outcomes reach somebody who reads them: each place of a batch has the same for everybody, whoever leads.
    pub(in crate::sim) fn note_read(
        &mut self,
        batch: BatchId,
        sequence: u32,
        range: TaskRange,
        bytes: &Bytes,
    ) -> Result<(), Violation> {
        let first =
            self.jobs.read.entry((batch, sequence)).or_insert_with(|| (range, bytes.clone()));
        if *first != (range, bytes.clone()) {
            let what = format!("{sequence} of {batch}: {range}, and before {}", first.0);
            return Err(broken("every visit reads the same", what));
        }
        Ok(())
    }
}
