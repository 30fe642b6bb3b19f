//! The replicated state: a pure function of the log.
//!
//! `apply` never fails and never asks the time: an entry that makes no sense (a batch that is long
//! forgotten, a second outcome of a task) changes nothing, on every replica alike.

mod apply;
mod batch;
mod batches;
mod call;
mod check;
mod detached;
mod equals;
mod links;
mod locate;
mod outcome;
mod retire;
mod snapshot;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use allhands_common::id::{
    BatchId, BootId, JobId, LogIndex, RequestId, SegmentId, SessionId, TaskId, WorkerId,
};
use allhands_common::policy::BatchSpec;
use allhands_common::program::Program;
use allhands_common::range::RangeSet;
use allhands_common::resources::Resources;
use allhands_common::time::ClusterTime;
use serde::{Deserialize, Serialize};

pub use batch::{ArgumentSegment, Batch, Exception, OutcomeSegment, Progress, Started, Stop};
pub use batches::Batches;
pub use detached::Detached;
pub use equals::CallKey;
pub use links::{Fate, Fault, FaultKind, Links, Parent};
pub use locate::Located;
pub use snapshot::SnapshotError;

use crate::{Command, Effect, Entry};
use links::Callees;

/// What the log says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Last entry that is in it.
    pub applied: LogIndex,
    /// Its time.
    pub at: ClusterTime,
    /// Clients.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Jobs that are not forgotten.
    pub jobs: BTreeMap<JobId, Job>,
    /// Batches that are not forgotten.
    pub batches: Batches,
    /// The roster.
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
    /// Next job to be named.
    next_job: JobId,
    /// Next segment to be named.
    next_segment: SegmentId,
    /// Pins of batches that are not opened (yet).
    early_pins: BTreeMap<BatchId, u32>,
    /// Batches that something pins no more: looked at before the command is over.
    #[serde(skip)]
    loose: Vec<BatchId>,
    /// Batches whose caller has gone: likewise.
    #[serde(skip)]
    unwanted: Vec<BatchId>,
}

/// A client's stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Session {
    /// The name in its certificate.
    pub owner: String,
    /// Requests that were answered, but for those whose answer is known to have come.
    pub replies: BTreeMap<RequestId, JobId>,
    /// Sequence numbers of the batches that were opened, forgotten ones too: a range a gap.
    pub opened: RangeSet,
}

/// What one client opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Whose; of one that goes on without its client, who was attached last.
    pub session: SessionId,
    /// The request that opened it.
    pub request: RequestId,
    /// The name in its certificate.
    pub owner: String,
    /// For people.
    pub name: String,
    /// What runs.
    pub program: Program,
    /// The last few specifications, so that equal ones are stored once.
    pub specs: Vec<Arc<BatchSpec>>,
    /// Of its calls that may be equal to others: the first, or the newest.
    pub equals: BTreeMap<CallKey, TaskId>,
    /// What a job has that goes on without its client.
    pub detached: Option<Detached>,
}

/// A worker of the roster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Which start of its daemon.
    pub boot: BootId,
    /// Its host's name.
    pub name: String,
    /// What it has.
    pub resources: Resources,
}

/// Longest name of a worker that is shown, in bytes: that of a host has no more.
const NAME_BYTES_MAX: usize = 64;

impl WorkerRecord {
    /// Its name, as far as it is shown.
    pub fn short_name(&self) -> String {
        self.name[..self.name.floor_char_boundary(NAME_BYTES_MAX)].into()
    }
}

impl State {
    /// Applies the entry at `index`. What it changed is appended to `out`.
    pub fn apply(&mut self, index: LogIndex, entry: Entry, out: &mut Vec<Effect>) {
        debug_assert!(index > self.applied, "entries are applied in order, once");
        self.applied = index;
        self.at = self.at.max(entry.at);
        for command in entry.commands {
            self.apply_command(command, out);
            self.sweep(out);
        }
    }

    /// The program, session and specification of a batch's job.
    pub fn job_of(&self, batch: &Batch) -> Option<&Job> {
        self.jobs.get(&batch.job)
    }

