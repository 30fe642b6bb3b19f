//! What workers report: outcomes, deaths, ranges given back.
//!
//! A report may come twice, or from an attempt that was given up. Only what the books have with the
//! attempt is news; of the rest, values of tasks that have none yet count, and nothing else.

use alloc::vec::Vec;

use allhands_common::bulk::Bulk;
use allhands_common::execution::{Awaited, Mention};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, TaskId, WorkerId};
use allhands_common::limit::EXECUTOR_DEATHS_MAX;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::Segment;
use allhands_common::time::Instant;
use allhands_common::wire::record::End;
use allhands_common::wire::worker::{Ended, How, Order};
use bytes::Bytes;

use super::outcomes::values;
use super::{Dispatcher, Timer};
use crate::state::Batch;
use crate::{Action, Charge, Command, State};

/// Whose news it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) batch: BatchId,
    pub(super) attempt: AttemptId,
    pub(super) worker: WorkerId,
}

impl Dispatcher {
    /// Takes one piece of news about an attempt.
    pub(super) fn report(
        &mut self,
        now: Instant,
        state: &State,
        worker: WorkerId,
        ended: Ended,
        out: &mut Vec<Action>,
    ) {
        let Ended { attempt, batch, range, how } = ended;
        let origin = Origin { batch, attempt, worker };
        match how {
            How::Blocked { on, run_us } => {
                return self.blocked(state, origin, range.start, on, run_us);
            }
            How::Resumed => return self.resumed(state, origin, range.start),
            How::Ran { .. }
            | How::Returned
            | How::Cancelled
            | How::Killed { .. }
            | How::Bystander
            | How::Refused { .. } => {}
        }
        let mine = self.attempts.get(&attempt).filter(|known| known.worker == worker);
        let (mut news, mut known) = (RangeSet::new(), RangeSet::new());
        if let Some(mine) = mine {
            let here = mine.open.intersection(range).chain(mine.owed.intersection(range));
            here.for_each(|part| news.insert(part));
            let known_here = news.iter().chain(mine.settling.intersection(range));
            known_here.for_each(|part| known.insert(part));
        }
        if let How::Ran { segment, mentions, .. } = &how {
            let late: Vec<TaskRange> = known.gaps(range).collect();
            late.into_iter()
                .for_each(|part| self.late(state, origin, (range, part), segment, mentions, out));
        }
        for part in news.iter() {
            self.hear_of(now, state, origin, part, part_of(&how, range, part), out);
        }
        self.stop_called_off(now, state, attempt);
    }

    /// Tasks that are with an attempt, by the books, have ended.
    fn hear_of(
        &mut self,
        now: Instant,
        state: &State,
        origin: Origin,
        range: TaskRange,
        how: How,
        out: &mut Vec<Action>,
    ) {
        let Origin { batch, attempt, worker } = origin;
        let asked = self.attempts.get(&attempt).is_some_and(|known| known.asked.is_some());
        let ran = matches!(how, How::Ran { .. });
        let Some(known) = state.batches.get(&batch).filter(|known| known.stopped().is_none())
        else {
            self.withdraw(state, attempt, range, false);
            if ran {
                self.order(worker, Order::Committed { attempt, range });
            }
            return;
        };
        self.note_end(attempt, range, &how);
        self.withdraw(state, attempt, range, ran);
        match how {
            How::Ran { segment, run_us, mentions } => {
                self.learn_cost(state, batch, range.len(), run_us);
                self.needs_there(worker, batch, range);
                self.outcomes(now, state, known, origin, range, (segment.bytes, &mentions), out);
            }
            // Not ends: `report` has seen to them.
            How::Blocked { .. } | How::Resumed => {}
            How::Returned => {
                self.needs_recalled(worker, batch, range);
                // What comes back of itself was not begun because of one that waits, or its batch is not known there.
                if !asked && !self.active.get(&batch).is_some_and(|active| active.blocks) {
                    self.unknow(worker, batch);
                }
                self.put_back_unstarted(now, state, origin, range, out);
                self.supersede_returned(now, state, batch, range, out);
            }
            How::Cancelled | How::Bystander if !known.spec.policy.idempotent => {
                self.fail(state, origin, range, Cause::Abandoned, out);
            }
            How::Cancelled => self.put_back(state, batch, range),
            How::Bystander => (range.start..range.end).for_each(|index| {
                self.charge(now, state, origin, index, Charge::Suspicion, 0, out);
            }),
            How::Killed { cause } => {
                for index in range.start..range.end {
                    self.killed(now, state, known, origin, index, cause.clone(), out);
                }
            }
            How::Refused { cause } => self.refused(state, known, origin, range, cause, out),
        }
    }

