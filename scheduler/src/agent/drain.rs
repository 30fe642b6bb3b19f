//! A worker that was told to stop: what is not started goes back, what runs is finished.
//!
//! Where all that is left waits for others it may wait for what only this worker could run, and for ever: after
//! a while it goes back as well, to be run again elsewhere. What must not run twice stays.

use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::id::{AttemptId, ExecutorId};
use allhands_common::time::Instant;
use allhands_common::wire::worker::{ALL_TASKS, FromWorker};

use super::{Agent, AgentAction};

/// How long what a draining worker has may wait for others, and nothing else go on: some tasks' time.
const BLOCKED_PATIENCE: Duration = Duration::from_secs(10);

impl Agent {
    /// The daemon was told to stop: what is not started goes back.
    pub(super) fn drain(&mut self, out: &mut Vec<AgentAction>) {
        if self.draining {
            return;
        }
        self.draining = true;
        if self.registered {
            out.push(AgentAction::Send(FromWorker::Draining));
        }
        let all: Vec<AttemptId> = self.attempts.keys().copied().collect();
        for id in all {
            self.give_back(id, ALL_TASKS, out);
        }
    }

    /// When tasks that wait go back, if nothing changes.
    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        self.blocked_since.map(|since| since + BLOCKED_PATIENCE)
    }

    /// Looks whether all that is left waits for others, and ends it when that has been so for long.
    pub(super) fn drain_blocked(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        let busy = self.executors.values().any(|executor| executor.is_busy());
        let idle = self.draining && !busy && self.waiting.is_empty() && self.deferred.is_empty();
        let executors = if idle { self.all_blocked() } else { Vec::new() };
        if executors.is_empty() {
            self.blocked_since = None;
            return;
        }
        let since = *self.blocked_since.get_or_insert(now);
        if since + BLOCKED_PATIENCE <= now {
            // The news of their deaths is on its way: not again at once.
            self.blocked_since = Some(now);
            out.extend(executors.into_iter().map(|executor| AgentAction::Kill { executor }));
        }
    }

    /// Executors that have nothing but tasks that wait and may be run again.
    fn all_blocked(&self) -> Vec<ExecutorId> {
        let again = |id: &AttemptId| {
            let batch = self.attempts.get(id).and_then(|a| self.batches.get(&a.batch));
            batch.is_some_and(|shared| shared.spec.policy.idempotent)
        };
        let blocked = self.executors.iter().filter(|(_, executor)| {
            let mut tasks = executor.suspended.keys();
            !executor.suspended.is_empty() && tasks.all(|(attempt, _)| again(attempt))
        });
        blocked.map(|(id, _)| *id).collect()
    }

    /// What an executor that died leaves on a worker that drains goes back.
    pub(super) fn drain_rest(&mut self) {
        if self.draining {
            let all: Vec<AttemptId> = self.attempts.keys().copied().collect();
            all.into_iter().for_each(|id| self.give_back_waiting(id));
        }
    }
}
