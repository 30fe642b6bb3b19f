//! Calls of one task that have their specification in common travel in one batch, a convoy: each then
//! costs what a task costs, and not what a batch does.
//!
//! The batch stays open for those who come, and is sealed when nobody has come for a while. A caller
//! notices nothing of it: its exchange gets its one outcome and its end. Who wants no more of its call
//! cancels a task of the convoy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::limit::SEGMENT_BYTES_TARGET;
use allhands_common::policy::{BatchSpec, Policy, Prefer};
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, Segment, SegmentBuilder, SegmentError};
use allhands_common::time::Instant;
use allhands_common::wire::needs::Needs;

use crate::session::core::End;
use crate::session::exchange::{Cut, Exchange, Taken};
use crate::session::needs::{Gathering, Parts};
use crate::session::outcomes::Outcomes;

/// A convoy takes at most so many appends: each leaves a record in the state until its tasks have ended,
/// and all of them are looked at when one has.
const APPENDS_MAX: u32 = 512;

/// Convoys that take riders, at most: each is a specification that calls share just now.
pub(super) const CONVOYS_MAX: usize = 16;

/// A convoy in which nobody rides is sealed after so long: a pause between two calls of a loop is
/// shorter, and nobody wants to see a batch that runs for ever.
const IDLE: Duration = Duration::from_secs(1);

/// One batch of calls of one task.
#[derive(Debug)]
pub(super) struct Convoy {
    spec: Arc<BatchSpec>,
    /// Calls without an outcome, by their task, from `first` on.
    riders: VecDeque<Option<Arc<Exchange>>>,
    first: u32,
    /// Argument segments of those who came in this step, each of one task, and their bytes.
    boarding: Vec<Segment>,
    boarding_bytes: usize,
    /// What they map.
    maps: Gathering,
    appends: u32,
    /// Outcome segments handed on.
    pub(super) held: u32,
    /// Since when nobody rides.
    empty_since: Instant,
}

/// What a convoy's tasks share, if a call that begins so may ride: it has one task, so that how many of
/// them run at once, how they are cut and how many may fail means nothing.
pub(super) fn shared_spec(exchange: &Exchange, taken: &Taken) -> Option<BatchSpec> {
    let (spec, context) = taken.open.as_ref()?;
    let lone = |cut: &Cut| cut.tasks == 1 && cut.mentions.is_empty();
    let one_task = taken.sealed && matches!(&taken.segments[..], [only] if lone(only));
    let alone = one_task && exchange.inbox.is_of_one_part();
    let Policy { deadline_ms, prefer, batch_size, .. } = &spec.policy;
    let whole = deadline_ms.is_some() || *prefer == Prefer::Threads;
    if !alone || whole || !context.is_empty() || taken.cancel.is_some() {
        return None;
    }
    let policy = Policy {
        n_jobs: -1,
        fail_after: None,
        errors_count: false,
        batch_size: batch_size.map(|_| 1),
        ..spec.policy.clone()
    };
    Some(BatchSpec { policy, ..spec.clone() })
}

impl Convoy {
    pub(super) fn new(spec: Arc<BatchSpec>, now: Instant) -> Self {
        Self {
            spec,
            riders: VecDeque::new(),
            first: 0,
            boarding: Vec::new(),
            boarding_bytes: 0,
            maps: Gathering::default(),
            appends: 0,
            held: 0,
            empty_since: now,
        }
    }

    /// Whether calls of this specification ride here.
    pub(super) fn is_of(&self, spec: &BatchSpec) -> bool {
        *self.spec == *spec
    }

    /// Whether another has to follow it.
    pub(super) const fn is_long(&self) -> bool {
        self.appends >= APPENDS_MAX
    }

    /// Whether the tasks that came have to go out before another with these arguments.
    pub(super) fn is_full(&self, arguments: &Segment) -> bool {
        let other = |first: &Segment| first.codec() != arguments.codec();
        let bytes = self.boarding_bytes + arguments.bytes().len();
        self.boarding.first().is_some_and(|first| other(first) || bytes > SEGMENT_BYTES_TARGET)
    }

    /// Adds a call with its one task's arguments, and what it maps; the task's number.
    pub(super) fn board(
        &mut self,
        rider: Arc<Exchange>,
        arguments: Segment,
        needs: Option<Box<Needs>>,
    ) -> u32 {
        let task = self.tasks();
        if let Some(parts) = needs.and_then(|needs| Parts::of_first(&needs)) {
            self.maps.add(u32::try_from(self.boarding.len()).unwrap_or(u32::MAX), parts);
        }
        self.riders.push_back(Some(rider));
        self.boarding_bytes += arguments.bytes().len();
        self.boarding.push(arguments);
        task
    }

    fn tasks(&self) -> u32 {
        self.first + u32::try_from(self.riders.len()).unwrap_or(u32::MAX - self.first)
    }

    /// The tasks that came, as one segment.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        let segment = match self.boarding.as_slice() {
            [] => return None,
            [only] => only.bytes().clone(),
            [first, ..] => {
                let mut builder = SegmentBuilder::new(first.codec());
                for arguments in &self.boarding {
                    let mut strings = [&[][..]; ARITY_MAX];
                    // What its own caller has written can be read.
                    let (tag, arity) = arguments.row(0, &mut strings).unwrap_or_default();
                    builder.push(tag, strings[..arity].iter().copied());
                }
                builder.finish()
            }
        };
        let tasks = u32::try_from(self.boarding.len()).unwrap_or(u32::MAX);
        self.boarding.clear();
        self.boarding_bytes = 0;
        self.appends += 1;
        let needs = self.maps.take(tasks, &Parts::default());
        Some(Cut { tasks, segment, mentions: Vec::new(), needs })
    }

    /// A call leaves, with its outcome or without; `None` when it has left before.
    pub(super) fn leave(&mut self, task: u32, now: Instant) -> Option<Arc<Exchange>> {
        let at = task.checked_sub(self.first)? as usize;
        let rider = self.riders.get_mut(at)?.take();
        while let Some(None) = self.riders.front() {
            self.riders.pop_front();
            self.first += 1;
        }
        if self.riders.is_empty() {
            self.empty_since = now;
        }
        rider
    }

    /// How many workers are to keep what a call has left.
    pub(super) fn replicas(&self, task: u32) -> u8 {
        let at = task.checked_sub(self.first).map(|at| at as usize);
        let rider = at.and_then(|at| self.riders.get(at)?.as_ref());
        rider.map_or(1, |rider| rider.replicas())
    }

    /// Gives each call its outcome.
    ///
    /// # Errors
    /// A row of the outcomes cannot be had.
    pub(super) fn deliver(
        &mut self,
        range: TaskRange,
        outcomes: &Outcomes,
        now: Instant,
    ) -> Result<(), SegmentError> {
        self.held += 1;
        for (row, task) in (range.start..range.end).enumerate() {
            let row = u32::try_from(row).unwrap_or(u32::MAX);
            let one = match range.len() {
                1 => outcomes.clone(),
                _ => outcomes.one(row)?,
            };
            if let Some(rider) = self.leave(task, now) {
                rider.inbox.finish(rider.part, one);
            }
        }
        Ok(())
    }

    /// When nobody will have come for long enough, if nobody comes.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.riders.is_empty().then(|| self.empty_since + IDLE)
    }

    /// The batch has ended: so have the calls in it.
    pub(super) fn end(self, end: &End) {
        for rider in self.riders.into_iter().flatten() {
            rider.inbox.end(rider.part, end.clone());
        }
    }
}
