//! A load: what an executor has been given to run, and how a lane works it off.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use allhands_common::id::{BatchId, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::segment::Segment;
use allhands_common::wire::executor;
use allhands_store::cell::Cell;
use bytes::Bytes;

use super::call::{self, Functions, Identity};
use super::collect::{Collector, Outcome};
use super::context;

/// The common parts of the batches whose loads may come.
pub(super) type Batches = BTreeMap<BatchId, Arc<Batch>>;

/// The common part of a batch.
pub(super) struct Batch {
    id: BatchId,
    functions: Functions,
    context: Bytes,
    idempotent: bool,
}

impl Batch {
    pub(super) fn new(common: executor::Common) -> Self {
        Self {
            id: common.batch,
            functions: Functions::find(&common.functions),
            context: common.context.bytes,
            idempotent: common.idempotent,
        }
    }
}

/// Tasks to run.
pub(super) struct Load {
    pub(super) sequence: u32,
    range: TaskRange,
    timed: bool,
    identity: Identity,
    batch: Arc<Batch>,
    /// With the tasks of each, counted from the load's first.
    segments: Vec<(TaskRange, Segment)>,
}

/// What a lane has for itself.
pub(super) struct Lane {
    number: u32,
    out: Vec<u8>,
    names: Vec<u8>,
}

impl Lane {
    pub(super) const fn new(number: u32) -> Self {
        Self { number, out: Vec::new(), names: Vec::new() }
    }
}

impl Load {
    /// # Errors
    /// When the batch is not known, or the segments do not hold the range: the worker is broken.
    pub(super) fn new(
        load: executor::Load,
        worker: WorkerId,
        batches: &Batches,
    ) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::other(format!("load {}: {what}", load.attempt));
        let batch = batches.get(&load.batch).ok_or_else(|| wrong("its batch is not known"))?;
        let mut segments = Vec::with_capacity(load.segments.len());
        let mut end = 0;
        for segment in load.segments {
            let segment = Segment::parse(segment.bytes).map_err(io::Error::other)?;
            let start = end;
            end += segment.tasks();
            segments.push((TaskRange::new(start, end), segment));
        }
        if end != load.range.len() {
            return Err(io::Error::other(format!(
                "load {}: its segments hold {end} tasks, its range is {}",
                load.attempt, load.range
            )));
        }
        Ok(Self {
            sequence: load.sequence,
            range: load.range,
            timed: load.timed,
            identity: Identity { worker, attempt: load.attempt, batch: load.batch },
            batch: Arc::clone(batch),
            segments,
        })
    }

    /// Before its first task.
    pub(super) fn begin(&self, outcomes: &Collector, several_lanes: bool) {
        outcomes.begin(self.sequence, self.range, several_lanes);
    }

    /// Takes and runs tasks until none is left to take.
    pub(super) fn work(&self, lane: &mut Lane, cell: &Cell, outcomes: &Collector, several: bool) {
        context::set(&self.batch.context, self.batch.id);
        let mut at = 0;
        while let Some(index) = cell.take(self.sequence, lane.number, self.timed) {
            // Tasks are taken in ascending order, so this only ever goes forward.
            while self.segments.get(at).is_some_and(|(tasks, _)| tasks.end <= index) {
                at += 1;
            }
            let Some((tasks, segment)) = self.segments.get(at) else {
                break;
            };
            let started = several.then(Instant::now);
            let row = index - tasks.start;
            context::begin_task(self.batch.id, self.range.start + index);
            let out = (&mut lane.out, &mut lane.names);
            let tag = call::run(&self.batch.functions, segment, row, self.identity, out);
            let run_us = started.map_or(0, |started| started.elapsed().as_micros() as u64);
            let outcome = Outcome { tag, string: &lane.out, names: &lane.names };
            let at_once = !self.batch.idempotent;
            outcomes.push(self.sequence, index, segment.codec(), outcome, run_us, at_once);
            call::tidy(&mut lane.out);
        }
        cell.rest(lane.number);
        context::clear();
    }
}
