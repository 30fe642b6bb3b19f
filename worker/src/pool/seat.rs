//! What both sides of the pool know of an executor: its cell, its loads, what is to be sent to it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use allhands_common::bulk::Bulk;
use allhands_common::id::{AttemptId, BatchId, ExecutorId, TaskId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::wire::executor::{self, Begun, ToExecutor};
use allhands_store::cell::{CellError, LANES_MAX, SLOTS};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::counter::LentFiles;
use super::outbox::Outbox;
use allhands_scheduler::{Load, Share, Spawn};

/// An executor's place in the pool.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) executor: ExecutorId,
    pub(super) cell: allhands_store::cell::Cell,
    pub(super) lanes: u32,
    pub(super) outbox: Outbox,
    /// While it lives; its number is also that of its process group.
    pub(super) process: Cell<Option<Pid>>,
    /// When it is killed if it has not exited.
    pub(super) stop_by: Cell<Option<Instant>>,
    /// Tells the keeper to look at the times again.
    pub(super) changed: Notify,
    pub(super) doom: RefCell<Option<Doom>>,
    pub(super) loads: RefCell<Vec<Outstanding>>,
    /// Tasks that have waited for others, and have not ended: they are in no load.
    pub(super) begun: RefCell<BTreeMap<Begun, Suspended>>,
    pub(super) lent: LentFiles,
    sequence: Cell<u32>,
    /// Batches whose common part it has.
    batches: RefCell<BTreeSet<BatchId>>,
}

/// A load that has not finished.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) sequence: u32,
    pub(super) attempt: AttemptId,
    pub(super) batch: BatchId,
    pub(super) range: TaskRange,
    pub(super) timeout_ms: Option<u64>,
    /// How many of its tasks the executor may take, as far as the loop was told.
    pub(super) window: Cell<u32>,
    /// Tasks whose outcome has come, or that wait for others.
    pub(super) ended: RangeSet,
}

/// A task that has waited for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspended {
    pub(super) attempt: AttemptId,
    pub(super) task: TaskId,
    pub(super) timeout_ms: Option<u64>,
}

/// Why an executor is being killed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Doom {
    /// The loop said so.
    Told,
    /// Tasks (sequence and index in the load) ran longer than this limit.
    TimedOut { culprits: Vec<(u32, u32)>, limit_ms: u64 },
    /// It does not behave.
    Broken(String),
}

impl Seat {
    pub(super) fn new(spawn: &Spawn) -> Result<Self, CellError> {
        let lanes = u32::from(spawn.threads).clamp(1, LANES_MAX);
        Ok(Self {
            executor: spawn.executor,
            cell: allhands_store::cell::Cell::create()?,
            lanes,
            outbox: Outbox::default(),
            process: Cell::default(),
            stop_by: Cell::default(),
            changed: Notify::new(),
            doom: RefCell::default(),
            loads: RefCell::default(),
            begun: RefCell::default(),
            lent: LentFiles::default(),
            sequence: Cell::default(),
            batches: RefCell::default(),
        })
    }

    pub(super) fn send(&self, message: &mut ToExecutor) {
        if let Err(error) = self.outbox.push(message) {
            self.kill(Doom::Broken(format!("a message to it cannot be encoded: {error}")));
        }
    }

    pub(super) fn load(&self, load: Load) {
        let Load { attempt, range, shared, segments, given, rounds } = load;
        let (batch, timeout_ms) = (shared.batch, shared.spec.policy.timeout_ms);
        if self.batches.borrow_mut().insert(batch) {
            self.send(&mut ToExecutor::Batch(executor::Common {
                batch,
                job: shared.job,
                timeout_ms,
                functions: shared.spec.functions.clone(),
                retry_when: shared.spec.policy.retry_when,
                recurs: shared.spec.policy.recurs,
                idempotent: shared.spec.policy.idempotent,
                context: shared.context.clone(),
                env: shared.spec.env.clone(),
            }));
        }
        let sequence = self.free_sequence();
        self.sequence.set(sequence);
        self.cell.arm(sequence, range.len());
        let ended = RangeSet::new();
        let window = Cell::new(range.len());
        let outstanding =
            Outstanding { sequence, attempt, batch, range, timeout_ms, window, ended };
        self.loads.borrow_mut().push(outstanding);
        let timed = timeout_ms.is_some();
        let segments = segments.into_iter().map(Bulk::from).collect();
        self.send(&mut ToExecutor::Load(executor::Load {
            sequence,
            attempt,
            batch,
            range,
            segments,
            timed,
            given,
            rounds,
        }));
        if timed {
            self.changed.notify_one();
        }
    }

