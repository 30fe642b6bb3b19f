//! Sessions, jobs and batches: how they come and grow.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use allhands_common::execution::Mention;
use allhands_common::id::{AttemptId, BatchId, JobId, RequestId, SegmentId, SessionId};
use allhands_common::limit::SESSION_REPLIES_MAX;
use allhands_common::policy::BatchSpec;
use allhands_common::program::Program;
use allhands_common::range::TaskRange;
use allhands_common::time::ClusterTime;
use bytes::Bytes;
use smallvec::SmallVec;

use super::links::Callees;
use super::{ArgumentSegment, Batch, Detached, Job, Session, Started, State};
use crate::{Charge, Effect};

/// Specifications that a job remembers: calls in a loop have equal ones.
const SPECS_REMEMBERED: usize = 8;

impl State {
    pub(super) fn open_session(
        &mut self,
        session: SessionId,
        owner: String,
        out: &mut Vec<Effect>,
    ) {
        self.sessions.entry(session).or_insert_with(|| Session { owner, ..Session::default() });
        out.push(Effect::SessionOpened { session });
    }

    pub(super) fn open_job(
        &mut self,
        session: SessionId,
        (request, low): (RequestId, RequestId),
        program: Program,
        name: String,
        detached: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        known.replies = known.replies.split_off(&low);
        if let Some(job) = known.replies.get(&request) {
            out.push(Effect::JobOpened { session, request, job: *job });
            return;
        }
        if request < low {
            return;
        }
        if known.replies.len() >= SESSION_REPLIES_MAX {
            let reason = alloc::format!(
                "{SESSION_REPLIES_MAX} jobs of this client are open: wait for one to end"
            );
            out.push(Effect::Refused { session, batch: None, request: Some(request), reason });
            return;
        }
        let job = self.next_job;
        self.next_job.0 += 1;
        known.replies.insert(request, job);
        let owner = known.owner.clone();
        let (specs, equals, detached) = (Vec::new(), BTreeMap::new(), detached.map(Detached::new));
        let opened = Job { session, request, owner, name, program, specs, equals, detached };
        self.jobs.insert(job, opened);
        out.push(Effect::JobOpened { session, request, job });
    }

    /// Opens a batch; whether it was not open before.
    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    pub(super) fn open_batch(
        &mut self,
        session: SessionId,
        batch: BatchId,
        (sequence, call): (u32, u32),
        job: JobId,
        (spec, kept): (Arc<BatchSpec>, bool),
        context: Bytes,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(known) = self.sessions.get_mut(&session) else { return false };
        if known.opened.contains(sequence) && !cfg!(plant = "batch_opened_twice") {
            out.push(Effect::Repeated { batch });
            return false;
        }
        let Some(owner) = self.jobs.get_mut(&job).filter(|owner| owner.session == session) else {
            let reason = alloc::format!("job {job} is not open in this session: open it first");
            out.push(Effect::Refused { session, batch: Some(batch), request: None, reason });
            return false;
        };
        // Ids are made by clients: one that is taken is somebody else's batch, or a mistake.
        if self.batches.contains_key(&batch) && !cfg!(plant = "batch_opened_twice") {
            let reason =
                alloc::format!("batch {batch} is there already: it cannot be opened again");
            out.push(Effect::Refused { session, batch: Some(batch), request: None, reason });
            return false;
        }
        // Who opens a batch of a job has heard of the job.
        known.replies.remove(&owner.request);
        known.opened.insert(TaskRange::new(sequence, sequence.saturating_add(1)));
        let spec = owner.share_spec(spec);
        let kept = kept || owner.detached.is_some();
        owner.count_batch(true);
        let mut opened = Batch {
            job,
            sequence,
            call,
            tasks: 0,
            spec,
            opened: self.at,
            arguments: SmallVec::new(),
            sealed: false,
            kept,
            progress: None,
        };
        if !context.is_empty() {
            let segment = self.name_segment();
            opened.progress_mut().context = Some(segment);
            out.push(Effect::Keep { segment, bytes: context });
        }
        self.batches.insert(batch, opened);
        self.take_early_pins(batch);
        true
    }

    /// Gives a batch that was just opened what it begins with.
    pub(super) fn begin_batch(
        &mut self,
        batch: BatchId,
        tasks: u32,
        bytes: Bytes,
        (sealed, mentions): (bool, &[Mention]),
        out: &mut Vec<Effect>,
    ) {
        let segment = self.next_segment;
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if tasks > 0 {
            known.grow(segment, TaskRange::new(0, tasks), bytes.len(), 0);
            self.next_segment.0 += 1;
            out.push(Effect::Keep { segment, bytes: bytes.clone() });
        }
        known.sealed = sealed;
        let over = known.over();
        self.link(batch, TaskRange::new(0, tasks), mentions);
        out.push(Effect::BatchOpened { batch, tasks });
        if over {
            self.end_batch(batch, out);
        }
        self.meet_equals(batch, TaskRange::new(0, tasks), bytes, out);
    }

