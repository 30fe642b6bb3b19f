//! Workers: who is there, what they have, how much they hold, and when they count as lost.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId, BootId, WorkerId};
use allhands_common::limit::SYSTEM_RETRIES;
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::{FromWorker, Order, Registration};

use super::queue::Class;
use super::{Dispatcher, Timer};
use crate::{Action, Charge, Command, State};

/// Ranges that a worker is given beyond those that run: one a slot, so that no executor waits for the
/// leader between two ranges.
const PREFILL: u32 = 2;

/// A worker that has registered.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) boot: BootId,
    pub(super) name: String,
    pub(super) platform: Platform,
    /// What it has.
    pub(super) total: Resources,
    /// What the ranges that it holds occupy.
    pub(super) held: Resources,
    /// Whether its connection stands.
    pub(super) present: bool,
    /// Whether it takes nothing new.
    pub(super) draining: bool,
    pub(super) last_heard: Instant,
    /// Number of the last message to it in this registration.
    pub(super) sent: u64,
    /// Number of its last heartbeat.
    pub(super) heartbeat: u64,
    /// Batches whose shared part it has.
    pub(super) known: BTreeSet<BatchId>,
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Programs that cannot run there.
    pub(super) refused: BTreeSet<ProgramId>,
    /// Orders of the step that is being taken.
    pub(super) orders: Vec<Order>,
}

impl Worker {
    /// Whether it is to be given anything.
    pub(super) const fn usable(&self) -> bool {
        self.present && !self.draining
    }

    /// Whether it can ever hold a task of this kind.
    pub(super) fn suits(&self, need: &Resources, program: &Program) -> bool {
        need.fits(&self.total)
            && !self.refused.contains(&program.id)
            && program.platform.obstacle(&self.platform).is_none()
    }

    /// Slots occupied, in thousandths of those there are.
    pub(super) fn load(&self) -> u32 {
        let (held, total) = (u64::from(self.held.cpus), u64::from(self.total.cpus.max(1)));
        u32::try_from(held * 1000 / total).unwrap_or(u32::MAX)
    }

    /// Whether another range of `need` is welcome, to run or to wait as the next.
    pub(super) fn has_room(&self, need: &Resources) -> bool {
        let fits = |held: u64, need: u64, total: u64| held + need <= u64::from(PREFILL) * total;
        fits(self.held.cpus.into(), need.cpus.into(), self.total.cpus.into())
            && fits(self.held.memory_bytes, need.memory_bytes, self.total.memory_bytes)
            && need.custom.iter().all(|(name, need)| {
                let of = |all: &Resources| all.custom.get(name).copied().unwrap_or(0);
                fits(of(&self.held).into(), (*need).into(), of(&self.total).into())
            })
    }

    /// Whether a slot of it has nothing to do.
    pub(super) const fn has_idle_slot(&self) -> bool {
        self.held.cpus < self.total.cpus
    }
}

