//! Why a task is not running, or what became of it: from the general to the particular.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::id::{AttemptId, TaskId, WorkerId};
use allhands_common::limit::UNREAD_BYTES_MAX;
use allhands_common::time::{ClusterTime, Instant};

use super::Dispatcher;
use crate::State;
use crate::state::Batch;

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// The cluster has no such batch (any more).
    UnknownBatch,
    /// The batch has only so many tasks.
    NotSubmitted {
        /// How many.
        tasks: u32,
    },
    /// It has an outcome.
    Ended,
    /// Its batch was stopped before it ran.
    Stopped {
        /// Why.
        reason: String,
    },
    /// It is with a worker.
    WithWorker {
        /// Which.
        worker: WorkerId,
        /// What people call it, see [`State::worker_name`].
        name: String,
        /// As which attempt.
        attempt: AttemptId,
        /// Whether the worker said that the attempt runs.
        running: bool,
        /// For how long, in milliseconds.
        since_ms: u64,
    },
    /// It has begun, and waits for the outcomes of others: it occupies no slot.
    Blocked {
        /// What people call its worker.
        name: String,
        /// For which tasks.
        on: Vec<TaskId>,
    },
    /// It starts once others have ended.
    Waits {
        /// Which of them have not.
        on: Vec<TaskId>,
    },
    /// It has ended as the same call as another.
    Same {
        /// Which.
        as_: TaskId,
    },
    /// It waits until its delay is over, or to be tried again.
    Delayed {
        /// Until when.
        until: ClusterTime,
        /// Times it was tried.
        tries: u32,
    },
    /// Something about it is on its way through the log.
    Deciding,
    /// A new leader waits for workers to say what they hold.
    Resuming {
        /// How many workers.
        workers: usize,
    },
    /// Its client does not read its results.
    Unread {
        /// Bytes that wait to be read.
        bytes: u64,
    },
    /// Its call runs as many tasks at once as it may.
    AtCap {
        /// The cap.
        cap: u32,
    },
    /// No worker can ever hold it; for each what it lacks.
    Unplaceable {
        /// Worker and what is missing.
        workers: Vec<(String, String)>,
    },
    /// It waits for a slot; so many tasks of its batch are before it.
    Queued {
        /// Tasks before it in its batch.
        before: u32,
    },
}

impl Dispatcher {
    /// Where a task stands, and why.
    pub fn explain(&self, now: Instant, state: &State, task: TaskId) -> Explanation {
        let Some(batch) = state.batches.get(&task.batch) else { return Explanation::UnknownBatch };
        if task.index >= batch.tasks {
            return Explanation::NotSubmitted { tasks: batch.tasks };
        }
        if batch.has_ended(task.index) {
            return match state.same_as(task) {
                other if other != task => Explanation::Same { as_: other },
                _ => Explanation::Ended,
            };
        }
        if let Some(stop) = batch.stopped() {
            return Explanation::Stopped { reason: format!("{}", stop.rest.cause) };
        }
        let holder = self.attempts.iter().find(|(_, attempt)| {
            attempt.batch == task.batch
                && [&attempt.open, &attempt.owed].iter().any(|set| set.contains(task.index))
        });
        if let Some((_, attempt)) = holder
            && let Some(on) = self.is_blocked(task)
        {
            let name = state.worker_name(attempt.worker);
            return Explanation::Blocked { name, on: on.iter().map(|on| on.task).collect() };
        }
        if let Some((id, attempt)) = holder {
            return Explanation::WithWorker {
                worker: attempt.worker,
                name: state.worker_name(attempt.worker),
                attempt: *id,
                running: attempt.running,
                since_ms: u64::try_from(now.since(attempt.since).as_millis()).unwrap_or(u64::MAX),
            };
        }
        let policy = &batch.spec.policy;
        if let Some(active) = self.active.get(&task.batch) {
            if active.waits(task.index) {
                return Explanation::Waits { on: waits_for(state, task) };
            }
            if let Some(until) = active.delayed.get(&task.index) {
                let tries = batch.next_try(task.index) - 1;
                return Explanation::Delayed { until: *until, tries };
            }
            if active.charging.contains(task.index) || active.held.contains(task.index) {
                return Explanation::Deciding;
            }
        }
        let cap = policy.cap(self.slots);
        if policy.n_jobs != -1 && cap < self.slots && self.out_of_call(batch).tasks() >= cap {
            return Explanation::AtCap { cap };
        }
        if let Some(awaited) = &self.awaited {
            return Explanation::Resuming { workers: awaited.len() };
        }
        let unread = batch.progress().map_or(0, |progress| progress.unread_bytes);
        if unread > UNREAD_BYTES_MAX {
            return Explanation::Unread { bytes: unread };
        }
        let unfetched = self.active.get(&task.batch).map(|active| &active.unfetched);
        if let Some(unfetched) = unfetched.filter(|unfetched| unfetched.is_full()) {
            return Explanation::Unread { bytes: unfetched.bytes() };
        }
        if let Some(job) = state.job_of(batch)
            && !self
                .workers
                .values()
                .any(|w| w.usable() && w.suits(&policy.resources, &job.program))
        {
            let workers = self.obstacles(&job.program, &policy.resources).collect();
            return Explanation::Unplaceable { workers };
        }
        let before = match self.active.get(&task.batch) {
            Some(active) => {
                let ahead = allhands_common::range::TaskRange::new(0, task.index);
                active.pending.intersection(ahead).map(|range| range.len()).sum()
            }
            None => task.index,
        };
        Explanation::Queued { before }
    }
}

/// The unfinished tasks that one waits for.
fn waits_for(state: &State, task: TaskId) -> Vec<TaskId> {
    let links = state.batches.get(&task.batch).and_then(Batch::links);
    let named = links.and_then(|links| links.mentions.get(&task.index)).into_iter().flatten();
    let ends = named.filter(|(_, need)| need.waits()).map(|(on, _)| state.follow(*on));
    ends.filter(|(_, fate)| !fate.is_final()).map(|(end, _)| end).collect()
}
