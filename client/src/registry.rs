//! The program's `#[task]` functions, and what this process has learned of each function it calls.
//!
//! `#[task]` puts a [`Task`] into a slice that the linker collects, so that `delayed(heavy)` finds by
//! its type the name and policy that the attribute on `heavy` gave. What is found is kept per entry
//! in a [`Known`]: a call that follows another of the same function pays for one comparison.

mod known;

pub(crate) use known::{Known, known};

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::LazyLock;

use allhands_common::policy::{Backoff, EqualCalls};
use allhands_common::resources::Resources;

use crate::entry::BeginFn;
use crate::judge::Judge;
use crate::payload::Codec;
use crate::source::Digest;

/// All `#[task]` functions of the program.
#[linkme::distributed_slice]
pub static TASKS: [Task];

/// What `#[task(...)]` says of a function.
#[derive(Debug)]
pub struct Task {
    /// Its stable name: the path of the function, or `name = "..."`.
    pub name: &'static str,
    /// Digest of its source.
    pub digest: Digest,
    /// How its calls are run, where the attribute says it.
    pub policy: TaskPolicy,
    /// In which of its arguments executions have to have ended before it starts, a bit each.
    pub wait: u8,
    /// The codec of its calls, where the attribute says it.
    pub codec: Option<Codec>,
    /// Types of the functions that it stands for; none for a generic function.
    pub functions: &'static [TypeId],
    /// Asks what begins its calls, where it is an `async fn`.
    pub begin: Option<fn() -> Option<BeginFn>>,
}

/// The part of the policy that `#[task(...)]` gives; `None` leaves the default.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskPolicy {
    /// `retries = 3`
    pub retries: Option<u32>,
    /// `backoff = "100ms"`, or `backoff("100ms", max = "30s")`
    pub backoff: Option<Backoff>,
    /// `when = predicate`
    pub retry_when: Option<Judge>,
    /// `memo`, `defer`
    pub equal_calls: Option<EqualCalls>,
    /// `group = "..."`
    pub group: Option<&'static str>,
    /// `delay = "2s"`
    pub delay_ms: Option<u64>,
    /// `timeout = "30s"`
    pub timeout_ms: Option<u64>,
    /// `queue_timeout = "5m"`
    pub queue_timeout_ms: Option<u64>,
    /// `deadline = "1h"`
    pub deadline_ms: Option<u64>,
    /// `priority = 10`
    pub priority: Option<i16>,
    /// `resources(cpus = 2, memory = "2GiB", gpu = 1)`
    pub resources: Option<TaskResources>,
    /// `idempotent = false`
    pub idempotent: Option<bool>,
}

/// Resources as a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResources {
    /// Slots.
    pub cpus: u32,
    /// Memory, in bytes; 0 = not counted.
    pub memory_bytes: u64,
    /// Counted things by name.
    pub custom: &'static [(&'static str, u32)],
}

impl From<TaskResources> for Resources {
    fn from(constant: TaskResources) -> Self {
        let plain = Self::cpus(constant.cpus).memory(constant.memory_bytes);
        constant.custom.iter().fold(plain, |all, (name, count)| all.with(*name, *count))
    }
}

/// The type of a function that is named by value.
pub const fn type_id_of<F: 'static>(_: &F) -> TypeId {
    TypeId::of::<F>()
}

/// The task that the function of this type has on it.
pub(crate) fn task_of(function: TypeId) -> Option<&'static Task> {
    static BY_TYPE: LazyLock<HashMap<TypeId, &'static Task>> = LazyLock::new(|| {
        let pairs = |task: &'static Task| task.functions.iter().map(move |id| (*id, task));
        TASKS.iter().flat_map(pairs).collect()
    });
    BY_TYPE.get(&function).copied()
}
