//! Deferred calls: which of them were not begun when a newer one came. That is soft, and so the leader's to say; that
//! they are the newer one from then on is the log's.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, TaskId};
use allhands_common::policy::EqualCalls;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{ALL_TASKS, Order};

use super::Dispatcher;
use super::attempt::UNSENT;
use crate::{Action, Batch, Command, State};

impl Dispatcher {
    /// A newer call was made that is equal to `task`: if that is with no worker, it is the newer one. A worker is
    /// asked to give it back, in case that it has not begun it.
    pub(super) fn supersede(
        &mut self,
        now: Instant,
        state: &State,
        task: TaskId,
        out: &mut Vec<Action>,
    ) {
        let TaskId { batch, index } = task;
        if self.awaited.is_some() {
            // Nobody has told this leader what runs: it looks at all of them when they have.
            return;
        }
        let Some(active) = self.activate(state, batch) else { return };
        if active.take_unbegun(index) {
            out.push(Action::Propose(Command::Forward { task }));
            return self.requeue(state, batch);
        }
        let attempts: Vec<_> = active.attempts.iter().copied().collect();
        for id in attempts {
            if let Some(attempt) = self.attempts.get_mut(&id)
                && attempt.open.contains(index)
                && !attempt.blocked.contains(index)
                && attempt.sent != UNSENT
                && attempt.may_be_asked(now)
            {
                attempt.asked = Some(now);
                let worker = attempt.worker;
                self.order(worker, Order::Retract { attempt: id, tasks: ALL_TASKS });
            }
        }
    }

    /// A worker has given tasks back: those of which there is a newer one are that.
    pub(super) fn supersede_returned(
        &mut self,
        now: Instant,
        state: &State,
        id: BatchId,
        range: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let links = state.batches.get(&id).and_then(Batch::links);
        let keyed = links.map(|links| links.keys.range(range.start..range.end));
        let tasks =
            keyed.into_iter().flatten().map(|(index, _)| TaskId { batch: id, index: *index });
        let older: Vec<TaskId> = tasks.filter(|task| self.is_older(state, *task)).collect();
        older.into_iter().for_each(|task| self.supersede(now, state, task, out));
    }

    /// Whether a task was deferred, and there is a newer one.
    fn is_older(&self, state: &State, task: TaskId) -> bool {
        let batch = state.batches.get(&task.batch);
        let policy = batch.map(|batch| &batch.spec.policy.equal_calls);
        matches!(policy, Some(Some(EqualCalls::Defer { .. }))) && state.newest_of(task).is_some()
    }

    /// The same for all calls that were deferred, once a new leader knows what runs.
    pub(super) fn supersede_all(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        let tasks = state.batches.iter().flat_map(|(id, batch)| {
            let keys = batch.links().into_iter().flat_map(|links| links.keys.keys());
            keys.map(|index| TaskId { batch: *id, index: *index })
        });
        let older: Vec<TaskId> = tasks.filter(|task| self.is_older(state, *task)).collect();
        older.into_iter().for_each(|task| self.supersede(now, state, task, out));
    }

    /// What a task was to be was cancelled meanwhile: it waits as before.
    pub(super) fn not_forwarded(&mut self, state: &State, task: TaskId) {
        let TaskId { batch, index } = task;
        let one = TaskRange::new(index, index + 1);
        let Some(active) = self.active.get_mut(&batch) else { return };
        active.charging.remove(one);
        active.pending.insert(one);
        self.depend(state, batch, one);
        self.put_off(state, batch, one);
        self.requeue(state, batch);
    }
}
