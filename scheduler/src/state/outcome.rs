//! Outcomes: what is accepted of them, and when a batch is over.

use alloc::vec::Vec;

use allhands_common::codec;
use allhands_common::execution::Mention;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, JobId, SegmentId, WorkerId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::{ERROR, FAILED, Segment, SegmentBuilder, is_value};
use bytes::Bytes;

use super::links::Callees;
use super::{Batch, OutcomeSegment, State, Stop};
use crate::Effect;

impl State {
    /// Accepts, of the outcomes of `range`, those of tasks that have none yet. The first committed
    /// outcome of a task wins, whoever sent it.
    pub(super) fn finish(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        bytes: Bytes,
        (mentions, by): (&[Mention], Callees),
        out: &mut Vec<Effect>,
    ) {
        let segment = self.next_segment;
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if known.stopped().is_some() || range.end > known.tasks {
            return;
        }
        let Ok(outcomes) = Segment::parse(bytes.clone()) else { return };
        let accepted = match cfg!(plant = "outcome_accepted_twice") {
            true => RangeSet::of(range),
            false => known.unfinished(range),
        };
        if outcomes.tasks() != range.len() || accepted.is_empty() {
            return;
        }
        // What a task has called is read by who asks for it; and nobody has to read what goes on without its client.
        let goes_on = self.jobs.get(&known.job).is_some_and(|job| job.detached.is_some());
        let is_read = !goes_on && known.depth() == 0;
        known.record(segment, range, &accepted, &outcomes, is_read);
        self.next_segment.0 += 1;
        out.push(Effect::Keep { segment, bytes });
        let kept = known.kept;
        for part in accepted.iter() {
            if kept {
                self.hold(batch, part, mentions);
                self.break_cycles(batch, part);
            }
            self.unlink(batch, part, by);
        }
        out.push(Effect::Ended { batch, range });
        self.release_arguments(batch, &accepted, out);
        self.end_batch_if_over(batch, out);
    }

    /// Ends those tasks of `range` that have no outcome with `failed`.
    pub(super) fn fail(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        failed: &Failed,
        out: &mut Vec<Effect>,
    ) {
        let mut text = Vec::new();
        if codec::encode(failed, &mut text).is_err() {
            return;
        }
        let Some(known) = self.batches.get(&batch) else { return };
        let range = range.intersection(TaskRange::new(0, known.tasks));
        let parts: Vec<TaskRange> = known.unfinished(range).iter().collect();
        for part in parts {
            let outcomes = SegmentBuilder::repeated(0, ERROR, &text, part.len());
            self.finish(batch, part, outcomes, (&[], callees(&failed.cause)), out);
        }
    }

    /// Says what became of an attempt's report.
    pub(super) fn settle(
        &mut self,
        batch: BatchId,
        attempt: AttemptId,
        worker: WorkerId,
        range: TaskRange,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Settled { worker, attempt, batch, range });
    }

    pub(super) fn stop(&mut self, batch: BatchId, rest: Failed, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if known.over() {
            return;
        }
        let progress = known.progress_mut();
        progress.stopped = Some(Stop { rest });
        self.end_batch(batch, out);
    }

    /// Works off what the command has let loose: batches that nothing names any more, and those whose caller
    /// does not want them.
    pub(super) fn sweep(&mut self, out: &mut Vec<Effect>) {
        loop {
            if let Some(batch) = self.unwanted.pop() {
                let cause =
                    Cause::Cancelled { reason: "the task that had called it has ended".into() };
                self.stop(batch, Failed { cause, worker: None, attempt: None, tries: 0 }, out);
            } else if let Some(batch) = self.loose.pop() {
                self.forget_if_done(batch, out);
            } else {
                return;
            }
        }
    }

    pub(super) fn stop_job(&mut self, job: JobId, rest: &Failed, out: &mut Vec<Effect>) {
        let batches: Vec<BatchId> = self.batches_of(job).map(|(id, _)| *id).collect();
        batches.into_iter().for_each(|batch| self.stop(batch, rest.clone(), out));
    }

    /// Stops a batch that has had too many failures, and ends one that has had all outcomes.
    fn end_batch_if_over(&mut self, batch: BatchId, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        let limit = known.spec.policy.fail_after;
        let over = known.over();
        let progress = known.progress_mut();
        let failed = limit.is_some_and(|limit| progress.counted >= limit.max(1));
        if failed && !over {
            let rest = Failed {
                cause: Cause::Cancelled {
                    reason: alloc::format!("{} tasks of the call failed", progress.counted),
                },
                worker: None,
                attempt: None,
                tries: 0,
            };
            progress.stopped = Some(Stop { rest });
        }
        if over || failed {
            self.end_batch(batch, out);
        }
    }

    /// A batch is over: its arguments go, and itself where its client has consumed everything.
    pub(super) fn end_batch(&mut self, batch: BatchId, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        for argument in known.arguments.drain(..) {
            out.push(Effect::Drop { segment: argument.segment });
        }
        if let Some(progress) = known.progress.as_deref_mut() {
            if let Some(segment) = progress.context.take() {
                out.push(Effect::Drop { segment });
            }
            progress.exceptions.clear();
            progress.started.clear();
        }
        let tasks = TaskRange::new(0, known.tasks);
        let done = known.progress().is_some_and(|progress| progress.done);
        let (job, at) = (known.job, self.at);
        if let Some(job) = self.jobs.get_mut(&job) {
            job.count_batch(false);
            job.note_end(at);
        }
        // Where it was stopped, its unfinished tasks have callees.
        self.unlink(batch, tasks, Callees::None);
        if done {
            self.loose.push(batch);
        }
        out.push(Effect::BatchOver { batch });
    }

    /// Drops the argument segments of which `ended` were the last unfinished tasks.
    fn release_arguments(&mut self, batch: BatchId, ended: &RangeSet, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        let Some(progress) = known.progress.as_deref() else { return };
        let (Some(first), Some(last)) = (ended.iter().next(), ended.iter().next_back()) else {
            return;
        };
        let span = TaskRange::new(first.start, last.end);
        known.arguments.retain(|argument| {
            let touched = !argument.tasks.intersection(span).is_empty();
            let live = !touched || !progress.ended.covers(argument.tasks);
            if !live {
                out.push(Effect::Drop { segment: argument.segment });
            }
            live
        });
    }
}

