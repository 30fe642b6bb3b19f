//! What workers report: outcomes, deaths, ranges given back.

use alloc::vec::Vec;

use allhands_common::codec;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, WorkerId};
use allhands_common::limit::EXECUTOR_DEATHS_MAX;
use allhands_common::range::TaskRange;
use allhands_common::segment::{DONE, ERROR, FAILED, Segment};
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Ended, How, Order};
use bytes::Bytes;

use super::{Dispatcher, Timer};
use crate::state::Batch;
use crate::{Action, Charge, Command, State};

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
        if !self.close(state, worker, attempt, range, &how) {
            // An attempt that this leader does not know, or gave up: a value counts all the same.
            if let How::Ran { segment, .. } = how {
                self.propose_finish(batch, attempt, worker, range, segment.bytes, out);
            }
            return;
        }
        let Some(known) = state.batches.get(&batch) else {
            return self.settle_unwanted(worker, attempt, range, &how);
        };
        match how {
            How::Ran { segment, run_us } => {
                if let Some(active) = self.active.get_mut(&batch) {
                    active.cost.measure(range.len(), run_us);
                }
                self.outcomes(now, state, known, (batch, attempt, worker), range, segment.bytes, out);
            }
            How::Returned => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.known.remove(&batch);
                }
                self.put_back_unstarted(now, state, batch, range, out);
            }
            How::Cancelled => self.put_back_unstarted(now, state, batch, range, out),
            How::Bystander if !known.spec.policy.idempotent => {
                self.fail(state, batch, range, Cause::Abandoned, Some(worker), Some(attempt), out);
            }
            How::Bystander => (range.start..range.end).for_each(|index| {
                self.charge(now, state, batch, index, Charge::Suspicion, 0, out);
            }),
            How::Killed { cause } => {
                self.killed(now, state, known, (batch, attempt, worker), range.start, cause, out);
            }
            How::Refused { cause } => {
                self.refused(state, known, (batch, attempt, worker), range, cause, out);
            }
        }
    }

    /// Takes `range` out of what an attempt has open. Whether the attempt was this worker's.
    fn close(
        &mut self,
        state: &State,
        worker: WorkerId,
        id: AttemptId,
        range: TaskRange,
        how: &How,
    ) -> bool {
        let Some(attempt) = self.attempts.get_mut(&id).filter(|a| a.worker == worker) else {
            return false;
        };
        let was_open = !attempt.open.is_empty();
        attempt.open.remove(range);
        attempt.owed.remove(range);
        match how {
            How::Ran { .. } => {
                attempt.settling.insert(range);
                attempt.retracting = false;
            }
            How::Returned => attempt.retracting = false,
            How::Cancelled | How::Killed { .. } | How::Bystander | How::Refused { .. } => {}
        }
        let (batch, need) = (attempt.batch, attempt.need.clone());
        let closed = was_open && attempt.open.is_empty();
        self.forget_if_over(id);
        self.release_slot(state, batch, worker, &need, closed);
        true
    }

    /// An attempt with nothing left is forgotten.
    pub(super) fn forget_if_over(&mut self, id: AttemptId) {
        if self.attempts.get(&id).is_some_and(super::Attempt::is_over)
            && let Some(attempt) = self.attempts.remove(&id)
            && let Some(worker) = self.workers.get_mut(&attempt.worker)
        {
            worker.attempts.remove(&id);
        }
    }

    /// The batch is long forgotten: the worker need not keep its outcome.
    fn settle_unwanted(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        range: TaskRange,
        how: &How,
    ) {
        if let How::Ran { .. } = how {
            if let Some(attempt) = self.attempts.get_mut(&attempt) {
                attempt.settling.remove(range);
            }
            self.forget_if_over(attempt);
            self.order(worker, Order::Committed { attempt, range });
        }
    }

    fn propose_finish(
        &self,
        batch: BatchId,
        attempt: AttemptId,
        worker: WorkerId,
        range: TaskRange,
        segment: Bytes,
        out: &mut Vec<Action>,
    ) {
        let segment = segment.into();
        out.push(Action::Propose(Command::Finish { batch, attempt, worker, range, segment }));
    }

    /// Outcomes: what is to be tried again is charged, the rest goes to the log.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one report")]
    fn outcomes(
        &mut self,
        now: Instant,
        state: &State,
        known: &Batch,
        (batch, attempt, worker): (BatchId, AttemptId, WorkerId),
        range: TaskRange,
        bytes: Bytes,
        out: &mut Vec<Action>,
    ) {
        let whole = Segment::parse(bytes.clone()).ok().filter(|seg| seg.tasks() == range.len());
        let Some(segment) = whole else {
            let message = "the worker sent outcomes that are none: upgrade it".into();
            self.unsettle(attempt, range);
            let cause = Cause::Program { message };
            return self.fail(state, batch, range, cause, Some(worker), Some(attempt), out);
        };
        let again: Vec<u32> = match known.spec.policy.retries {
            0 => Vec::new(),
            retries => to_retry(known, range, &segment, retries),
        };
        if again.is_empty() {
            return self.propose_finish(batch, attempt, worker, range, bytes, out);
        }
        let mut start = range.start;
        for index in again.iter().copied().chain([range.end]) {
            let part = TaskRange::new(start, index);
            let rows = TaskRange::new(part.start - range.start, part.end - range.start);
            if !part.is_empty()
                && let Ok(slice) = segment.slice(rows)
            {
                self.propose_finish(batch, attempt, worker, part, slice, out);
            }
            start = index + 1;
        }
        for index in again {
            let one = TaskRange::new(index, index + 1);
            self.unsettle(attempt, one);
            self.order(worker, Order::Committed { attempt, range: one });
            let failures = known.exception(index).failures + 1;
            let wait = known.spec.policy.backoff.after(failures);
            self.charge(now, state, batch, index, Charge::Failure, wait, out);
        }
    }

    fn unsettle(&mut self, attempt: AttemptId, range: TaskRange) {
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.settling.remove(range);
        }
        self.forget_if_over(attempt);
    }

    /// One task killed its executor, or had to be killed with it.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one death")]
    fn killed(
        &mut self,
        now: Instant,
        state: &State,
        known: &Batch,
        (batch, attempt, worker): (BatchId, AttemptId, WorkerId),
        index: u32,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        let policy = &known.spec.policy;
        let exception = known.exception(index);
        let one = TaskRange::new(index, index + 1);
        if cause.is_users() && exception.failures < policy.retries {
            let wait = policy.backoff.after(exception.failures + 1);
            return self.charge(now, state, batch, index, Charge::Failure, wait, out);
        }
        let deaths = exception.deaths + 1;
        let cause = match cause {
            Cause::ExecutorDied { signal, exit, stderr_tail, .. } => {
                if policy.idempotent && deaths < EXECUTOR_DEATHS_MAX {
                    return self.charge(now, state, batch, index, Charge::Death, 0, out);
                }
                Cause::ExecutorDied { signal, exit, stderr_tail, deaths }
            }
            cause => cause,
        };
        self.fail(state, batch, one, cause, Some(worker), Some(attempt), out);
    }

    /// A worker cannot run the program: others may.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one refusal")]
    fn refused(
        &mut self,
        state: &State,
        known: &Batch,
        (batch, attempt, worker): (BatchId, AttemptId, WorkerId),
        range: TaskRange,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        let Some(program) = state.job_of(known).map(|job| job.program.id) else { return };
        let present = |known: &super::Worker| known.present;
        self.change_worker(worker, |known| known.present = false);
        if let Some(known) = self.workers.get_mut(&worker) {
            known.refused.insert(program);
        }
        self.change_worker(worker, |known| known.present = true);
        let mut there = self.workers.values().filter(|worker| present(worker));
        if there.all(|worker| worker.refused.contains(&program)) {
            self.fail(state, batch, range, cause, Some(worker), Some(attempt), out);
        } else {
            self.put_back(state, batch, range);
        }
    }

    /// Tasks that were not started wait again; of a batch that must not run twice, the log has to
    /// know first that they are with nobody.
    fn put_back_unstarted(
        &mut self,
        now: Instant,
        state: &State,
        batch: BatchId,
        range: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let once = state.batches.get(&batch).is_some_and(|batch| !batch.spec.policy.idempotent);
        if once {
            for index in range.start..range.end {
                self.charge(now, state, batch, index, Charge::Return, 0, out);
            }
        } else {
            self.put_back(state, batch, range);
        }
    }

    /// A task is to be tried again in `wait_ms`: once the log knows.
    #[expect(clippy::too_many_arguments, reason = "who, what, why and when of one charge")]
    pub(super) fn charge(
        &mut self,
        now: Instant,
        state: &State,
        batch: BatchId,
        index: u32,
        charge: Charge,
        wait_ms: u64,
        out: &mut Vec<Action>,
    ) {
        let one = TaskRange::new(index, index + 1);
        if state.batches.get(&batch).is_none_or(|known| known.has_ended(index)) {
            return;
        }
        if let Some(active) = self.active.get_mut(&batch) {
            active.held.remove(one);
            active.charging.insert(one);
        }
        let not_before = self.cluster_time(now).after(wait_ms);
        out.push(Action::Propose(Command::Charge { batch, index, charge, not_before }));
    }

    /// Tasks end without a value: once the log knows.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one failure")]
    pub(super) fn fail(
        &mut self,
        state: &State,
        batch: BatchId,
        range: TaskRange,
        cause: Cause,
        worker: Option<WorkerId>,
        attempt: Option<AttemptId>,
        out: &mut Vec<Action>,
    ) {
        if let Some(active) = self.active.get_mut(&batch) {
            active.held.remove(range);
            active.charging.insert(range);
        }
        let tries = state.batches.get(&batch).map_or(0, |known| known.next_try(range.start));
        let failed = Failed { cause, worker, attempt, tries };
        out.push(Action::Propose(Command::Fail { batch, range, failed }));
    }

    /// A charge has come back from the log: the task waits again.
    pub(super) fn recharge(&mut self, now: Instant, state: &State, batch: BatchId, index: u32) {
        let Some(known) = state.batches.get(&batch) else { return };
        let not_before = known.exception(index).not_before;
        let (one, time) = (TaskRange::new(index, index + 1), self.cluster_time(now));
        let at = self.instant_of(not_before);
        let Some(active) = self.activate(state, batch) else { return };
        if !active.charging.contains(index) {
            return;
        }
        active.charging.remove(one);
        if not_before <= time {
            active.pending.insert(one);
        } else {
            active.delayed.insert(index, not_before);
            self.timers.set(at, Timer::Batch(batch));
        }
        self.requeue(state, batch);
    }
}

/// Tasks of a segment that failed of themselves and may be tried again.
fn to_retry(known: &Batch, range: TaskRange, segment: &Segment, retries: u32) -> Vec<u32> {
    let mut again = Vec::new();
    for (tag, rows) in segment.runs().filter(|(tag, _)| *tag != DONE) {
        for row in rows.start..rows.end {
            let index = range.start + row;
            let users = match tag {
                FAILED => true,
                ERROR => segment
                    .value(row)
                    .and_then(|(_, text)| codec::decode::<Failed>(text).ok())
                    .is_some_and(|failed| failed.cause.is_users()),
                _ => false,
            };
            if users && !known.has_ended(index) && known.exception(index).failures < retries {
                again.push(index);
            }
        }
    }
    again
}
