//! Client ↔ coordinator.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::bulk::{Bulk, Carries};
use crate::execution::{Awaited, Given, Mention};
use crate::failure::Failed;
use crate::id::{
    BatchId, BlobId, CoordinatorId, JobId, RequestId, SegmentId, SessionId, Term, WorkerId,
};
use crate::policy::BatchSpec;
use crate::program::{Program, ProgramId};
use crate::range::TaskRange;
use crate::wire::admin::JobSummary;
use crate::wire::data::Holder;
use crate::wire::needs::Needs;
use crate::wire::note::Note;

/// Acknowledges a batch as a whole: all its outcomes and [`ToClient::Ended`] were received, it can be
/// forgotten. To be said again over the next connection, where it may have been lost. A mere count of outcomes may be complete before the end is known: it forgets nothing.
pub const DONE_WITH_BATCH: u32 = u32::MAX;

/// What a client says. Everything that changes the cluster names itself, so that saying it again (to
/// the next leader) changes nothing: batches by id, appends by their place, requests by their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromClient {
    /// First on each connection: who speaks, and which outcomes it has of its batches.
    Attach {
        /// The client's stay.
        session: SessionId,
        /// Requests below are answered and known to be.
        low: RequestId,
        /// For each batch that is not over: how many outcome segments were received.
        batches: Vec<(BatchId, u32)>,
    },
    /// Still here. Sent every [`crate::limit::HEARTBEAT_MS`] when nothing else is.
    Alive,
    /// It has this program, and gives it to each coordinator that lacks it, whether it leads or not: a job that goes on
    /// without its client is to outlive leaders as well. Answered by [`ToClient::HasProgram`]. Said over each
    /// connection.
    Program(Program),
    /// Open a job for `program`.
    OpenJob {
        /// Its dedup.
        request: RequestId,
        /// What runs.
        program: Program,
        /// For people.
        name: String,
        /// Whether it goes on without its client, and for how many milliseconds its outcomes stay once it is
        /// over and nobody is attached to it.
        detached: Option<u64>,
    },
    /// Open a batch; it grows by `Append` until `Seal`. What is known of both at once comes along, so
    /// that a call of one task is one message.
    OpenBatch {
        /// Its id: `BatchId::of_session` of the next field.
        batch: BatchId,
        /// The session's how-manieth batch, from 0: its dedup, also when the batch is long forgotten.
        sequence: u32,
        /// The session's how-manieth batch is the first of the call that it is part of, itself as a rule:
        /// `n_jobs` is the call's.
        call: u32,
        /// Its job.
        job: JobId,
        /// What its tasks share.
        spec: Arc<BatchSpec>,
        /// The context that its tasks share (`map_with`), encoded; empty when there is none.
        context: Bulk,
        /// How many tasks it begins with.
        tasks: u32,
        /// Their argument segment; empty when there are none.
        segment: Bulk,
        /// Whether that is all.
        sealed: bool,
        /// Whether its outcomes stay until the batch is forgotten, consumed or not: others may ask for them.
        kept: bool,
        /// Which of these tasks name which others, in order of the former; at most
        /// [`crate::limit::MENTIONS_MAX`].
        mentions: Vec<Mention>,
    },
    /// The next tasks of a batch.
    Append {
        /// Which.
        batch: BatchId,
        /// Index of the segment's first task: its dedup.
        first: u32,
        /// How many.
        tasks: u32,
        /// The argument segment.
        segment: Bulk,
        /// As in `OpenBatch`.
        mentions: Vec<Mention>,
    },
    /// A batch is complete at this many tasks.
    Seal {
        /// Which.
        batch: BatchId,
        /// How many tasks it has.
        tasks: u32,
    },
    /// Of each of these batches, the first so many outcome segments, in order of commit, were
    /// consumed; [`DONE_WITH_BATCH`] once its end was received as well.
    Acknowledge(Vec<(BatchId, u32)>),
    /// End a batch: what has not ended becomes `Cancelled`.
    Cancel {
        /// Which.
        batch: BatchId,
        /// For people.
        reason: String,
    },
    /// A chunk of the program that the coordinator asked for.
    ProgramChunk {
        /// Which.
        program: ProgramId,
        /// Where it starts.
        offset: u64,
        /// Its bytes.
        chunk: Bulk,
    },
    /// The client is done: cancel what it left, forget it.
    Detach,
    /// End these tasks of a batch: those that have not ended become `Cancelled`, the others go on.
    CancelTasks {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        range: TaskRange,
    },
    /// The client has these blobs, whole, and serves them to whoever it is told wants them
    /// ([`ToClient::Wanted`]). Said again after each attach; at most [`crate::limit::BLOB_NEWS_MAX`] at a
    /// time, [`crate::limit::SESSION_OFFERS_MAX`] in all.
    Offer {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// It does not offer these any more.
    Withdraw {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// It wants a blob that a task has left with its worker, and asks who has it: answered by
    /// [`ToClient::Holders`], more than once if need be. Said again after each attach; at most
    /// [`crate::limit::SESSION_WANTS_MAX`] at a time.
    WantBlob {
        /// Which.
        blob: BlobId,
    },
    /// It has this blob, or wants it no more.
    UnwantBlob {
        /// Which.
        blob: BlobId,
    },
    /// It waits for the outcomes of these tasks, which are of no batch of its own: answered by
    /// [`ToClient::Given`], each when it is there. Said again after each attach; at most
    /// [`crate::limit::AWAITED_MAX`] at a time, and in all.
    Await(Vec<Awaited>),
    /// It does not wait for these any more.
    Unawait(Vec<Awaited>),
    /// Attach to a job that runs on without a client: answered by [`ToClient::JobAttached`], or refused.
    AttachJob {
        /// Its dedup, of the same numbers as those of `OpenJob`.
        request: RequestId,
        /// Which.
        job: JobId,
    },
    /// It reads these batches of a job that it has attached to, each from this outcome segment on: they come as those
    /// of its own batches do. Said again after each attach; at most [`crate::limit::READING_MAX`] in all.
    Read(Vec<(BatchId, u32)>),
    /// It wants to see how far a job is that it has attached to: answered by [`ToClient::JobSeen`].
    LookAtJob(JobId),
    /// End a job: what of it has not ended becomes `Cancelled`.
    CancelJob {
        /// Which.
        job: JobId,
        /// For people.
        reason: String,
    },
    /// End all tasks of the session's jobs that are of a group, those that others have called too.
    CancelGroup {
        /// Which.
        group: String,
    },
    /// It has handles on these blobs: workers have to keep them. Said again after each attach; at most
    /// [`crate::limit::BLOB_NEWS_MAX`] at a time, [`crate::limit::SESSION_KEEPS_MAX`] in all.
    Keep {
        /// Which.
        blobs: Vec<Keep>,
        /// Whether everything was said since the attach: what was not, it has let go.
        all: bool,
    },
    /// It has no handle on these any more.
    LetGo {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// It has, or has had kept, all that the outcomes of these tasks name: their workers need not keep it for the
    /// batch's sake.
    Fetched {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        tasks: Vec<TaskRange>,
    },
    /// What the tasks map that `OpenBatch` or `Append` brings next: said right before it, and again with it.
    Needs {
        /// Of which batch.
        batch: BatchId,
        /// Index of the first of these tasks.
        first: u32,
        /// What.
        needs: Needs,
    },
}

/// A blob that workers are to keep for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Which.
    pub blob: BlobRef,
    /// How many of them: at most [`crate::limit::REPLICAS_MAX`].
    pub replicas: u8,
    /// Who has all of it, as far as the session knows.
    pub at: Option<WorkerId>,
}

impl Carries for FromClient {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::OpenBatch { context, segment, .. } => {
                visit(context);
                visit(segment);
            }
            Self::Append { segment: bulk, .. } | Self::ProgramChunk { chunk: bulk, .. } => {
                visit(bulk)
            }
            Self::Attach { .. }
            | Self::Alive
            | Self::Program(_)
            | Self::OpenJob { .. }
            | Self::Seal { .. }
            | Self::Acknowledge(_)
            | Self::Cancel { .. }
            | Self::CancelTasks { .. }
            | Self::Offer { .. }
            | Self::Withdraw { .. }
            | Self::WantBlob { .. }
            | Self::UnwantBlob { .. }
            | Self::Await(_)
            | Self::Unawait(_)
            | Self::AttachJob { .. }
            | Self::Read(_)
            | Self::LookAtJob(_)
            | Self::CancelJob { .. }
            | Self::CancelGroup { .. }
            | Self::Keep { .. }
            | Self::LetGo { .. }
            | Self::Fetched { .. }
            | Self::Needs { .. }
            | Self::Detach => {}
        }
    }
}

