//! A load: what an executor has been given to run, and how a lane works it off.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use allhands_common::id::{AttemptId, BatchId, JobId, TaskId, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::segment::Segment;
use allhands_common::wire::executor;
use bytes::Bytes;

use super::call::{self, Ended, Functions, Identity};
use super::collect::{Collector, Outcome};
use super::context;
use super::deck::Shift;
use super::fill::Outcomes;
use super::lanes::Crew;
use super::tasks::{self, Current};
use super::wander::{self, Wanderer};

/// The common parts of the batches whose loads may come.
pub(super) type Batches = BTreeMap<BatchId, Arc<Batch>>;

/// The common part of a batch.
pub(super) struct Batch {
    id: BatchId,
    functions: Functions,
    context: Bytes,
    job: JobId,
    timeout_ms: Option<u64>,
    idempotent: bool,
    env: Vec<(String, String)>,
}

impl Batch {
    pub(super) fn new(common: executor::Common) -> Self {
        Self {
            id: common.batch,
            functions: Functions::find(&common),
            context: common.context.bytes,
            job: common.job,
            timeout_ms: common.timeout_ms,
            idempotent: common.idempotent,
            env: common.env,
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
    given: Outcomes,
    /// Its tasks that have had rounds before, in order.
    rounds: Vec<(u32, u32)>,
}

/// How a thread came out of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worked {
    /// Nothing was left to begin.
    Exhausted,
    /// Another thread has a task to go on with.
    Yielded,
    /// Its last task has waited for others, and so had left the load before.
    Waited,
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
            given: Outcomes::new(load.given),
            rounds: load.rounds,
        })
    }

    /// The task at `place`, counted from the load's first.
    pub(super) fn task(&self, place: u32) -> TaskId {
        TaskId { batch: self.batch.id, index: self.range.start + place }
    }

    /// The round of the task at `place`, none as a rule.
    pub(super) fn round(&self, place: u32) -> Option<u32> {
        let index = self.range.start + place;
        self.rounds.iter().find(|(task, _)| *task == index).map(|(_, round)| *round)
    }

    /// What its tasks run.
    pub(super) fn functions(&self) -> &Functions {
        &self.batch.functions
    }

    /// The outcomes that came along with it.
    pub(super) const fn given(&self) -> &Outcomes {
        &self.given
    }

    /// Whose tasks they are.
    pub(super) const fn identity(&self) -> Identity {
        self.identity
    }

    /// Of which attempt it is.
    pub(super) const fn attempt(&self) -> AttemptId {
        self.identity.attempt
    }

    /// Of which job it is.
    pub(super) fn job(&self) -> JobId {
        self.batch.job
    }

    /// How long each of its tasks may run, in milliseconds.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.batch.timeout_ms
    }

    /// The environment of its batch.
    pub(super) fn env(&self) -> &[(String, String)] {
        &self.batch.env
    }

    /// Before its first task.
    pub(super) fn begin(&self, outcomes: &Collector, several_lanes: bool) {
        outcomes.begin(self.sequence, self.range, several_lanes);
    }

    /// Takes and runs tasks in `lane` until none is left to take; with the lane that the thread has then.
    pub(super) fn work(
        &self,
        shift: &Arc<Shift>,
        lane: u32,
        out: &mut Vec<u8>,
        crew: &Arc<Crew>,
    ) -> (Worked, u32) {
        context::set(&self.batch.context, self.batch.id);
        let current = Current::enter(shift, lane);
        let worked = self.take_and_run(&current, lane, out, crew);
        tasks::leave();
        crew.cell.rest(current.lane());
        context::clear();
        (worked, current.lane())
    }

    fn take_and_run(
        &self,
        current: &Current,
        lane: u32,
        out: &mut Vec<u8>,
        crew: &Arc<Crew>,
    ) -> Worked {
        let several = crew.is_several();
        let (mut at, mut names) = (0, Vec::new());
        while !crew.deck.somebody_resumes() {
            let Some(index) = crew.cell.take(self.sequence, lane, self.timed) else {
                return Worked::Exhausted;
            };
            // Tasks are taken in ascending order, so this only ever goes forward.
            while self.segments.get(at).is_some_and(|(tasks, _)| tasks.end <= index) {
                at += 1;
            }
            let Some((tasks, segment)) = self.segments.get(at) else {
                return Worked::Exhausted;
            };
            current.begin(index);
            let started = several.then(Instant::now);
            let row = index - tasks.start;
            let ended = match call::begins(&self.batch.functions, segment, row) {
                None => call::run(
                    &self.batch.functions,
                    segment,
                    row,
                    self.identity,
                    &self.given,
                    (&mut *out, &mut names),
                ),
                Some(call) => match wander::begin(current, call, crew, (&mut *out, &mut names)) {
                    Some(ended) => ended,
                    None => return Worked::Waited,
                },
            };
            let run_us = started.map_or(0, |started| started.elapsed().as_micros() as u64);
            let codec = segment.codec();
            if current.has_waited() {
                self.end_late(current, codec, ended, (&mut *out, &names), crew);
                return Worked::Waited;
            }
            crew.asked.forget(current.begun());
            crew.notes.end(crew, current.begun());
            let Ended { tag, named } = ended;
            let outcome = Outcome { tag, string: out, names: &names };
            let at_once = !self.batch.idempotent;
            crew.outcomes.push(self.sequence, index, codec, outcome, named, run_us, at_once);
            call::tidy(out);
        }
        Worked::Yielded
    }

    /// One of its tasks that has waited ended.
    fn end_late(
        &self,
        current: &Current,
        codec: u8,
        Ended { tag, named }: Ended,
        (out, names): (&mut Vec<u8>, &[u8]),
        crew: &Crew,
    ) {
        let task = current.begun();
        crew.asked.forget(task);
        crew.notes.end(crew, task);
        let outcome = Outcome { tag, string: out, names };
        crew.outcomes.late(task, self.task(task.place).index, codec, outcome, named);
        call::tidy(out);
    }

    /// Goes on with one of its tasks that has waited, in `lane`; with the lane that the thread has then.
    pub(super) fn go_on(&self, mut future: Box<Wanderer>, lane: u32, crew: &Crew) -> u32 {
        context::set(&self.batch.context, self.batch.id);
        let (codec, (mut out, mut names)) = (future.codec(), (Vec::new(), Vec::new()));
        let current = future.enter(lane);
        if let Some(ended) = future.go_on(&current, (&mut out, &mut names)) {
            self.end_late(&current, codec, ended, (&mut out, &names), crew);
        }
        tasks::leave();
        crew.cell.rest(current.lane());
        context::clear();
        current.lane()
    }
}
