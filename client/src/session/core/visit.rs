//! Jobs that go on without their client: opening one, and attaching to one that another client has opened, whose
//! batches are read a few at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use allhands_common::id::{BatchId, JobId, RequestId};
use allhands_common::limit::READING_MAX;
use allhands_common::program::ProgramId;
use allhands_common::time::Instant;
use allhands_common::wire::client::{FromClient, JobBatch};

use super::batch::Inbox;
use super::{Action, Config, Core, End, Job, Peer};

/// What a session's one job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Its own: it ends with the session, and is opened with the first batch.
    Attached,
    /// One that goes on without the session, and whose outcomes stay for so long when it is over.
    Detached { retention_ms: u64 },
    /// One that another session has opened.
    Visit(JobId),
}

/// A job that others can attach to, or that this session is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visited {
    pub(crate) job: JobId,
    pub(crate) name: String,
    /// Its batches, in order, those that tasks have called left out; none of one that this session has opened.
    pub(crate) batches: Vec<JobBatch>,
}

/// What a session reads of a job that another has opened.
#[derive(Debug, Default)]
pub(super) struct Visit {
    /// Batches that the leader has named, while it goes on.
    named: Vec<JobBatch>,
    /// It is attached, and its caller knows.
    begun: bool,
    /// Batches that are read when others have been, in order.
    waiting: VecDeque<BatchId>,
    /// What came of those that are being read.
    reading: BTreeMap<BatchId, Inbox>,
    /// Its caller wants to see how far it is, and has not.
    looks: bool,
    /// Why it cannot be had (any more).
    refused: Option<String>,
    /// Coordinators that have the program.
    held_by: BTreeSet<Peer>,
}

impl Core {
    /// Asks for the session's job, if that has to be done at once, or now.
    pub(super) fn ask_for_job(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if self.job != Job::Idle {
            return;
        }
        self.job = Job::Asked;
        let request = self.request;
        let Config { program, name, purpose, .. } = &self.config;
        let (program, name) = (program.clone(), name.clone());
        let message = match *purpose {
            Purpose::Attached => FromClient::OpenJob { request, program, name, detached: None },
            Purpose::Detached { retention_ms } => {
                FromClient::OpenJob { request, program, name, detached: Some(retention_ms) }
            }
            Purpose::Visit(job) => FromClient::AttachJob { request, job },
        };
        self.say(peer, message, out);
    }

    /// Each coordinator is to have the program of a job that goes on without its client.
    pub(super) fn offer_program(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if matches!(self.config.purpose, Purpose::Detached { .. })
            && !self.visit.held_by.contains(&peer)
        {
            let message = FromClient::Program(self.config.program.clone());
            out.push(Action::Send { peer, message });
        }
    }

    /// A coordinator has the program.
    pub(super) fn program_held(&mut self, peer: Peer, program: ProgramId, out: &mut Vec<Action>) {
        if program == self.config.program.id && self.visit.held_by.insert(peer) {
            out.push(Action::ProgramHeld(self.visit.held_by.len()));
        }
    }

    /// Whether a job was asked for by this request, and there was no answer.
    pub(super) fn has_asked(&self, request: RequestId) -> bool {
        request == self.request && self.job == Job::Asked
    }

    const fn request_answered(&mut self) {
        self.request.0 += 1;
        self.low = self.request;
    }

    pub(super) fn job_opened(&mut self, request: RequestId, job: JobId, out: &mut Vec<Action>) {
        if !self.has_asked(request) {
            return;
        }
        self.job = Job::Open(job);
        self.request_answered();
        if matches!(self.config.purpose, Purpose::Detached { .. }) {
            let name = self.config.name.clone();
            out.push(Action::JobOpen(Visited { job, name, batches: Vec::new() }));
        }
    }