/// What a coordinator says to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToClient {
    /// The leader has taken the session; what follows is its view of the batches that were named, and
    /// everything that was sent and is not in it must be sent again.
    Attached {
        /// The leader's term.
        term: Term,
        /// For each batch named in `Attach` that the cluster knows: its tasks so far.
        batches: Vec<(BatchId, u32)>,
        /// Slots of the cluster.
        slots: u32,
    },
    /// Who leads now. Sent by every coordinator, whenever it learns of a change.
    Leader {
        /// Since which term.
        term: Term,
        /// Who.
        leader: CoordinatorId,
    },
    /// A job is open.
    JobOpened {
        /// The request.
        request: RequestId,
        /// The job.
        job: JobId,
    },
    /// What of these batches is committed.
    Appended(Vec<Appended>),
    /// The next outcomes of a batch.
    Outcomes {
        /// Which.
        batch: BatchId,
        /// Their place in the order of commit, from 0.
        sequence: u32,
        /// The tasks.
        range: TaskRange,
        /// The outcome segment of just these tasks.
        segment: Bulk,
        /// Whether the batch is over with this, every task having its outcome.
        last: bool,
    },
    /// A batch is over and that was not said with its last outcomes: after `segments` outcome segments nothing follows.
    Ended {
        /// Which.
        batch: BatchId,
        /// How many outcome segments it had.
        segments: u32,
        /// Why tasks without an outcome have none; `None` when all have one.
        rest: Option<Failed>,
    },
    /// Send the program from `offset` on, at most `bytes`.
    WantProgram {
        /// Which.
        program: ProgramId,
        /// From where.
        offset: u64,
        /// How much.
        bytes: u32,
    },
    /// A batch or job is not accepted; trying again cannot help.
    Refused {
        /// The batch, if it was one.
        batch: Option<BatchId>,
        /// The request, if it was one.
        request: Option<RequestId>,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The session's lease had run out: its batches are gone.
    SessionExpired,
    /// Outcome segment `segment` of a batch cannot be read any more on this coordinator.
    SegmentUnreadable {
        /// Which batch.
        batch: BatchId,
        /// Which segment.
        segment: SegmentId,
        /// What the disk said.
        reason: String,
    },
    /// Slots of the cluster, when they change.
    Slots {
        /// How many.
        slots: u32,
    },
    /// Names of workers, for people: of all that there are after each `Attached`, then of those that join.
    Workers(Vec<(WorkerId, String)>),
    /// A worker wants a blob that this client offers: dial its bulk endpoint, it will ask on that
    /// connection.
    Wanted {
        /// Which.
        blob: BlobId,
        /// Who, and where to dial it.
        by: Holder,
    },
    /// Which workers have chunks of a blob: the answer to [`FromClient::WantBlob`].
    Holders {
        /// Which blob.
        blob: BlobId,
        /// Who, and whether they have all of it, as far as is known; at most
        /// [`crate::limit::HOLDERS_NAMED_MAX`]. None: nobody has it.
        holders: Vec<(Holder, bool)>,
    },
    /// The outcomes of tasks that the client awaits.
    Given(Vec<Given>),
    /// The client is attached to a job that runs on without one. Its batches are the client's from now on: it may
    /// [read](FromClient::Read) their outcomes.
    JobAttached {
        /// The request.
        request: RequestId,
        /// The job.
        job: JobId,
        /// What it is called.
        name: String,
        /// Its batches, those that tasks have called left out; with `more`, others follow.
        batches: Vec<JobBatch>,
        /// Whether another message of the same request follows.
        more: bool,
    },
    /// How far a job is.
    JobSeen(JobSummary),
    /// This coordinator has a program, durably.
    HasProgram(ProgramId),
    /// What tasks of the client's jobs say, as far as it travels.
    Said(Vec<Note>),
}

/// A batch of a job that a client has attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBatch {
    /// Which.
    pub batch: BatchId,
    /// What it is called.
    pub name: String,
    /// The name of the type that its function returns; empty if it has several that return different ones.
    pub returns: String,
    /// How many tasks it has.
    pub tasks: u32,
}

/// A batch has this many tasks, committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Which.
    pub batch: BatchId,
    /// How many.
    pub tasks: u32,
    /// Whether that is all.
    pub sealed: bool,
}

impl Carries for ToClient {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Outcomes { segment, .. } => visit(segment),
            Self::Given(given) => given.iter_mut().for_each(|given| visit(&mut given.outcome)),
            Self::Attached { .. }
            | Self::Leader { .. }
            | Self::JobOpened { .. }
            | Self::Appended(_)
            | Self::Ended { .. }
            | Self::WantProgram { .. }
            | Self::Refused { .. }
            | Self::SessionExpired
            | Self::SegmentUnreadable { .. }
            | Self::Slots { .. }
            | Self::Workers(_)
            | Self::Wanted { .. }
            | Self::JobAttached { .. }
            | Self::Said(_)
            | Self::JobSeen(_)
            | Self::HasProgram(_)
            | Self::Holders { .. } => {}
        }
    }
}