    /// The next number whose slot in the cell is free: with several lanes a later load may have ended
    /// before an earlier one.
    fn free_sequence(&self) -> u32 {
        let loads = self.loads.borrow();
        debug_assert!(loads.len() < SLOTS, "too many loads for {}", self.executor);
        let slot = |sequence: u32| sequence as usize % SLOTS;
        let begun = self.begun.borrow();
        let taken = |sequence: u32| begun.keys().any(|task| task.sequence == sequence);
        let busy = |sequence: u32| {
            loads.iter().any(|load| slot(load.sequence) == slot(sequence)) || taken(sequence)
        };
        let mut next = self.sequence.get().wrapping_add(1);
        while busy(next) {
            next = next.wrapping_add(1);
        }
        next
    }

    /// Takes back unstarted tasks of `attempt`. Where several loads are of that attempt, of the latest one
    /// first, as its tasks would start later.
    pub(super) fn take(&self, attempt: AttemptId, share: Share) -> Option<TaskRange> {
        let loads = self.loads.borrow();
        let theirs = loads.iter().rev().filter(|load| load.attempt == attempt);
        let mut taken = theirs.map(|load| {
            let (from, to) = self.cell.lower(load.sequence, |next, limit| match share {
                Share::All => next,
                Share::Half => next + limit.saturating_sub(next) / 2,
            });
            // What the executor has closed itself it has said, or will say.
            if from < to {
                load.window.set(from);
            }
            TaskRange::new(load.range.start + from, load.range.start + to)
        });
        taken.find(|range| !range.is_empty())
    }

    pub(super) fn forget(&self, batch: BatchId) {
        if self.batches.borrow_mut().remove(&batch) {
            self.send(&mut ToExecutor::Forget { batch });
        }
    }

    /// Ends it and everything in its process group; the first reason counts. No task can start any
    /// more once this has been called: whoever is named afterwards was running already.
    pub(super) fn kill(&self, doom: Doom) {
        if self.is_doomed() {
            return;
        }
        self.doom.replace(Some(doom));
        for load in self.loads.borrow().iter() {
            self.cell.lower(load.sequence, |next, _| next);
        }
        self.kill_group();
        self.changed.notify_one();
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.doom.borrow().is_some()
    }

    /// Kills its process group. The number is its own as long as it has not been waited for.
    pub(super) fn kill_group(&self) {
        if let Some(process) = self.process.get() {
            _ = kill_process_group(process, Signal::KILL);
        }
    }

    /// What is known of a task that it has begun and that has not ended.
    pub(super) fn find(&self, task: Begun) -> Option<Suspended> {
        if let Some(known) = self.begun.borrow().get(&task) {
            return Some(*known);
        }
        let loads = self.loads.borrow();
        let load = loads.iter().find(|load| load.sequence == task.sequence)?;
        let index = load.range.start.checked_add(task.place)?;
        let there = load.range.contains(index) && !load.ended.contains(index);
        there.then_some(Suspended {
            attempt: load.attempt,
            task: TaskId { batch: load.batch, index },
            timeout_ms: load.timeout_ms,
        })
    }

    /// The tasks of an attempt that it has begun and that have not ended.
    pub(super) fn begun_of(&self, attempt: AttemptId) -> Vec<Begun> {
        let running = self
            .cell
            .running(self.lanes)
            .map(|running| Begun { sequence: running.sequence, place: running.index });
        let mut all: Vec<Begun> = self.begun.borrow().keys().copied().collect();
        all.extend(running);
        all.retain(|task| self.find(*task).is_some_and(|known| known.attempt == attempt));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The batch that it is working on, as far as anybody can tell.
    pub(super) fn batch(&self) -> Option<BatchId> {
        self.loads.borrow().first().map(|load| load.batch)
    }
}
