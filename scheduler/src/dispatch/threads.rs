//! Which worker takes a range, with how many threads. A call that prefers threads has one executor at each
//! worker; its `n_jobs` is shared out among them, and never is more than that out.

use allhands_common::id::{BatchId, WorkerId};
use allhands_common::policy::Prefer;

use super::Dispatcher;
use super::batches::Active;
use super::cap::Out;
use super::queue::ClassId;
use crate::State;

/// Where a range goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) worker: WorkerId,
    /// Threads that take its tasks from one another.
    pub(super) threads: u16,
}

impl Dispatcher {
    /// Where the next range of a batch goes: to `worker`, which has room for its class, unless all its
    /// threads are with others. `None` when those have no room either.
    pub(super) fn seat(
        &self,
        state: &State,
        (class, id): (ClassId, BatchId),
        worker: WorkerId,
    ) -> Option<Seat> {
        let batch = state.batches.get(&id)?;
        let policy = &batch.spec.policy;
        let cpus = self.workers.get(&worker)?.total.cpus;
        if policy.prefer == Prefer::Processes {
            return Some(Seat { worker, threads: 1 });
        }
        if policy.n_jobs == -1 {
            return Some(Seat { worker, threads: short(cpus) });
        }
        let class = self.queues.classes.get(&class)?;
        let Out { ranges, lanes } = self.out_of_call(batch);
        let cap = policy.cap(self.slots).saturating_sub(ranges);
        let out: u32 = lanes.values().sum();
        let others = class.able.len().saturating_sub(lanes.len()).max(1);
        let share = cap.saturating_sub(out).div_ceil(u32::try_from(others).unwrap_or(u32::MAX));
        // Counted from the slots there are, it is as many as a worker has of them.
        let share = if policy.n_jobs < 0 { share.min(cpus) } else { share };
        if share > 0 && !lanes.contains_key(&worker) {
            return Some(Seat { worker, threads: short(share) });
        }
        // One that has threads of it may take a next range, with as many; with fewer, where a new leader
        // has counted too many, so that it comes down to the cap.
        lanes.iter().find_map(|(worker, threads)| {
            let threads = (*threads).min(cap.saturating_sub(out - threads));
            let known = self.workers.get(worker).filter(|known| known.usable())?;
            // It may be another batch of the call that it has them of, which needs less.
            let able = known.suits(&class.need, &class.program);
            let room = able && threads > 0 && known.has_room(&class.need, false);
            room.then_some(Seat { worker: *worker, threads: short(threads) })
        })
    }

    /// The threads of each range of a batch, and where.
    pub(super) fn lanes(&self, active: &Active) -> impl Iterator<Item = (WorkerId, u32)> {
        let attempts = active.attempts.iter().filter_map(|attempt| self.attempts.get(attempt));
        attempts
            .filter(|attempt| attempt.occupies)
            .map(|attempt| (attempt.worker, attempt.threads.into()))
    }
}

fn short(threads: u32) -> u16 {
    u16::try_from(threads).unwrap_or(u16::MAX).max(1)
}
