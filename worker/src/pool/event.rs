//! What goes into the pool and what comes out of it.

use std::rc::Rc;

use allhands_common::failure::Cause;
use allhands_common::id::AttemptId;
use allhands_common::policy::Prefer;
use allhands_common::program::ProgramId;
use allhands_common::range::TaskRange;
use allhands_common::wire::worker::Shared;
use bytes::Bytes;

/// An executor to start.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// Of which program; it is in the program store.
    pub program: ProgramId,
    /// One task at a time, or as many as `threads`.
    pub prefer: Prefer,
    /// With `Processes`: cpus of a task, the limit for its libraries' thread pools. With `Threads`:
    /// tasks at once.
    pub threads: u32,
    /// The job's environment variables.
    pub env: Vec<(String, String)>,
    /// For people: the program's name, and `argv[0]`.
    pub name: String,
}

/// Tasks to run.
#[derive(Debug, Clone)]
pub struct Load {
    /// As which attempt.
    pub attempt: AttemptId,
    /// What their batch shares.
    pub shared: Rc<Shared>,
    /// Which tasks.
    pub range: TaskRange,
    /// Argument segments that together hold just these tasks, in order.
    pub segments: Vec<Bytes>,
    /// How long each may run.
    pub timeout_ms: Option<u64>,
    /// One at a time, whatever the executor could.
    pub alone: bool,
}

/// What happened in an executor.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// It has proved itself and takes loads.
    Ready,
    /// Tasks have ended.
    Outcomes {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which.
        range: TaskRange,
        /// Outcome segment of just these.
        segment: Bytes,
        /// How long they ran, together, in microseconds.
        run_us: u64,
    },
    /// Nothing of this load is left, up to its limit.
    Finished {
        /// Which.
        attempt: AttemptId,
    },
    /// Tasks were taken back unstarted; maybe none.
    Limited {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which.
        returned: TaskRange,
    },
    /// It is gone, and all that it had started.
    Died {
        /// What it was running, with the task's place in its batch.
        running: Vec<(AttemptId, u32)>,
        /// Why.
        cause: Cause,
    },
}
