//! Short words for ids, specifications, segments and reports.

use allhands_common::failure::{Cause, Failed};
use allhands_common::function::FunctionName;
use allhands_common::id::{AttemptId, BatchId, BootId, ClusterId, SessionId, Term, WorkerId};
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::segment::{DONE, ERROR, SegmentBuilder};
use allhands_common::wire::worker::{Ended, Held, How, Registration};
use bytes::Bytes;

pub(crate) const SESSION: SessionId = SessionId([9; 16]);

/// The `sequence`-th batch of [`SESSION`].
pub(crate) fn batch(sequence: u32) -> BatchId {
    BatchId::of_session(ClusterId([0; 16]), SESSION, sequence.into())
}

/// The `number`-th attempt of term 1.
pub(crate) const fn attempt(number: u64) -> AttemptId {
    AttemptId { term: Term(1), number }
}

pub(crate) const fn range(start: u32, end: u32) -> TaskRange {
    TaskRange::new(start, end)
}

pub(crate) fn platform() -> Platform {
    Platform { arch: "x86_64".into(), os: "linux".into(), glibc: None }
}

pub(crate) fn program() -> Program {
    Program { id: ProgramId([7; 32]), bytes: 10, platform: platform(), name: "program".into() }
}

pub(crate) fn spec(policy: Policy) -> BatchSpec {
    let name = FunctionName { module: 0, offset: 64 };
    let functions = vec![Function { name, label: "f".into(), returns: "u64".into() }];
    BatchSpec { name: "call".into(), functions, policy, env: Vec::new() }
}

/// Arguments of the tasks of `range`: each its own index.
pub(crate) fn arguments(range: TaskRange) -> Bytes {
    let mut builder = SegmentBuilder::new(0);
    for index in range.start..range.end {
        builder.push(0, [index.to_le_bytes().as_slice()].into_iter());
    }
    builder.finish()
}

/// Values of the tasks of `range`: each its own index.
pub(crate) fn values(range: TaskRange) -> Bytes {
    outcomes(range, &[])
}

/// Values of the tasks of `range`, but panics of those in `panicked`.
pub(crate) fn outcomes(range: TaskRange, panicked: &[u32]) -> Bytes {
    let mut builder = SegmentBuilder::new(0);
    let mut text = Vec::new();
    allhands_common::codec::encode(&failed(panic()), &mut text).unwrap();
    for index in range.start..range.end {
        if panicked.contains(&index) {
            builder.push(ERROR, [text.as_slice()].into_iter());
        } else {
            builder.push(DONE, [index.to_le_bytes().as_slice()].into_iter());
        }
    }
    builder.finish()
}

/// The outcome of one task that ended of `cause`.
pub(crate) fn error(cause: Cause) -> Bytes {
    let mut text = Vec::new();
    allhands_common::codec::encode(&failed(cause), &mut text).unwrap();
    let mut builder = SegmentBuilder::new(0);
    builder.push(ERROR, [text.as_slice()].into_iter());
    builder.finish()
}

pub(crate) fn panic() -> Cause {
    Cause::Panicked { message: "no".into(), location: "f.rs:1:1".into(), backtrace: String::new() }
}

pub(crate) fn death() -> Cause {
    Cause::ExecutorDied { signal: Some(11), exit: None, stderr_tail: String::new(), deaths: 1 }
}

pub(crate) const fn failed(cause: Cause) -> Failed {
    Failed { cause, worker: None, attempt: None, tries: 1 }
}

pub(crate) fn registration(worker: u64, resources: Resources, held: Vec<Held>) -> Registration {
    Registration {
        worker: WorkerId(worker),
        boot: BootId([1; 16]),
        name: format!("host{worker}"),
        resources,
        platform: platform(),
        draining: false,
        held,
        depot: Box::default(),
    }
}

/// An entry of an inventory.
pub(crate) fn held(
    attempt: AttemptId,
    batch: BatchId,
    open: &[TaskRange],
    owed: &[TaskRange],
) -> Held {
    Held {
        attempt,
        batch,
        open: open.into(),
        running: !open.is_empty(),
        owed: owed.into(),
        blocked: Vec::new(),
        since_us: 0,
    }
}

pub(crate) const fn ended(attempt: AttemptId, batch: BatchId, range: TaskRange, how: How) -> Ended {
    Ended { attempt, batch, range, how }
}

/// The tasks of `range` ran for a microsecond each.
pub(crate) fn ran(segment: Bytes, range: TaskRange) -> How {
    How::Ran { segment: segment.into(), run_us: range.len().into(), mentions: Vec::new() }
}