    /// The job cannot be had: nothing of it ever comes.
    pub(super) fn job_refused(
        &mut self,
        request: RequestId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        if !self.has_asked(request) {
            return;
        }
        self.request_answered();
        self.job = Job::Idle;
        if self.config.purpose == Purpose::Attached {
            return self.end_all(&End::ProgramRefused(reason), out);
        }
        self.lose_job(reason, out);
    }

    /// What it is here for is not to be had (any more).
    fn lose_job(&mut self, reason: String, out: &mut Vec<Action>) {
        self.job = Job::Refused;
        self.visit.refused = Some(reason.clone());
        out.push(Action::JobRefused(reason));
        self.end_refused(out);
    }

    /// Ends what was given in spite of that.
    pub(super) fn end_refused(&mut self, out: &mut Vec<Action>) {
        if let Some(reason) = self.visit.refused.clone() {
            self.queue.clear();
            self.end_all(&End::Refused(reason.clone()), out);
            self.end_visit(&End::Refused(reason), out);
        }
    }

    /// Nothing more comes of what is read, nor of what was to be.
    fn end_visit(&mut self, end: &End, out: &mut Vec<Action>) {
        self.visit.looks = false;
        let reading = std::mem::take(&mut self.visit.reading).into_iter();
        let open = reading.filter(|(_, inbox)| !inbox.over).map(|(batch, _)| batch);
        for batch in open.chain(std::mem::take(&mut self.visit.waiting)) {
            out.push(Action::End { batch, end: end.clone() });
        }
    }

    /// Until when a leader is waited for that has something to say of another's job.
    pub(super) fn visit_patient_until(&self) -> Option<Instant> {
        let waits = self.visit.looks || !self.visit.reading.is_empty() || self.job == Job::Asked;
        let visits = self.config.purpose != Purpose::Attached && self.visit.refused.is_none();
        (visits && waits).then(|| self.leaderless_since + self.config.patience)
    }

    /// No leader has come in time.
    pub(super) fn give_up_visit(&mut self, out: &mut Vec<Action>) {
        if self.visit_patient_until().is_some_and(|until| until <= self.now) {
            self.end_visit(&End::Leaderless(self.now - self.leaderless_since), out);
        }
    }

    /// Nothing more comes of a batch that is read.
    pub(super) fn give_up_visited(&mut self, batch: BatchId, end: End, out: &mut Vec<Action>) {
        self.visit.reading.remove(&batch);
        out.push(Action::End { batch, end });
        self.read_more(out);
    }

    /// The lease has run out. Who was attached to another's job attaches to it again and reads on; who has opened one
    /// has lost it.
    pub(super) fn job_expired(&mut self, out: &mut Vec<Action>) {
        match (self.config.purpose, self.job) {
            (_, Job::Refused) => {}
            (Purpose::Detached { .. }, Job::Open(job)) => {
                let reason = format!(
                    "the lease of the session that has opened it has run out: job {job} goes on with what it has, \
                     and takes nothing more; attach to it with `Cluster::job`"
                );
                self.lose_job(reason, out);
            }
            (Purpose::Attached | Purpose::Detached { .. } | Purpose::Visit(_), _) => {
                self.job = Job::Idle
            }
        }
    }

    /// It is attached to a job, of which these are batches.
    pub(super) fn job_attached(
        &mut self,
        (request, job): (RequestId, JobId),
        (name, batches, more): (String, Vec<JobBatch>, bool),
        peer: Peer,
        out: &mut Vec<Action>,
    ) {
        if !self.has_asked(request) {
            return;
        }
        self.visit.named.extend(batches);
        if more {
            return;
        }
        self.job = Job::Open(job);
        self.request_answered();
        let batches = std::mem::take(&mut self.visit.named);
        if !std::mem::replace(&mut self.visit.begun, true) {
            out.push(Action::JobOpen(Visited { job, name, batches }));
        }
        self.visit_again(peer, out);
    }

