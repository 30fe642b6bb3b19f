//! Workers that are lost, and what becomes of the work that they held.

use alloc::vec::Vec;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, WorkerId};
use allhands_common::limit::SYSTEM_RETRIES;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::worker::Held;

use super::attempt::UNSENT;
use super::report::Origin;
use super::{Dispatcher, Timer};
use crate::{Action, Charge, Command, State};

impl Dispatcher {
    /// A worker is gone for good, or has lost its memory: what it held goes to others.
    pub(super) fn lose_worker(
        &mut self,
        now: Instant,
        state: &State,
        id: WorkerId,
        out: &mut Vec<Action>,
    ) {
        let connected = self.workers.get(&id).is_some_and(|worker| worker.present);
        self.change_worker(id, |worker| worker.present = false);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.given_up = true;
        worker.orders.clear();
        worker.cuts.clear();
        worker.bundle_bytes = 0;
        out.push(Action::Propose(Command::LeaveWorker { worker: id }));
        let attempts: Vec<AttemptId> = worker.attempts.iter().copied().collect();
        for attempt in attempts {
            self.lose_attempt(now, state, attempt, out);
        }
        self.unknow_all(id);
        if !connected {
            self.forget_worker(id);
        }
        self.keepers_changed(id);
        self.announce_slots(out);
    }

    fn forget_worker(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.blobs.remove_worker(id);
        self.blobs.spread.retain(id, |_| false);
    }

    /// A worker's connection is gone.
    pub(super) fn worker_gone(&mut self, id: WorkerId) {
        self.forget_wants(id);
        if self.workers.get(&id).is_some_and(|worker| worker.given_up) {
            self.forget_worker(id);
        }
        self.change_worker(id, |worker| worker.present = false);
    }

    /// A worker that was given up is heard again, over the connection that it had.
    pub(super) fn take_back(
        &mut self,
        now: Instant,
        state: &State,
        id: WorkerId,
        held: &[Held],
        out: &mut Vec<Action>,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.given_up = false;
        out.push(Action::Propose(Command::JoinWorker {
            worker: id,
            boot: worker.boot,
            name: worker.name.clone(),
            resources: worker.total.clone(),
        }));
        self.change_worker(id, |worker| worker.present = true);
        self.timers.set(now + self.config.worker_lost, Timer::Worker(id));
        // What it owes it has reported, and will not again: there is nothing to wait for.
        let open: Vec<Held> =
            held.iter().map(|held| Held { owed: Vec::new(), ..held.clone() }).collect();
        self.adopt(now, state, id, &open);
        self.depot_is_back(id, out);
        self.announce_slots(out);
    }

    /// An attempt will never report again. What it has reported goes its way.
    fn lose_attempt(&mut self, now: Instant, state: &State, id: AttemptId, out: &mut Vec<Action>) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let origin = Origin { batch: attempt.batch, attempt: id, worker: attempt.worker };
        let unsent = attempt.sent == UNSENT;
        let blocked = attempt.blocked.clone();
        let mut open: Vec<TaskRange> = blocked.iter().collect();
        for range in attempt.open.iter() {
            open.extend(blocked.gaps(range));
        }
        let owed: Vec<TaskRange> = attempt.owed.iter().collect();
        for range in open.iter().chain(&owed) {
            self.withdraw(state, id, *range, false);
        }
        if let Some(worker) = self.workers.get_mut(&origin.worker) {
            worker.attempts.remove(&id);
        }
        let Some(batch) = state.batches.get(&origin.batch).filter(|b| b.stopped().is_none()) else {
            return;
        };
        if unsent {
            open.iter().for_each(|range| self.put_back_unstarted(now, state, origin, *range, out));
            return;
        }
        if !batch.spec.policy.idempotent {
            for range in open.iter().chain(&owed) {
                self.fail(state, origin, *range, Cause::Abandoned, out);
            }
            return;
        }
        if cfg!(plant = "lost_worker_not_requeued") {
            return;
        }
        // What waited for others did not run.
        let (blocked, open): (Vec<TaskRange>, Vec<TaskRange>) =
            open.iter().partition(|range| blocked.covers(**range));
        blocked.iter().for_each(|range| self.put_back(state, origin.batch, *range));
        let mut rest = open.iter();
        // Only what was running can have been the reason; nobody knows where a silent range stands,
        // so it is the first task that is charged.
        if let Some(first) = rest.next() {
            self.charge_loss(now, state, origin, first.start, out);
            self.put_back(state, origin.batch, TaskRange::new(first.start + 1, first.end));
        }
        rest.chain(&owed).for_each(|range| self.put_back(state, origin.batch, *range));
    }

    fn charge_loss(
        &mut self,
        now: Instant,
        state: &State,
        origin: Origin,
        index: u32,
        out: &mut Vec<Action>,
    ) {
        let known = state.batches.get(&origin.batch);
        let losses = known.map_or(0, |batch| batch.exception(index).losses);
        if losses + 1 > SYSTEM_RETRIES {
            let range = TaskRange::new(index, index + 1);
            self.fail(state, origin, range, Cause::Lost { workers: losses + 1 }, out);
        } else {
            self.charge(now, state, origin, index, Charge::Loss, 0, out);
        }
    }
}