    /// Takes `range` out of what an attempt has open or owes; what has `come` waits for the log.
    pub(super) fn withdraw(&mut self, state: &State, id: AttemptId, range: TaskRange, come: bool) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let batch = attempt.batch;
        attempt.open.remove(range);
        attempt.blocked.remove(range);
        attempt.owed.remove(range);
        attempt.asked = None;
        self.said.ended(attempt.job, batch, range);
        if come {
            attempt.settling.insert(range);
        } else {
            self.records.given_up(id, range);
        }
        self.unblock(batch, range);
        self.occupy(state, id);
        self.forget_if_over(id);
    }

    /// Tasks of an attempt have ended: for the record.
    fn note_end(&mut self, id: AttemptId, range: TaskRange, how: &How) {
        let (end, run_us) = match how {
            How::Ran { run_us, .. } => (End::Ran, *run_us),
            How::Returned => (End::Returned, 0),
            How::Cancelled => (End::Cancelled, 0),
            How::Killed { .. } => (End::Killed, 0),
            How::Bystander => (End::Bystander, 0),
            How::Refused { .. } => (End::Refused, 0),
            How::Blocked { .. } | How::Resumed => return,
        };
        let lanes = self.attempts.get(&id).map_or(1, |attempt| u32::from(attempt.threads));
        let lanes = lanes.min(range.len()).into();
        self.records.ended(id, range, end, (run_us, lanes));
    }

    /// A task has begun and waits for others: its slot is free.
    fn blocked(
        &mut self,
        state: &State,
        origin: Origin,
        index: u32,
        on: Vec<Awaited>,
        run_us: Option<u64>,
    ) {
        let Origin { batch, attempt, worker } = origin;
        let mine = self.attempts.get_mut(&attempt).filter(|known| known.worker == worker);
        let Some(known) = mine.filter(|known| known.open.contains(index)) else { return };
        known.blocked.insert(TaskRange::new(index, index + 1));
        if let Some(active) = self.active.get_mut(&batch) {
            active.blocks = true;
        }
        self.records.blocked(attempt, index, &on, (0, run_us));
        self.occupy(state, attempt);
        self.block(state, worker, TaskId { batch, index }, on);
    }

    /// A task that waited goes on, whatever else runs there now.
    fn resumed(&mut self, state: &State, origin: Origin, index: u32) {
        let Origin { batch, attempt, worker } = origin;
        let one = TaskRange::new(index, index + 1);
        let mine = self.attempts.get_mut(&attempt).filter(|known| known.worker == worker);
        let Some(known) = mine else { return };
        known.blocked.remove(one);
        self.records.resumed(attempt, index);
        self.unblock(batch, one);
        self.occupy(state, attempt);
    }

    /// An attempt with nothing left is forgotten.
    pub(super) fn forget_if_over(&mut self, id: AttemptId) {
        if !self.attempts.get(&id).is_some_and(super::Attempt::is_over) {
            return;
        }
        let Some(attempt) = self.attempts.remove(&id) else { return };
        self.records.close(id);
        if let Some(worker) = self.workers.get_mut(&attempt.worker) {
            worker.attempts.remove(&id);
        }
        if let Some(active) = self.active.get_mut(&attempt.batch) {
            active.attempts.remove(&id);
        }
    }

    /// Outcomes of tasks that the books do not have with this attempt (any more).
    fn late(
        &mut self,
        state: &State,
        origin: Origin,
        (range, part): (TaskRange, TaskRange),
        bytes: &Bulk,
        mentions: &[Mention],
        out: &mut Vec<Action>,
    ) {
        let Origin { batch, attempt, worker } = origin;
        let batch_known = state.batches.get(&batch).filter(|known| known.stopped().is_none());
        let wanted = batch_known.map(|known| known.unfinished(part)).unwrap_or_default();
        let mut kept = RangeSet::new();
        if let Ok(segment) = Segment::parse(bytes.bytes.clone())
            && segment.tasks() == range.len()
        {
            for values in
                values(&segment, range).flat_map(|run| wanted.intersection(run).collect::<Vec<_>>())
            {
                let rows = TaskRange::new(values.start - range.start, values.end - range.start);
                if let Ok(slice) = segment.slice(rows) {
                    kept.insert(values);
                    propose_finish(origin, values, slice, mentions, out);
                }
            }
        }
        for range in kept.gaps(part) {
            self.order(worker, Order::Committed { attempt, range });
        }
    }

    /// One task killed its executor, or had to be killed with it.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one death")]
    fn killed(
        &mut self,
        now: Instant,
        state: &State,
        known: &Batch,
        origin: Origin,
        index: u32,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        let policy = &known.spec.policy;
        let exception = known.exception(index);
        let one = TaskRange::new(index, index + 1);
        if cause.is_users() && policy.idempotent && exception.failures < policy.retries {
            let wait = policy.backoff.spread(exception.failures + 1, index.into());
            return self.charge(now, state, origin, index, Charge::Failure, wait, out);
        }
        let deaths = exception.deaths + 1;
        let cause = match cause {
            Cause::ExecutorDied { signal, exit, stderr_tail, .. } => {
                if policy.idempotent && deaths < EXECUTOR_DEATHS_MAX {
                    return self.charge(now, state, origin, index, Charge::Death, 0, out);
                }
                Cause::ExecutorDied { signal, exit, stderr_tail, deaths }
            }
            cause => cause,
        };
        self.fail(state, origin, one, cause, out);
    }

    /// A worker cannot run the program: others may.
    fn refused(
        &mut self,
        state: &State,
        known: &Batch,
        origin: Origin,
        range: TaskRange,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        let Some(job) = state.job_of(known) else { return };
        let (program, need) = (&job.program, &known.spec.policy.resources);
        let was_present = self.workers.get(&origin.worker).is_some_and(|known| known.present);
        self.change_worker(origin.worker, |known| known.present = false);
        if let Some(known) = self.workers.get_mut(&origin.worker) {
            known.refused.insert(program.id);
        }
        self.change_worker(origin.worker, |known| known.present = was_present);
        if self.workers.values().any(|other| other.usable() && other.suits(need, program)) {
            self.put_back(state, origin.batch, range);
        } else {
            self.fail(state, origin, range, cause, out);
        }
    }

    /// Tasks that were not started wait again; of a batch that must not run twice, the log has to
    /// know first that they are with nobody.
    pub(super) fn put_back_unstarted(
        &mut self,
        now: Instant,
        state: &State,
        origin: Origin,
        range: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let known = state.batches.get(&origin.batch);
        if known.is_some_and(|batch| !batch.spec.policy.idempotent) {
            for index in range.start..range.end {
                self.charge(now, state, origin, index, Charge::Return, 0, out);
            }
        } else {
            self.put_back(state, origin.batch, range);
        }
    }

    /// A task is to be tried again in `wait_ms`: once the log knows.
    #[expect(clippy::too_many_arguments, reason = "who, what, why and when of one charge")]
    pub(super) fn charge(
        &mut self,
        now: Instant,
        state: &State,
        origin: Origin,
        index: u32,
        charge: Charge,
        wait_ms: u64,
        out: &mut Vec<Action>,
    ) {
        let Origin { batch, attempt, .. } = origin;
        let one = TaskRange::new(index, index + 1);
        let Some(active) = self.active.get_mut(&batch) else { return };
        active.held.remove(one);
        if state.batches.get(&batch).is_none_or(|known| known.has_ended(index)) {
            return;
        }
        active.charging.insert(one);
        let not_before = self.cluster_time(now).after(wait_ms);
        let command = Command::Charge { batch, index, attempt, charge, not_before };
        out.push(Action::Propose(command));
    }

    /// Tasks end without a value: once the log knows.
    pub(super) fn fail(
        &mut self,
        state: &State,
        origin: Origin,
        range: TaskRange,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        let Origin { batch, attempt, worker } = origin;
        let Some(known) = state.batches.get(&batch) else { return };
        if let Some(active) = self.active.get_mut(&batch) {
            active.held.remove(range);
            known.unfinished(range).iter().for_each(|part| active.charging.insert(part));
        }
        let tries = known.next_try(range.start);
        let failed = Failed { cause, worker: Some(worker), attempt: Some(attempt), tries };
        out.push(Action::Propose(Command::Fail { batch, range, failed }));
    }

    /// A charge has come back from the log: the task waits again.
    pub(super) fn recharge(&mut self, now: Instant, state: &State, batch: BatchId, index: u32) {
        let Some(known) = state.batches.get(&batch) else { return };
        let not_before = known.exception(index).not_before;
        let (one, time) = (TaskRange::new(index, index + 1), self.cluster_time(now));
        let at = self.instant_of(not_before);
        let Some(active) = self.activate(state, batch) else { return };
        if !active.charging.contains(index) || known.has_ended(index) {
            return;
        }
        active.charging.remove(one);
        if not_before <= time {
            active.pending.insert(one);
            self.check_queue_timeout(known, batch);
        } else {
            active.delayed.insert(index, not_before);
            self.timers.set(at, Timer::Batch(batch));
        }
        let ready = self.records.now.max(self.moment(at));
        self.records.became_ready(batch, one, ready);
        self.requeue(state, batch);
    }
}

pub(super) fn propose_finish(
    origin: Origin,
    range: TaskRange,
    segment: Bytes,
    mentions: &[Mention],
    out: &mut Vec<Action>,
) {
    let Origin { batch, attempt, worker } = origin;
    let segment = segment.into();
    let mentions = mentions.iter().filter(|m| range.contains(m.index)).copied().collect();
    let finish = Command::Finish { batch, attempt, worker, range, segment, mentions };
    out.push(Action::Propose(finish));
}

/// What `how` says of `part` of its `range`.
fn part_of(how: &How, range: TaskRange, part: TaskRange) -> How {
    match how {
        How::Ran { segment, run_us, mentions } if part != range => {
            let rows = TaskRange::new(part.start - range.start, part.end - range.start);
            let slice = Segment::parse(segment.bytes.clone()).and_then(|all| all.slice(rows));
            let run_us = run_us * u64::from(part.len()) / u64::from(range.len().max(1));
            let mentions = mentions.clone();
            How::Ran { segment: slice.unwrap_or_default().into(), run_us, mentions }
        }
        whole => whole.clone(),
    }
}
