//! Where the outcome of a task is that somebody asks for.

use alloc::string::ToString;

use allhands_common::execution::Awaited;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{SegmentId, TaskId};

use super::{Fate, FaultKind, State};
use crate::dispatch::state_gone;

/// Where an outcome is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// In a row of a segment.
    Row {
        /// Which segment.
        segment: SegmentId,
        /// Which row.
        row: u32,
    },
    /// Nowhere: this is said instead.
    Failed(Failed),
}

impl State {
    /// Where the outcome is that a question is for; who asks is of `owner`, if that is to be looked at.
    pub fn locate(&self, of: Awaited, owner: Option<&str>) -> Located {
        let (task, fate) = match of.follow {
            true => self.follow(of.task),
            false => {
                let task = self.same_as(of.task);
                (task, self.fate(task))
            }
        };
        let batch = self.batches.get(&task.batch);
        let theirs = batch.and_then(|batch| self.job_of(batch)).map(|job| job.owner.as_str());
        if owner.is_some() && theirs.is_some() && owner != theirs {
            let message = alloc::format!("execution {task} is of a job of another identity");
            return failed(Cause::Expired { message });
        }
        let at = batch.and_then(|batch| batch.outcome_of(task.index));
        match (fate, at) {
            (Fate::Stopped(rest), _) => Located::Failed(rest.clone()),
            (Fate::Fault(FaultKind::Cycle), _) => {
                let message = alloc::format!("execution {task} was forwarded to itself");
                failed(Cause::Cycle { message })
            }
            (Fate::Value | Fate::Fault(_) | Fate::Forwarded(_), Some(outcome)) => {
                Located::Row { segment: outcome.segment, row: task.index - outcome.first }
            }
            (Fate::Unfinished, _) => circle(task),
            (Fate::Unknown | Fate::Value | Fate::Fault(_) | Fate::Forwarded(_), _) => {
                failed(Cause::Expired { message: state_gone(task) })
            }
        }
    }
}

/// An unfinished task is asked for only by one that would wait for itself.
fn circle(task: TaskId) -> Located {
    let message =
        "execution ".to_string() + &task.to_string() + " waits for the one that waits for it";
    failed(Cause::Cycle { message })
}

const fn failed(cause: Cause) -> Located {
    Located::Failed(Failed { cause, worker: None, attempt: None, tries: 0 })
}
