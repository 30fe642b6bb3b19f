//! Calls that are submitted one by one, on the callers' side: each becomes a task of a *kept* batch.
//!
//! ```text
//! caller ── submit ──► the open batch of its specification ── events ──► the session's loop
//!   ▲                                                                        │
//!   └────── slot ◄──── deliver, given ◄──────────────────────────────────────┘
//! ```
//! A caller names the task, writes its arguments into the open segment and goes on: all in its own thread, behind
//! one lock, which is nearly always free. The loop is woken once for many calls, cuts what is open, and takes the
//! events in order; no task is said before those that it names. A batch is joined by calls of the same
//! function and policy, until nobody has for a while or it is long. The cluster keeps its outcomes until nobody here
//! has an execution of it any more.

mod batch;
mod foreign;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use allhands_common::blob::BlobId;
use allhands_common::execution::Awaited;
use allhands_common::id::{BatchId, ClusterId, SessionId, TaskId};
use allhands_common::limit::{MENTIONS_MAX, SEGMENT_BYTES_MAX, SUBMIT_BYTES_MAX};
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::segment::Segment;
use allhands_common::time::Instant;
use bytes::Bytes;

use super::Session;
use super::core::{End, Event, KEPT_BATCHES_MAX};
use super::exchange::ROOM_BYTES;
use super::names::Names;
use super::needs::Parts;
use crate::execution::named::Named;
use crate::execution::slot::{Settled, Slot};
use crate::payload::Codec;
use crate::shared::whole::Whole;
use batch::Submitted;
pub(super) use batch::string_of;
pub(crate) use batch::{Keeps, Key};
use foreign::Foreign;

/// Batches that calls may join, at most: each is a specification that calls share just now.
const OPEN_MAX: usize = 16;

/// A batch that nobody joins is sealed after so long: a pause between two calls of a loop is shorter, and nobody
/// wants to see a batch that runs for ever.
const IDLE: Duration = Duration::from_secs(1);

/// Calls that are not committed, at most: a hundred bytes each of their slots and places.
const AHEAD_CALLS_MAX: usize = 1 << 17;

/// What one call may have of arguments, and of executions that it names.
pub(crate) const CALL_BYTES_MAX: usize = SEGMENT_BYTES_MAX - ROOM_BYTES;

/// What one mention takes in a command of the log, at most.
pub(crate) const MENTION_BYTES: usize = 26;

/// What callers have submitted.
#[derive(Debug, Default)]
pub(crate) struct Submits {
    table: Mutex<Table>,
    /// Wakes who waits for room.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// Known once the session has begun.
    names: Option<Names>,
    batches: BTreeMap<BatchId, Submitted>,
    /// Those that calls may join, oldest first.
    open: Vec<BatchId>,
    /// What the loop has not seen, in order.
    events: Vec<Event>,
    /// The loop was told that there is something.
    noted: bool,
    /// Outcomes that are asked for.
    foreign: Foreign,
    /// Long results that are being fetched, and for whom.
    fetching: BTreeMap<BlobId, Vec<Weak<Slot>>>,
    /// Of what is not committed.
    ahead_bytes: usize,
    ahead_calls: usize,
    /// Batches that are not over.
    unfinished: usize,
    /// Who waits for room.
    waiting: usize,
    /// Nobody will look at `events` again.
    ended: Option<End>,
}

/// A call as it is submitted.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    /// Its function, and what was said of it besides.
    pub(crate) key: Key,
    pub(crate) codec: Codec,
    pub(crate) tag: u16,
    pub(crate) strings: &'a [&'a [u8]],
    pub(crate) needs: &'a [Named],
    /// What it maps, if the cluster has to know.
    pub(crate) maps: Option<Parts>,
    /// What has to be there until it has ended, ...
    pub(crate) keeps: Keeps,
    /// ... and what of it was stored counts as so many bytes.
    pub(crate) stored_bytes: usize,
}

/// Why a call is not taken.
#[derive(Debug)]
pub(crate) enum Untaken {
    /// The session has ended so.
    Ended(End),
    /// It names more executions than one may.
    TooManyNamed { named: usize, limit: usize },
    /// It is longer than one may be.
    TooLong { bytes: usize, limit: usize },
}

