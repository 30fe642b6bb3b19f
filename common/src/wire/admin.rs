//! Command line ↔ coordinator: questions, and the few orders of an operator. One request, one reply.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bulk::{Bulk, Carries};
use crate::id::{BatchId, BlobId, CoordinatorId, JobId, TaskId, Term, WorkerId};
use crate::resources::Resources;
use crate::wire::note::Note;
use crate::wire::record::{Moment, Page};

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// Coordinators, workers, totals.
    Status,
    /// All jobs.
    Jobs,
    /// One job with its batches.
    Job(JobId),
    /// Why a task is not running, or what became of it.
    Explain(TaskId),
    /// End a job.
    CancelJob(JobId),
    /// End a batch.
    CancelBatch(BatchId),
    /// End one task.
    CancelTask(TaskId),
    /// End all tasks of a job that are of a group.
    CancelGroup(JobId, String),
    /// Blobs of which the leader knows a holder.
    Blobs,
    /// What has happened to the tasks of a job.
    Record {
        /// Which.
        job: JobId,
        /// Where the page begins: 0, or what the page before says.
        from: u64,
    },
    /// What the tasks of a job say: their last lines, and how far they are.
    Said(JobId),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Status),
    /// To [`Question::Jobs`].
    Jobs(Jobs),
    /// To [`Question::Job`].
    Job(JobView),
    /// To [`Question::Explain`]: lines for people, from the general to the particular.
    Explanation(Vec<String>),
    /// Done, or already so.
    Done(String),
    /// Not to be had: what and why.
    Unknown(String),
    /// This coordinator does not lead; ask there.
    NotLeader {
        /// The leader, where one is known.
        leader: Option<CoordinatorId>,
    },
    /// To [`Question::Blobs`].
    Blobs(Blobs),
    /// To [`Question::Record`].
    Record(Box<Page>),
    /// To [`Question::Said`].
    Said(SaidView),
}

/// How many tasks' progress is shown.
pub const PROGRESS_SHOWN_MAX: usize = 1000;

/// What the tasks of a job say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidView {
    /// When this was asked.
    pub now: Moment,
    /// The last lines, oldest first, with when the leader heard each. Never progress.
    pub lines: Vec<(Moment, Note)>,
    /// How many older lines there were that are not known any more.
    pub forgotten: u64,
    /// Tasks that run and have said how far they are: how much is done of how much. At most
    /// [`PROGRESS_SHOWN_MAX`].
    pub progress: Vec<(TaskId, u64, u64)>,
}

/// Blobs of which the leader knows a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blobs {
    /// In the order of their ids; at most [`BLOBS_SHOWN_MAX`].
    pub blobs: Vec<BlobView>,
    /// How many more there are.
    pub more: u64,
}

/// Blobs in one [`Answer::Blobs`]: with 8 names of 32 bytes each, half of what a message may have.
pub const BLOBS_SHOWN_MAX: usize = 1024;

/// Names of workers, and of clients, in one [`BlobView`].
pub const BLOB_NAMES_SHOWN_MAX: usize = 8;

/// Bytes of such a name that are shown.
pub const BLOB_NAME_BYTES_MAX: usize = 48;

/// A blob at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// Which.
    pub blob: BlobId,
    /// Workers that hold it, by the names in their certificates, and whether all of it; a few of them.
    pub workers: Vec<(String, bool)>,
    /// How many workers hold it.
    pub workers_count: u32,
    /// Owners of the sessions that offer it; a few of them.
    pub clients: Vec<String>,
    /// How many sessions offer it.
    pub clients_count: u32,
    /// How many workers want it.
    pub wanted_by: u32,
    /// How long it is, where the leader was told: of those that are kept.
    pub bytes: Option<u64>,
    /// How many sessions have handles on it, because of which workers keep it.
    pub kept_for: u32,
    /// How many workers were told to keep it for them.
    pub kept_by: u32,
}

/// The cluster at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The leader's term.
    pub term: Term,
    /// Who leads.
    pub leader: CoordinatorId,
    /// All voters: id, address.
    pub coordinators: Vec<(CoordinatorId, String)>,
    /// All workers of the roster.
    pub workers: Vec<WorkerView>,
    /// Jobs that are not over.
    pub jobs: u32,
    /// Tasks that wait.
    pub pending: u64,
    /// Tasks that are with a worker.
    pub running: u64,
}

/// A worker at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Who.
    pub worker: WorkerId,
    /// Its host's name.
    pub name: String,
    /// Whether it is registered with this leader.
    pub present: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// What it has.
    pub resources: Resources,
    /// Tasks that it holds.
    pub tasks: u64,
}

/// Jobs that [`Jobs`] names, the latest: of 300 bytes each that is a third of a reply.
pub const JOBS_SHOWN_MAX: usize = 1000;

/// Batches that [`JobView`] names: of 200 bytes each that is a fifth of a reply.
pub const BATCHES_SHOWN_MAX: usize = 1000;

/// What is shown of a name of a job, an owner or a batch, in bytes.
pub const TEXT_SHOWN_BYTES_MAX: usize = 128;

/// All jobs at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// The latest, at most [`JOBS_SHOWN_MAX`], in the order of their ids.
    pub jobs: Vec<JobSummary>,
    /// How many there are before them.
    pub more: u64,
}

/// A job at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Which.
    pub job: JobId,
    /// For people.
    pub name: String,
    /// Whose certificate opened it.
    pub owner: String,
    /// Its batches that are not forgotten.
    pub batches: u64,
    /// Their tasks so far.
    pub tasks: u64,
    /// Of these, how many ended.
    pub ended: u64,
    /// Of these, without a value.
    pub failed: u64,
    /// Tasks that are with a worker.
    pub running: u64,
}

/// A job with its batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// At a glance.
    pub summary: JobSummary,
    /// At most [`BATCHES_SHOWN_MAX`], those that are not over first, then in the order of coming.
    pub batches: Vec<BatchView>,
    /// How many more there are.
    pub more: u64,
}

/// A batch at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchView {
    /// Which.
    pub batch: BatchId,
    /// For people.
    pub name: String,
    /// The group that its tasks are of.
    pub group: Option<String>,
    /// Tasks so far.
    pub tasks: u32,
    /// Whether that is all.
    pub sealed: bool,
    /// Tasks that ended.
    pub ended: u32,
    /// Of these, without a value.
    pub failed: u32,
    /// Tasks that are with a worker.
    pub running: u32,
    /// Whether it was cancelled or has failed.
    pub stopped: bool,
}

impl Carries for Question {
    fn each_bulk(&mut self, _visit: &mut dyn FnMut(&mut Bulk)) {}
}

impl Carries for Answer {
    fn each_bulk(&mut self, _visit: &mut dyn FnMut(&mut Bulk)) {}
}
