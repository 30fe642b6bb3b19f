//! An attempt: a range of tasks with one worker, as the leader sees it.

use core::time::Duration;

use allhands_common::id::{BatchId, JobId, WorkerId};
use allhands_common::range::RangeSet;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;

use super::queue::ClassId;

/// Greater than the number of any message.
pub(super) const UNSENT: u64 = u64::MAX;

/// Tasks given to a worker. Each of its tasks is in at most one of the three sets; an attempt with
/// nothing in any is gone.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) batch: BatchId,
    pub(super) job: JobId,
    pub(super) class: ClassId,
    pub(super) worker: WorkerId,
    /// Waiting or running there, as far as is known.
    pub(super) open: RangeSet,
    /// Of these, those that have begun and wait for the outcomes of others.
    pub(super) blocked: RangeSet,
    /// Whether it occupies its worker: while something open does not wait.
    pub(super) occupies: bool,
    /// Their outcome is made, says the worker, and has not come yet.
    pub(super) owed: RangeSet,
    /// Their outcome has come and is on its way through the log.
    pub(super) settling: RangeSet,
    /// Number of the message that carried the range; [`UNSENT`] while the log has not its start.
    pub(super) sent: u64,
    /// Whether the worker said that it runs.
    pub(super) running: bool,
    /// When part of it was asked back, if no answer has come.
    pub(super) asked: Option<Instant>,
    /// Since when an idle worker was not given part of it, because the bytes would travel longer than it waits.
    pub(super) spared: Option<Instant>,
    /// Whether tasks of it were cancelled, and its worker may not have let go of them.
    pub(super) called_off: bool,
    /// When it was given out.
    pub(super) since: Instant,
    /// Whether it was expected to be done in no time.
    pub(super) short: bool,
    /// Threads that take its tasks from one another.
    pub(super) threads: u16,
    /// What it occupies on its worker.
    pub(super) need: Resources,
}

/// How long the answer to a question for unstarted tasks may take. It is silence where there are none, and
/// where the question was lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

impl Attempt {
    /// When the worker may be asked for unstarted tasks again, were it asked at `now`.
    pub(super) fn ask_again(&self, now: Instant) -> Instant {
        self.asked.unwrap_or(now) + ANSWER_PATIENCE
    }

    pub(super) fn may_be_asked(&self, now: Instant) -> bool {
        self.asked.is_none() || self.ask_again(now) <= now
    }

    pub(super) fn is_over(&self) -> bool {
        self.open.is_empty() && self.owed.is_empty() && self.settling.is_empty()
    }
}