impl Submits {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch's name.
    pub(super) fn name_batch(&self) -> Option<(BatchId, u32)> {
        self.table().names.as_mut().map(Names::next)
    }

    /// Waits until there is room for a call of so many bytes.
    fn with_room(&self, bytes: usize) -> MutexGuard<'_, Table> {
        let mut table = self.table();
        while table.ended.is_none() && !table.has_room(bytes) {
            table.waiting += 1;
            table = self.room.wait(table).unwrap_or_else(PoisonError::into_inner);
            table.waiting -= 1;
        }
        table
    }

    /// Waits until all calls that were taken are committed, for so long at most.
    ///
    /// # Errors
    /// So many are not.
    fn wait_committed(&self, patience: Duration) -> Result<(), usize> {
        let until = std::time::Instant::now() + patience;
        let mut table = self.table();
        while table.ahead_calls > 0 {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || table.ended.is_some() {
                return Err(table.ahead_calls);
            }
            table.waiting += 1;
            let waited = self.room.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
            table.waiting -= 1;
        }
        Ok(())
    }

    fn ring(&self, table: MutexGuard<'_, Table>) {
        let rings =
            table.waiting > 0 && (table.ended.is_some() || table.has_room(SUBMIT_BYTES_MAX / 4));
        drop(table);
        if rings {
            self.room.notify_all();
        }
    }
}

impl Table {
    /// Whether a call of so many bytes may be taken. One that is longer than all room is taken alone.
    const fn has_room(&self, bytes: usize) -> bool {
        let alone = self.ahead_calls == 0;
        let fits =
            self.ahead_bytes + bytes <= SUBMIT_BYTES_MAX && self.ahead_calls < AHEAD_CALLS_MAX;
        (alone || fits) && self.unfinished < KEPT_BATCHES_MAX
    }

    /// Gives what is open of a batch to the loop.
    fn cut(&mut self, id: BatchId) {
        if let Some(batch) = self.batches.get_mut(&id)
            && let Some(event) = batch.cut(id)
        {
            self.events.push(event);
        }
    }

    /// Nobody joins the batch in this place of the list any more.
    fn seal(&mut self, at: usize) {
        let id = self.open.remove(at);
        self.cut(id);
        self.events.push(Event::Seal { batch: id });
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.is_open = false;
        }
        self.tidy(id);
    }

    /// Says that a batch is released, and forgets it, as far as it is time for that.
    fn tidy(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        if batch.is_open || batch.alive > 0 {
            return;
        }
        if !batch.is_released {
            batch.is_released = true;
            self.events.push(Event::Release { batch: id });
        }
        if batch.is_over {
            self.batches.remove(&id);
        }
    }

    /// A batch that calls like this one may join.
    fn find_open(&mut self, call: &Submission<'_>, bytes: usize) -> Option<BatchId> {
        let is_theirs =
            |id: &BatchId| self.batches.get(id).is_some_and(|batch| batch.key == call.key);
        let at = self.open.iter().position(is_theirs)?;
        let id = self.open[at];
        if self.batches.get(&id).is_some_and(Submitted::is_long) {
            self.seal(at);
            return None;
        }
        let is_full = |batch: &Submitted| batch.is_full(call.codec, bytes, call.needs.len());
        if self.batches.get(&id).is_some_and(is_full) {
            self.cut(id);
        }
        Some(id)
    }

    fn open(&mut self, key: Key, spec: BatchSpec) -> Option<BatchId> {
        if self.open.len() >= OPEN_MAX {
            self.seal(0);
        }
        let (id, sequence) = self.names.as_mut()?.next();
        self.batches.insert(id, Submitted::new(key));
        self.open.push(id);
        self.unfinished += 1;
        let (spec, context) = (Arc::new(spec), Bytes::new());
        let (call, kept) = (sequence, true);
        self.events.push(Event::Open { batch: id, sequence, call, spec, context, kept });
        Some(id)
    }
}

impl Session {
    /// Waits until all calls that were submitted one by one are committed, for so long at most.
    ///
    /// # Errors
    /// So many are not.
    pub(crate) fn wait_committed(&self, patience: Duration) -> Result<(), usize> {
        self.submits.wait_committed(patience)
    }

