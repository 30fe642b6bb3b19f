//! Workers: who is there, what they have, how much they hold, and when they count as lost
//! (`losses`: what becomes of that).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::execution::Awaited;
use allhands_common::id::{AttemptId, BatchId, BootId, TaskId, WorkerId};
use allhands_common::limit::BUNDLE_BYTES_MAX;
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::{FromWorker, Order, Registration};

use super::attempt::UNSENT;
use super::queue::Class;
use super::{Dispatcher, Timer};
use crate::{Action, Command, State};

/// Ranges that a worker is given for each slot: beyond the one that runs another, so that no executor
/// waits for the leader between two.
const PREFILL: u32 = 2;

/// The same for short ranges, of which many are done while one message travels.
const SHORT_PREFILL: u32 = 32;

/// How long orders that nobody waits for wait for company, ...
const ORDER_PATIENCE: Duration = Duration::from_millis(5);

/// ... and how many of them.
const IDLE_ORDERS_MAX: usize = 64;

/// What a short order counts in a message: some 60 bytes of head.
const ORDER_BYTES: usize = 4 * 60;

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
    /// How many of these ranges are not short.
    pub(super) long: u32,
    /// Whether its connection stands and it is not given up.
    pub(super) present: bool,
    /// Whether it was silent too long: what it held is given up, its connection still stands.
    pub(super) given_up: bool,
    /// Whether it takes nothing new.
    pub(super) draining: bool,
    pub(super) last_heard: Instant,
    /// Number of the last message to it in this registration.
    pub(super) sent: u64,
    /// Number of its last heartbeat, and of the last message to it before that.
    pub(super) heartbeat: u64,
    pub(super) sent_before: u64,
    /// Batches whose shared part it has.
    pub(super) known: BTreeSet<BatchId>,
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Programs that cannot run there.
    pub(super) refused: BTreeSet<ProgramId>,
    /// Outcomes that were sent for its blocked tasks, and in which message, as far as it may not have them.
    pub(super) given: BTreeMap<Awaited, u64>,
    /// Orders that are not sent.
    pub(super) orders: Vec<Order>,
    /// Where among them another message begins: one holds so much.
    pub(super) cuts: Vec<usize>,
    /// What the last of these messages has so far, see [`Dispatcher::order_of`].
    pub(super) bundle_bytes: usize,
    /// Whether this step looks at them.
    pub(super) ordered: bool,
    /// When they are, if nothing pressing comes before.
    pub(super) orders_due: Option<Instant>,
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

    /// The load at which a worker takes no more ranges, be they short or not.
    pub(super) const fn full_load(short: bool) -> u32 {
        1000 * if short { SHORT_PREFILL } else { PREFILL }
    }

    /// Slots that it could start something in at once.
    const fn idle_slots(&self) -> u32 {
        if self.usable() { self.total.cpus.saturating_sub(self.held.cpus) } else { 0 }
    }

    /// Whether another range of `need` is welcome, to run or to wait as the next. Short ones may queue,
    /// but not behind long ones in every slot.
    pub(super) fn has_room(&self, need: &Resources, short: bool) -> bool {
        let queues = short && self.long < self.total.cpus;
        self.has_room_in(need, if queues { SHORT_PREFILL } else { PREFILL })
    }

    /// Whether `need` fits beside what it holds, were it so many `times` as large.
    fn has_room_in(&self, need: &Resources, times: u32) -> bool {
        let fits = |held: u64, need: u64, total: u64| held + need <= u64::from(times) * total;
        fits(self.held.cpus.into(), need.cpus.into(), self.total.cpus.into())
            && fits(self.held.memory_bytes, need.memory_bytes, self.total.memory_bytes)
            && need.custom.iter().all(|(name, need)| {
                let of = |all: &Resources| all.custom.get(name).copied().unwrap_or(0);
                fits(of(&self.held).into(), (*need).into(), of(&self.total).into())
            })
    }

    /// Whether a task of `need` could start here at once.
    pub(super) fn is_idle_for(&self, need: &Resources) -> bool {
        self.has_room_in(need, 1)
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
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.last_heard = now;
        match message {
            FromWorker::Register(_) | FromWorker::WantProgram { .. } => {}
            FromWorker::WantBlob { blob } => self.want_blob(id, blob, out),
            FromWorker::HaveBlobs { come, gone } => self.blobs_changed(id, &come, &gone, out),
            FromWorker::Heartbeat { number, processed, held } => {
                if number <= worker.heartbeat {
                    return;
                }
                worker.heartbeat = number;
                let lags = processed < worker.sent_before;
                worker.sent_before = worker.sent;
                if worker.given_up {
                    self.take_back(now, state, id, &held, out);
                }
                self.reconcile(state, id, processed, &held, out);
                self.stop_all_called_off(now, state, id);
                if lags {
                    // The last message may have been lost: another one, which says nothing, tells.
                    self.call_up(id);
                }
            }
            FromWorker::Report { processed, ended } => {
                self.forget_given(id, processed);
                ended.into_iter().for_each(|one| self.report(now, state, id, one, out));
            }
            FromWorker::Cancel { owner, task } => cancel_task(state, &owner, task, out),
            FromWorker::Submit(children) => {
                let called = children.into_iter().map(|child| Command::Call { worker: id, child });
                out.extend(called.map(Action::Propose));
            }
            FromWorker::CannotKeep { blob } => self.cannot_keep(id, blob),
            FromWorker::Said(notes) => self.hear_notes(now, state, id, notes, out),
            FromWorker::Draining => {
                self.change_worker(id, |worker| worker.draining = true);
                self.keepers_changed(id);
            }
        }
    }

    /// A worker introduces itself, for the first time or again.
    fn register(&mut self, now: Instant, state: &State, new: Registration, out: &mut Vec<Action>) {
        let id = new.worker;
        if self.workers.get(&id).is_some_and(|known| known.boot != new.boot) {
            self.lose_worker(now, state, id, out);
        }
        let record = state.workers.get(&id);
        if record.is_none_or(|record| record.boot != new.boot || record.resources != new.resources)
        {
            out.push(Action::Propose(Command::JoinWorker {
                worker: id,
                boot: new.boot,
                name: new.name.clone(),
                resources: new.resources.clone(),
            }));
        }
        let (held, long, attempts) = match self.workers.get(&id) {
            Some(known) => (known.held.clone(), known.long, known.attempts.clone()),
            None => (Resources::cpus(0), 0, BTreeSet::new()),
        };
        self.change_worker(id, |known| known.present = false);
        self.unknow_all(id);
        self.workers.insert(
            id,
            Box::new(Worker {
                boot: new.boot,
                name: new.name,
                platform: new.platform,
                total: new.resources,
                held,
                long,
                present: false,
                given_up: false,
                draining: new.draining,
                last_heard: now,
                sent: 0,
                heartbeat: 0,
                sent_before: 0,
                known: BTreeSet::new(),
                attempts,
                refused: BTreeSet::new(),
                given: BTreeMap::new(),
                orders: Vec::new(),
                cuts: Vec::new(),
                bundle_bytes: 0,
                ordered: self.ordered.contains(&id),
                orders_due: None,
            }),
        );
        self.change_worker(id, |known| known.present = true);
        self.timers.set(now + self.config.worker_lost, Timer::Worker(id));
        out.push(Action::Welcome { worker: id });
        self.take_depot(state, id, *new.depot, out);
        // Whatever was sent in an earlier registration counts as sent in message 0 of this one.
        let attempts: Vec<AttemptId> = self
            .workers
            .get(&id)
            .into_iter()
            .flat_map(|known| known.attempts.iter().copied())
            .collect();
        for attempt in attempts {
            let sent = self.attempts.get_mut(&attempt).filter(|attempt| attempt.sent != UNSENT);
            if let Some(attempt) = sent {
                attempt.sent = 0;
                attempt.asked = None;
            }
        }
        self.adopt(now, state, id, &new.held);
        self.reconcile(state, id, 0, &new.held, out);
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(&id);
            if awaited.is_empty() {
                self.finish_resume(now, state, out);
            }
        }
        self.announce_slots(out);
    }

    /// Changes what is known of a worker, and with it its place among those to choose from.
    pub(super) fn change_worker(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (was, old, slots) = (worker.usable(), worker.load(), worker.total.cpus);
        self.idle_slots -= worker.idle_slots();
        change(worker);
        self.idle_slots += worker.idle_slots();
        self.slots_changed |= was != worker.usable();
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
        self.order_of(id, order, ORDER_BYTES);
    }

    /// The same with an order that makes its message at most so many `bytes` longer; those of its head
    /// count four times, because a message's head may be a fourth of its bulk.
    pub(super) fn order_of(&mut self, id: WorkerId, order: Order, bytes: usize) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.present) else {
            return;
        };
        if worker.bundle_bytes + bytes > BUNDLE_BYTES_MAX && worker.bundle_bytes > 0 {
            worker.cuts.push(worker.orders.len());
            worker.bundle_bytes = 0;
        }
        worker.bundle_bytes += bytes;
        worker.orders.push(order);
        self.call_up(id);
    }

    /// This step looks whether a worker is to be sent a message.
    pub(super) fn call_up(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && !core::mem::replace(&mut worker.ordered, true)
        {
            self.ordered.push(id);
        }
    }

    /// Sends what was ordered: one message a worker. What nobody waits for goes along with the rest.
    pub(super) fn flush_orders(&mut self, now: Instant, out: &mut Vec<Action>) {
        for id in core::mem::take(&mut self.ordered) {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.ordered = false;
            if !worker.present {
                continue;
            }
            let idle =
                |order: &Order| matches!(order, Order::Committed { .. } | Order::Forget { .. });
            let patient = !worker.orders.is_empty()
                && worker.orders.len() < IDLE_ORDERS_MAX
                && worker.orders.iter().all(idle);
            let due = *worker.orders_due.get_or_insert(now + ORDER_PATIENCE);
            if patient && now < due {
                self.timers.set(due, Timer::Orders(id));
                continue;
            }
            worker.orders_due = None;
            worker.bundle_bytes = 0;
            let mut orders = core::mem::take(&mut worker.orders);
            let mut begun = 0;
            for cut in core::mem::take(&mut worker.cuts) {
                let rest = orders.split_off(cut - begun);
                worker.sent += 1;
                out.push(Action::Order { worker: id, number: worker.sent, orders });
                (orders, begun) = (rest, cut);
            }
            worker.sent += 1;
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
        if self.workers.get(&id).is_some_and(|worker| worker.given_up) {
            return;
        }
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

    /// A worker does not have (any more) what a batch's tasks share.
    pub(super) fn unknow(&mut self, id: WorkerId, batch: BatchId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.known.remove(&batch);
        }
        if let Some(active) = self.active.get_mut(&batch) {
            active.known_by.remove(&id);
        }
    }

    pub(super) fn unknow_all(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for batch in core::mem::take(&mut worker.known) {
            if let Some(active) = self.active.get_mut(&batch) {
                active.known_by.remove(&id);
            }
        }
    }

    /// A range occupies its worker while something open does not wait for others, and no longer.
    pub(super) fn occupy(&mut self, state: &State, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let blocked = attempt.blocked.len() * u32::from(!cfg!(plant = "blocked_keeps_its_slot"));
        let occupies = attempt.open.len() > blocked;
        if core::mem::replace(&mut attempt.occupies, occupies) == occupies {
            return;
        }
        let (batch, job, worker) = (attempt.batch, attempt.job, attempt.worker);
        let (need, long) = (attempt.need.clone(), u32::from(!attempt.short));
        self.change_worker(worker, |worker| {
            if occupies {
                worker.held.add(&need);
                worker.long += long;
            } else {
                worker.held.subtract(&need);
                worker.long -= long;
            }
        });
        self.queues.count(job, occupies);
        self.count_range(state, batch, occupies);
    }

    /// Clients are told of the slots, for their progress displays and `n_jobs`.
    pub(super) fn announce_slots(&self, out: &mut Vec<Action>) {
        let clients = self.clients.iter().filter(|(_, client)| client.attached);
        out.extend(clients.map(|(session, _)| Action::Tell {
            session: *session,
            message: ToClient::Slots { slots: self.slots },
        }));
    }
}

/// A task of `owner` wants another ended.
fn cancel_task(state: &State, owner: &str, task: TaskId, out: &mut Vec<Action>) {
    let TaskId { batch, index } = task;
    let job = state.batches.get(&batch).and_then(|known| state.job_of(known));
    if job.is_some_and(|job| job.owner == owner) {
        let range = TaskRange::new(index, index.saturating_add(1));
        let failed = super::cancelled("a task that has a handle on it wants no more of it".into());
        out.push(Action::Propose(Command::CancelTasks { batch, range, failed }));
    }
}
