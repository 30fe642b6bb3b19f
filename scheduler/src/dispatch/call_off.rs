//! Single tasks that nobody wants any more, and attempts that hold them.
//!
//! A cancelled task has ended in the state; its attempt keeps it on the books until the worker has let
//! go of it, so that no cap is exceeded meanwhile. What is not started of the attempt comes back, its
//! other tasks included; once nothing else is left of it, it is stopped. Orders may be lost, so each
//! inventory is an occasion to give them again.

use alloc::vec::Vec;

use allhands_common::id::{AttemptId, BatchId, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{ALL_TASKS, Order};

use super::Dispatcher;
use super::attempt::UNSENT;
use crate::State;

impl Dispatcher {
    /// Tasks were cancelled that attempts may hold.
    pub(super) fn call_off(&mut self, now: Instant, state: &State, id: BatchId, range: TaskRange) {
        if cfg!(plant = "cancelled_not_called_off") {
            return;
        }
        let attempts = self.active.get(&id).map(|active| active.attempts.clone());
        for attempt in attempts.unwrap_or_default() {
            let Some(known) = self.attempts.get_mut(&attempt) else { continue };
            let parts: Vec<TaskRange> = known.open.intersection(range).collect();
            if parts.is_empty() {
                continue;
            }
            if known.sent != UNSENT {
                known.called_off = true;
                known.asked = None;
                self.stop_called_off(now, state, attempt);
            } else if parts.iter().map(|part| part.len()).sum::<u32>() == known.open.len() {
                for part in parts {
                    self.withdraw(state, attempt, part, false);
                    self.put_back(state, id, part);
                }
            }
        }
    }

    /// What a worker holds has to be looked at for tasks that were cancelled.
    pub(super) fn stop_all_called_off(&mut self, now: Instant, state: &State, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let called_off = |id: &&AttemptId| self.attempts.get(id).is_some_and(|a| a.called_off);
        let attempts: Vec<AttemptId> = worker.attempts.iter().filter(called_off).copied().collect();
        attempts.into_iter().for_each(|attempt| self.stop_called_off(now, state, attempt));
    }

    /// Of an attempt of which tasks were cancelled: all that is not started is called back; the rest is
    /// stopped if all of it was cancelled.
    pub(super) fn stop_called_off(&mut self, now: Instant, state: &State, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id).filter(|attempt| attempt.called_off) else {
            return;
        };
        let Some(batch) = state.batches.get(&attempt.batch) else { return };
        let wanted: u32 = attempt.open.iter().map(|range| batch.unfinished(range).len()).sum();
        let order = if wanted == attempt.open.len() {
            attempt.called_off = false;
            return;
        } else if wanted == 0 {
            Order::Cancel { attempt: id }
        } else if attempt.may_be_asked(now) {
            attempt.asked = Some(now);
            Order::Retract { attempt: id, tasks: ALL_TASKS }
        } else {
            return;
        };
        let worker = attempt.worker;
        self.order(worker, order);
    }
}