    /// Another leader, or another stay: it is to be said again what is read, and that somebody looks.
    pub(super) fn visit_again(&mut self, peer: Peer, out: &mut Vec<Action>) {
        self.visit.named.clear();
        if !matches!(self.job, Job::Open(_)) {
            return;
        }
        let open = self.visit.reading.iter().filter(|(_, inbox)| !inbox.over);
        let open: Vec<_> = open.map(|(id, inbox)| (*id, inbox.received)).collect();
        if !open.is_empty() {
            self.say(peer, FromClient::Read(open), out);
        }
        self.look(out);
    }

    /// Its caller reads these batches, all in all.
    pub(super) fn read(&mut self, batches: Vec<BatchId>, out: &mut Vec<Action>) {
        self.visit.waiting.extend(batches);
        self.read_more(out);
    }

    /// Its caller does not read any more.
    pub(super) fn stop_reading(&mut self) {
        self.visit.waiting.clear();
        self.visit.reading.clear();
    }

    fn read_more(&mut self, out: &mut Vec<Action>) {
        let room = READING_MAX - self.visit.reading.len().min(READING_MAX);
        let some = room.min(self.visit.waiting.len());
        let more: Vec<(BatchId, u32)> =
            self.visit.waiting.drain(..some).map(|id| (id, 0)).collect();
        if more.is_empty() {
            return;
        }
        self.visit.reading.extend(more.iter().map(|(id, _)| (*id, Inbox::default())));
        if let (Some(peer), Job::Open(_)) = (self.leader, self.job) {
            self.say(peer, FromClient::Read(more), out);
        }
    }

    /// What has come of a batch that is read.
    pub(super) fn visited(&mut self, id: BatchId) -> Option<&mut Inbox> {
        self.visit.reading.get_mut(&id)
    }

    /// The end of a batch that is read, if this is it.
    pub(super) fn settle_visited(&mut self, id: BatchId, out: &mut Vec<Action>) {
        if let Some(rest) = self.visited(id).and_then(Inbox::ends_now) {
            out.push(Action::End { batch: id, end: End::Complete { rest } });
            self.leave_visited(id, out);
        }
    }

    /// Its caller has taken the first `segments` outcome segments of a batch that it reads.
    pub(super) fn consume_visited(&mut self, id: BatchId, segments: u32, out: &mut Vec<Action>) {
        let Some(inbox) = self.visit.reading.get_mut(&id) else { return };
        let Some(bytes) = inbox.consume(segments) else { return };
        self.acknowledge_bytes += bytes;
        if !inbox.acknowledging {
            inbox.acknowledging = true;
            self.to_acknowledge.push(id);
        }
        self.leave_visited(id, out);
    }

    /// How many segments of a batch that is read were taken, to be acknowledged.
    pub(super) fn acknowledge_visited(&mut self, id: BatchId) -> Option<u32> {
        let inbox = self.visit.reading.get_mut(&id)?;
        inbox.acknowledging = false;
        Some(inbox.consumed)
    }

    /// A batch that has been read makes room for another.
    fn leave_visited(&mut self, id: BatchId, out: &mut Vec<Action>) {
        if self.visit.reading.get(&id).is_some_and(Inbox::is_finished) {
            self.visit.reading.remove(&id);
            self.read_more(out);
        }
    }

    /// Its caller wants to see how far the job is.
    pub(super) fn want_look(&mut self, out: &mut Vec<Action>) {
        self.visit.looks = true;
        self.look(out);
    }

    fn look(&mut self, out: &mut Vec<Action>) {
        if let (true, Some(peer), Job::Open(job)) = (self.visit.looks, self.leader, self.job) {
            self.say(peer, FromClient::LookAtJob(job), out);
        }
    }

    /// It has seen that.
    pub(super) const fn looked(&mut self) {
        self.visit.looks = false;
    }

    /// Its caller ends the job.
    pub(super) fn cancel_job(&mut self, reason: String, out: &mut Vec<Action>) {
        if let (Some(peer), Job::Open(job)) = (self.leader, self.job) {
            self.say(peer, FromClient::CancelJob { job, reason }, out);
        }
    }
}
