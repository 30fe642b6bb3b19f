//! What the oracle knows of tasks of graphs: who has called whom, what each does, and what became of it so far.

use std::rc::Rc;

use allhands_common::id::{AttemptId, BatchId, TaskId};

use super::{Execution, ExecutionId, Oracle};
use crate::sim::graph::Node;
use crate::sim::workload::Plan;

impl Oracle {
    /// A task calls another.
    pub(in crate::sim) fn called(
        &mut self,
        now: u64,
        (parent, attempt): (TaskId, AttemptId),
        batch: BatchId,
        plan: &Rc<Plan>,
    ) {
        let Some(call) = self.batches.get(&parent.batch).map(|known| known.call) else { return };
        self.submit(now, batch, plan, call);
        self.claims.insert((attempt, batch));
        if let Some(known) = self.batches.get_mut(&batch) {
            known.parent = Some(parent);
        }
    }

    /// What a task does, if it is one of a graph.
    pub(in crate::sim) fn node(&self, task: TaskId) -> Option<Rc<Node>> {
        self.batches.get(&task.batch)?.plan.nodes.get(task.index as usize).cloned()
    }

    /// The plan of a batch that was submitted or called.
    pub(in crate::sim) fn plan_of(&self, batch: BatchId) -> Option<Rc<Plan>> {
        self.batches.get(&batch).map(|known| known.plan.clone())
    }

    pub(in crate::sim) fn is_graph(&self, batch: BatchId) -> bool {
        self.batches.get(&batch).is_some_and(|known| !known.plan.nodes.is_empty())
    }

    /// Whether a task has called it.
    pub(in crate::sim) fn is_child(&self, batch: BatchId) -> bool {
        self.batches.get(&batch).is_some_and(|known| known.parent.is_some())
    }

    /// Whether a batch was stopped before all its tasks had ended.
    pub(in crate::sim) fn is_cut(&self, batch: BatchId) -> bool {
        self.batches.get(&batch).is_some_and(|known| known.cut)
    }

    /// Whether a task's call is not in the log.
    pub(in crate::sim) fn is_unheard(&self, child: BatchId, parent: TaskId) -> bool {
        let known = self.batches.get(&child);
        known.is_some_and(|known| known.parent == Some(parent) && known.committed == 0)
    }

    /// How many tasks of a batch are in the log.
    pub(in crate::sim) fn tasks_of(&self, batch: BatchId) -> u32 {
        self.batches.get(&batch).map_or(0, |known| known.committed)
    }

    /// Whether a task never comes that was to be of a batch: its client has left that as it was.
    pub(in crate::sim) fn never_comes(&self, task: TaskId) -> bool {
        let known = self.batches.get(&task.batch);
        known.is_some_and(|known| known.sealed && task.index >= known.committed)
    }

    /// Whether all of a batch is in the log.
    pub(in crate::sim) fn is_whole(&self, batch: BatchId) -> bool {
        let known = self.batches.get(&batch);
        known.is_some_and(|known| known.committed == known.plan.tasks())
    }

    /// Whether what a task sees does not matter any more: it has ended, or nobody wants it.
    pub(in crate::sim) fn is_moot(&self, task: TaskId) -> bool {
        self.truth(task).is_some()
            || self.is_cut(task.batch)
            || self.forgotten.contains(&task.batch)
    }

    pub(in crate::sim) fn attempt_of(&self, execution: ExecutionId) -> Option<AttemptId> {
        self.executions.get(execution.0 as usize).map(|execution| execution.attempt)
    }

    /// Whether a task was started once so far.
    pub(in crate::sim) fn is_first(&self, task: TaskId) -> bool {
        let known = self.batches.get(&task.batch);
        known.is_some_and(|known| known.tasks[task.index as usize].starts == 1)
    }

    /// A task that has waited goes on.
    pub(in crate::sim) fn goes_on(&mut self, batch: BatchId) {
        if let Some(known) = self.batches.get_mut(&batch) {
            known.running += 1;
        }
    }

    /// What an execution has made, or would have, went with its executor.
    pub(in crate::sim) fn lost(&mut self, execution: ExecutionId) {
        let Execution { batch, index, .. } = self.executions[execution.0 as usize];
        let Some(known) = self.batches.get_mut(&batch) else { return };
        known.bereaved = true;
        known.tasks[index as usize].lost += 1;
    }
}
