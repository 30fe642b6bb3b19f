//! What the leader says.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::Segment;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{ALL_TASKS, Ended, How, Order, Run, ToWorker};

use super::executors::Loaded;
use super::holdings::{Attempt, Piece};
use super::{Agent, AgentAction, Share};

/// How long a cancelled task may go on before its executor is killed.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn obey(&mut self, now: Instant, message: ToWorker, out: &mut Vec<AgentAction>) {
        match message {
            ToWorker::Registered { term } if term == self.term => {
                self.registered = true;
                self.alone_since = None;
                (self.processed, self.heartbeats) = (0, 0);
                self.next_heartbeat = now + Duration::from_millis(super::HEARTBEAT_MS);
                // What was reported and not sent is in what is owed, or told by the inventory.
                self.reports.clear();
                self.repeat_calls(true);
                self.repeat_cancels(out);
                if !cfg!(plant = "owed_not_repeated") {
                    self.repeat_owed();
                }
                // The leader counts on nothing that it has not sent in this registration.
                let known: Vec<BatchId> = self.batches.keys().copied().collect();
                known.into_iter().for_each(|batch| self.forget_batch(batch));
            }
            // What was overtaken counts as lost, what comes twice has come: the inventory says so.
            ToWorker::Orders { term, number, orders }
                if term == self.term && self.registered && number > self.processed =>
            {
                self.processed = number;
                for order in orders {
                    self.carry_out(now, order, out);
                }
            }
            ToWorker::Registered { .. }
            | ToWorker::Orders { .. }
            | ToWorker::Leader { .. }
            | ToWorker::ProgramChunk { .. }
            | ToWorker::ProgramUnknown { .. }
            | ToWorker::Holders { .. } => {}
        }
    }

    fn carry_out(&mut self, now: Instant, order: Order, out: &mut Vec<AgentAction>) {
        match order {
            Order::Batch(shared) => {
                self.forgotten.remove(&shared.batch);
                self.batches.insert(shared.batch, Arc::from(shared));
            }
            Order::Run(run) => self.take_run(now, run),
            Order::Retract { attempt, tasks } => self.give_back(attempt, tasks, out),
            Order::Cancel { attempt } => self.cancel(now, attempt, out),
            Order::Committed { attempt, range } => self.settle(attempt, range),
            Order::Give(given) => self.give(&given, out),
            Order::Opened { batch, attempt } => self.opened((batch, attempt), out),
            Order::Forget { batch } => self.forget_batch(batch),
            // The shell has the data.
            Order::Keep { .. } | Order::LetGo { .. } | Order::Fetched { .. } => {}
        }
    }

    /// No range of a batch will follow: what its tasks share goes with the last attempt.
    pub(super) fn forget_batch(&mut self, batch: BatchId) {
        if self.attempts.values().any(|attempt| attempt.batch == batch) {
            self.forgotten.insert(batch);
        } else {
            self.batches.remove(&batch);
            self.costs.remove(&batch);
            self.forgotten.remove(&batch);
        }
    }

    fn take_run(&mut self, now: Instant, run: Run) {
        let Run { attempt: id, batch, range, segments, threads, alone, task_ns, given, rounds } =
            run;
        if self.attempts.contains_key(&id) {
            return;
        }
        let refuse = |agent: &mut Self, how| {
            agent.reports.push(Ended { attempt: id, batch, range, how });
        };
        if self.draining || !self.batches.contains_key(&batch) {
            // Never heard of the batch: its order was lost, the leader will send it again.
            return refuse(self, How::Returned);
        }
        let mut arguments = Vec::with_capacity(segments.len());
        let mut first = range.start;
        for bytes in segments {
            let Ok(segment) = Segment::parse(bytes.bytes) else { break };
            let tasks = segment.tasks();
            arguments.push((first, segment));
            first = first.saturating_add(tasks);
        }
        if first != range.end {
            let message = "the leader sent arguments that are none: upgrade the worker".into();
            return refuse(self, How::Refused { cause: Cause::Program { message } });
        }
        let open = RangeSet::of(range);
        self.attempts.insert(
            id,
            Attempt {
                batch,
                range,
                open,
                arguments,
                threads,
                alone,
                cancelled: false,
                wanted_back: 0,
                task_ns,
                given,
                rounds,
                since: now,
            },
        );
        self.waiting.push_back(Piece { attempt: id, range });
    }

    /// The leader wants up to `tasks` unstarted tasks of an attempt back.
    pub(super) fn give_back(&mut self, id: AttemptId, tasks: u32, out: &mut Vec<AgentAction>) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        attempt.wanted_back = tasks;
        self.unload(id);
        self.give_back_waiting(id);
        let wanted = self.attempts.get(&id).map_or(0, |attempt| attempt.wanted_back);
        let (all, fixed) = (tasks == ALL_TASKS, self.is_fixed(id));
        let mut asked = false;
        for (executor, known) in self.executors.iter().filter(|_| wanted > 0) {
            for (place, Loaded { piece, .. }) in known.loads().iter().enumerate() {
                let next = place > 0;
                if piece.attempt != id || fixed && !next && !all {
                    continue;
                }
                let whole = all || next && wanted >= piece.range.len();
                let share = if whole { Share::All } else { Share::Half };
                out.push(AgentAction::Take { executor: *executor, attempt: id, share });
                asked = true;
            }
        }
        if !asked {
            self.want_no_more(id);
        }
    }

    /// Gives waiting pieces of an attempt back, last first, as far as they are wanted.
    pub(super) fn give_back_waiting(&mut self, id: AttemptId) {
        let fixed = self.is_fixed(id);
        while let Some(attempt) = self.attempts.get_mut(&id).filter(|a| a.wanted_back > 0) {
            let Some(at) = self.waiting.iter().rposition(|piece| piece.attempt == id) else {
                return;
            };
            let piece = &mut self.waiting[at];
            let (all, tasks) =
                (attempt.wanted_back == ALL_TASKS, attempt.wanted_back.min(piece.range.len()));
            // A range of fixed length goes back whole: the leader would cut the rest otherwise.
            if fixed && !all && (tasks < piece.range.len() || piece.range != attempt.range) {
                return;
            }
            let back = TaskRange::new(piece.range.end - tasks, piece.range.end);
            if !all {
                attempt.wanted_back -= tasks;
            }
            piece.range.end = back.start;
            if piece.range.is_empty() {
                self.waiting.remove(at);
            }
            self.end(id, back, How::Returned);
        }
    }

    /// An executor has answered for an attempt: no more than that is wanted. Where all is wanted, others
    /// may have to answer yet.
    pub(super) fn want_no_more(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id).filter(|a| a.wanted_back != ALL_TASKS) {
            attempt.wanted_back = 0;
        }
    }

    fn is_fixed(&self, id: AttemptId) -> bool {
        let batch: Option<BatchId> = self.attempts.get(&id).map(|attempt| attempt.batch);
        batch
            .and_then(|batch| self.batches.get(&batch))
            .is_some_and(|shared| shared.spec.policy.batch_size.is_some())
    }

    /// The leader wants an attempt stopped.
    fn cancel(&mut self, now: Instant, id: AttemptId, out: &mut Vec<AgentAction>) {
        let Some(attempt) = self.attempts.get_mut(&id).filter(|attempt| !attempt.cancelled) else {
            return;
        };
        attempt.cancelled = true;
        self.kills.insert(id, now + CANCEL_GRACE);
        self.unload(id);
        let waiting: Vec<Piece> =
            self.waiting.iter().filter(|piece| piece.attempt == id).copied().collect();
        self.waiting.retain(|piece| piece.attempt != id);
        for piece in waiting {
            self.end(id, piece.range, How::Cancelled);
        }
        for (executor, known) in &self.executors {
            let executor = *executor;
            if known.works_on(id) {
                out.push(AgentAction::Take { executor, attempt: id, share: Share::All });
            }
            if known.has_any(id) {
                out.push(AgentAction::Cancel { executor, attempt: id });
            }
        }
    }

    /// Kills the executors of tasks that were cancelled and go on.
    pub(super) fn kill_overdue(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        let due = self.kills.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
        let due: Vec<AttemptId> = due.collect();
        for id in due {
            self.kills.remove(&id);
            if !self.attempts.contains_key(&id) {
                continue;
            }
            let working = self.executors.iter().filter(|(_, known)| known.has_any(id));
            out.extend(working.map(|(executor, _)| AgentAction::Kill { executor: *executor }));
        }
    }

    /// There has been no leader for too long: nobody wants any of this.
    pub(super) fn end_everything(&mut self, out: &mut Vec<AgentAction>) {
        self.waiting.clear();
        self.attempts.clear();
        self.kills.clear();
        self.owed.clear();
        self.calls.clear();
        self.deferred.clear();
        out.extend(self.executors.keys().map(|executor| AgentAction::Kill { executor: *executor }));
    }
}
