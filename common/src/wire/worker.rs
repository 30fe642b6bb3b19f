//! Worker ↔ coordinator.
//!
//! Both sides number their messages within a registration. A heartbeat says up to which number the
//! worker has processed and lists everything that it holds; of what the leader sent at or below that
//! number, only what is in no list is lost.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::bulk::{Bulk, Carries};
use crate::execution::{Awaited, Given, Mention};
use crate::failure::Cause;
use crate::id::{AttemptId, BatchId, BlobId, BootId, CoordinatorId, JobId, TaskId, Term, WorkerId};
use crate::policy::BatchSpec;
use crate::program::{Platform, Program, ProgramId};
use crate::range::TaskRange;
use crate::resources::Resources;
use crate::wire::data::Holder;
use crate::wire::note::Note;

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First to each leader: who it is, what it has, what it holds.
    Register(Registration),
    /// What it holds, every [`crate::limit::HEARTBEAT_MS`].
    Heartbeat {
        /// Counts up within a registration: one that arrives late is dropped.
        number: u64,
        /// Last number from the leader that is processed.
        processed: u64,
        /// Everything it holds.
        held: Vec<Held>,
    },
    /// What happened.
    Report {
        /// Last number from the leader that is processed.
        processed: u64,
        /// Outcomes, and ends without one.
        ended: Vec<Ended>,
    },
    /// It lacks a program's bytes from `offset` on.
    WantProgram {
        /// Which.
        program: ProgramId,
        /// From where.
        offset: u64,
    },
    /// It takes nothing new: its daemon was told to stop.
    Draining,
    /// It lacks chunks of a blob and asks who has some: answered by [`ToWorker::Holders`], more than once if
    /// nobody has it yet. Said again to each new leader while it waits.
    WantBlob {
        /// Which.
        blob: BlobId,
    },
    /// What its store holds has changed; at most [`crate::limit::BLOB_NEWS_MAX`] blobs in all.
    HaveBlobs {
        /// Blobs that are there now, and whether all of each is: new ones, and those that have become whole.
        come: Vec<(BlobId, bool)>,
        /// Blobs that are not there any more, or that it has given up to want.
        gone: Vec<BlobId>,
    },
    /// Tasks that run here call others: answered by [`Order::Opened`]. Said again until that comes, and to
    /// each new leader. The outcome of a task is not reported before all that it has submitted is known.
    Submit(Vec<ChildCall>),
    /// A task that runs here wants another ended that it has a handle on.
    Cancel {
        /// Whose executor it is.
        owner: String,
        /// Which.
        task: TaskId,
    },
    /// It was told to keep a blob ([`Order::Keep`]), has not all of it, and cannot get it.
    CannotKeep {
        /// Which.
        blob: BlobId,
    },
    /// What tasks that run here say to people; at most [`crate::wire::note::NOTES_MAX`]. Not said again.
    Said(Vec<Note>),
}

/// A call that a task has submitted: a batch of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildCall {
    /// Which task called.
    pub parent: TaskId,
    /// In which attempt.
    pub attempt: AttemptId,
    /// The id of the call's batch, which follows from its parent and itself.
    pub batch: BatchId,
    /// Function, policy, environment.
    pub spec: Arc<BatchSpec>,
    /// The argument segment.
    pub segment: Bulk,
    /// Which tasks it names.
    pub mentions: Vec<Mention>,
}

/// A worker's introduction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Who.
    pub worker: WorkerId,
    /// This start of its daemon.
    pub boot: BootId,
    /// For people: the host's name.
    pub name: String,
    /// What it has.
    pub resources: Resources,
    /// What it can run.
    pub platform: Platform,
    /// Whether it is draining.
    pub draining: bool,
    /// Everything it holds.
    pub held: Vec<Held>,
    /// Its chunk store.
    pub depot: Box<Depot>,
}

/// A worker's chunk store, as others need to know it. Empty: it has none that others could use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depot {
    /// The name in the worker's certificate. The coordinator that takes the registration writes it in,
    /// whatever stood there.
    pub node: String,
    /// Where its bulk endpoint may be dialled: at most [`crate::wire::data::ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Which blobs it holds, and whether all of each: those last used first, at most
    /// [`crate::limit::WORKER_BLOBS_MAX`].
    pub blobs: Vec<(BlobId, bool)>,
    /// Batches of whose tasks it keeps results: it is told of each when it is over ([`Order::Forget`]). At
    /// most [`crate::limit::WORKER_RESULTS_MAX`].
    pub results: Vec<BatchId>,
}

