//! What the leader learns from the log.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, WorkerId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::Instant;
use allhands_common::wire::client::ToClient;
use allhands_common::wire::record::End;
use allhands_common::wire::worker::{Order, Run};

use super::attempt::UNSENT;
use super::limits::{could_start, passed};
use super::report::Origin;
use super::{Dispatcher, Timer};
use crate::{Action, Command, Effect, State};

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
            Effect::SessionOpened { session } => self.session_opened(state, session, out),
            Effect::SessionClosed { session } => {
                self.tell(session, ToClient::SessionExpired, out);
                self.clients.remove(&session);
                self.forget_awaited(session);
                self.watch_jobs_of(state, session);
                self.blobs.remove_session(session);
                self.end_all_keeps(session);
                self.needs.forget_session(session);
                let used = |id: &_| state.jobs.values().any(|job| job.program.id == *id);
                self.queues.retain_programs(used);
                self.costs.retain(|(program, _), _| used(program));
            }
            Effect::JobOpened { session, request, job } => {
                self.tell(session, ToClient::JobOpened { request, job }, out);
            }
            Effect::JobAttached { session, request, job } => {
                self.job_attached(state, session, request, job, out);
            }
            Effect::Refused { session, batch, request, reason } => {
                if let Some(batch) = batch.filter(|batch| !state.batches.contains_key(batch)) {
                    self.needs.forget(batch);
                }
                self.tell(session, ToClient::Refused { batch, request, reason }, out);
            }
            Effect::BatchOpened { batch, .. } => self.batch_opened(state, batch),
            Effect::Appended { batch, range } => self.appended(state, batch, range),
            Effect::Sealed { batch } => {
                // Who waits for a task that was to come waits in vain.
                let tasks = state.batches.get(&batch).map_or(0, |known| known.tasks);
                self.release(state, batch, TaskRange::new(tasks, u32::MAX));
                self.tell_appended(state, batch, 0);
                self.requeue(state, batch);
                self.deliver(state, batch, out);
            }
            Effect::Repeated { batch } => self.tell_appended(state, batch, 0),
            Effect::Ended { batch, range } => self.ended(state, batch, range, out),
            Effect::CalledOff { batch, range } => self.call_off(now, state, batch, range),
            Effect::Settled { worker, attempt, batch, range } => {
                self.settled(state, Origin { batch, attempt, worker }, range);
            }
            Effect::Superseded { task } => self.supersede(now, state, task, out),
            Effect::NotForwarded { task } => self.not_forwarded(state, task),
            Effect::Charged { batch, index } => self.recharge(now, state, batch, index),
            Effect::Started { batch, attempt, worker, range } => {
                self.started(now, state, Origin { batch, attempt, worker }, range, out);
            }
            Effect::Called { batch, attempt, worker, new } => {
                if new {
                    self.watch_batch(state, batch);
                }
                self.order(worker, Order::Opened { batch, attempt });
            }
            Effect::BatchOver { batch } => self.batch_over(state, batch, out),
            Effect::Acknowledged { batch } => {
                self.requeue(state, batch);
                self.deliver(state, batch, out);
            }
            Effect::BatchForgotten { batch, job, sequence, call } => {
                self.batch_forgotten(state, batch, (job, sequence, call));
            }
            Effect::Roster { worker, present } => {
                self.roster_changed(now, worker, present, out);
                self.name_worker(state, worker, out);
            }
        }
    }

    fn batch_opened(&mut self, state: &State, id: BatchId) {
        self.watch_batch(state, id);
        let argument = state.batches.get(&id).and_then(|batch| batch.arguments.first());
        self.tell_appended(state, id, argument.map_or(0, |argument| argument.bytes.into()));
    }

    fn appended(&mut self, state: &State, id: BatchId, range: TaskRange) {
        if let Some(active) = self.active.get_mut(&id) {
            active.pending.insert(range);
        }
        self.depend(state, id, range);
        self.put_off(state, id, range);
        if let Some(batch) = state.batches.get(&id)
            && let Some(argument) = batch.arguments.last()
        {
            let policy = &batch.spec.policy;
            let late =
                policy.queue_timeout_ms.map(|limit| could_start(batch, argument).after(limit));
            let after_ms = u64::from(argument.after_ms);
            let deadline = policy.task_deadline_ms.map(|limit| after_ms.saturating_add(limit));
            let deadline = deadline.map(|limit| passed(batch.opened, limit));
            for moment in late.into_iter().chain(deadline) {
                self.timers.set(self.instant_of(moment), Timer::Batch(id));
            }
        }
        self.requeue(state, id);
        let bytes = state.batches.get(&id).and_then(|batch| batch.arguments.last());
        self.tell_appended(state, id, bytes.map_or(0, |argument| argument.bytes.into()));
    }

    /// Tasks have an outcome: nobody need hold or await them.
    fn ended(&mut self, state: &State, id: BatchId, range: TaskRange, out: &mut Vec<Action>) {
        if let Some(active) = self.active.get_mut(&id) {
            if let Some(batch) = state.batches.get(&id) {
                active.idle(range).for_each(|idle| {
                    self.records.not_run((id, batch), idle, End::NotRun);
                });
            }
            active.pending.remove(range);
            active.charging.remove(range);
            active.wait_no_more(range);
            for times in [&mut active.delayed, &mut active.ready] {
                let gone = times.range(range.start..range.end).map(|(index, _)| *index);
                let gone: Vec<u32> = gone.collect();
                gone.iter().for_each(|index| _ = times.remove(index));
            }
        }
        self.release(state, id, range);
        self.needs.ended(id, range);
        self.requeue(state, id);
        self.deliver(state, id, out);
    }

    /// What an attempt reported is decided: its worker need not keep it.
    fn settled(&mut self, state: &State, origin: Origin, range: TaskRange) {
        let Origin { batch, attempt, worker } = origin;
        if let Some(known) = self.attempts.get_mut(&attempt) {
            let decided: Vec<TaskRange> = known.settling.intersection(range).collect();
            known.settling.remove(range);
            self.records.committed(attempt, range);
            self.forget_if_over(attempt);
            // Whatever of it was not accepted has ended in another way, or waits again.
            decided.into_iter().for_each(|part| self.put_back(state, batch, part));
        }
        self.order(worker, Order::Committed { attempt, range });
    }

    /// A range that must not run twice is written down: now it may be sent.
    fn started(
        &mut self,
        now: Instant,
        state: &State,
        origin: Origin,
        range: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let Origin { batch, attempt, worker } = origin;
        let Some(known) = self.attempts.get(&attempt).filter(|known| known.sent == UNSENT) else {
            return;
        };
        // The arguments of a task that was cancelled may be gone.
        let whole = !known.called_off;
        if whole && self.workers.get(&worker).is_some_and(|known| known.present) {
            let (segments, threads) = (Vec::new(), known.threads);
            let (given, rounds) = (Vec::new(), Vec::new());
            let alone = false;
            let task_ns = None;
            let run =
                Run { attempt, batch, range, segments, threads, alone, task_ns, given, rounds };
            self.send_run(state, worker, run);
        } else {
            self.withdraw(state, attempt, range, false);
            self.put_back_unstarted(now, state, origin, range, out);
        }
    }

    /// Nothing more of a batch runs: what is out is called back, its client is told.
    fn batch_over(&mut self, state: &State, id: BatchId, out: &mut Vec<Action>) {
        if state.batches.get(&id).is_some_and(|batch| batch.stopped().is_some()) {
            self.call_back(state, id);
            self.note_not_run(state, id);
            if let Some(active) = self.active.get_mut(&id) {
                active.pending = RangeSet::new();
                active.delayed.clear();
                active.ready.clear();
                active.wait_no_more(TaskRange::new(0, u32::MAX));
            }
            self.release(state, id, TaskRange::new(0, u32::MAX));
            self.needs.forget(id);
        }
        if let Some(job) = state.batches.get(&id).map(|batch| batch.job) {
            self.watch_job(state, job);
        }
        self.requeue(state, id);
        self.deliver(state, id, out);
    }

    /// A batch was stopped: what of it was with nobody ends without an attempt.
    fn note_not_run(&mut self, state: &State, id: BatchId) {
        let Some(batch) = state.batches.get(&id) else { return };
        let whole = TaskRange::new(0, batch.tasks);
        let idle: Vec<TaskRange> = match self.active.get(&id) {
            Some(active) => active.idle(whole).collect(),
            None => batch.unfinished(whole).iter().collect(),
        };
        for range in idle {
            self.records.not_run((id, batch), range, End::NotRun);
        }
    }

    /// Nobody wants a batch's attempts any more.
    fn call_back(&mut self, state: &State, id: BatchId) {
        let attempts = self.active.get(&id).map(|active| active.attempts.clone());
        for attempt in attempts.unwrap_or_default() {
            let Some(known) = self.attempts.get(&attempt) else { continue };
            let (worker, open) = (known.worker, known.open.clone());
            if known.sent == UNSENT {
                open.iter().for_each(|range| self.withdraw(state, attempt, range, false));
            } else if !open.is_empty() {
                self.order(worker, Order::Cancel { attempt });
            }
        }
    }

    fn batch_forgotten(
        &mut self,
        state: &State,
        id: BatchId,
        (job, sequence, call): (JobId, u32, u32),
    ) {
        self.call_back(state, id);
        // What a task has called may be the last of a job to end, and is gone at once.
        if !cfg!(plant = "last_call_not_watched") {
            self.watch_job(state, job);
        }
        if !state.jobs.contains_key(&job) {
            self.queues.forget_job(job);
        }
        self.deliveries.remove(&id);
        self.release(state, id, TaskRange::new(0, u32::MAX));
        self.needs.forget(id);
        self.records.forget_batch(id);
        self.forget_results(id);
        let Some(active) = self.active.remove(&id) else {
            self.uncap(state, id, (job, call), 0);
            return self.queues.forget_untouched(job, sequence, id);
        };
        if let Some(place) = active.place {
            self.queues.remove(place, id);
        }
        for worker in active.known_by {
            if let Some(known) = self.workers.get_mut(&worker) {
                known.known.remove(&id);
            }
            self.order(worker, Order::Forget { batch: id });
        }
        self.uncap(state, id, (job, call), active.ranges);
    }

    /// A worker has come to the roster or left it.
    fn roster_changed(
        &mut self,
        now: Instant,
        worker: WorkerId,
        present: bool,
        out: &mut Vec<Action>,
    ) {
        match self.workers.get(&worker) {
            None if present => {
                self.timers.set(now + self.config.worker_lost, Timer::Worker(worker));
            }
            // It came back while the entry that it had left was on its way.
            Some(known) if !present && !known.given_up => {
                out.push(Action::Propose(Command::JoinWorker {
                    worker,
                    boot: known.boot,
                    name: known.name.clone(),
                    resources: known.total.clone(),
                }));
            }
            Some(_) | None => {}
        }
    }
}
