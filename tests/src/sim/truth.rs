//! What came out of each task that others can see, as the log has it; and whether what they see is that.

use std::collections::BTreeMap;

use allhands_common::codec;
use allhands_common::execution::{Awaited, Need, TASK_ID_BYTES};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::segment::{DONE, ERROR, FAILED, FORWARDED, Segment};
use bytes::Bytes;

use super::Violation;
use super::graph::{Node, Seen};
use super::oracle::{ExecutionId, Oracle, broken};

/// Forwarded executions that are followed.
const FOLLOWED_MAX: usize = 100_000;

/// The committed outcome of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Truth {
    pub(super) seen: Seen,
    pub(super) cause: Option<Cause>,
    /// Which execution made it.
    pub(super) execution: Option<ExecutionId>,
}

/// What was committed of tasks that others can see.
#[derive(Debug, Default)]
pub(super) struct Truths {
    of: BTreeMap<TaskId, Truth>,
    /// Whether some client's tasks may wait for themselves.
    pub(super) wild: bool,
}

impl Truths {
    pub(super) fn has(&self, task: TaskId) -> bool {
        self.of.contains_key(&task)
    }
}

/// An outcome as it is in a segment.
pub(super) fn read(tag: u16, bytes: &[u8]) -> Option<Truth> {
    let number =
        |from: usize| Some(u64::from_le_bytes(bytes.get(from..from + 8)?.try_into().ok()?));
    let made =
        |seen, from| Some(Truth { seen, cause: None, execution: Some(ExecutionId(number(from)?)) });
    match tag {
        DONE => made(Seen::Value(number(8)?), 0),
        FAILED => made(Seen::Err(number(8)?), 0),
        FORWARDED => {
            let to = TaskId::from_bytes(*bytes.first_chunk::<TASK_ID_BYTES>()?);
            made(Seen::Forwarded(to), TASK_ID_BYTES)
        }
        ERROR => {
            let cause = codec::decode::<Failed>(bytes).ok()?.cause;
            let execution = match &cause {
                Cause::Panicked { message, .. } => message.parse().ok().map(ExecutionId),
                _ => None,
            };
            Some(Truth { seen: Seen::Failed, cause: Some(cause), execution })
        }
        _ => None,
    }
}

impl Oracle {
    /// Tasks have ended for good: the first that is heard of each is what it is.
    pub(super) fn note(
        &mut self,
        now: u64,
        batch: BatchId,
        range: TaskRange,
        bytes: &Bytes,
        calm: bool,
    ) -> Result<(), Violation> {
        let Some(segment) = Segment::parse(bytes.clone()).ok().filter(|_| self.is_graph(batch))
        else {
            return Ok(());
        };
        let news = range.len() == 1 && !self.truths.has(TaskId { batch, index: range.start });
        for index in range.start..range.end {
            let row = segment.value(index - range.start);
            let task = TaskId { batch, index };
            if let Some(truth) = row.and_then(|(tag, bytes)| read(tag, bytes))
                && !self.truths.has(task)
            {
                self.check_calls(task, &truth)?;
                self.truths.of.insert(task, truth);
            }
        }
        // No client hears of what a task has called.
        if news && self.is_child(batch) {
            self.judge(now, batch, range, &segment, calm)?;
        }
        Ok(())
    }

    /// A task has ended: what it has called in that attempt was committed before.
    fn check_calls(&self, task: TaskId, truth: &Truth) -> Result<(), Violation> {
        let by = truth.execution.and_then(|execution| self.attempt_of(execution));
        let Some(by) = by else { return Ok(()) };
        let first = (by, BatchId([0; 16]));
        let claims = self.claims.range(first..=(by, BatchId([255; 16])));
        match claims.map(|(_, child)| *child).find(|child| self.is_unheard(*child, task)) {
            Some(child) => {
                let what = format!("{task} as {by}, which has called {child}");
                Err(broken("an outcome comes after all that its task has called", what))
            }
            None => Ok(()),
        }
    }

    pub(super) fn truth(&self, task: TaskId) -> Option<&Truth> {
        self.truths.of.get(&task)
    }

    /// The task at the end of those that `task` was forwarded to; none where that leads back.
    fn end_of(&self, task: TaskId) -> Option<TaskId> {
        let mut end = task;
        for _ in 0..FOLLOWED_MAX {
            match self.truths.of.get(&end).map(|truth| truth.seen) {
                Some(Seen::Forwarded(to)) if to == task => return None,
                Some(Seen::Forwarded(to)) => end = to,
                _ => return Some(end),
            }
        }
        None
    }

    /// What whoever asks sees of a task; nothing while it has not ended.
    pub(super) fn resolve(&self, of: Awaited) -> Option<Seen> {
        let end = if of.follow { self.end_of(of.task) } else { Some(of.task) };
        let Some(end) = end else { return Some(Seen::Failed) };
        match self.truths.of.get(&end) {
            Some(truth) => Some(truth.seen),
            None => self.is_cut(end.batch).then_some(Seen::Failed),
        }
    }