impl Dispatcher {
    pub(super) fn hear_worker(
        &mut self,
        now: Instant,
        state: &State,
        id: WorkerId,
        message: FromWorker,
        out: &mut Vec<Action>,
    ) {
        if let FromWorker::Register(registration) = message {
            return self.register(now, state, registration, out);
        }
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.present) else { return };
        worker.last_heard = now;
        match message {
            FromWorker::Register(_) | FromWorker::WantProgram { .. } => {}
            FromWorker::Heartbeat { number, processed, held } => {
                if number > worker.heartbeat {
                    worker.heartbeat = number;
                    self.reconcile(state, id, processed, &held);
                }
            }
            FromWorker::Report { ended, .. } => {
                ended.into_iter().for_each(|one| self.report(now, state, id, one, out));
            }
            FromWorker::Draining => self.change_worker(id, |worker| worker.draining = true),
        }
    }

    /// A worker introduces itself, for the first time or again.
    fn register(
        &mut self,
        now: Instant,
        state: &State,
        new: Registration,
        out: &mut Vec<Action>,
    ) {
        let id = new.worker;
        if self.workers.get(&id).is_some_and(|known| known.boot != new.boot) {
            self.lose_worker(now, state, id, out);
        }
        let record = state.workers.get(&id);
        if record.is_none_or(|record| record.boot != new.boot || record.resources != new.resources) {
            out.push(Action::Propose(Command::JoinWorker {
                worker: id,
                boot: new.boot,
                name: new.name.clone(),
                resources: new.resources.clone(),
            }));
        }
        let (held, attempts) = match self.workers.get(&id) {
            Some(known) => (known.held.clone(), known.attempts.clone()),
            None => (Resources::cpus(0), BTreeSet::new()),
        };
        self.change_worker(id, |known| known.present = false);
        self.workers.insert(
            id,
            Worker {
                boot: new.boot,
                name: new.name,
                platform: new.platform,
                total: new.resources,
                held,
                present: false,
                draining: new.draining,
                last_heard: now,
                sent: 0,
                heartbeat: 0,
                known: BTreeSet::new(),
                attempts,
                refused: BTreeSet::new(),
                orders: Vec::new(),
            },
        );
        self.change_worker(id, |known| known.present = true);
        self.timers.set(now + self.config.worker_lost, Timer::Worker(id));
        out.push(Action::Welcome { worker: id });
        // Whatever was sent in an earlier registration counts as sent in message 0 of this one.
        let attempts: Vec<AttemptId> =
            self.workers.get(&id).into_iter().flat_map(|known| known.attempts.iter().copied()).collect();
        for attempt in attempts {
            if let Some(attempt) = self.attempts.get_mut(&attempt) {
                attempt.sent = 0;
                attempt.retracting = false;
            }
        }
        self.adopt(now, state, id, &new.held);
        self.reconcile(state, id, 0, &new.held);
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(&id);
            if awaited.is_empty() {
                self.finish_resume(state, out);
            }
        }
        self.announce_slots(out);
    }

    /// Changes what is known of a worker, and with it its place among those to choose from.
    pub(super) fn change_worker(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (was, old, slots) = (worker.usable(), worker.load(), worker.total.cpus);
        change(worker);
        match (was, worker.usable()) {
            (true, true) => self.queues.reload(id, old, worker.load()),
            (true, false) => {
                self.slots -= slots;
                self.queues.delist(id, old);
            }
            (false, true) => {
                self.slots += worker.total.cpus;
                let able = |class: &Class| worker.suits(&class.need, &class.program);
                self.queues.enlist(id, worker.load(), able);
            }
            (false, false) => {}
        }
    }

    /// Adds an order to the message that this step sends to a worker.
    pub(super) fn order(&mut self, id: WorkerId, order: Order) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.present) else { return };
        if worker.orders.is_empty() {
            self.ordered.push(id);
        }
        worker.orders.push(order);
    }

    /// Sends what this step has ordered: one message a worker.
    pub(super) fn flush_orders(&mut self, out: &mut Vec<Action>) {
        for id in self.ordered.drain(..) {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            if worker.orders.is_empty() {
                continue;
            }
            worker.sent += 1;
            let orders = core::mem::take(&mut worker.orders);
            out.push(Action::Order { worker: id, number: worker.sent, orders });
        }
    }

    /// Looks whether a worker was silent too long.
    pub(super) fn check_worker(
        &mut self,
        now: Instant,
        state: &State,
        id: WorkerId,
        out: &mut Vec<Action>,
    ) {
        let lost_at = self.workers.get(&id).map(|w| w.last_heard + self.config.worker_lost);
        match lost_at {
            Some(lost_at) if lost_at > now => self.timers.set(lost_at, Timer::Worker(id)),
            Some(_) => self.lose_worker(now, state, id, out),
            None if state.workers.contains_key(&id) => {
                out.push(Action::Propose(Command::LeaveWorker { worker: id }));
            }
            None => {}
        }
    }

    /// A worker is gone for good, or has lost its memory: what it held goes to others.
    fn lose_worker(&mut self, now: Instant, state: &State, id: WorkerId, out: &mut Vec<Action>) {
        self.change_worker(id, |worker| worker.present = false);
        let Some(worker) = self.workers.remove(&id) else { return };
        out.push(Action::Propose(Command::LeaveWorker { worker: id }));
        for attempt in worker.attempts {
            self.lose_attempt(now, state, attempt, out);
        }
        self.announce_slots(out);
    }

    /// An attempt will never report again. What it has reported goes its way.
    fn lose_attempt(
        &mut self,
        now: Instant,
        state: &State,
        id: AttemptId,
        out: &mut Vec<Action>,
    ) {
        let Some(mut attempt) = self.attempts.remove(&id) else { return };
        let (batch, worker) = (attempt.batch, attempt.worker);
        let open = core::mem::take(&mut attempt.open);
        let owed = core::mem::take(&mut attempt.owed);
        let idempotent =
            state.batches.get(&batch).is_none_or(|batch| batch.spec.policy.idempotent);
        self.release_slot(state, batch, worker, &attempt.need, !open.is_empty());
        if !attempt.settling.is_empty() {
            self.attempts.insert(id, attempt);
        }
        if !idempotent {
            for range in open.iter().chain(owed.iter()) {
                let cause = Cause::Abandoned;
                self.fail(state, batch, range, cause, Some(worker), Some(id), out);
            }
            return;
        }
        let mut rest = open.iter();
        // Only what was running can have been the reason; nobody knows where a silent range stands,
        // so it is the first task that is charged.
        if let Some(first) = rest.next() {
            let one = TaskRange::new(first.start, first.start + 1);
            self.charge_loss(now, state, batch, one.start, worker, id, out);
            self.put_back(state, batch, TaskRange::new(one.end, first.end));
        }
        rest.chain(owed.iter()).for_each(|range| self.put_back(state, batch, range));
    }

    #[expect(clippy::too_many_arguments, reason = "who, what, where of one lost task")]
    fn charge_loss(
        &mut self,
        now: Instant,
        state: &State,
        batch: BatchId,
        index: u32,
        worker: WorkerId,
        attempt: AttemptId,
        out: &mut Vec<Action>,
    ) {
        let losses = state.batches.get(&batch).map_or(0, |batch| batch.exception(index).losses);
        if losses + 1 > SYSTEM_RETRIES {
            let range = TaskRange::new(index, index + 1);
            let cause = Cause::Lost { workers: losses + 1 };
            self.fail(state, batch, range, cause, Some(worker), Some(attempt), out);
        } else {
            self.charge(now, state, batch, index, Charge::Loss, 0, out);
        }
    }

    /// A range occupies its worker no more.
    pub(super) fn release_slot(
        &mut self,
        state: &State,
        batch: BatchId,
        worker: WorkerId,
        need: &Resources,
        was_open: bool,
    ) {
        if !was_open {
            return;
        }
        self.change_worker(worker, |worker| worker.held.subtract(need));
        if let Some(active) = self.active.get_mut(&batch) {
            active.ranges = active.ranges.saturating_sub(1);
        }
        if let Some(known) = state.batches.get(&batch) {
            self.queues.count(known.job, false);
        }
        self.requeue(state, batch);
    }

    /// Clients are told of the slots, for their progress displays and `n_jobs`.
    fn announce_slots(&self, out: &mut Vec<Action>) {
        let clients = self.clients.iter().filter(|(_, client)| client.attached);
        out.extend(clients.map(|(session, _)| Action::Tell {
            session: *session,
            message: ToClient::Slots { slots: self.slots },
        }));
    }
}
