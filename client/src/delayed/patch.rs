//! What a call, or its `#[task]`, changes in the policy of its batch.

use std::time::Duration;

use allhands_common::function::FunctionName;
use allhands_common::policy::{Backoff, Policy};
use allhands_common::resources::Resources;

use crate::judge::Judge;
use crate::registry::TaskPolicy;

/// What is said at the call; `None` leaves what was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Patch {
    pub(crate) retries: Option<u32>,
    /// First and longest wait, in milliseconds.
    pub(crate) backoff: Option<(u64, u64)>,
    pub(crate) retry_when: Option<Judge>,
    pub(crate) recurs: Option<Judge>,
    pub(crate) delay_ms: Option<u64>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) queue_timeout_ms: Option<u64>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) priority: Option<i16>,
    pub(crate) resources: Option<Resources>,
}

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn set_backoff(&mut self, first: Duration, max: Duration) {
        self.backoff = Some((millis(first), millis(max)));
    }

    /// Changes `policy`.
    pub(crate) fn apply(&self, policy: &mut Policy) {
        if let Some((first_ms, max_ms)) = self.backoff {
            policy.backoff = Backoff { first_ms, max_ms };
        }
        set(&mut policy.retries, self.retries);
        set(&mut policy.priority, self.priority);
        set(&mut policy.resources, self.resources.clone());
        policy.retry_when = name(self.retry_when).or(policy.retry_when);
        policy.recurs = name(self.recurs).or(policy.recurs);
        policy.delay_ms = self.delay_ms.or(policy.delay_ms);
        policy.timeout_ms = self.timeout_ms.or(policy.timeout_ms);
        policy.queue_timeout_ms = self.queue_timeout_ms.or(policy.queue_timeout_ms);
        policy.task_deadline_ms = self.deadline_ms.or(policy.task_deadline_ms);
    }
}

/// What other processes call a function that judges. That they can find it was looked at together with the call's own
/// function, without which there is no policy.
fn name(judge: Option<Judge>) -> Option<FunctionName> {
    judge.and_then(|judge| judge.name().ok())
}

impl TaskPolicy {
    /// Changes `policy`.
    pub(crate) fn apply(&self, policy: &mut Policy) {
        set(&mut policy.retries, self.retries);
        set(&mut policy.backoff, self.backoff);
        set(&mut policy.priority, self.priority);
        set(&mut policy.resources, self.resources.map(Resources::from));
        set(&mut policy.idempotent, self.idempotent);
        policy.retry_when = name(self.retry_when).or(policy.retry_when);
        policy.delay_ms = self.delay_ms.or(policy.delay_ms);
        policy.timeout_ms = self.timeout_ms.or(policy.timeout_ms);
        policy.queue_timeout_ms = self.queue_timeout_ms.or(policy.queue_timeout_ms);
        policy.task_deadline_ms = self.deadline_ms.or(policy.task_deadline_ms);
    }
}

fn set<T>(there: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *there = said;
    }
}

/// Whole milliseconds, not less than `time` and at least one; what is longer than the cluster can count
/// means "for ever".
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}
