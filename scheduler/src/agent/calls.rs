//! Tasks that call others, and tasks that wait for what they have called.
//!
//! A call is told to the leader, again and again, until the leader says that it is committed. The outcome of
//! a task is held back until that is so of all its calls: else a worker's death could leave a task that has
//! ended and calls that nobody has heard of.

use alloc::vec::Vec;

use allhands_common::execution::{Awaited, Given, Mention};
use allhands_common::id::{AttemptId, BatchId, ExecutorId, TaskId};
use allhands_common::limit::BUNDLE_BYTES_MAX;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Blocked, ChildCall, Ended, FromWorker, How};
use bytes::Bytes;

use super::executors::Suspended;
use super::holdings::Owed;
use super::{Agent, AgentAction};

/// A call is said again after so many heartbeats without an answer.
const ANSWER_HEARTBEATS: u64 = 4;

/// Cancels that are said again to a new leader: those of the last moments before the former one was lost.
const CANCELS_REMEMBERED: usize = 64;

/// Calls in one message: some 200 bytes each in its head, besides their specifications.
const CALLS_MAX: usize = 256;

/// What a call's head counts in a message.
const CALL_BYTES: usize = 1024;

/// A call that is not known to be committed.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) child: ChildCall,
    executor: ExecutorId,
    /// Number of the heartbeat after which it was said, in this registration.
    said: Option<u64>,
}

impl Agent {
    /// A task has called another.
    pub(super) fn call(&mut self, executor: ExecutorId, child: ChildCall) {
        if self.attempts.contains_key(&child.attempt) {
            let call = Call { child, executor, said: None };
            self.calls.insert((call.child.batch, call.child.attempt), call);
        }
    }

    /// Says the calls that are due.
    pub(super) fn flush_calls(&mut self, out: &mut Vec<AgentAction>) {
        if !self.registered {
            return;
        }
        let (mut children, mut bytes) = (Vec::new(), 0);
        for call in self.calls.values_mut().filter(|call| call.said.is_none()) {
            call.said = Some(self.heartbeats);
            let more = call.child.segment.bytes.len() + CALL_BYTES;
            if bytes + more > BUNDLE_BYTES_MAX && bytes > 0 || children.len() >= CALLS_MAX {
                let children = core::mem::take(&mut children);
                out.push(AgentAction::Send(FromWorker::Submit(children)));
                bytes = 0;
            }
            bytes += more;
            children.push(call.child.clone());
        }
        if !children.is_empty() {
            out.push(AgentAction::Send(FromWorker::Submit(children)));
        }
    }

    /// Calls without an answer are to be said again: all to a new leader.
    pub(super) fn repeat_calls(&mut self, all: bool) {
        let now = self.heartbeats;
        let late = |said: u64| all || said + ANSWER_HEARTBEATS <= now;
        for call in self.calls.values_mut().filter(|call| call.said.is_some_and(late)) {
            call.said = None;
        }
    }

    /// A task of an executor wants another ended.
    pub(super) fn want_cancelled(
        &mut self,
        executor: ExecutorId,
        task: TaskId,
        out: &mut Vec<AgentAction>,
    ) {
        let Some(owner) = self.executors.get(&executor).map(|known| known.kind.owner.clone())
        else {
            return;
        };
        if self.registered {
            out.push(AgentAction::Send(FromWorker::Cancel { owner: owner.clone(), task }));
        }
        if self.cancels.len() >= CANCELS_REMEMBERED {
            self.cancels.pop_front();
        }
        self.cancels.push_back((owner, task));
    }

    /// Says to a new leader what tasks wanted ended: what has ended does not end again.
    pub(super) fn repeat_cancels(&self, out: &mut Vec<AgentAction>) {
        let again = self.cancels.iter().cloned();
        out.extend(
            again.map(|(owner, task)| AgentAction::Send(FromWorker::Cancel { owner, task })),
        );
    }

