//! What a worker says that it holds against what the leader believes.
//!
//! Only what was sent at or below the last message that the worker has processed and is in no list is
//! lost: it waits again. A new leader adopts what it did not know of; where a task turns up twice, the
//! attempt that was there first stays.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use allhands_common::id::{AttemptId, WorkerId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Held, Order};

use super::{Attempt, Dispatcher};
use crate::{Action, State};

impl Dispatcher {
    /// Compares an inventory with the books.
    pub(super) fn reconcile(
        &mut self,
        state: &State,
        id: WorkerId,
        processed: u64,
        inventory: &[Held],
    ) {
        let Some(worker) = self.workers.get(&id) else { return };
        let listed: BTreeMap<AttemptId, RangeSet> = list(inventory);
        let mut missing: Vec<(AttemptId, TaskRange)> = Vec::new();
        for attempt in &worker.attempts {
            let Some(known) = self.attempts.get(attempt).filter(|known| known.sent <= processed)
            else {
                continue;
            };
            let there = listed.get(attempt);
            for range in known.open.iter().chain(known.owed.iter()) {
                match there {
                    None => missing.push((*attempt, range)),
                    Some(there) => missing.extend(there.gaps(range).map(|gap| (*attempt, gap))),
                }
            }
        }
        for (attempt, range) in missing {
            self.lost_on_the_way(state, id, attempt, range);
        }
        for held in inventory {
            match self.attempts.get_mut(&held.attempt) {
                Some(attempt) if attempt.worker == id => attempt.running |= held.running,
                Some(_) | None => self.disown(state, id, held),
            }
        }
    }

    /// A range was sent, and the worker does not have it.
    fn lost_on_the_way(
        &mut self,
        state: &State,
        worker: WorkerId,
        id: AttemptId,
        range: TaskRange,
    ) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let was_open = !attempt.open.is_empty();
        attempt.open.remove(range);
        attempt.owed.remove(range);
        attempt.retracting = false;
        let (batch, need) = (attempt.batch, attempt.need.clone());
        let closed = was_open && attempt.open.is_empty();
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.known.remove(&batch);
        }
        self.forget_if_over(id);
        self.release_slot(state, batch, worker, &need, closed);
        self.put_back(state, batch, range);
    }

    /// A worker holds an attempt that is not in the books: it is to drop it, but for outcomes that
    /// may still count.
    fn disown(&mut self, state: &State, worker: WorkerId, held: &Held) {
        if !held.open.is_empty() {
            self.order(worker, Order::Cancel { attempt: held.attempt });
        }
        for range in &held.owed {
            let wanted = state
                .batches
                .get(&held.batch)
                .is_some_and(|batch| batch.stopped().is_none() && !batch.unfinished(*range).is_empty());
            if !wanted {
                let order = Order::Committed { attempt: held.attempt, range: *range };
                self.order(worker, order);
            }
        }
    }

    /// Takes over what a worker brings from an earlier leader, or over a broken connection.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        state: &State,
        worker: WorkerId,
        inventory: &[Held],
    ) {
        for held in inventory {
            if self.attempts.contains_key(&held.attempt) {
                continue;
            }
            let Some(batch) = state.batches.get(&held.batch).filter(|b| b.stopped().is_none()) else {
                continue;
            };
            let policy = &batch.spec.policy;
            let need = Resources { cpus: policy.resources.cpus, ..policy.resources.clone() };
            let Some(active) = self.activate(state, held.batch) else { continue };
            let mut free = |range: TaskRange| -> RangeSet {
                let wanted = batch.unfinished(range);
                let mine: RangeSet = wanted.iter().flat_map(|part| {
                    active.held.gaps(part).collect::<Vec<_>>()
                }).collect();
                for part in mine.iter() {
                    active.pending.remove(part);
                    active.charging.remove(part);
                    active.held.insert(part);
                    let gone: Vec<u32> = active.delayed.range(part.start..part.end).map(|(i, _)| *i).collect();
                    gone.iter().for_each(|index| { active.delayed.remove(index); });
                }
                mine
            };
            let open: RangeSet =
                held.open.iter().flat_map(|range| free(*range).iter().collect::<Vec<_>>()).collect();
            let owed: RangeSet = held.owed.iter().flat_map(|range| free(*range).iter().collect::<Vec<_>>()).collect();
            if open.is_empty() && owed.is_empty() {
                continue;
            }
            if !open.is_empty() {
                active.ranges += 1;
                self.queues.count(batch.job, true);
                self.change_worker(worker, |known| known.held.add(&need));
            }
            self.change_worker(worker, |known| {
                known.attempts.insert(held.attempt);
            });
            let attempt = Attempt {
                batch: held.batch,
                worker,
                open,
                owed,
                settling: RangeSet::new(),
                sent: 0,
                running: held.running,
                retracting: false,
                since: now,
                need,
            };
            self.attempts.insert(held.attempt, attempt);
            self.requeue(state, held.batch);
        }
    }

    /// The roster had its time: what nobody brought is given out anew.
    pub(super) fn finish_resume(&mut self, state: &State, out: &mut Vec<Action>) {
        if self.awaited.take().is_none() {
            return;
        }
        for (id, batch) in &state.batches {
            let Some(progress) = batch.progress() else { continue };
            let ours: Vec<_> = progress
                .started
                .iter()
                .flat_map(|started| batch.unfinished(started.range).iter().collect::<Vec<_>>().into_iter().map(move |range| (started, range)))
                .collect();
            for (started, range) in ours {
                let held = self.active.get(id).map(|active| active.held.clone()).unwrap_or_default();
                for part in held.gaps(range) {
                    let cause = allhands_common::failure::Cause::Abandoned;
                    let (worker, attempt) = (Some(started.worker), Some(started.attempt));
                    self.fail(state, *id, part, cause, worker, attempt, out);
                }
            }
        }
    }
}

/// Everything that an inventory lists, by attempt.
fn list(inventory: &[Held]) -> BTreeMap<AttemptId, RangeSet> {
    let mut listed: BTreeMap<AttemptId, RangeSet> = BTreeMap::new();
    for held in inventory {
        let set = listed.entry(held.attempt).or_default();
        held.open.iter().chain(&held.owed).for_each(|range| set.insert(*range));
    }
    listed
}
