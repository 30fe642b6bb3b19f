//! What the leader learns from the log.

use alloc::vec::Vec;

use allhands_common::id::{AttemptId, BatchId, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::client::ToClient;
use allhands_common::wire::worker::{Order, Run};

use super::{Dispatcher, Timer};
use crate::{Action, Effect, State};

impl Dispatcher {
    pub(super) fn learn(
        &mut self,
        now: Instant,
        state: &State,
        effect: Effect,
        out: &mut Vec<Action>,
    ) {
        match effect {
            Effect::Keep { .. } | Effect::Drop { .. } => {}
            Effect::SessionOpened { session } => self.session_opened(session, out),
            Effect::SessionClosed { session } => {
                self.clients.remove(&session);
                let used = |id: &_| state.jobs.values().any(|job| job.program.id == *id);
                self.queues.retain_programs(used);
            }
            Effect::JobOpened { session, request, job } => {
                self.tell(session, ToClient::JobOpened { request, job }, out);
            }
            Effect::Refused { session, batch, request, reason } => {
                self.tell(session, ToClient::Refused { batch, request, reason }, out);
            }
            Effect::BatchOpened { batch } => self.watch_batch(state, batch),
            Effect::Appended { batch, range } => self.appended(state, batch, range, out),
            Effect::Sealed { batch } => {
                self.tell_appended(state, batch, out);
                self.requeue(state, batch);
                self.deliver(state, batch, out);
            }
            Effect::Repeated { batch } => self.tell_appended(state, batch, out),
            Effect::Ended { batch, range } => self.ended(state, batch, range, out),
            Effect::Settled { worker, attempt, batch, range } => {
                self.settled(state, worker, attempt, batch, range);
            }
            Effect::Charged { batch, index } => self.recharge(now, state, batch, index),
            Effect::Started { batch, attempt, worker, range } => {
                self.started(state, batch, attempt, worker, range);
            }
            Effect::BatchOver { batch } => self.batch_over(state, batch, out),
            Effect::Acknowledged { batch } => {
                self.requeue(state, batch);
                self.deliver(state, batch, out);
            }
            Effect::BatchForgotten { batch, .. } => self.batch_forgotten(batch),
            Effect::Roster { worker, present } => {
                if present && !self.workers.contains_key(&worker) {
                    self.timers.set(now + self.config.worker_lost, Timer::Worker(worker));
                }
            }
        }
    }

    fn appended(&mut self, state: &State, id: BatchId, range: TaskRange, out: &mut Vec<Action>) {
        if let Some(active) = self.active.get_mut(&id) {
            active.pending.insert(range);
        }
        if let Some(batch) = state.batches.get(&id)
            && let Some(limit) = batch.spec.policy.queue_timeout_ms
            && let Some(argument) = batch.arguments.last()
        {
            let late = batch.opened.after(u64::from(argument.after_ms) + limit);
            self.timers.set(self.instant_of(late), Timer::Batch(id));
        }
        self.requeue(state, id);
        self.tell_appended(state, id, out);
    }

    /// Tasks have an outcome: nobody need hold or await them.
    fn ended(&mut self, state: &State, id: BatchId, range: TaskRange, out: &mut Vec<Action>) {
        if let Some(active) = self.active.get_mut(&id) {
            active.pending.remove(range);
            active.charging.remove(range);
            let gone: Vec<u32> =
                active.delayed.range(range.start..range.end).map(|(index, _)| *index).collect();
            gone.iter().for_each(|index| {
                active.delayed.remove(index);
            });
        }
        self.requeue(state, id);
        self.deliver(state, id, out);
    }

    /// What an attempt reported is decided: its worker need not keep it.
    fn settled(
        &mut self,
        state: &State,
        worker: WorkerId,
        id: AttemptId,
        batch: BatchId,
        range: TaskRange,
    ) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.settling.remove(range);
            attempt.owed.remove(range);
            self.forget_if_over(id);
            // Whatever of it was not accepted has ended in another way, or waits again.
            self.put_back(state, batch, range);
        }
        self.order(worker, Order::Committed { attempt: id, range });
    }

    fn started(
        &mut self,
        state: &State,
        batch: BatchId,
        attempt: AttemptId,
        worker: WorkerId,
        range: TaskRange,
    ) {
        if !self.attempts.contains_key(&attempt) {
            return;
        }
        let segments = Vec::new();
        self.start_range(state, worker, Run { attempt, batch, range, segments, threads: 1, alone: false });
    }

    /// Nothing more of a batch runs: what is out is called back, its client is told.
    fn batch_over(&mut self, state: &State, id: BatchId, out: &mut Vec<Action>) {
        if state.batches.get(&id).is_some_and(|batch| batch.stopped().is_some()) {
            let out_there: Vec<(AttemptId, WorkerId)> = self
                .attempts
                .iter()
                .filter(|(_, attempt)| attempt.batch == id && !attempt.open.is_empty())
                .map(|(id, attempt)| (*id, attempt.worker))
                .collect();
            for (attempt, worker) in out_there {
                self.order(worker, Order::Cancel { attempt });
            }
            if let Some(active) = self.active.get_mut(&id) {
                active.pending = Default::default();
                active.delayed.clear();
            }
        }
        self.requeue(state, id);
        self.deliver(state, id, out);
    }

    fn batch_forgotten(&mut self, id: BatchId) {
        if let Some(active) = self.active.remove(&id)
            && let Some(place) = active.place
        {
            self.queues.remove(place, id);
        }
        self.deliveries.remove(&id);
        let knowing: Vec<WorkerId> = self
            .workers
            .iter_mut()
            .filter_map(|(worker, known)| known.known.remove(&id).then_some(*worker))
            .collect();
        knowing.into_iter().for_each(|worker| self.order(worker, Order::Forget { batch: id }));
    }
}
