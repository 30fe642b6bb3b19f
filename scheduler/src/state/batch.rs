//! A batch in the replicated state: descriptors and counts, never bytes, and nothing per task but for
//! tasks that failed at least once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use allhands_common::failure::Failed;
use allhands_common::id::{AttemptId, JobId, SegmentId, WorkerId};
use allhands_common::policy::BatchSpec;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::ClusterTime;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::links::Links;

/// An ordered, append-only set of tasks of one call. A queued batch of one task is this struct and
/// nothing on the heap: what only a running batch has is boxed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its job.
    pub job: JobId,
    /// The session's how-manieth batch it is.
    pub sequence: u32,
    /// The session's how-manieth batch is the first of its call.
    pub call: u32,
    /// Tasks so far.
    pub tasks: u32,
    /// What its tasks share.
    pub spec: Arc<BatchSpec>,
    /// When it was opened.
    pub opened: ClusterTime,
    /// Its argument segments, in order; those whose tasks have all ended are gone.
    pub arguments: SmallVec<[ArgumentSegment; 1]>,
    /// Whether it has all its tasks.
    pub sealed: bool,
    /// Whether its outcomes stay until it is forgotten, because tasks or handles name its tasks.
    pub kept: bool,
    /// What a batch has once something became of it.
    pub progress: Option<Box<Progress>>,
}

/// A stretch of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgumentSegment {
    /// Its bytes.
    pub segment: SegmentId,
    /// Its tasks.
    pub tasks: TaskRange,
    /// How many bytes.
    pub bytes: u32,
    /// When it was appended, in milliseconds after the batch was opened.
    pub after_ms: u32,
}

/// What became of a batch so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The context of `map_with`.
    pub context: Option<SegmentId>,
    /// Tasks that have ended.
    pub ended: RangeSet,
    /// Of these, how many ended without a value, or with the function's own error.
    pub failed: u32,
    /// Of these, how many count for `fail_after`.
    pub counted: u32,
    /// Outcome segments in the order of their commit, from `dropped` on.
    pub outcomes: Vec<OutcomeSegment>,
    /// How many outcome segments are there no more: those that were consumed, unless they are kept.
    pub dropped: u32,
    /// How many outcome segments the client has consumed.
    pub acknowledged: u32,
    /// Whether nobody reads it any more: it goes once nothing names its tasks.
    pub done: bool,
    /// Bytes of the outcomes that it has not.
    pub unread_bytes: u64,
    /// Tasks that were tried before.
    pub exceptions: BTreeMap<u32, Exception>,
    /// Ranges that must not run twice and are with a worker.
    pub started: Vec<Started>,
    /// Why nothing more of it runs.
    pub stopped: Option<Stop>,
    /// What joins its tasks to those of other batches, if anything does.
    pub links: Option<Box<Links>>,
}

/// Why a batch ended early.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// What its unfinished tasks ended of.
    pub rest: Failed,
}

/// Outcomes of a stretch of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeSegment {
    /// Its bytes.
    pub segment: SegmentId,
    /// The task that the first row of those bytes is of.
    pub first: u32,
    /// The tasks whose outcome was accepted from them.
    pub tasks: TaskRange,
    /// How many bytes, about, belong to these.
    pub bytes: u32,
    /// Whether no later record names the same bytes.
    pub last: bool,
}

/// A task that was tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exception {
    /// Times the function failed.
    pub failures: u32,
    /// Executors it killed.
    pub deaths: u8,
    /// Workers that were lost while it ran.
    pub losses: u8,
    /// Of a task that runs until it has a result: how often it was tried up to its last round, which went well.
    pub rounds: u32,
    /// Whether it has to run alone: others ran when its executor died.
    pub suspect: bool,
    /// Not to be tried before.
    pub not_before: ClusterTime,
    /// The newest attempt that was counted.
    pub charged: AttemptId,
}

impl Exception {
    /// Whether the task was ever started, as far as is known.
    pub const fn was_tried(&self) -> bool {
        self.suspect || self.rounds > 0 || self.tries() > 0
    }

    /// How often it was tried since its last round.
    const fn tries(&self) -> u32 {
        self.failures + self.deaths as u32 + self.losses as u32
    }

    /// It has had another round. What went wrong before that counts no more.
    pub(super) const fn end_round(&mut self) {
        self.rounds = self.rounds.saturating_add(self.tries() + 1);
        (self.failures, self.deaths, self.losses, self.suspect) = (0, 0, 0, false);
    }
}

/// A range that must not run twice, with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// As which attempt.
    pub attempt: AttemptId,
    /// On which worker.
    pub worker: WorkerId,
    /// Which tasks.
    pub range: TaskRange,
}

impl Batch {
    /// What became of it, if anything did.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_deref()
    }

    /// What joins its tasks to others, if anything does.
    pub fn links(&self) -> Option<&Links> {
        self.progress()?.links.as_deref()
    }

    pub(crate) fn links_mut(&mut self) -> &mut Links {
        self.progress_mut().links.get_or_insert_with(Box::default)
    }

    pub(crate) fn progress_mut(&mut self) -> &mut Progress {
        self.progress.get_or_insert_with(Box::default)
    }

    /// Why nothing more of it runs, if so.
    pub fn stopped(&self) -> Option<&Stop> {
        self.progress()?.stopped.as_ref()
    }

    /// How many tasks have ended.
    pub fn ended(&self) -> u32 {
        self.progress().map_or(0, |progress| progress.ended.len())
    }

    /// Whether `index` has ended.
    pub fn has_ended(&self, index: u32) -> bool {
        self.progress().is_some_and(|progress| progress.ended.contains(index))
    }

    /// How many parents the calls in it have above them.
    pub fn depth(&self) -> u32 {
        self.links().and_then(|links| links.parent).map_or(0, |parent| parent.depth)
    }

    /// Whether nothing more of it will run.
    pub fn over(&self) -> bool {
        self.stopped().is_some()
            || self.sealed
                && (self.tasks == 0
                    || self
                        .progress()
                        .is_some_and(|p| p.ended.covers(TaskRange::new(0, self.tasks))))
    }

    /// Whether it is over and nobody reads it.
    pub(super) fn is_done(&self) -> bool {
        self.over() && self.progress().is_some_and(|progress| progress.done)
    }

    /// How many outcome segments it has had.
    pub fn outcome_segments(&self) -> u32 {
        self.progress().map_or(0, |p| p.dropped + p.outcomes.len() as u32)
    }

    /// The tasks of `range` that have not ended, in order.
    pub fn unfinished(&self, range: TaskRange) -> RangeSet {
        match self.progress() {
            None => RangeSet::of(range),
            Some(progress) => progress.ended.gaps(range).collect(),
        }
    }

    /// The argument segments that hold tasks of `range`, in order.
    pub fn arguments_of(&self, range: TaskRange) -> impl Iterator<Item = &ArgumentSegment> {
        let from = self.arguments.partition_point(|segment| segment.tasks.end <= range.start);
        self.arguments[from..].iter().take_while(move |segment| segment.tasks.start < range.end)
    }

    /// What is known of an earlier try of a task.
    pub fn exception(&self, index: u32) -> Exception {
        self.progress()
            .and_then(|progress| progress.exceptions.get(&index))
            .copied()
            .unwrap_or_default()
    }

    /// Which try the next one of a task is, from 1.
    pub fn next_try(&self, index: u32) -> u32 {
        let exception = self.exception(index);
        1 + exception.rounds + exception.tries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_batch_is_small() {
        assert!(size_of::<Batch>() <= 96, "{}", size_of::<Batch>());
    }
}
