//! Jobs that go on without their client, on the callers' side: the one that this session has opened, or attached to,
//! and what comes of its batches for whoever reads them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use allhands_common::id::{BatchId, TaskId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::Segment;
use allhands_common::wire::admin::JobSummary;

use super::Session;
use super::core::{End, Event, Visited};
use super::submits::string_of;
use crate::execution::slot::{Outcome, Settled};
use crate::shared::whole::Whole;

/// What callers want of the session's job, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Visiting {
    table: Mutex<Table>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// The job, or why there is none, once that is known.
    job: Option<Result<Visited, String>>,
    /// How far it is, if somebody has asked since.
    seen: Option<JobSummary>,
    /// What the loop has not seen, in order.
    events: Vec<Event>,
    /// Batches that are to be read: of which the loop does not know.
    to_read: BTreeMap<BatchId, Read>,
    /// Those that are being read. What comes of others was for a reader that has gone.
    reading: BTreeMap<BatchId, Read>,
    /// What has come and nobody has taken, in order.
    came: VecDeque<Came>,
    ended: Option<End>,
}

/// A batch that is being read.
#[derive(Debug)]
struct Read {
    /// Tasks of which nothing has come.
    left: RangeSet,
    /// Outcome segments that were taken.
    taken: u32,
}

/// What has come of a batch.
#[derive(Debug)]
enum Came {
    /// Outcomes; those of the first `row` tasks were taken.
    Outcomes {
        range: TaskRange,
        row: u32,
        segment: Segment,
        arrays: Arc<[Arc<Whole>]>,
        batch: BatchId,
    },
    /// These tasks have none, because the batch has ended so.
    Rest { batch: BatchId, left: RangeSet, end: End },
}

/// Why something about a job is not known.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// There is no such job for this session.
    Refused(String),
    /// The session has ended so.
    Ended(End),
    /// Nobody has said in time.
    Late,
}

