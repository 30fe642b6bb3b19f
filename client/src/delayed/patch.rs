//! What a call, or its `#[task]`, changes in the policy of its batch.

use std::time::Duration;

use allhands_common::function::FunctionName;
use allhands_common::policy::{Backoff, EqualCalls, GROUP_BYTES_MAX, Policy};
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
    pub(crate) equal_calls: Option<EqualCalls>,
    pub(crate) group: Option<String>,
    pub(crate) priority: Option<i16>,
    pub(crate) resources: Option<Resources>,
}

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What of it makes no sense, wherever the call goes.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        self.group.as_deref().map_or(Ok(()), check_group)
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
        set(&mut policy.equal_calls, self.equal_calls.clone().map(Some));
        set(&mut policy.group, self.group.clone().map(Some));
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
        set(&mut policy.equal_calls, self.equal_calls.clone().map(Some));
        set(&mut policy.group, self.group.map(|group| Some(group.to_owned())));
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

/// Whether a group can be called so.
pub(crate) const fn check_group(name: &str) -> Result<(), &'static str> {
    match name.len() {
        1..=GROUP_BYTES_MAX => Ok(()),
        _ => Err("the name of a group has at least one byte, and at most 128"),
    }
}

/// Whole milliseconds, not less than `time` and at least one; what is longer than the cluster can count
/// means "for ever".
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}