/// A range that a worker holds, or part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Of which batch.
    pub batch: BatchId,
    /// Tasks that are waiting or running.
    pub open: Vec<TaskRange>,
    /// Whether any of them is with an executor.
    pub running: bool,
    /// Tasks whose outcome was reported and is not known to be committed.
    pub owed: Vec<TaskRange>,
    /// Of the open tasks, those that wait for the outcomes of others.
    pub blocked: Vec<Blocked>,
    /// For how long it has held it, in microseconds; 0 where it only owes.
    pub since_us: u64,
}

/// A task that has begun and waits for the outcomes of others: it occupies no slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Its place in the batch.
    pub index: u32,
    /// For what it waits: each is answered by an [`Order::Give`], also if one would do.
    pub on: Vec<Awaited>,
    /// For how long it has waited, in microseconds.
    pub since_us: u64,
}

/// Part of an attempt is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Of which batch.
    pub batch: BatchId,
    /// Which tasks.
    pub range: TaskRange,
    /// How.
    pub how: How,
}

/// How tasks of an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum How {
    /// They ran.
    Ran {
        /// Their outcome segment.
        segment: Bulk,
        /// How long they ran, together, in microseconds.
        run_us: u64,
        /// Which of their results name which tasks.
        mentions: Vec<Mention>,
    },
    /// Not an end: the one task in `range` waits for the outcomes of others, and occupies nothing until it
    /// says that it goes on. What was not started of its range comes back apart.
    Blocked {
        /// Which.
        on: Vec<Awaited>,
        /// How long it ran before that, if it is known, in microseconds.
        run_us: Option<u64>,
    },
    /// Not an end: the one task in `range` goes on.
    Resumed,
    /// They were not started and are given back.
    Returned,
    /// They were cancelled, as the leader had asked.
    Cancelled,
    /// The one task in `range` killed its executor.
    Killed {
        /// How the executor died.
        cause: Cause,
    },
    /// They were with an executor that died, and did not kill it or nobody knows.
    Bystander,
    /// They cannot run on this worker.
    Refused {
        /// Why.
        cause: Cause,
    },
}

impl Carries for FromWorker {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Report { ended, .. } => ended.iter_mut().for_each(|ended| ended.each_bulk(visit)),
            Self::Register(_)
            | Self::Heartbeat { .. }
            | Self::WantProgram { .. }
            | Self::Draining
            | Self::WantBlob { .. }
            | Self::Cancel { .. }
            | Self::CannotKeep { .. }
            | Self::Said(_)
            | Self::HaveBlobs { .. } => {}
            Self::Submit(children) => {
                children.iter_mut().for_each(|child| visit(&mut child.segment));
            }
        }
    }
}

impl Ended {
    /// Bytes of outcomes that it carries.
    pub fn bulk_bytes(&self) -> usize {
        match &self.how {
            How::Ran { segment, .. } => segment.bytes.len(),
            How::Returned
            | How::Blocked { .. }
            | How::Resumed
            | How::Cancelled
            | How::Killed { .. }
            | How::Bystander
            | How::Refused { .. } => 0,
        }
    }
}

impl Carries for Ended {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match &mut self.how {
            How::Ran { segment, .. } => visit(segment),
            How::Returned
            | How::Blocked { .. }
            | How::Resumed
            | How::Cancelled
            | How::Killed { .. }
            | How::Bystander
            | How::Refused { .. } => {}
        }
    }
}

/// What a coordinator says to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The leader of `term` has taken the registration.
    Registered {
        /// Its term; a message of a lower one than the highest seen is refused.
        term: Term,
    },
    /// Who leads now. Sent by every coordinator, whenever it learns of a change.
    Leader {
        /// Since which term.
        term: Term,
        /// Who.
        leader: CoordinatorId,
    },
    /// The leader's numbered orders.
    Orders {
        /// The leader's term.
        term: Term,
        /// Number of this message in the registration.
        number: u64,
        /// In order.
        orders: Vec<Order>,
    },
    /// Bytes of a program.
    ProgramChunk {
        /// Which.
        program: ProgramId,
        /// Where they start.
        offset: u64,
        /// They.
        chunk: Bulk,
    },
    /// No coordinator has this program's bytes any more.
    ProgramUnknown {
        /// Which.
        program: ProgramId,
    },
    /// Who has chunks of a blob, or will soon: the answer to [`FromWorker::WantBlob`].
    Holders {
        /// Which blob.
        blob: BlobId,
        /// Who, and whether they have all of it, as far as is known; at most
        /// [`crate::limit::HOLDERS_NAMED_MAX`]. None: nobody has it.
        holders: Vec<(Holder, bool)>,
    },
}