impl Visiting {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and wakes whoever waits for that.
    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table());
        self.bell.notify_all();
    }

    /// Waits until `find` finds something, for so long at most.
    fn wait<T>(
        &self,
        patience: Option<Duration>,
        mut find: impl FnMut(&mut Table) -> Option<T>,
    ) -> Result<T, Unknown> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut table = self.table();
        loop {
            if let Some(found) = find(&mut table) {
                return Ok(found);
            }
            if let Some(Err(reason)) = &table.job {
                return Err(Unknown::Refused(reason.clone()));
            }
            if let Some(end) = &table.ended {
                return Err(Unknown::Ended(end.clone()));
            }
            table = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.bell.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Err(Unknown::Late),
                Some(left) => {
                    let waited = self.bell.wait_timeout(table, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        let mut table = self.table();
        let begun = std::mem::take(&mut table.to_read);
        table.reading.extend(begun);
        std::mem::take(&mut table.events)
    }

    pub(super) fn job_is(&self, job: Result<Visited, String>) {
        self.change(|table| table.job = Some(job));
    }

    pub(super) fn job_seen(&self, summary: JobSummary) {
        self.change(|table| table.seen = Some(summary));
    }

    /// Whether outcomes of a batch are being read.
    pub(super) fn reads(&self, batch: &BatchId) -> bool {
        self.table().reading.contains_key(batch)
    }

    /// Outcomes have come of a batch that is being read.
    pub(super) fn came(
        &self,
        batch: BatchId,
        range: TaskRange,
        segment: Segment,
        arrays: Vec<Arc<Whole>>,
    ) {
        self.change(|table| {
            if let Some(read) = table.reading.get_mut(&batch) {
                read.left.remove(range);
                let arrays = arrays.into();
                table.came.push_back(Came::Outcomes { range, row: 0, segment, arrays, batch });
            }
        });
    }

    /// Nothing more comes of a batch.
    pub(super) fn end(&self, batch: BatchId, end: &End) {
        self.change(|table| {
            if let Some(read) = table.reading.get_mut(&batch) {
                let (left, end) = (std::mem::take(&mut read.left), end.clone());
                table.came.push_back(Came::Rest { batch, left, end });
            }
        });
    }

    /// The loop has ended: nothing more comes.
    pub(super) fn ended(&self, end: &End) {
        self.take_events();
        let open: Vec<BatchId> = self.table().reading.keys().copied().collect();
        open.into_iter().for_each(|batch| self.end(batch, end));
        self.change(|table| table.ended = Some(end.clone()));
    }
}

impl Table {
    /// The next task that has ended; `None` in it: nothing more will come.
    fn take(&mut self) -> Option<Option<(TaskId, Settled)>> {
        loop {
            match self.came.front_mut() {
                None => {
                    let over = self.reading.is_empty() && self.to_read.is_empty();
                    return over.then_some(None);
                }
                Some(Came::Outcomes { range, row, segment, arrays, batch }) => {
                    let (id, at) = (*batch, *row);
                    if at < range.len() {
                        *row += 1;
                        let task = TaskId { batch: id, index: range.start + at };
                        return Some(Some((task, settled(segment, at, arrays))));
                    }
                    self.came.pop_front();
                    if let Some(read) = self.reading.get_mut(&id) {
                        read.taken += 1;
                        let segments = read.taken;
                        self.events.push(Event::Consumed { batch: id, segments });
                    }
                }
                Some(Came::Rest { batch, left, end }) => {
                    let id = *batch;
                    if let Some(next) = left.take_front(1).map(|range| range.start) {
                        let settled = Settled::Ended(end.clone());
                        return Some(Some((TaskId { batch: id, index: next }, settled)));
                    }
                    self.came.pop_front();
                    self.reading.remove(&id);
                }
            }
        }
    }
}

fn settled(segment: &Segment, row: u32, arrays: &Arc<[Arc<Whole>]>) -> Settled {
    match segment.value(row) {
        Some((tag, string)) => {
            let (codec, bytes) = (segment.codec(), string_of(segment, string));
            Settled::Outcome(Outcome {
                tag,
                codec,
                bytes,
                arguments: None,
                arrays: Arc::clone(arrays),
            })
        }
        None => Settled::Ended(End::Unreadable("an outcome segment is damaged".into())),
    }
}

impl Session {
    /// The job that this session has opened, or attached to.
    ///
    /// # Errors
    /// There is none, or it is not known in time whether there is.
    pub(crate) fn wait_job(&self, patience: Duration) -> Result<Visited, Unknown> {
        self.visiting.wait(Some(patience), |table| match &table.job {
            Some(Ok(job)) => Some(job.clone()),
            Some(Err(_)) | None => None,
        })
    }

    /// How far that job is.
    ///
    /// # Errors
    /// It is not known in time.
    pub(crate) fn look_at_job(&self, patience: Duration) -> Result<JobSummary, Unknown> {
        self.order_visit(|table| {
            table.seen = None;
            table.events.push(Event::LookAtJob);
        });
        self.visiting.wait(Some(patience), |table| table.seen.clone())
    }

    /// Ends that job.
    pub(crate) fn cancel_job(&self, reason: String) {
        self.order_visit(|table| table.events.push(Event::CancelJob { reason }));
    }

    /// Reads batches of that job, with so many tasks: [`next_read`](Self::next_read).
    pub(crate) fn read_batches(&self, batches: impl Iterator<Item = (BatchId, u32)>) {
        self.order_visit(|table| {
            let read = |tasks| Read { left: RangeSet::of(TaskRange::new(0, tasks)), taken: 0 };
            let batches: Vec<_> = batches.map(|(id, tasks)| (id, read(tasks))).collect();
            let named = batches.iter().map(|(id, _)| *id).collect();
            table.to_read.extend(batches);
            table.events.push(Event::Read { batches: named });
        });
    }

    /// The next task of these batches that has ended; `None` when all have been taken, or their session has ended and
    /// they were told so. Waits for it.
    pub(crate) fn next_read(&self) -> Option<(TaskId, Settled)> {
        // Where nothing more can come, all that is read has ended.
        let next = self.visiting.wait(None, Table::take).unwrap_or_default();
        if !self.visiting.table().events.is_empty() {
            self.bell.notify_one();
        }
        next
    }

    /// Nobody reads any more.
    pub(crate) fn stop_reading(&self) {
        self.order_visit(|table| {
            (table.to_read, table.reading) = (BTreeMap::new(), BTreeMap::new());
            table.came.clear();
            table.events.push(Event::StopReading);
        });
    }

    fn order_visit(&self, order: impl FnOnce(&mut Table)) {
        order(&mut self.visiting.table());
        self.bell.notify_one();
    }
}
