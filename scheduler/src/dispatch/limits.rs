//! What a batch's limits in time do: its deadline, its queue timeout, and when what failed is tried again.

use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::{ClusterTime, Instant};
use allhands_common::wire::worker::{ALL_TASKS, Order};

use super::attempt::UNSENT;
use super::{Dispatcher, Timer};
use crate::state::{ArgumentSegment, Batch};
use crate::{Action, Command, State};

impl Dispatcher {
    /// Looks at a batch's limits and at what is to be tried again.
    pub(super) fn check_batch(
        &mut self,
        now: Instant,
        state: &State,
        id: BatchId,
        out: &mut Vec<Action>,
    ) {
        let Some(batch) = state.batches.get(&id).filter(|batch| !batch.over()) else { return };
        let time = self.cluster_time(now);
        let policy = &batch.spec.policy;
        let deadline = policy.deadline_ms.map(|limit| passed(batch.opened, limit));
        if let Some(limit_ms) = policy.deadline_ms
            && deadline.is_some_and(|deadline| deadline <= time)
        {
            let cause = Cause::DeadlinePassed { limit_ms };
            let rest = Failed { cause, worker: None, attempt: None, tries: 0 };
            out.push(Action::Propose(Command::Stop { batch: id, rest }));
            return;
        }
        let late = policy
            .queue_timeout_ms
            .and_then(|limit_ms| self.end_late(now, state, (id, batch), limit_ms, out));
        let ends = end_overdue(id, batch, time, out);
        let deadline = deadline.into_iter().chain(ends).min();
        let retry = self.retry_due(id, time);
        let moments = deadline.into_iter().chain(retry).map(|at| self.instant_of(at)).chain(late);
        if let Some(next) = moments.min() {
            // A millisecond of cluster time may have begun already: never in the same instant again.
            self.timers.set(next.max(now + Duration::from_millis(1)), Timer::Batch(id));
        }
        self.requeue(state, id);
    }

    /// Lets those tasks wait in the queue whose retry is due. When the next one is.
    fn retry_due(&mut self, id: BatchId, time: ClusterTime) -> Option<ClusterTime> {
        let active = self.active.get_mut(&id)?;
        let pending = &mut active.pending;
        active.delayed.retain(|index, until| {
            let due = *until <= time;
            if due {
                pending.insert(TaskRange::new(*index, *index + 1));
            }
            !due
        });
        active.delayed.values().min().copied()
    }

    /// Ends what has waited too long for a slot, and asks back what waits for one at a worker. When to
    /// look again.
    fn end_late(
        &mut self,
        now: Instant,
        state: &State,
        (id, batch): (BatchId, &Batch),
        limit_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<Instant> {
        if self.awaited.is_some() {
            // Nobody has told this leader what runs.
            return Some(now + self.config.resume_wait);
        }
        let time = self.cluster_time(now);
        let (mut late, mut next) = (RangeSet::new(), None);
        for argument in &batch.arguments {
            let limit = could_start(batch, argument).after(limit_ms);
            if limit > time {
                next = Some(self.instant_of(limit));
                break;
            }
            late.insert(argument.tasks);
        }
        // Who has waited for others waits for a slot since these have ended.
        let ready = self.active.get(&id).into_iter().flat_map(|active| &active.ready);
        for (index, since) in ready {
            let limit = since.after(limit_ms.saturating_add(1));
            if limit > time && late.contains(*index) {
                late.remove(TaskRange::new(*index, *index + 1));
                next = next.into_iter().chain([self.instant_of(limit)]).min();
            }
        }
        // Who was tried has had a slot in time.
        let exceptions = batch.progress().into_iter().flat_map(|progress| &progress.exceptions);
        for (index, _) in exceptions.filter(|(_, exception)| exception.was_tried()) {
            late.remove(TaskRange::new(*index, *index + 1));
        }
        self.end_waiting(state, id, &late, &Cause::QueueTimedOut { limit_ms }, out);
        self.ask_back(now, id, &late).into_iter().chain(next).min()
    }

    /// Asks workers for those of the tasks `late` that they have not started. When to ask again.
    fn ask_back(&mut self, now: Instant, id: BatchId, late: &RangeSet) -> Option<Instant> {
        let attempts: Vec<AttemptId> = self.active.get(&id)?.attempts.iter().copied().collect();
        let mut again = None;
        for attempt in attempts {
            let Some(known) = self.attempts.get_mut(&attempt) else { continue };
            if known.open.iter().all(|open| late.intersection(open).next().is_none()) {
                continue;
            }
            let ask = known.sent != UNSENT && known.may_be_asked(now);
            if ask {
                known.asked = Some(now);
            }
            let worker = known.worker;
            again = again.max(Some(known.ask_again(now)));
            if ask && !cfg!(plant = "late_not_asked_back") {
                self.order(worker, Order::Retract { attempt, tasks: ALL_TASKS });
            }
        }
        again
    }

    /// Tasks of a batch wait again: whether they have waited too long is looked at in this step, before
    /// any are given out.
    pub(super) fn check_queue_timeout(&mut self, batch: &Batch, id: BatchId) {
        if batch.spec.policy.queue_timeout_ms.is_some() {
            self.timers.set_due(Timer::Batch(id));
        }
    }

    /// Those of the tasks `among` that wait end without a value: once the log knows.
    pub(super) fn end_waiting(
        &mut self,
        state: &State,
        id: BatchId,
        among: &RangeSet,
        cause: &Cause,
        out: &mut Vec<Action>,
    ) {
        let Some(batch) = state.batches.get(&id).filter(|_| !among.is_empty()) else { return };
        let Some(active) = self.activate(state, id) else { return };
        let waiting: Vec<TaskRange> =
            among.iter().flat_map(|part| active.pending.intersection(part)).collect();
        for range in waiting {
            active.pending.remove(range);
            active.charging.insert(range);
            let tries = batch.next_try(range.start) - 1;
            let failed = Failed { cause: cause.clone(), worker: None, attempt: None, tries };
            out.push(Action::Propose(Command::Fail { batch: id, range, failed }));
        }
        self.requeue(state, id);
    }
}

/// When `ms` milliseconds are certainly over after `from`, which was rounded down.
pub(super) const fn passed(from: ClusterTime, ms: u64) -> ClusterTime {
    from.after(ms.saturating_add(1))
}

/// When tasks may be begun at the earliest, for all that they themselves say.
pub(super) fn could_start(batch: &Batch, argument: &ArgumentSegment) -> ClusterTime {
    let delay_ms = batch.spec.policy.delay_ms.unwrap_or(0);
    passed(batch.opened, u64::from(argument.after_ms).saturating_add(delay_ms))
}

/// Ends the tasks of a batch that have taken too long, whatever they wait for or do. When the next ones have.
fn end_overdue(
    id: BatchId,
    batch: &Batch,
    time: ClusterTime,
    out: &mut Vec<Action>,
) -> Option<ClusterTime> {
    let limit_ms = batch.spec.policy.task_deadline_ms?;
    for argument in &batch.arguments {
        let limit = passed(batch.opened, u64::from(argument.after_ms).saturating_add(limit_ms));
        if limit > time {
            return Some(limit);
        }
        for range in batch.unfinished(argument.tasks).iter() {
            let cause = Cause::DeadlinePassed { limit_ms };
            let failed = Failed { cause, worker: None, attempt: None, tries: 0 };
            out.push(Action::Propose(Command::CancelTasks { batch: id, range, failed }));
        }
    }
    None
}
