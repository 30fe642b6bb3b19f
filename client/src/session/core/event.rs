//! What happens to a session, and what it wants done: closed enums of plain data.

use std::sync::Arc;
use std::time::Duration;

use allhands_common::execution::{Awaited, Given, Mention};
use allhands_common::failure::Failed;
use allhands_common::id::{BatchId, BlobId, CoordinatorId, SessionId, WorkerId};
use allhands_common::policy::BatchSpec;
use allhands_common::program::ProgramId;
use allhands_common::range::TaskRange;
use allhands_common::wire::admin::JobSummary;
use allhands_common::wire::client::{FromClient, Keep, ToClient};
use allhands_common::wire::data::Holder;
use allhands_common::wire::needs::Needs;
use allhands_common::wire::note::Note;
use bytes::Bytes;

use super::visit::Visited;

/// A link to one coordinator, for as long as the session lives: its place in the list of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer(pub(crate) usize);

/// What happens to a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A link is there, for the first time or again.
    LinkUp {
        /// To whom.
        peer: Peer,
        /// The coordinator's id, where the peer's certificate says it.
        coordinator: Option<CoordinatorId>,
    },
    /// A link is gone.
    LinkDown {
        /// To whom.
        peer: Peer,
    },
    /// A coordinator says something.
    Said {
        /// Who.
        peer: Peer,
        /// What.
        message: ToClient,
    },
    /// A call begins.
    Open {
        /// Its batch, made of the next field.
        batch: BatchId,
        /// The session's how-manieth batch.
        sequence: u32,
        /// Which one was the first of its call.
        call: u32,
        /// What its tasks share.
        spec: Arc<BatchSpec>,
        /// What `map_with` ships once.
        context: Bytes,
        /// Whether its outcomes stay in the cluster until it is released: executions are its tasks. What is
        /// said of such batches is said in the order in which it was given.
        kept: bool,
    },
    /// A call goes on: the tasks that follow those of the last `Append`.
    Append {
        /// Which.
        batch: BatchId,
        /// How many.
        tasks: u32,
        /// Their arguments.
        segment: Bytes,
        /// Whom they name.
        mentions: Vec<Mention>,
        /// What they map.
        needs: Option<Box<Needs>>,
    },
    /// A call has all its tasks.
    Seal {
        /// Which.
        batch: BatchId,
    },
    /// The caller has taken the first `segments` outcome segments.
    Consumed {
        /// Which.
        batch: BatchId,
        /// How many, in all.
        segments: u32,
    },
    /// The caller wants no more of it.
    Cancel {
        /// Which.
        batch: BatchId,
        /// For people.
        reason: String,
    },
    /// The caller of these tasks of a batch wants no more of them; the others go on.
    CancelTasks {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        range: TaskRange,
    },
    /// The calls of a group are not wanted any more, those of tasks too.
    CancelGroup {
        /// Which.
        group: String,
    },
    /// Nobody in this process has an execution of a kept batch any more.
    Release {
        /// Which.
        batch: BatchId,
    },
    /// Somebody waits for these outcomes, which do not come by themselves.
    Await(Vec<Awaited>),
    /// Nobody waits for them any more.
    Unawait(Vec<Awaited>),
    /// The process has these blobs, and gives them to whoever wants them.
    Offer {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// It does not any more.
    Withdraw {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// The process lacks a result that lies with a worker, and asks who has it; also once more.
    Want {
        /// Which.
        blob: BlobId,
    },
    /// It has it, or nobody waits for it any more.
    Unwant {
        /// Which.
        blob: BlobId,
    },
    /// The process has handles on these results, one more each.
    Keep {
        /// Which.
        blobs: Vec<Keep>,
    },
    /// It has one fewer on each of these.
    LetGo {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// What the outcomes of these tasks name is here, or was kept.
    Fetched {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        tasks: TaskRange,
    },
    /// The outcomes of these batches of a job are read to which the session is attached.
    Read {
        /// Which.
        batches: Vec<BatchId>,
    },
    /// Nobody reads any more.
    StopReading,
    /// Somebody wants to see how far that job is.
    LookAtJob,
    /// Or ends it.
    CancelJob {
        /// For people.
        reason: String,
    },
    /// Time has passed.
    Tick,
    /// The last handle is gone.
    Detach,
}

/// What a session wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Say this to a coordinator.
    Send {
        /// To whom.
        peer: Peer,
        /// What.
        message: FromClient,
    },
    /// Hand outcomes to the caller. Each task once; segments in the order of their commit.
    Deliver {
        /// Whose.
        batch: BatchId,
        /// Which tasks.
        range: TaskRange,
        /// Their outcomes.
        segment: Bytes,
    },
    /// The cluster has so many tasks of a batch for good.
    Committed {
        /// Whose.
        batch: BatchId,
        /// How many.
        tasks: u32,
    },
    /// Nothing more will come of a batch.
    End {
        /// Whose.
        batch: BatchId,
        /// Why.
        end: End,
    },
    /// The cluster has so many slots; said at each attach and change.
    Slots(u32),
    /// These workers are called so.
    Workers(Vec<(WorkerId, String)>),
    /// Tasks say this.
    Said(Vec<Note>),
    /// A worker wants a blob that is offered: dial it.
    Wanted {
        /// Which.
        blob: BlobId,
        /// Who.
        by: Holder,
    },
    /// These workers have a result that is wanted, and whether all of it; none: nobody has.
    Holders {
        /// Which.
        blob: BlobId,
        /// Who.
        holders: Vec<(Holder, bool)>,
    },
    /// These outcomes were awaited.
    Given(Vec<Given>),
    /// The session's job is there, and others may attach to it; or it is another's.
    JobOpen(Visited),
    /// So many coordinators have the program of a job that goes on without its client.
    ProgramHeld(usize),
    /// It is not, for this reason.
    JobRefused(String),
    /// How far a job is.
    JobSeen(JobSummary),
    /// Another stay begins: batches are named after this one from now on.
    Renamed(SessionId),
    /// Another leader was asked for everything that is wanted, and has not answered.
    AskedAnew,
    /// Tell the user that calls wait for a first worker.
    NoWorkers,
    /// Send these bytes of the program.
    SendProgram {
        /// To whom.
        peer: Peer,
        /// Which.
        program: ProgramId,
        /// From where.
        offset: u64,
        /// At most how many.
        bytes: u32,
    },
}

/// Why nothing more will come of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// Every task has ended; those without an outcome of `rest`.
    Complete {
        /// What the tasks without an outcome ended of.
        rest: Option<Failed>,
    },
    /// The cluster does not take the batch.
    Refused(String),
    /// The cluster does not take the program.
    ProgramRefused(String),
    /// The session's lease had run out.
    Expired,
    /// The cluster had the batch and does not know it any more.
    Forgotten,
    /// Outcomes cannot be read any more.
    Unreadable(String),
    /// No coordinator has led for so long.
    Leaderless(Duration),
    /// The cluster was in this process and has ended.
    Lost(String),
    /// The session has ended.
    Closed,
}
