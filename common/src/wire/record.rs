//! What has happened to the tasks of a job, as the leader tells it: stretches of attempts with their times.
//!
//! All times are of the leader's monotonic clock. What a worker knows (how long tasks ran, how long one waits) it
//! says as a duration, and the leader counts back from the moment at which it hears of it: no clock of another
//! machine is read, and a time may be late by as long as a message travels.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::execution::Mention;
use crate::id::{AttemptId, BatchId, JobId, TaskId, WorkerId};
use crate::range::TaskRange;

/// A moment, in microseconds of the cluster's time: each leader counts on from where the former one was.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Moment(pub u64);

impl Moment {
    /// So many microseconds before.
    pub const fn before(self, us: u64) -> Self {
        Self(self.0.saturating_sub(us))
    }
}

/// Waits of one stretch that are told apart: the last one stands for all that follow.
pub const PAUSES_MAX: usize = 32;

/// Tasks that one wait names: it may be for thousands.
pub const PAUSE_ON_MAX: usize = 16;

/// Dependencies that one stretch names.
pub const STRETCH_EDGES_MAX: usize = 1024;

/// About what a page may have in its stretches, and in those that wait: a quarter of what a reply holds each.
pub const PAGE_BYTES_MAX: usize = 256 << 10;

/// Stretches of a page that no attempt has: those that wait.
pub const WAITING_SHOWN_MAX: usize = 1000;

/// Part of what is recorded of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Which job.
    pub job: JobId,
    /// When this was asked.
    pub now: Moment,
    /// The stretches of attempts, in the order in which they were given out.
    pub stretches: Vec<Stretch>,
    /// With the last page: tasks that wait for others or for a slot, at most [`WAITING_SHOWN_MAX`] stretches.
    pub waiting: Vec<Stretch>,
    /// How many more of these there are.
    pub more_waiting: u64,
    /// The batches that these are of.
    pub batches: Vec<Recorded>,
    /// The workers that are named, by their names.
    pub workers: Vec<(WorkerId, String)>,
    /// How many older stretches there were that are not known any more.
    pub forgotten: u64,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

impl Page {
    /// This page and the next one.
    pub fn followed_by(mut self, next: Self) -> Self {
        self.stretches.extend(next.stretches);
        self.batches.extend(next.batches);
        self.workers.extend(next.workers);
        let (stretches, batches, workers) = (self.stretches, self.batches, self.workers);
        Self { stretches, batches, workers, forgotten: self.forgotten, ..next }
    }
}

/// A batch, as far as its stretches need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Which.
    pub batch: BatchId,
    /// Its function; of one with several, what the call is named.
    pub function: String,
    /// The task that has called it, if one has.
    pub parent: Option<TaskId>,
}

/// Tasks of an attempt that fared alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Of which batch.
    pub batch: BatchId,
    /// Which tasks.
    pub range: TaskRange,
    /// As which attempt, on which worker; `None` where none was made.
    pub attempt: Option<(AttemptId, WorkerId)>,
    /// When the first of them came. To the millisecond.
    pub submitted: Moment,
    /// When they could have started, where that is not when they came: the last of what they wait for was
    /// there, or an earlier attempt had ended.
    pub ready: Option<Moment>,
    /// When they were given to the worker.
    pub assigned: Option<Moment>,
    /// When the first of them began.
    pub started: Option<Moment>,
    /// When the one task of it waited for others.
    pub pauses: Vec<Pause>,
    /// When the last of them ended, or was given up.
    pub finished: Option<Moment>,
    /// How.
    pub end: Option<End>,
    /// When the last outcome of them was committed.
    pub committed: Option<Moment>,
    /// How many of them ran and ended without a value.
    pub failed: u32,
    /// How long they ran, together, in microseconds.
    pub run_us: u64,
    /// Which tasks they name; at most [`STRETCH_EDGES_MAX`].
    pub edges: Vec<Mention>,
    /// How many more.
    pub more_edges: u32,
}

/// A task had begun, and waited for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// For whom; at most [`PAUSE_ON_MAX`].
    pub on: Vec<TaskId>,
    /// How many more.
    pub more: u32,
    /// Since when.
    pub since: Moment,
    /// Until when, if it is over.
    pub until: Option<Moment>,
}

/// How tasks of an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// They ran to an outcome.
    Ran,
    /// They were given back unstarted.
    Returned,
    /// They were stopped, as somebody wished.
    Cancelled,
    /// They killed their executor.
    Killed,
    /// Another task killed their executor.
    Bystander,
    /// They cannot run on that worker.
    Refused,
    /// Nobody wanted them there any more: the worker was lost, or they ended in another way.
    GivenUp,
    /// What they wait for will never come: there was no attempt.
    Hopeless,
    /// They ended while they waited for an attempt: they were cancelled, or an outcome came late.
    NotRun,
}