    /// It is called so. To be said before anybody submits; the first word counts.
    pub(super) fn begin_submits(&self, cluster: ClusterId, session: SessionId) {
        self.submits.table().names.get_or_insert_with(|| Names::new(cluster, session));
    }

    /// Rings for the loop, if it has to be.
    fn note_submits(&self, mut table: MutexGuard<'_, Table>) {
        let first = !std::mem::replace(&mut table.noted, true);
        drop(table);
        if first {
            self.bell.notify_one();
        }
    }

    /// Takes a call; `make` makes the slot of its task. `spec` is asked when a batch has to be opened. Waits while
    /// more than may be is not committed.
    pub(crate) fn take_call(
        &self,
        call: Submission<'_>,
        spec: impl FnOnce() -> BatchSpec,
        make: impl FnOnce(TaskId) -> Arc<Slot>,
    ) -> Result<Arc<Slot>, Untaken> {
        if call.needs.len() > MENTIONS_MAX {
            return Err(Untaken::TooManyNamed { named: call.needs.len(), limit: MENTIONS_MAX });
        }
        let strings: usize = call.strings.iter().map(|string| string.len()).sum();
        let bytes = strings + call.needs.len() * MENTION_BYTES;
        if bytes > CALL_BYTES_MAX {
            return Err(Untaken::TooLong { bytes, limit: CALL_BYTES_MAX });
        }
        let mut table = self.submits.with_room(bytes);
        if let Some(end) = table.ended.clone() {
            return Err(Untaken::Ended(end));
        }
        let id = match table.find_open(&call, bytes) {
            Some(id) => id,
            None => table.open(call.key.clone(), spec()).ok_or(Untaken::Ended(End::Closed))?,
        };
        // Whom it names is said before it.
        for named in call.needs {
            let on = named.slot.of().task;
            let is_uncut = |batch: &Submitted| batch.is_uncut(on.index);
            if on.batch != id && table.batches.get(&on.batch).is_some_and(is_uncut) {
                table.cut(on.batch);
            }
        }
        let Some(batch) = table.batches.get_mut(&id) else {
            return Err(Untaken::Ended(End::Closed));
        };
        let task = TaskId { batch: id, index: batch.tasks };
        let slot = make(task);
        let full = batch.push(call, bytes, &slot);
        table.ahead_calls += 1;
        table.ahead_bytes += bytes;
        if full {
            table.cut(id);
        }
        self.note_submits(table);
        Ok(slot)
    }

    /// What callers have done, in order.
    pub(super) fn take_submits(&self, now: Instant) -> Vec<Event> {
        let mut table = self.submits.table();
        table.noted = false;
        for at in 0..table.open.len() {
            let id = table.open[at];
            table.cut(id);
            if let Some(batch) = table.batches.get_mut(&id) {
                batch.look(now);
            }
        }
        std::mem::take(&mut table.events)
    }

    /// When a batch that calls may join will have been left alone for long enough.
    pub(super) fn submits_idle_at(&self) -> Option<Instant> {
        let table = self.submits.table();
        let joined = table.open.iter().filter_map(|id| table.batches.get(id)?.joined);
        joined.min().map(|joined| joined + IDLE)
    }

    /// Seals what was left alone.
    pub(super) fn seal_idle_submits(&self, now: Instant) {
        let mut table = self.submits.table();
        for at in (0..table.open.len()).rev() {
            let batch = table.batches.get(&table.open[at]);
            let joined = batch.and_then(|batch| batch.joined);
            if joined.is_some_and(|joined| joined + IDLE <= now) {
                table.seal(at);
            }
        }
    }

    /// Whether this is a kept batch.
    pub(super) fn has_submitted(&self, id: BatchId) -> bool {
        self.submits.table().batches.contains_key(&id)
    }

    /// The cluster has so many tasks of a batch.
    pub(super) fn submits_committed(&self, id: BatchId, tasks: u32) {
        let mut table = self.submits.table();
        let Some(batch) = table.batches.get_mut(&id) else { return };
        let committed = batch.commit(tasks);
        table.ahead_calls -= committed.calls;
        table.ahead_bytes -= committed.bytes;
        self.submits.ring(table);
        // What it has named may be the last of its slots, whose end takes the lock again.
        drop(committed);
    }