    /// Whether all that a task was forwarded to is there for sure.
    pub(super) fn surely(&self, task: TaskId) -> bool {
        let mut end = task;
        for _ in 0..FOLLOWED_MAX {
            let Some(Seen::Forwarded(to)) = self.truths.of.get(&end).map(|truth| truth.seen) else {
                return !self.never_comes(end);
            };
            if to == task || self.node(end).is_some_and(|node| !node.is_sure(to)) {
                return false;
            }
            end = to;
        }
        false
    }

    /// A task is given an outcome, or a client is: whether it is the one there is. `by` names it.
    pub(super) fn check_given(
        &self,
        of: Awaited,
        outcome: &Bytes,
        sure: bool,
        by: &str,
    ) -> Result<Seen, Violation> {
        let wrong = |what: String| broken("who waits is given what there is", what);
        let segment = Segment::parse(outcome.clone()).ok();
        let row = segment.as_ref().filter(|segment| segment.tasks() == 1);
        let row = row.and_then(|segment| segment.value(0));
        let given = row.and_then(|(tag, bytes)| read(tag, bytes));
        let Some(given) = given else { return Err(wrong(format!("{of:?} to {by}: no outcome"))) };
        let there = self.resolve(of);
        let possible = match &given.cause {
            Some(Cause::Cycle { .. }) => self.truths.wild,
            Some(Cause::Expired { .. }) if !sure || !self.surely(of.task) => true,
            _ => there == Some(given.seen),
        };
        if !possible {
            return Err(wrong(format!("{of:?} to {by}: {given:?}, there is {there:?}")));
        }
        Ok(given.seen)
    }

    /// A task starts: all that it waits for has ended as it needs.
    pub(super) fn check_ready(&self, task: TaskId, node: &Node) -> Result<(), Violation> {
        for named in node.names.iter().filter(|named| named.need.waits()) {
            let seen = self.resolve(Awaited { task: named.on, follow: true });
            let ready = matches!(
                (named.need, seen),
                (_, Some(Seen::Value(_)))
                    | (Need::Returned, Some(Seen::Err(_)))
                    | (Need::End, Some(_))
            );
            if !ready {
                let what = format!("{task} with {named:?}: {seen:?}");
                return Err(broken("no dependant starts before its dependency has ended", what));
            }
        }
        Ok(())
    }

    /// Whether a task can have ended without being run, because of one that it names.
    pub(super) fn depends_on_failed(&self, node: &Node, root: TaskId) -> bool {
        node.names.iter().filter(|named| named.need.takes()).any(|named| {
            let end = self.end_of(named.on);
            let failed = match self.resolve(Awaited { task: named.on, follow: true }) {
                Some(Seen::Failed) => true,
                Some(Seen::Err(_)) => named.need == Need::Value,
                _ => false,
            };
            let cause = end.and_then(|end| self.truths.of.get(&end)?.cause.as_ref());
            let from_there = match cause {
                Some(Cause::DependencyFailed { root: theirs, .. }) => *theirs == root,
                _ => end.is_none_or(|end| end == root),
            };
            failed && from_there
        })
    }

    /// At the end: each value is the one that follows from what its task has seen.
    pub(super) fn check_values(&self) -> Result<u64, Violation> {
        let mut values = 0;
        for (task, truth) in &self.truths.of {
            let Some(node) = self.node(*task) else { continue };
            if let Seen::Forwarded(to) = truth.seen
                && node.forward.map(|whom| node.task_of(*task, whom)) != Some(to)
            {
                let what = format!("{task} to {to}");
                return Err(broken("a task forwards to whom it says", what));
            }
            let (Seen::Value(value) | Seen::Err(value)) = truth.seen else { continue };
            // In a circle, or where what it named was gone, it has seen what nobody sees now.
            let mut gone = self.truths.wild || node.names.iter().any(|named| !named.sure);
            let expected = node.value(*task, &mut |of| {
                gone |= !self.surely(of.task);
                self.resolve(of)
            });
            if !gone && expected != Some(value) {
                let what = format!("{task}: {value:016x}, not {expected:016x?}");
                return Err(broken("every value is that of a serial evaluation", what));
            }
            values += 1;
        }
        Ok(values)
    }

    /// A batch that a task has called is stopped: whether its parent did not want it any more.
    pub(super) fn check_unwanted(&self, child: BatchId, parent: TaskId) -> Result<(), Violation> {
        let wrong = |what: String| {
            let what = format!("{child} of {parent}: {what}");
            Err(broken("what the attempt that ended has called is not cancelled", what))
        };
        match self.truths.of.get(&parent) {
            _ if self.is_of_cancelled_job(child) => Ok(()),
            None if self.is_cut(parent.batch) => Ok(()),
            None => wrong("its parent has not ended".into()),
            Some(Truth {
                cause: Some(Cause::Cancelled { .. } | Cause::DeadlinePassed { .. }),
                ..
            }) => Ok(()),
            Some(truth) => {
                let by = truth.execution.and_then(|execution| self.attempt_of(execution));
                let claimed = |by: AttemptId| self.claims.contains(&(by, child));
                // Nobody knows what an attempt without an outcome would have called.
                if by.is_none_or(claimed) { wrong(format!("{truth:?} by {by:?}")) } else { Ok(()) }
            }
        }
    }
}