impl Batch {
    /// Writes down that the tasks `accepted` of `range` ended as `outcomes` says.
    fn record(
        &mut self,
        segment: SegmentId,
        range: TaskRange,
        accepted: &RangeSet,
        outcomes: &Segment,
        is_read: bool,
    ) {
        let errors_count = self.spec.policy.errors_count;
        let bytes = u64::try_from(outcomes.bytes().len()).unwrap_or(u64::MAX);
        let progress = self.progress_mut();
        for (tag, rows) in outcomes.runs() {
            let tasks = TaskRange::new(range.start + rows.start, range.start + rows.end);
            let count: u32 = accepted.intersection(tasks).map(TaskRange::len).sum();
            if !is_value(tag) {
                progress.failed += count;
            }
            if tag == ERROR || tag == FAILED && errors_count {
                progress.counted += count;
            }
        }
        let parts: Vec<TaskRange> = accepted.iter().collect();
        for (number, part) in parts.iter().enumerate() {
            if self.kept {
                self.note_outcomes(range.start, *part, outcomes);
            }
            let progress = self.progress_mut();
            let share = bytes * u64::from(part.len()) / u64::from(range.len());
            progress.outcomes.push(OutcomeSegment {
                segment,
                first: range.start,
                tasks: *part,
                bytes: u32::try_from(share).unwrap_or(u32::MAX),
                last: number + 1 == parts.len(),
            });
            progress.unread_bytes += if is_read { share.min(u64::from(u32::MAX)) } else { 0 };
            progress.ended.insert(*part);
            let gone: Vec<u32> =
                progress.exceptions.range(part.start..part.end).map(|(index, _)| *index).collect();
            gone.iter().for_each(|index| {
                progress.exceptions.remove(index);
            });
        }
        let progress = self.progress_mut();
        progress.started.retain(|started| !progress.ended.covers(started.range));
    }
}

/// Which callees of a task that failed are still wanted.
const fn callees(cause: &Cause) -> Callees {
    match cause {
        Cause::Cancelled { .. }
        | Cause::TimedOut { .. }
        | Cause::QueueTimedOut { .. }
        | Cause::DeadlinePassed { .. } => Callees::None,
        Cause::Panicked { .. }
        | Cause::ExecutorDied { .. }
        | Cause::Lost { .. }
        | Cause::Abandoned
        | Cause::BadArgument { .. }
        | Cause::BadResult { .. }
        | Cause::Program { .. }
        | Cause::Unplaceable { .. }
        | Cause::BlobLost { .. }
        | Cause::SourceChanged { .. }
        | Cause::Unlent { .. }
        | Cause::ResultLost { .. }
        | Cause::DependencyFailed { .. }
        | Cause::Expired { .. }
        | Cause::Cycle { .. } => Callees::All,
    }
}