    /// The batches of a job that are not forgotten, alike on all replicas. Looks at every batch: what asks
    /// for it is rare, and a set of them would cost every batch.
    pub fn batches_of(&self, job: JobId) -> impl Iterator<Item = (&BatchId, &Batch)> {
        self.batches.iter().filter(move |(_, batch)| batch.job == job)
    }

    /// Every segment that the state names, in no order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.batches.values().flat_map(|batch| {
            let arguments = batch.arguments.iter().map(|argument| argument.segment);
            let progress = batch.progress();
            let outcomes = progress.into_iter().flat_map(|p| p.outcomes.iter());
            arguments
                .chain(outcomes.map(|outcome| outcome.segment))
                .chain(progress.and_then(|progress| progress.context))
        })
    }

    /// What people call a worker: its name, its number beside it where another has that name too, or its
    /// number where it has left.
    pub fn worker_name(&self, worker: WorkerId) -> String {
        let Some(record) = self.workers.get(&worker) else { return worker.to_string() };
        let name = record.short_name();
        match self.workers.values().filter(|other| other.name == record.name).nth(1) {
            Some(_) => alloc::format!("{name} ({worker})"),
            None => name,
        }
    }

    /// Whether a job of this id was ever opened.
    pub fn job_was_opened(&self, job: JobId) -> bool {
        job < self.next_job
    }

    fn name_segment(&mut self) -> SegmentId {
        let name = self.next_segment;
        self.next_segment.0 += 1;
        name
    }

    fn apply_command(&mut self, command: Command, out: &mut Vec<Effect>) {
        match command {
            Command::OpenSession { session, owner } => self.open_session(session, owner, out),
            Command::CloseSession { session } => self.close_session(session, out),
            Command::OpenJob { session, request, low, program, name, detached } => {
                self.open_job(session, (request, low), program, name, detached, out);
            }
            Command::AttachJob { session, request, job } => {
                self.attach_job(session, request, job, out);
            }
            Command::ExpireJob { job } => self.expire_job(job, out),
            Command::OpenBatch {
                session,
                batch,
                sequence,
                call,
                job,
                spec,
                context,
                tasks,
                segment,
                sealed,
                kept,
                mentions,
            } => {
                let numbers = (sequence, call);
                if self.open_batch(session, batch, numbers, job, (spec, kept), context.bytes, out) {
                    self.begin_batch(batch, tasks, segment.bytes, (sealed, &mentions), out);
                } else {
                    self.open_again(session, batch, tasks, segment.bytes, (sealed, &mentions), out);
                }
            }
            Command::Append { batch, first, tasks, segment, mentions } => {
                self.append(batch, first, tasks, segment.bytes, &mentions, out);
            }
            Command::Seal { batch, tasks } => self.seal(batch, tasks, out),
            Command::Acknowledge(batches) => {
                for (batch, segments) in batches {
                    self.acknowledge(batch, segments, out);
                }
            }
            Command::Stop { batch, rest } => self.stop(batch, rest, out),
            Command::StopJob { job, rest } => self.stop_job(job, &rest, out),
            Command::Finish { batch, attempt, worker, range, segment, mentions } => {
                let by = Callees::Of(attempt);
                self.finish(batch, range, segment.bytes, (&mentions, by), out);
                self.settle(batch, attempt, worker, range, out);
            }
            Command::Fail { batch, range, failed } => self.fail(batch, range, &failed, out),
            Command::Charge { batch, index, attempt, charge, not_before } => {
                self.charge(batch, (index, attempt), charge, not_before, out);
            }
            Command::Start { batch, attempt, worker, range } => {
                self.start(batch, Started { attempt, worker, range }, out);
            }
            Command::JoinWorker { worker, boot, name, resources } => {
                self.workers.insert(worker, WorkerRecord { boot, name, resources });
                out.push(Effect::Roster { worker, present: true });
            }
            Command::LeaveWorker { worker } => {
                if self.workers.remove(&worker).is_some() {
                    out.push(Effect::Roster { worker, present: false });
                }
            }
            Command::CancelTasks { batch, range, failed } => {
                self.cancel_tasks(batch, range, &failed, out);
            }
            Command::CancelGroup { job, group, failed } => {
                self.cancel_group(job, &group, &failed, out);
            }
            Command::Forward { task } => self.forward(task, out),
            Command::Call { worker, child } => self.call(worker, child, out),
        }
    }
}
