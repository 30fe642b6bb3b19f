//! Deferred calls: which of them were not begun when a newer one came. That is soft, and so the leader's to say; that
//! they are the newer one from then on is the log's.

use alloc::vec::Vec;

use allhands_common::id::TaskId;
use allhands_common::policy::EqualCalls;
use allhands_common::range::TaskRange;

use super::Dispatcher;
use crate::{Action, Command, State};

impl Dispatcher {
    /// A newer call was made that is equal to `task`: if that is with no worker, it is the newer one.
    pub(super) fn supersede(&mut self, state: &State, task: TaskId, out: &mut Vec<Action>) {
        let TaskId { batch, index } = task;
        if self.awaited.is_some() {
            // Nobody has told this leader what runs: it looks at all of them when they have.
            return;
        }
        let Some(active) = self.activate(state, batch) else { return };
        if active.take_unbegun(index) {
            out.push(Action::Propose(Command::Forward { task }));
            self.requeue(state, batch);
        }
    }

    /// The same for all calls that were deferred, once a new leader knows what runs.
    pub(super) fn supersede_all(&mut self, state: &State, out: &mut Vec<Action>) {
        let deferred =
            |policy: &Option<EqualCalls>| matches!(policy, Some(EqualCalls::Defer { .. }));
        let batches = state.batches.iter();
        let batches = batches.filter(|(_, batch)| deferred(&batch.spec.policy.equal_calls));
        let tasks = batches.flat_map(|(id, batch)| {
            let keys = batch.links().into_iter().flat_map(|links| links.keys.keys());
            keys.map(|index| TaskId { batch: *id, index: *index })
        });
        let older: Vec<TaskId> = tasks.filter(|task| state.newest_of(*task).is_some()).collect();
        older.into_iter().for_each(|task| self.supersede(state, task, out));
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
