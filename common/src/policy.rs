//! What a user asks of the cluster besides the calls themselves.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::function::FunctionName;
use crate::resources::Resources;

/// Longest name of a group, in bytes: as much as is shown of a batch's.
pub const GROUP_BYTES_MAX: usize = 128;

/// How the tasks of a batch are to be run. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How often a task that panicked, timed out or returned `Err` is run again.
    pub retries: u32,
    /// How long to wait before that.
    pub backoff: Backoff,
    /// The program's function that says of an `Err` or a panic whether it is tried again; without one it is.
    pub retry_when: Option<FunctionName>,
    /// The program's function that makes of a result what counts as one, or says that there is none yet: then the task
    /// is run again after its delay, however often. Such rounds are no retries.
    pub recurs: Option<FunctionName>,
    /// For people, and to cancel them together: what its tasks are part of. At most [`GROUP_BYTES_MAX`].
    pub group: Option<String>,
    /// What becomes of calls of a job that are equal, if anything does. Of kept batches only.
    pub equal_calls: Option<EqualCalls>,
    /// How long after its submit a task is begun at the earliest.
    pub delay_ms: Option<u64>,
    /// How long a task may run, from its start on the executor.
    pub timeout_ms: Option<u64>,
    /// How long a task may wait for a slot, from when it could start: from its submit, or when its delay is over and
    /// those are there that it waits for.
    pub queue_timeout_ms: Option<u64>,
    /// How long the whole batch may take, from its opening.
    pub deadline_ms: Option<u64>,
    /// How long each task may take, from its submit, with all its waits, tries and rounds.
    pub task_deadline_ms: Option<u64>,
    /// Higher first.
    pub priority: i16,
    /// What each task needs.
    pub resources: Resources,
    /// Whether a task that was started may be started again after its worker was lost.
    pub idempotent: bool,
    /// What kind of executor.
    pub prefer: Prefer,
    /// Cap on tasks that run at once: positive as it is; -1 all slots of the cluster, -2 all but one,
    /// and so on, never below 1.
    pub n_jobs: i32,
    /// Tasks of a range: this many exactly, or adaptive.
    pub batch_size: Option<u32>,
    /// Cancel the rest once this many tasks ended without a value; `None` = never.
    pub fail_after: Option<u32>,
    /// Whether a function's own `Err` counts for `fail_after`.
    pub errors_count: bool,
    /// Whether the leader records when what happened to the tasks.
    pub record: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 0,
            backoff: Backoff::default(),
            retry_when: None,
            recurs: None,
            group: None,
            equal_calls: None,
            delay_ms: None,
            timeout_ms: None,
            queue_timeout_ms: None,
            deadline_ms: None,
            task_deadline_ms: None,
            priority: 0,
            resources: Resources::default(),
            idempotent: true,
            prefer: Prefer::Processes,
            n_jobs: -1,
            batch_size: None,
            fail_after: None,
            errors_count: false,
            record: true,
        }
    }
}

/// How long a task that is run again and has no delay waits for its next round, in milliseconds: a loop without a pause
/// is nobody's wish.
const ROUND_WAIT_MS: u64 = 100;

impl Policy {
    /// How long a task waits for its next round, in milliseconds.
    pub fn round_wait_ms(&self) -> u64 {
        self.delay_ms.unwrap_or(ROUND_WAIT_MS)
    }

    /// The cap on tasks that run at once, on a cluster of `slots`.
    pub fn cap(&self, slots: u32) -> u32 {
        match u32::try_from(self.n_jobs) {
            Ok(cap) => cap.max(1),
            Err(_) => slots.saturating_sub(self.n_jobs.unsigned_abs() - 1).max(1),
        }
    }
}

/// What becomes of equal calls of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EqualCalls {
    /// Those of the same function and arguments are one call, the first that does not fail.
    Memo,
    /// Those of the same function and key that were not begun are one call, the newest.
    Defer {
        /// A hash of the key; `None`: the arguments.
        key: Option<[u8; 16]>,
    },
}

/// What kind of executor runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Prefer {
    /// A process for each slot.
    Processes,
    /// One process with a thread for each slot: for tasks that wait rather than compute.
    Threads,
}

/// How long to wait before a task is run again: doubling from `first_ms` up to `max_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the second try.
    pub first_ms: u64,
    /// Never longer.
    pub max_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 100, max_ms: 30_000 }
    }
}

impl Backoff {
    /// The wait before the try after `failures` failed ones.
    pub fn after(self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        self.first_ms.saturating_mul(1 << doublings).min(self.max_ms)
    }

    /// The same, up to a quarter longer, by a number that differs from task to task: tasks that failed
    /// together, of the same cause, are not tried again together.
    pub fn spread(self, failures: u32, number: u64) -> u64 {
        let wait = self.after(failures);
        let share = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        wait + wait / 4 * share / 256
    }
}

/// What all tasks of a batch share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSpec {
    /// For people: of the call, or of its function.
    pub name: String,
    /// The functions that its argument segments' tags count.
    pub functions: Vec<Function>,
    /// How to run them.
    pub policy: Policy,
    /// Environment variables that its executors get in addition.
    pub env: Vec<(String, String)>,
}

/// A function of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Where the program has it.
    pub name: FunctionName,
    /// What people call it.
    pub label: String,
    /// The name of the type that it returns, for those who read its results with another program.
    pub returns: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_jobs_counts_from_the_end_and_never_below_one() {
        let cap = |n_jobs| Policy { n_jobs, ..Policy::default() }.cap(4);
        assert_eq!([cap(-1), cap(-2), cap(-4), cap(-9), cap(3), cap(9)], [4, 3, 1, 1, 3, 9]);
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff { first_ms: 10, max_ms: 35 };
        assert_eq!([1, 2, 3, 60].map(|failures| backoff.after(failures)), [10, 20, 35, 35]);
    }

    #[test]
    fn tasks_that_failed_together_are_not_tried_again_together() {
        let backoff = Backoff { first_ms: 1000, max_ms: 4000 };
        let waits = (0..100).map(|task| backoff.spread(1, task));
        let different: alloc::collections::BTreeSet<u64> = waits.collect();
        assert!(different.len() > 50 && different.iter().all(|wait| (1000..1250).contains(wait)));
    }
}
