//! Executors: what each has, and what becomes of it when it ends.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::execution::Awaited;
use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, ExecutorId};
use allhands_common::program::ProgramId;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{FromWorker, How};

use super::balance::PATIENCE;
use super::holdings::Piece;
use super::{Agent, AgentAction, ExecutorEvent};

/// Starts of a program that may fail in a row before it counts as unable to run here.
const FAILED_STARTS_MAX: u8 = 2;

/// How long an executor may have nothing to do before it is let go.
const IDLE: Duration = Duration::from_secs(300);

/// A process that runs a program.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) kind: Kind,
    pub(super) ready: bool,
    /// What it works on, and what comes next.
    loads: VecDeque<Loaded>,
    /// How long all of it is expected to take.
    expected_ns: u64,
    /// Tasks that it has begun and that wait, for what.
    pub(super) suspended: BTreeMap<(AttemptId, u32), Suspended>,
    /// Tasks that have waited and go on.
    pub(super) resumed: BTreeSet<(AttemptId, u32)>,
    /// What it occupies while it has work.
    pub(super) need: Resources,
    /// Whether that is taken off what is free: not if it went on when nothing was.
    pub(super) charged: bool,
    /// Since when it has what it has, or nothing.
    pub(super) since: Instant,
    /// Nothing is taken from it before this: the last time there was nothing to take.
    pub(super) spare_until: Instant,
    /// Whether it was told to end.
    pub(super) ending: bool,
}

/// A task that has begun and waits.
#[derive(Debug)]
pub(super) struct Suspended {
    /// For what.
    pub(super) on: Vec<Awaited>,
    /// Since when.
    pub(super) since: Instant,
}

/// A piece that an executor has.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) piece: Piece,
    /// What of it has no outcome.
    pub(super) open: RangeSet,
    /// How long it was expected to take when it was loaded; at most [`LONG_NS`], so that sums are exact.
    expected_ns: u64,
}

/// A task that was begun.
type Begun = (AttemptId, u32);

/// Longer than anything that is short.
const LONG_NS: u64 = 1 << 40;

/// What makes two executors interchangeable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) program: ProgramId,
    pub(super) owner: String,
    pub(super) threads: u16,
    pub(super) cpus: u32,
    pub(super) env: Vec<(String, String)>,
}

impl Executor {
    /// One that was just started.
    pub(super) const fn new(kind: Kind, now: Instant) -> Self {
        Self {
            kind,
            ready: false,
            loads: VecDeque::new(),
            expected_ns: 0,
            suspended: BTreeMap::new(),
            resumed: BTreeSet::new(),
            need: Resources::cpus(0),
            charged: false,
            since: now,
            spare_until: now,
            ending: false,
        }
    }

    pub(super) const fn loads(&self) -> &VecDeque<Loaded> {
        &self.loads
    }

    pub(super) const fn expected_ns(&self) -> u64 {
        self.expected_ns
    }

    pub(super) fn works_on(&self, attempt: AttemptId) -> bool {
        self.place_of(attempt).is_some()
    }

    /// Whether it has anything of an attempt: to run, running or waiting.
    pub(super) fn has_any(&self, attempt: AttemptId) -> bool {
        self.works_on(attempt) || self.has_waited(attempt)
    }

    /// Whether it has begun with an attempt. It takes loads in their order: the ones behind the first are what comes
    /// next.
    pub(super) fn has_begun(&self, attempt: AttemptId) -> bool {
        self.loads.front().is_some_and(|loaded| loaded.piece.attempt == attempt)
            || self.has_waited(attempt)
    }

    fn has_waited(&self, attempt: AttemptId) -> bool {
        let theirs = (attempt, 0)..=(attempt, u32::MAX);
        self.suspended.range(theirs.clone()).next().is_some()
            || self.resumed.range(theirs).next().is_some()
    }

    /// Whether it has any work.
    pub(super) fn is_busy(&self) -> bool {
        !self.loads.is_empty() || !self.resumed.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy() && !self.ending
    }

    /// Whether nothing is lost if it ends.
    pub(super) fn is_spare(&self) -> bool {
        self.is_idle() && self.suspended.is_empty()
    }

    fn place_of(&self, attempt: AttemptId) -> Option<usize> {
        self.loads.iter().position(|loaded| loaded.piece.attempt == attempt)
    }

    /// It gets a piece, which is expected to take so long, if anything is known of it.
    pub(super) fn push(&mut self, piece: Piece, expected_ns: Option<u64>) {
        let expected_ns = expected_ns.map_or(LONG_NS, |ns| ns.min(LONG_NS));
        self.expected_ns += expected_ns;
        self.loads.push_back(Loaded { piece, open: RangeSet::of(piece.range), expected_ns });
    }

