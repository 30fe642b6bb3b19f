//! What a worker says that it holds against what the leader believes.
//!
//! Only what was sent at or below the last message that the worker has processed and is in no list is
//! lost: it waits again. A new leader adopts what it did not know of; where a task turns up twice, the
//! attempt that was there first stays.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, TaskId, WorkerId};
use allhands_common::policy::{Policy, Prefer};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::Instant;
use allhands_common::wire::worker::{ALL_TASKS, Blocked, Held, Order};

use super::pump::occupied;
use super::report::Origin;
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
        out: &mut Vec<Action>,
    ) {
        self.forget_given(id, processed);
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
        for (attempt, range) in missing.into_iter().filter(|_| !cfg!(plant = "no_reconciliation")) {
            self.lost_on_the_way(state, id, attempt, range, out);
        }
        for held in inventory {
            let batch = state.batches.get(&held.batch);
            let unwanted = batch.is_none_or(|batch| batch.stopped().is_some());
            match self.attempts.get_mut(&held.attempt).filter(|attempt| attempt.worker == id) {
                Some(attempt) if !unwanted => {
                    if held.running && !attempt.running {
                        attempt.running = true;
                        self.records.runs(held.attempt);
                    }
                    self.take_blocked(state, id, held);
                }
                Some(_) | None => self.disown(state, id, held, processed == 0),
            }
        }
    }

    /// A worker has processed the messages up to a number: who waits there for an outcome that came with one
    /// of them has not got it, and is given it again.
    pub(super) fn forget_given(&mut self, id: WorkerId, processed: u64) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.given.retain(|_, number| *number > processed);
        }
    }

    /// Which tasks of an attempt wait for others: what the worker says counts.
    fn take_blocked(&mut self, state: &State, worker: WorkerId, held: &Held) {
        let Some(attempt) = self.attempts.get_mut(&held.attempt) else { return };
        let mut blocked = RangeSet::new();
        for Blocked { index, .. } in held.blocked.iter().filter(|b| attempt.open.contains(b.index))
        {
            blocked.insert(TaskRange::new(*index, *index + 1));
        }
        if blocked.is_empty() && attempt.blocked.is_empty() {
            return;
        }
        let gone: Vec<TaskRange> =
            attempt.blocked.iter().flat_map(|was| blocked.gaps(was).collect::<Vec<_>>()).collect();
        attempt.blocked = blocked;
        gone.into_iter().for_each(|range| self.unblock(held.batch, range));
        self.occupy(state, held.attempt);
        for Blocked { index, on, .. } in &held.blocked {
            let there =
                self.attempts.get(&held.attempt).is_some_and(|a| a.blocked.contains(*index));
            if there && !cfg!(plant = "give_not_repeated") {
                let task = TaskId { batch: held.batch, index: *index };
                self.block(state, worker, task, on.clone());
            }
        }
    }

    /// A range was sent, and the worker does not have it: the message was lost, or the news of its end.
    fn lost_on_the_way(
        &mut self,
        state: &State,
        worker: WorkerId,
        attempt: AttemptId,
        range: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let Some(batch) = self.attempts.get(&attempt).map(|attempt| attempt.batch) else { return };
        self.withdraw(state, attempt, range, false);
        self.unknow(worker, batch);
        if state.batches.get(&batch).is_some_and(|known| !known.spec.policy.idempotent) {
            // It may have been started: nobody can say any more.
            self.fail(state, Origin { batch, attempt, worker }, range, Cause::Abandoned, out);
        } else {
            self.put_back(state, batch, range);
        }
    }

    /// A worker holds an attempt that nobody wants: it is to drop it. What it owes has been reported
    /// before and is decided, unless it has `just_come`: then the report follows.
    fn disown(&mut self, state: &State, worker: WorkerId, held: &Held, just_come: bool) {
        if !held.open.is_empty() {
            self.order(worker, Order::Cancel { attempt: held.attempt });
        }
        for range in &held.owed {
            let batch = state.batches.get(&held.batch).filter(|_| just_come);
            let wanted = batch.is_some_and(|batch| {
                batch.stopped().is_none() && !batch.unfinished(*range).is_empty()
            });
            if !wanted {
                let order = Order::Committed { attempt: held.attempt, range: *range };
                self.order(worker, order);
            }
        }
    }

    /// Takes over what a worker brings from an earlier leader, or from before it was given up.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        state: &State,
        worker: WorkerId,
        inventory: &[Held],
    ) {
        let Some(total) = self.workers.get(&worker).map(|known| known.total.clone()) else {
            return;
        };
        let roster = u32::try_from(state.workers.len()).unwrap_or(u32::MAX).max(1);
        for held in inventory {
            if self.attempts.contains_key(&held.attempt) {
                continue;
            }
            let Some(batch) = state.batches.get(&held.batch).filter(|b| b.stopped().is_none())
            else {
                continue;
            };
            let Some(job) = state.job_of(batch) else { continue };
            let policy = &batch.spec.policy;
            let (need, class) = (occupied(policy, &total), self.class_of(job, policy));
            let Some(active) = self.activate(state, held.batch) else { continue };
            let mut take = |ranges: &[TaskRange]| -> RangeSet {
                let mut free = RangeSet::new();
                for range in ranges {
                    for part in batch.unfinished(*range).iter() {
                        active.held.gaps(part).for_each(|part| free.insert(part));
                    }
                }
                free.iter().for_each(|part| active.hold(part));
                free
            };
            let (open, owed) = (take(&held.open), take(&held.owed));
            if open.is_empty() && owed.is_empty() {
                continue;
            }
            let listed: u32 = held.open.iter().map(|range| range.len()).sum();
            let behind = !open.is_empty() && open.len() < listed;
            active.attempts.insert(held.attempt);
            let mut blocked = RangeSet::new();
            for index in held.blocked.iter().map(|blocked| blocked.index) {
                blocked.insert(TaskRange::new(index, index + 1));
            }
            let blocked: RangeSet =
                open.iter().flat_map(|o| blocked.intersection(o).collect::<Vec<_>>()).collect();
            let runs = open.len() > blocked.len();
            if runs {
                self.queues.count(batch.job, true);
            }
            self.change_worker(worker, |known| {
                known.attempts.insert(held.attempt);
                if runs {
                    known.held.add(&need);
                    known.long += 1;
                }
            });
            let attempt = Attempt {
                batch: held.batch,
                job: batch.job,
                class,
                worker,
                open,
                blocked,
                occupies: runs,
                owed,
                settling: RangeSet::new(),
                sent: 0,
                running: held.running,
                asked: behind.then_some(now),
                spared: None,
                called_off: false,
                since: now,
                short: false,
                threads: threads(policy, roster),
                need,
            };
            let parts = attempt.open.iter().chain(attempt.owed.iter());
            for range in parts {
                let (of, by) = ((held.batch, batch), (held.attempt, worker));
                self.records.assigned(of, range, by, held.since_us);
            }
            for Blocked { index, on, since_us } in &held.blocked {
                self.records.blocked(held.attempt, *index, on, (*since_us, None));
            }
            self.attempts.insert(held.attempt, attempt);
            if behind {
                // Some of it has ended otherwise, was cancelled perhaps, and may go on for ever: what
                // waits behind that comes back. With nothing open it is one that nobody wants.
                let (attempt, tasks) = (held.attempt, ALL_TASKS);
                self.order(worker, Order::Retract { attempt, tasks });
            }
            match runs {
                true => self.count_range(state, held.batch, true),
                false => self.requeue(state, held.batch),
            }
        }
    }

    /// The roster had its time: what nobody brought is given out anew, but for what may have been
    /// started and must not be again.
    pub(super) fn finish_resume(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        if self.awaited.take().is_none() {
            return;
        }
        for (id, batch) in &state.batches {
            let Some(progress) = batch.progress() else { continue };
            for started in &progress.started {
                let held =
                    self.active.get(id).map(|active| active.held.clone()).unwrap_or_default();
                let unfinished = batch.unfinished(started.range);
                let gone: Vec<TaskRange> = unfinished
                    .iter()
                    .flat_map(|part| held.gaps(part).collect::<Vec<_>>())
                    .collect();
                for part in gone {
                    let origin =
                        Origin { batch: *id, attempt: started.attempt, worker: started.worker };
                    self.fail(state, origin, part, Cause::Abandoned, out);
                }
            }
        }
        self.supersede_all(now, state, out);
    }
}

/// How many threads an earlier leader gave each of so many workers, at most: nobody says how many.
fn threads(policy: &Policy, workers: u32) -> u16 {
    match (policy.prefer, u32::try_from(policy.n_jobs)) {
        (Prefer::Threads, Ok(wanted)) => {
            u16::try_from(wanted.div_ceil(workers)).unwrap_or(u16::MAX)
        }
        (Prefer::Threads, Err(_)) | (Prefer::Processes, _) => 1,
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
