//! Effects: what applying an entry changed. Every replica computes them; `Keep` and `Drop` are
//! carried out by all, the rest is news for the leader's dispatcher.

use alloc::string::String;

use allhands_common::id::{
    AttemptId, BatchId, JobId, RequestId, SegmentId, SessionId, TaskId, WorkerId,
};
use allhands_common::range::TaskRange;
use bytes::Bytes;

/// One consequence of an applied command.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// These bytes are named by the state from now on.
    Keep {
        /// Their name.
        segment: SegmentId,
        /// They.
        bytes: Bytes,
    },
    /// These bytes are named no more.
    Drop {
        /// Their name.
        segment: SegmentId,
    },
    /// A session is known.
    SessionOpened {
        /// Which.
        session: SessionId,
    },
    /// A session is forgotten, with its batches.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
    /// A request is answered (again).
    JobOpened {
        /// Whose.
        session: SessionId,
        /// Which request.
        request: RequestId,
        /// The job.
        job: JobId,
    },
    /// A client is attached to a job that went on without one (again).
    JobAttached {
        /// Who.
        session: SessionId,
        /// Which request.
        request: RequestId,
        /// The job.
        job: JobId,
    },
    /// Something that a client asked for cannot be.
    Refused {
        /// Whose.
        session: SessionId,
        /// The batch, if it was one.
        batch: Option<BatchId>,
        /// The request, if it was one.
        request: Option<RequestId>,
        /// Why.
        reason: String,
    },
    /// A batch is known, with the tasks that it begins with.
    BatchOpened {
        /// Which.
        batch: BatchId,
        /// How many.
        tasks: u32,
    },
    /// A batch has grown by `range`.
    Appended {
        /// Which.
        batch: BatchId,
        /// By which tasks.
        range: TaskRange,
    },
    /// A batch has all its tasks.
    Sealed {
        /// Which.
        batch: BatchId,
    },
    /// What `Append` or `Seal` asked for was there already: the client can go on.
    Repeated {
        /// Which batch.
        batch: BatchId,
    },
    /// These tasks have ended for good, in any way. What of `range` was accepted of this very outcome
    /// is in the batch's outcome segments.
    Ended {
        /// Which batch.
        batch: BatchId,
        /// Which tasks.
        range: TaskRange,
    },
    /// Tasks that attempts may hold were cancelled.
    CalledOff {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        range: TaskRange,
    },
    /// What an attempt reported of `range` is decided, accepted or not.
    Settled {
        /// On which worker.
        worker: WorkerId,
        /// Which attempt.
        attempt: AttemptId,
        /// Of which batch.
        batch: BatchId,
        /// Which tasks.
        range: TaskRange,
    },
    /// A task was charged and waits to be tried again.
    Charged {
        /// Which batch.
        batch: BatchId,
        /// Which task.
        index: u32,
    },
    /// A deferred call has not ended, and a newer one that is equal was made.
    Superseded {
        /// The older one.
        task: TaskId,
    },
    /// A deferred call is the same as no other after all: it waits again.
    NotForwarded {
        /// Which.
        task: TaskId,
    },
    /// A range that must not run twice may be sent to its worker now.
    Started {
        /// Which batch.
        batch: BatchId,
        /// As which attempt.
        attempt: AttemptId,
        /// To which worker.
        worker: WorkerId,
        /// Which tasks.
        range: TaskRange,
    },
    /// What a task has called is a batch now, or was one before, or can be none.
    Called {
        /// The batch, which is to be given out if it is there.
        batch: BatchId,
        /// The attempt that has called it.
        attempt: AttemptId,
        /// Where that runs.
        worker: WorkerId,
        /// Whether it is new.
        new: bool,
    },
    /// All tasks of a batch have ended, or it was stopped.
    BatchOver {
        /// Which.
        batch: BatchId,
    },
    /// The client has consumed outcomes.
    Acknowledged {
        /// Of which batch.
        batch: BatchId,
    },
    /// A batch is forgotten: over, and everything of it consumed.
    BatchForgotten {
        /// Which.
        batch: BatchId,
        /// Its job.
        job: JobId,
        /// The session's how-manieth batch it was.
        sequence: u32,
        /// And which one was the first of its call.
        call: u32,
    },
    /// The roster has changed.
    Roster {
        /// Who.
        worker: WorkerId,
        /// Whether it is there.
        present: bool,
    },
}
