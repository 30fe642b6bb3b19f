//! Commands: what the log says. Shapes are only appended, never edited.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use allhands_common::bulk::{Bulk, Carries};
use allhands_common::execution::Mention;
use allhands_common::failure::Failed;
use allhands_common::id::{
    AttemptId, BatchId, BootId, JobId, RequestId, SessionId, TaskId, WorkerId,
};
use allhands_common::policy::BatchSpec;
use allhands_common::program::Program;
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::time::ClusterTime;
use allhands_common::wire::worker::ChildCall;
use serde::{Deserialize, Serialize};

/// One entry of the log: everything that arrived while the last one was in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's cluster time when it was made.
    pub at: ClusterTime,
    /// In order.
    pub commands: Vec<Command>,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A client has come.
    OpenSession {
        /// Its stay.
        session: SessionId,
        /// The name in its certificate.
        owner: String,
    },
    /// A client has gone, or its lease ran out: its batches are cancelled and forgotten.
    CloseSession {
        /// Its stay.
        session: SessionId,
    },
    /// A client opens a job.
    OpenJob {
        /// Whose.
        session: SessionId,
        /// Its dedup within the session.
        request: RequestId,
        /// Requests below are known to be answered.
        low: RequestId,
        /// What runs.
        program: Program,
        /// For people.
        name: String,
        /// Whether it goes on without its client, and how long its outcomes stay then, in milliseconds.
        detached: Option<u64>,
    },
    /// A client opens a batch.
    OpenBatch {
        /// Whose.
        session: SessionId,
        /// Its id.
        batch: BatchId,
        /// Its dedup within the session.
        sequence: u32,
        /// The session's how-manieth batch is the first of the call that it is part of, itself as a rule:
        /// `n_jobs` is the call's.
        call: u32,
        /// Its job.
        job: JobId,
        /// What its tasks share.
        spec: Arc<BatchSpec>,
        /// The context of `map_with`, or nothing.
        context: Bulk,
        /// How many tasks it begins with.
        tasks: u32,
        /// Their arguments.
        segment: Bulk,
        /// Whether that is all.
        sealed: bool,
        /// Whether its outcomes stay until it is forgotten.
        kept: bool,
        /// Which of these tasks name which others.
        mentions: Vec<Mention>,
    },
    /// A batch grows.
    Append {
        /// Which.
        batch: BatchId,
        /// Index of the first of the new tasks: their dedup.
        first: u32,
        /// How many.
        tasks: u32,
        /// Their arguments.
        segment: Bulk,
        /// Which of them name which others.
        mentions: Vec<Mention>,
    },
    /// A batch has all its tasks.
    Seal {
        /// Which.
        batch: BatchId,
        /// How many.
        tasks: u32,
    },
    /// A client has consumed, of each of these batches, the first so many outcome segments.
    Acknowledge(Vec<(BatchId, u32)>),
    /// A batch ends here: nothing more of it runs.
    Stop {
        /// Which.
        batch: BatchId,
        /// What its unfinished tasks ended of.
        rest: Failed,
    },
    /// Every batch of a job ends here.
    StopJob {
        /// Which.
        job: JobId,
        /// What its unfinished tasks ended of.
        rest: Failed,
    },
    /// Tasks ended, as a worker reported.
    Finish {
        /// Which batch.
        batch: BatchId,
        /// As which attempt.
        attempt: AttemptId,
        /// On which worker.
        worker: WorkerId,
        /// Which tasks.
        range: TaskRange,
        /// Their outcomes.
        segment: Bulk,
        /// Which of these name which tasks.
        mentions: Vec<Mention>,
    },
    /// Tasks ended without a value, as the leader found.
    Fail {
        /// Which batch.
        batch: BatchId,
        /// Which tasks.
        range: TaskRange,
        /// What of.
        failed: Failed,
    },
    /// An attempt at a task ended and the task goes on: counted, so that a new leader knows.
    Charge {
        /// Which batch.
        batch: BatchId,
        /// Which task.
        index: u32,
        /// At which attempt: one is counted once, however often it is reported.
        attempt: AttemptId,
        /// What for.
        charge: Charge,
        /// Not to be tried before.
        not_before: ClusterTime,
    },
    /// Tasks that must not run twice are given to a worker.
    Start {
        /// Which batch.
        batch: BatchId,
        /// As which attempt.
        attempt: AttemptId,
        /// To which worker.
        worker: WorkerId,
        /// Which tasks.
        range: TaskRange,
    },
    /// A worker has come, or has been restarted.
    JoinWorker {
        /// Who.
        worker: WorkerId,
        /// Which start of its daemon.
        boot: BootId,
        /// Its host's name.
        name: String,
        /// What it has.
        resources: Resources,
    },
    /// A worker is gone.
    LeaveWorker {
        /// Who.
        worker: WorkerId,
    },
    /// Nobody wants these tasks: what of them has not ended ends here.
    CancelTasks {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        range: TaskRange,
        /// What they end of.
        failed: Failed,
    },
    /// A task has called another.
    Call {
        /// On which worker.
        worker: WorkerId,
        /// Who whom.
        child: ChildCall,
    },
    /// A client attaches to a job that went on without one.
    AttachJob {
        /// Who.
        session: SessionId,
        /// Its dedup within the session.
        request: RequestId,
        /// To which.
        job: JobId,
    },
    /// A deferred call was not begun, and a newer one that is equal was made: it is the same as that.
    Forward {
        /// Which.
        task: TaskId,
    },
    /// The tasks of a job that are of a group end here, unless others want them.
    CancelGroup {
        /// Of which job.
        job: JobId,
        /// Which group.
        group: String,
        /// What they end of.
        failed: Failed,
    },
    /// A job that is over, and that nobody is attached to, has been kept long enough.
    ExpireJob {
        /// Which.
        job: JobId,
    },
}

/// Why a task has to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charge {
    /// The function panicked, timed out or returned `Err`, and the user allows another try.
    Failure,
    /// It killed its executor.
    Death,
    /// It was running on a worker that was lost.
    Loss,
    /// It was one of several that were running when their executor died.
    Suspicion,
    /// It was given out as one that must not run twice, and came back unstarted.
    Return,
    /// It ran, and has no result yet.
    Round,
}

impl Carries for Entry {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        self.commands.iter_mut().for_each(|command| command.each_bulk(visit));
    }
}

impl Carries for Command {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::OpenBatch { context, segment, .. } => {
                visit(context);
                visit(segment);
            }
            Self::Append { segment: bulk, .. }
            | Self::Finish { segment: bulk, .. }
            | Self::Call { child: ChildCall { segment: bulk, .. }, .. } => visit(bulk),
            Self::OpenSession { .. }
            | Self::CloseSession { .. }
            | Self::OpenJob { .. }
            | Self::Seal { .. }
            | Self::Acknowledge(_)
            | Self::Stop { .. }
            | Self::StopJob { .. }
            | Self::Fail { .. }
            | Self::Charge { .. }
            | Self::Start { .. }
            | Self::JoinWorker { .. }
            | Self::LeaveWorker { .. }
            | Self::AttachJob { .. }
            | Self::Forward { .. }
            | Self::CancelGroup { .. }
            | Self::ExpireJob { .. }
            | Self::CancelTasks { .. } => {}
        }
    }
}