    /// A call is committed, or can never be.
    pub(super) fn opened(&mut self, call: (BatchId, AttemptId), out: &mut Vec<AgentAction>) {
        let Some(Call { child, executor, .. }) = self.calls.remove(&call) else { return };
        if self.executors.contains_key(&executor) {
            out.push(AgentAction::Opened { executor, batches: 1 });
        }
        let ChildCall { attempt, parent: TaskId { index, .. }, .. } = child;
        let waits = self.deferred.range(..=(attempt, index)).next_back();
        let of_it = |(id, owed): (AttemptId, &Owed)| id == attempt && owed.range.contains(index);
        let Some((key, _)) = waits.filter(|(key, owed)| of_it((key.0, owed))) else { return };
        let key = *key;
        if let Some(owed) = self.deferred.remove(&key) {
            self.owe_or_defer(key.0, owed.range, owed.segment, (owed.run_us, owed.mentions));
        }
    }

    /// Tasks have an outcome: it is owed, once all that they have called is known.
    pub(super) fn owe_or_defer(
        &mut self,
        id: AttemptId,
        range: TaskRange,
        segment: Bytes,
        (run_us, mentions): (u64, Vec<Mention>),
    ) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let owed = Owed { batch: attempt.batch, range, segment, run_us, mentions };
        let theirs =
            |call: &Call| call.child.attempt == id && range.contains(call.child.parent.index);
        if self.calls.values().any(theirs) {
            self.deferred.insert((id, range.start), owed);
        } else {
            self.owe(id, owed);
        }
    }

    /// A task waits for others: it occupies nothing. What was not started of its range goes back, to be run
    /// after what it waits for.
    pub(super) fn block(
        &mut self,
        executor: ExecutorId,
        (attempt, index): (AttemptId, u32),
        (on, run_us): (Vec<Awaited>, Option<u64>),
        returned: TaskRange,
        now: Instant,
    ) {
        let one = TaskRange::new(index, index + 1);
        let Some(known) = self.executors.get_mut(&executor) else { return };
        known.take_out(attempt, one);
        known.take_out(attempt, returned);
        known.resumed.remove(&(attempt, index));
        known.suspended.insert((attempt, index), Suspended { on: on.clone(), since: now });
        self.settle_need(executor);
        let Some(batch) = self.attempts.get(&attempt).map(|attempt| attempt.batch) else { return };
        self.reports.push(Ended { attempt, batch, range: one, how: How::Blocked { on, run_us } });
        if !returned.is_empty() {
            let cancelled = self.attempts.get(&attempt).is_some_and(|attempt| attempt.cancelled);
            let how = if cancelled { How::Cancelled } else { How::Returned };
            self.end(attempt, returned, how);
        }
    }

    /// A task that waited goes on, whatever else is occupied.
    pub(super) fn resume(&mut self, executor: ExecutorId, (attempt, index): (AttemptId, u32)) {
        let Some(known) = self.executors.get_mut(&executor) else { return };
        if known.suspended.remove(&(attempt, index)).is_none() {
            return;
        }
        if !known.is_busy() && known.need.fits(&self.free) {
            self.free.subtract(&known.need);
            known.charged = true;
        }
        known.resumed.insert((attempt, index));
        let Some(batch) = self.attempts.get(&attempt).map(|attempt| attempt.batch) else { return };
        let range = TaskRange::new(index, index + 1);
        self.reports.push(Ended { attempt, batch, range, how: How::Resumed });
    }

    /// An outcome has come that tasks wait for.
    pub(super) fn give(&mut self, given: &Given, out: &mut Vec<AgentAction>) {
        for (executor, known) in &mut self.executors {
            let mut wanted = false;
            for Suspended { on, .. } in known.suspended.values_mut() {
                let before = on.len();
                on.retain(|awaited| *awaited != given.of);
                wanted |= on.len() < before;
            }
            if wanted {
                out.push(AgentAction::Give { executor: *executor, given: given.clone() });
            }
        }
    }

    /// Which tasks of an attempt wait, for what.
    pub(super) fn blocked_of(&self, now: Instant, id: AttemptId) -> Vec<Blocked> {
        let suspended = self
            .executors
            .values()
            .flat_map(|executor| executor.suspended.range((id, 0)..=(id, u32::MAX)));
        let blocked = suspended.map(|((_, index), Suspended { on, since })| Blocked {
            index: *index,
            on: on.clone(),
            since_us: now.since(*since).as_micros() as u64,
        });
        blocked.collect()
    }
}