    /// Outcomes of a batch have come; how many segments of it that are in all.
    pub(super) fn submits_came(
        &self,
        id: BatchId,
        range: TaskRange,
        segment: &Segment,
        arrays: Vec<Arc<Whole>>,
    ) -> u32 {
        let mut table = self.submits.table();
        let Some(batch) = table.batches.get_mut(&id) else { return 0 };
        batch.delivered += 1;
        let (delivered, came) = (batch.delivered, batch.came(range, segment, &arrays.into()));
        drop(table);
        came.settle();
        delivered
    }

    /// Nothing more will come of a batch.
    pub(super) fn submits_end(&self, id: BatchId, end: &End) {
        let mut table = self.submits.table();
        table.open.retain(|open| *open != id);
        let Some(batch) = table.batches.get_mut(&id) else { return };
        let first = !batch.is_over;
        let ended = batch.end();
        table.unfinished -= usize::from(first);
        table.ahead_calls -= ended.committed.calls;
        table.ahead_bytes -= ended.committed.bytes;
        table.tidy(id);
        let noted = std::mem::replace(&mut table.noted, true);
        self.submits.ring(table);
        if !noted {
            self.bell.notify_one();
        }
        ended.settle(end);
    }

    /// The lease has run out: another stay has begun, in which nothing of the former one is known.
    pub(super) fn submits_renamed(&self, session: SessionId) {
        let mut table = self.submits.table();
        if let Some(names) = &mut table.names {
            names.rename(session);
        }
        // What the loop has not seen was named after the former stay.
        table.events.retain(|event| matches!(event, Event::Await(_) | Event::Unawait(_)));
        let open = table.batches.iter().filter(|(_, batch)| !batch.is_over);
        let open: Vec<BatchId> = open.map(|(id, _)| *id).collect();
        drop(table);
        open.into_iter().for_each(|id| self.submits_end(id, &End::Expired));
    }

    /// The loop has ended: nobody waits for what will not come.
    pub(super) fn submits_ended(&self, end: &End) {
        let mut table = self.submits.table();
        table.ended = Some(end.clone());
        table.events.clear();
        let ids: Vec<BatchId> = table.batches.keys().copied().collect();
        let foreign = table.foreign.take_all();
        let fetching = std::mem::take(&mut table.fetching);
        drop(table);
        self.submits.room.notify_all();
        ids.into_iter().for_each(|id| self.submits_end(id, end));
        for slot in foreign.iter().filter_map(Weak::upgrade) {
            slot.settle(Settled::Ended(end.clone()));
        }
        for slot in fetching.into_values().flatten().filter_map(|slot| slot.upgrade()) {
            slot.put_long(Err("the session has ended".into()));
        }
    }

    /// A slot that was counted for a batch is gone.
    pub(crate) fn let_go_slot(&self, id: BatchId) {
        let mut table = self.submits.table();
        if let Some(batch) = table.batches.get_mut(&id) {
            batch.alive -= 1;
            let events = table.events.len();
            table.tidy(id);
            if table.events.len() > events {
                self.note_submits(table);
            }
        }
    }

    /// Ends a task, if it has not ended.
    pub(crate) fn cancel_task(&self, task: TaskId) {
        let mut table = self.submits.table();
        table.cut(task.batch);
        let range = TaskRange::new(task.index, task.index + 1);
        table.events.push(Event::CancelTasks { batch: task.batch, range });
        self.note_submits(table);
    }

    /// The slot that there is for an outcome; else whether one that is made for it is counted.
    pub(crate) fn find(&self, of: Awaited) -> Result<Arc<Slot>, bool> {
        let mut table = self.submits.table();
        let Some(batch) = table.batches.get_mut(&of.task.batch) else { return Err(false) };
        match batch.slot(of) {
            Some(slot) => Ok(slot),
            None if batch.is_released => Err(false),
            None => {
                batch.alive += 1;
                Err(true)
            }
        }
    }
}

#[cfg(test)]
mod tests;
