//! Short words for tasks that name, call and wait for others.

use allhands_common::codec;
use allhands_common::execution::{Awaited, Mention, Need};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, JobId, TaskId};
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, FAILED, FORWARDED, Segment, SegmentBuilder};
use allhands_common::wire::client::FromClient;
use allhands_common::wire::worker::{Blocked, ChildCall, FromWorker, Held, How, Order};
use allhands_scheduler::{Action, Located};
use bytes::Bytes;

use super::leader::{Leader, orders};
use super::words::*;

/// A task of the `sequence`-th batch of [`SESSION`].
pub(crate) fn task(sequence: u32, index: u32) -> TaskId {
    TaskId { batch: batch(sequence), index }
}

/// The task at `index` needs `on`.
pub(crate) const fn names(index: u32, on: TaskId, need: Need) -> Mention {
    Mention { index, on, need }
}

pub(crate) const fn value(index: u32, on: TaskId) -> Mention {
    names(index, on, Need::Value)
}

pub(crate) const fn of(task: TaskId) -> Awaited {
    Awaited { task, follow: true }
}

/// The only task of a parent's `number`-th call.
pub(crate) fn child(parent: TaskId, number: u32) -> TaskId {
    TaskId { batch: BatchId::of_task(parent, &[0; 32], number), index: 0 }
}

pub(crate) fn call(parent: TaskId, attempt: AttemptId, number: u32) -> ChildCall {
    ChildCall {
        parent,
        attempt,
        batch: child(parent, number).batch,
        spec: spec(Policy::default()).into(),
        segment: arguments(range(0, 1)).into(),
        mentions: Vec::new(),
    }
}

/// One task returned another's execution.
pub(crate) fn forwarded(index: u32, to: TaskId) -> How {
    let mut segment = SegmentBuilder::new(0);
    segment.push(FORWARDED, [&to.to_bytes()[..]].into_iter());
    let mentions = vec![names(index, to, Need::Handle)];
    How::Ran { segment: segment.finish().into(), run_us: 1, mentions }
}

/// One task's function returned `Err`.
pub(crate) fn returned_err() -> How {
    let mut segment = SegmentBuilder::new(0);
    segment.push(FAILED, [&b"err"[..]].into_iter());
    ran(segment.finish(), range(0, 1))
}

pub(crate) fn blocked(on: &[TaskId]) -> How {
    How::Blocked { on: on.iter().map(|task| of(*task)).collect(), run_us: None }
}

/// An entry of an inventory: one task, which waits.
pub(crate) fn held_blocked(attempt: AttemptId, task: TaskId, on: &[TaskId]) -> Held {
    let one = range(task.index, task.index + 1);
    let on = on.iter().map(|task| of(*task)).collect();
    let blocked = vec![Blocked { index: task.index, on, since_us: 0 }];
    Held { blocked, ..held(attempt, task.batch, &[one], &[]) }
}

/// Whom `actions` give which outcomes.
pub(crate) fn gives(actions: &[Action]) -> Vec<(u64, TaskId)> {
    let given = orders(actions).into_iter().filter_map(|(worker, order)| match order {
        Order::Give(given) => Some((worker, given.of.task)),
        _ => None,
    });
    given.collect()
}

/// What `actions` give the client.
pub(crate) fn given_to_client(actions: &[Action]) -> Vec<TaskId> {
    let given = actions.iter().filter_map(|action| match action {
        Action::Give { of, .. } => Some(of.iter().map(|of| of.task)),
        _ => None,
    });
    given.flatten().collect()
}

/// Which calls `actions` answer.
pub(crate) fn answered(actions: &[Action]) -> Vec<(u64, BatchId, AttemptId)> {
    let opened = orders(actions).into_iter().filter_map(|(worker, order)| match order {
        Order::Opened { batch, attempt } => Some((worker, batch, attempt)),
        _ => None,
    });
    opened.collect()
}

/// Which batches' tasks `actions` give out, as which attempt.
pub(crate) fn given_out(actions: &[Action]) -> Vec<(BatchId, TaskRange, AttemptId)> {
    let runs = super::leader::full_runs(actions).into_iter();
    runs.map(|(_, run)| (run.batch, run.range, run.attempt)).collect()
}

impl Leader {
    /// The client opens its `sequence`-th batch, which is kept, with `tasks` tasks.
    pub(crate) fn keep(
        &mut self,
        sequence: u32,
        tasks: u32,
        sealed: bool,
        mentions: &[Mention],
        policy: Policy,
    ) -> Vec<Action> {
        let segment = if tasks > 0 { arguments(range(0, tasks)) } else { Bytes::new() };
        self.client(FromClient::OpenBatch {
            batch: batch(sequence),
            sequence,
            call: sequence,
            job: JobId(0),
            spec: spec(policy).into(),
            context: Bytes::new().into(),
            tasks,
            segment: segment.into(),
            sealed,
            kept: true,
            mentions: mentions.into(),
        })
    }

    /// The same, sealed and with the default policy.
    pub(crate) fn kept(&mut self, sequence: u32, tasks: u32, named: &[Mention]) -> Vec<Action> {
        self.keep(sequence, tasks, true, named, Policy::default())
    }

    /// A task on a worker calls others.
    pub(crate) fn call(&mut self, worker: u64, calls: Vec<ChildCall>) -> Vec<Action> {
        self.worker(worker, FromWorker::Submit(calls))
    }

    /// One task of an attempt ends, or waits.
    pub(crate) fn tell(
        &mut self,
        worker: u64,
        attempt: AttemptId,
        task: TaskId,
        how: How,
    ) -> Vec<Action> {
        let one = range(task.index, task.index + 1);
        self.report(worker, vec![ended(attempt, task.batch, one, how)])
    }

    /// One task of an attempt returns its index.
    pub(crate) fn done(&mut self, worker: u64, attempt: AttemptId, task: TaskId) -> Vec<Action> {
        let one = range(task.index, task.index + 1);
        self.tell(worker, attempt, task, ran(values(one), one))
    }

    /// Why a kept task ended without a value, as whoever waits for it is told.
    pub(crate) fn cause(&self, task: TaskId) -> Option<Cause> {
        match self.state.locate(of(task), None) {
            Located::Failed(failed) => Some(failed.cause),
            Located::Row { segment, row } => {
                let segment = Segment::parse(self.segments[&segment].clone()).unwrap();
                let (tag, text) = segment.value(row).unwrap();
                (tag == ERROR).then(|| codec::decode::<Failed>(text).unwrap().cause)
            }
        }
    }

    /// At whose failure a task ended that depends on it.
    pub(crate) fn root(&self, task: TaskId) -> Option<TaskId> {
        match self.cause(task) {
            Some(Cause::DependencyFailed { root, .. }) => Some(root),
            _ => None,
        }
    }
}
