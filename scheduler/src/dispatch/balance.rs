//! Who holds more than it runs gives some back when others have nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;
use core::time::Duration;

use allhands_common::id::{AttemptId, WorkerId};
use allhands_common::time::Instant;
use allhands_common::wire::worker::Order;

use super::place::Moving;
use super::queue::ClassId;
use super::{Dispatcher, Timer};
use crate::State;

/// How long an idle worker waits before others are asked to give back.
const BALANCE_AFTER: Duration = Duration::from_millis(5);

/// Attempts that one look visits; the next goes on from there. Some 20 µs every 5 ms.
const LOOKED_AT_MAX: usize = 256;

/// Load of a worker of which every slot is taken.
const ALL_SLOTS: u32 = 1000;

impl Dispatcher {
    pub(super) fn somebody_is_idle(&self) -> bool {
        self.idle_slots > 0
            && self.workers.len() > 1
            && !self.attempts.is_empty()
            && self.queues.classes.keys().any(|class| self.idle_worker(*class).is_some())
    }

    /// A worker that could start a task of `class` at once.
    fn idle_worker(&self, class: ClassId) -> Option<WorkerId> {
        let class = self.queues.classes.get(&class)?;
        class
            .below(ALL_SLOTS)
            .find(|id| self.workers.get(id).is_some_and(|worker| worker.is_idle_for(&class.need)))
    }

    pub(super) fn plan_balance(&mut self, now: Instant) {
        if !self.balancing {
            self.balancing = true;
            self.timers.set(now + BALANCE_AFTER, Timer::Balance);
        }
    }

    /// Asks those who hold more than they run to give some back, newest first.
    pub(super) fn balance(&mut self, now: Instant, state: &State) {
        self.balancing = false;
        let below = self.balanced_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        if !self.somebody_is_idle() {
            return;
        }
        let idle_workers: BTreeMap<ClassId, WorkerId> = self
            .queues
            .classes
            .keys()
            .filter_map(|class| Some((*class, self.idle_worker(*class)?)))
            .collect();
        let mut asked: Vec<(AttemptId, u32)> = Vec::new();
        let (mut spared, mut next) = (Vec::new(), None);
        let attempts = self.attempts.range((Bound::Unbounded, below)).rev();
        for (number, (id, attempt)) in attempts.enumerate() {
            if asked.len() >= self.idle_slots as usize {
                break;
            }
            if number == LOOKED_AT_MAX {
                next = Some(*id);
                break;
            }
            let Some(idle) = idle_workers.get(&attempt.class).filter(|id| **id != attempt.worker)
            else {
                continue;
            };
            let Some(worker) = self.workers.get(&attempt.worker) else { continue };
            let fixed = state
                .batches
                .get(&attempt.batch)
                .is_none_or(|b| b.spec.policy.batch_size.is_some());
            // A worker with more ranges than slots has some that only wait; of one that runs, half.
            let waits = worker.held.cpus > worker.total.cpus;
            let open = attempt.open.len() - attempt.blocked.len();
            let tasks = if waits { open } else { open / 2 };
            if !attempt.may_be_asked(now) || tasks == 0 || (fixed && !waits) {
                continue;
            }
            match self.worth_moving(now, state, *id, *idle) {
                Moving::Any => asked.push((*id, tasks)),
                Moving::AtMost(_) if fixed => asked.push((*id, tasks)),
                Moving::AtMost(most) => asked.push((*id, tasks.min(most))),
                Moving::Not => spared.push(*id),
            }
        }
        self.balanced_to = next;
        let any = !asked.is_empty() || !spared.is_empty() || next.is_some();
        for (id, tasks) in asked {
            let Some(attempt) = self.attempts.get_mut(&id) else { continue };
            attempt.asked = Some(now);
            let (worker, batch, spared) = (attempt.worker, attempt.batch, attempt.spared.take());
            if spared.is_some() {
                self.needs.set_waits_since(batch, spared);
            }
            self.order(worker, Order::Retract { attempt: id, tasks });
        }
        for id in spared {
            if let Some(attempt) = self.attempts.get_mut(&id) {
                attempt.spared.get_or_insert(now);
            }
        }
        if any {
            self.plan_balance(now);
        }
    }
}