/// In [`Order::Retract`]: everything that is not started, be the range of fixed length or not.
pub const ALL_TASKS: u32 = u32::MAX;

/// One thing that a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Ranges of this batch will follow: what they share.
    Batch(Box<Shared>),
    /// Run these tasks.
    Run(Run),
    /// Give back up to `tasks` tasks from the end of an attempt, of those not started.
    Retract {
        /// Which attempt.
        attempt: AttemptId,
        /// At most how many, and never part of a range of fixed length; [`ALL_TASKS`]: whatever is not
        /// started.
        tasks: u32,
    },
    /// Stop an attempt, the running task too.
    Cancel {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The outcome of these tasks is committed, or another attempt's was: they are owed no more.
    Committed {
        /// Which attempt.
        attempt: AttemptId,
        /// Which tasks.
        range: TaskRange,
    },
    /// No range of this batch will follow.
    Forget {
        /// Which batch.
        batch: BatchId,
    },
    /// An outcome that blocked tasks wait for.
    Give(Given),
    /// This batch, which a task here has submitted, is committed, or never can be.
    Opened {
        /// Which.
        batch: BatchId,
        /// In which attempt: another one that submits the same is answered for itself.
        attempt: AttemptId,
    },
    /// Have all of these blobs, from others if need be, and keep them until [`Order::LetGo`]. Said again by each
    /// leader and after each registration: what is not said again for [`crate::limit::KEEP_GRACE_MS`] may go. At
    /// most [`crate::limit::BLOB_NEWS_MAX`] at a time.
    Keep {
        /// Which.
        blobs: Vec<BlobRef>,
    },
    /// These need not be kept any more.
    LetGo {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// Nobody will ask for the results of these tasks.
    Fetched {
        /// Of which batch.
        batch: BatchId,
        /// Which.
        tasks: Vec<TaskRange>,
    },
}

/// What the tasks of a batch share, as a worker needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// Which batch.
    pub batch: BatchId,
    /// Its job.
    pub job: JobId,
    /// Whose it is: executors are never shared between owners.
    pub owner: String,
    /// Its program.
    pub program: Program,
    /// Functions, policy, environment.
    pub spec: Arc<BatchSpec>,
    /// The context of `map_with`; empty when there is none.
    pub context: Bulk,
}

/// Tasks to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// As which attempt.
    pub attempt: AttemptId,
    /// Of which batch.
    pub batch: BatchId,
    /// Which tasks.
    pub range: TaskRange,
    /// Argument segments that together hold just these tasks, in order.
    pub segments: Vec<Bulk>,
    /// Threads that take these tasks from one another: 1, or more where the batch prefers threads.
    pub threads: u16,
    /// Whether to run them in an executor of their own, one at a time: one of them is suspected of
    /// having killed an executor that ran others at the same time.
    pub alone: bool,
    /// Nanoseconds that one of these tasks is expected to take, if anything is known.
    pub task_ns: Option<u64>,
    /// The outcomes of which their arguments are made.
    pub given: Vec<Given>,
    /// Tasks that have had rounds before, in order, each with a number that is another one in each round.
    pub rounds: Vec<(u32, u32)>,
}

impl Carries for ToWorker {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Orders { orders, .. } => orders.iter_mut().for_each(|order| match order {
                Order::Batch(shared) => visit(&mut shared.context),
                Order::Run(run) => {
                    run.segments.iter_mut().for_each(&mut *visit);
                    run.given.iter_mut().for_each(|given| visit(&mut given.outcome));
                }
                Order::Give(given) => visit(&mut given.outcome),
                Order::Retract { .. }
                | Order::Cancel { .. }
                | Order::Committed { .. }
                | Order::Forget { .. }
                | Order::Opened { .. }
                | Order::Keep { .. }
                | Order::LetGo { .. }
                | Order::Fetched { .. } => {}
            }),
            Self::ProgramChunk { chunk, .. } => visit(chunk),
            Self::Registered { .. }
            | Self::Leader { .. }
            | Self::ProgramUnknown { .. }
            | Self::Holders { .. } => {}
        }
    }
}