    /// Tasks of its piece of an attempt are not its to run (any more).
    pub(super) fn take_out(&mut self, attempt: AttemptId, range: TaskRange) {
        for Loaded { piece, open, .. } in &mut self.loads {
            if piece.attempt == attempt {
                open.remove(range);
                if range.end == piece.range.end
                    && range.start >= piece.range.start
                    && !range.is_empty()
                {
                    piece.range.end = range.start;
                }
            }
        }
    }

    /// Its piece of an attempt is over, or is taken from it.
    fn pop(&mut self, attempt: AttemptId) -> Option<Piece> {
        let gone = self.loads.remove(self.place_of(attempt)?)?;
        self.expected_ns -= gone.expected_ns;
        Some(gone.piece)
    }

    /// What its expected time has to be.
    pub(super) fn sum_ns(&self) -> u64 {
        self.loads.iter().map(|loaded| loaded.expected_ns).sum()
    }
}

impl Agent {
    pub(super) fn hear(
        &mut self,
        now: Instant,
        id: ExecutorId,
        event: ExecutorEvent,
        out: &mut Vec<AgentAction>,
    ) {
        match event {
            ExecutorEvent::Ready => {
                let Some(executor) = self.executors.get_mut(&id) else { return };
                executor.ready = true;
                let program = executor.kind.program;
                let pieces: Vec<Piece> = executor.loads.iter().map(|loaded| loaded.piece).collect();
                self.failed_starts.remove(&program);
                pieces.into_iter().for_each(|piece| self.send_load(id, piece, out));
            }
            ExecutorEvent::Outcomes { attempt, range, segment, run_us, mentions } => {
                if let Some(executor) = self.executors.get_mut(&id) {
                    let theirs = executor.loads.iter_mut().filter(|l| l.piece.attempt == attempt);
                    theirs.for_each(|loaded| loaded.open.remove(range));
                    executor.since = now;
                    let theirs = (attempt, range.start)..(attempt, range.end);
                    executor.resumed.extract_if(theirs.clone(), |_| true).for_each(drop);
                    executor.suspended.extract_if(theirs, |_, _| true).for_each(drop);
                }
                self.settle_need(id);
                self.measure(attempt, range.len(), run_us);
                self.owe_or_defer(attempt, range, segment, (run_us, mentions));
            }
            ExecutorEvent::Blocked { attempt, index, on, returned, run_us } => {
                self.block(id, (attempt, index), (on, run_us), returned, now);
            }
            ExecutorEvent::Resumed { attempt, index } => self.resume(id, (attempt, index)),
            ExecutorEvent::Called(child) => self.call(id, child),
            ExecutorEvent::Said(notes) => {
                // Nobody else would hear it, and it does not matter so much that it waits.
                if self.registered {
                    out.push(AgentAction::Send(FromWorker::Said(notes)));
                }
            }
            ExecutorEvent::Cancels { task } => self.want_cancelled(id, task, out),
            ExecutorEvent::Finished { attempt } => self.finished(now, id, attempt),
            ExecutorEvent::Taken { attempt, range } => self.taken(now, id, attempt, range),
            ExecutorEvent::Died { running, culprit, cause } => {
                self.died(id, &running, culprit, &cause);
            }
        }
    }

    /// An executor has nothing left of a load.
    fn finished(&mut self, now: Instant, id: ExecutorId, attempt: AttemptId) {
        let Some(executor) = self.executors.get_mut(&id) else { return };
        if executor.pop(attempt).is_none() {
            return;
        }
        executor.since = now;
        self.settle_need(id);
    }

    /// What an executor without work occupied is free.
    pub(super) fn settle_need(&mut self, id: ExecutorId) {
        if let Some(executor) = self.executors.get_mut(&id)
            && !executor.is_busy()
            && core::mem::take(&mut executor.charged)
        {
            self.free.add(&executor.need);
        }
    }

    /// Tasks came back from an executor unstarted.
    fn taken(&mut self, now: Instant, id: ExecutorId, attempt: AttemptId, range: TaskRange) {
        if range.is_empty() {
            // It has begun with all of it, and the news is on its way.
            if let Some(executor) = self.executors.get_mut(&id) {
                executor.spare_until = now + PATIENCE;
            }
            return self.want_no_more(attempt);
        }
        if let Some(executor) = self.executors.get_mut(&id) {
            for Loaded { piece, open, .. } in &mut executor.loads {
                if piece.attempt == attempt && piece.range.covers(range) {
                    piece.range.end = range.start;
                    open.remove(range);
                }
            }
        }
        match self.attempts.get(&attempt) {
            Some(known) if known.cancelled => self.end(attempt, range, How::Cancelled),
            Some(known) => {
                let wanted = known.wanted_back > 0;
                self.waiting.push_front(Piece { attempt, range });
                if wanted {
                    self.give_back_waiting(attempt);
                    self.want_no_more(attempt);
                }
            }
            None => {}
        }
    }

