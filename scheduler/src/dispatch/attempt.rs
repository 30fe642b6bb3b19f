//! An attempt: a range of tasks with one worker, as the leader sees it.

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
    /// Their outcome is made, says the worker, and has not come yet.
    pub(super) owed: RangeSet,
    /// Their outcome has come and is on its way through the log.
    pub(super) settling: RangeSet,
    /// Number of the message that carried the range; [`UNSENT`] while the log has not its start.
    pub(super) sent: u64,
    /// Whether the worker said that it runs.
    pub(super) running: bool,
    /// Whether part of it was asked back and no answer has come.
    pub(super) retracting: bool,
    /// When it was given out.
    pub(super) since: Instant,
    /// Whether it was expected to be done in no time.
    pub(super) short: bool,
    /// What it occupies on its worker until nothing is open.
    pub(super) need: Resources,
}

impl Attempt {
    pub(super) fn is_over(&self) -> bool {
        self.open.is_empty() && self.owed.is_empty() && self.settling.is_empty()
    }
}