    /// A batch that is open is opened again, perhaps with more than the first time: its client did not
    /// hear of that.
    pub(super) fn open_again(
        &mut self,
        session: SessionId,
        batch: BatchId,
        tasks: u32,
        bytes: Bytes,
        (sealed, mentions): (bool, &[Mention]),
        out: &mut Vec<Effect>,
    ) {
        let job = self.batches.get(&batch).and_then(|known| self.job_of(known));
        if job.is_none_or(|job| job.session != session) {
            return;
        }
        if tasks > 0 {
            self.append(batch, 0, tasks, bytes, mentions, out);
        }
        if sealed {
            self.seal(batch, tasks, out);
        }
    }

    pub(super) fn append(
        &mut self,
        batch: BatchId,
        first: u32,
        tasks: u32,
        bytes: Bytes,
        mentions: &[Mention],
        out: &mut Vec<Effect>,
    ) {
        let (at, segment) = (self.at, self.next_segment);
        let Some(known) = self.batches.get_mut(&batch) else { return };
        let Some(end) = first.checked_add(tasks).filter(|_| tasks > 0) else { return };
        if known.tasks != first || known.sealed || known.stopped().is_some() {
            out.push(Effect::Repeated { batch });
            return;
        }
        let range = TaskRange::new(first, end);
        known.grow(segment, range, bytes.len(), at.0 - known.opened.0);
        self.next_segment.0 += 1;
        self.link(batch, range, mentions);
        out.push(Effect::Keep { segment, bytes: bytes.clone() });
        out.push(Effect::Appended { batch, range });
        self.meet_equals(batch, range, bytes, out);
    }

    pub(super) fn seal(&mut self, batch: BatchId, tasks: u32, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if known.sealed || known.tasks != tasks {
            out.push(Effect::Repeated { batch });
            return;
        }
        known.sealed = true;
        let (stopped, over) = (known.stopped().is_some(), known.over());
        out.push(Effect::Sealed { batch });
        if over && !stopped {
            self.end_batch(batch, out);
        }
    }

    pub(super) fn charge(
        &mut self,
        batch: BatchId,
        (index, attempt): (u32, AttemptId),
        charge: Charge,
        not_before: ClusterTime,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if index >= known.tasks || known.has_ended(index) || known.stopped().is_some() {
            return;
        }
        let exception = known.progress_mut().exceptions.entry(index).or_default();
        let news = attempt > exception.charged;
        match charge {
            Charge::Return => {}
            Charge::Failure | Charge::Death | Charge::Loss | Charge::Suspicion | Charge::Round
                if !news => {}
            Charge::Failure => exception.failures = exception.failures.saturating_add(1),
            Charge::Death => exception.deaths = exception.deaths.saturating_add(1),
            Charge::Loss => exception.losses = exception.losses.saturating_add(1),
            Charge::Suspicion => exception.suspect = true,
            Charge::Round => exception.end_round(),
        }
        if charge != Charge::Return {
            exception.charged = exception.charged.max(attempt);
        }
        exception.not_before = exception.not_before.max(not_before);
        known.unstart(index);
        if charge == Charge::Round && news {
            // What it has called in this round is not what it calls in the next.
            let one = TaskRange::new(index, index + 1);
            self.let_go_of_children(batch, one, Callees::Of(attempt));
        }
        out.push(Effect::Charged { batch, index });
    }

    pub(super) fn start(&mut self, batch: BatchId, started: Started, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if known.stopped().is_some() || known.unfinished(started.range).is_empty() {
            return;
        }
        known.progress_mut().started.push(started);
        let Started { attempt, worker, range } = started;
        out.push(Effect::Started { batch, attempt, worker, range });
    }
}

impl Job {
    /// `spec`, or an equal one that is there already.
    pub(super) fn share_spec(&mut self, spec: Arc<BatchSpec>) -> Arc<BatchSpec> {
        if let Some(equal) = self.specs.iter().find(|known| **known == spec) {
            return equal.clone();
        }
        if self.specs.len() >= SPECS_REMEMBERED {
            self.specs.remove(0);
        }
        self.specs.push(spec.clone());
        spec
    }
}

impl Batch {
    /// Adds the tasks `range`, whose `bytes` bytes of arguments are `segment`.
    pub(super) fn grow(
        &mut self,
        segment: SegmentId,
        range: TaskRange,
        bytes: usize,
        after_ms: u64,
    ) {
        self.tasks = range.end;
        self.arguments.push(ArgumentSegment {
            segment,
            tasks: range,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            after_ms: u32::try_from(after_ms).unwrap_or(u32::MAX),
        });
    }

    /// A task that was given out as one that must not run twice is not with its worker any more.
    fn unstart(&mut self, index: u32) {
        let Some(progress) = self.progress.as_deref_mut() else { return };
        let one = TaskRange::new(index, index + 1);
        progress.started = progress
            .started
            .iter()
            .flat_map(|started| {
                let left = TaskRange::new(started.range.start, started.range.end.min(one.start));
                let right = TaskRange::new(started.range.start.max(one.end), started.range.end);
                let parts = if started.range.contains(index) {
                    [left, right]
                } else {
                    [started.range, TaskRange::default()]
                };
                parts.map(|range| Started { range, ..*started })
            })
            .filter(|started| !started.range.is_empty())
            .collect();
    }
}