    /// An executor is gone. Exactly one task is charged where exactly one ran; where several ran,
    /// nobody knows; what was not started, or would not be counted twice, is run again here.
    fn died(
        &mut self,
        id: ExecutorId,
        running: &[(AttemptId, u32)],
        culprit: Option<(AttemptId, u32)>,
        cause: &Cause,
    ) {
        let Some(executor) = self.executors.remove(&id) else { return };
        if executor.charged {
            self.free.add(&executor.need);
        }
        if !executor.ready && !executor.ending {
            let failed = self.failed_starts.entry(executor.kind.program).or_insert(0);
            *failed += 1;
            if *failed >= FAILED_STARTS_MAX {
                self.failed_starts.remove(&executor.kind.program);
                self.waiting.extend(executor.loads.iter().map(|loaded| loaded.piece));
                let message = alloc::format!("it does not start on this worker: {cause}");
                return self.program_failed(executor.kind.program, &Cause::Program { message });
            }
        }
        // Where a task was to be stopped with its executor, no other is the reason.
        let cancelled = |id: &AttemptId| self.attempts.get(id).is_some_and(|a| a.cancelled);
        let begun = executor.suspended.keys().chain(&executor.resumed);
        let stopped = running.iter().chain(begun).find(|(id, _)| cancelled(id)).copied();
        let culprit = culprit.or(stopped).or(match running {
            [only] => Some(*only),
            _ => None,
        });
        for Loaded { piece, open, .. } in &executor.loads {
            self.salvage(piece.attempt, open, (running, culprit), cause, false);
        }
        // What went on is in no load; what waited did not run.
        let begun = executor.resumed.iter().chain(executor.suspended.keys());
        for (attempt, index) in begun {
            let open = RangeSet::of(TaskRange::new(*index, *index + 1));
            self.salvage(*attempt, &open, (running, culprit), cause, true);
        }
        self.drain_rest();
    }

    /// Decides on the tasks of a dead executor's piece that have no outcome.
    fn salvage(
        &mut self,
        id: AttemptId,
        open: &RangeSet,
        (running, culprit): (&[Begun], Option<Begun>),
        cause: &Cause,
        waited: bool,
    ) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let cancelled = attempt.cancelled;
        let shared = self.batches.get(&attempt.batch);
        let idempotent = shared.is_none_or(|shared| shared.spec.policy.idempotent);
        let mut rest = open.clone();
        let first_running =
            running.iter().filter(|(of, _)| *of == id).map(|(_, index)| *index).min();
        for (_, index) in running.iter().filter(|(of, index)| *of == id && open.contains(*index)) {
            let one = TaskRange::new(*index, *index + 1);
            let innocent = culprit.is_some_and(|culprit| culprit != (id, *index));
            if innocent && idempotent && !cancelled {
                continue;
            }
            rest.remove(one);
            let how = match culprit {
                _ if cancelled => How::Cancelled,
                Some(culprit) if culprit == (id, *index) => How::Killed { cause: cause.clone() },
                Some(_) | None => How::Bystander,
            };
            self.end(id, one, how);
        }
        for range in rest.iter() {
            let started = waited || first_running.is_some_and(|first| range.start < first);
            if cancelled {
                self.end(id, range, How::Cancelled);
            } else if started && !idempotent {
                self.end(id, range, How::Bystander);
            } else {
                self.waiting.push_front(Piece { attempt: id, range });
            }
        }
    }

    /// What of an attempt waits for an executor to start waits without one.
    pub(super) fn unload(&mut self, id: AttemptId) {
        for executor in self.executors.values_mut().filter(|executor| !executor.ready) {
            while let Some(piece) = executor.pop(id) {
                self.waiting.push_back(piece);
                if !executor.is_busy() && core::mem::take(&mut executor.charged) {
                    self.free.add(&executor.need);
                }
            }
        }
    }

    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let idle = self.executors.values().filter(|executor| executor.is_spare());
        idle.map(|executor| executor.since + IDLE).min()
    }

    pub(super) fn stop_idle(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        for (id, executor) in &mut self.executors {
            if executor.is_spare() && executor.since + IDLE <= now {
                executor.ending = true;
                out.push(AgentAction::Stop { executor: *id });
            }
        }
    }
}
