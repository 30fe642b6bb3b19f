//! Carries out the dispatcher's actions: the only place from which the loop has side effects.

use allhands_common::bulk::Bulk;
use allhands_common::codec;
use allhands_common::execution::{Awaited, Given};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{BatchId, SegmentId};
use allhands_common::limit::ENTRY_BYTES_MAX;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, Segment, SegmentBuilder};
use allhands_common::wire::client::{Appended, ToClient};
use allhands_common::wire::worker::{Order, ToWorker};
use allhands_scheduler::{Action, Command, Located, OutcomeSegment};
use bytes::Bytes;

use crate::proposals::Oversized;
use crate::shell::Shell;

impl Shell {
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Propose(command) => {
                if let Err(oversized) = self.proposals.push(self.now(), command) {
                    self.refuse(oversized);
                }
            }
            Action::Welcome { worker } => {
                let Some(term) = self.dispatcher.as_ref().map(|d| d.term()) else { return };
                self.seats.order(worker, ToWorker::Registered { term });
            }
            Action::Order { worker, number, mut orders } => {
                let Some(term) = self.dispatcher.as_ref().map(|d| d.term()) else { return };
                orders.iter_mut().for_each(|order| self.fill(order));
                self.seats.order(worker, ToWorker::Orders { term, number, orders });
            }
            Action::Holders { worker, blob, holders } => {
                self.seats.order(worker, ToWorker::Holders { blob, holders });
            }
            Action::Give { session, of } => {
                let owner = self.state.sessions.get(&session).map(|known| known.owner.as_str());
                let given = of.into_iter().map(|of| Given { of, outcome: self.outcome(of, owner) });
                let given = given.collect();
                self.seats.tell(session, ToClient::Given(given));
            }
            Action::Tell { session, message } => self.seats.tell(session, message),
            Action::Deliver { session, batch, sequence, outcome, last } => {
                let message = match self.outcome_bytes(outcome) {
                    Ok(segment) => {
                        let range = outcome.tasks;
                        let segment = segment.into();
                        ToClient::Outcomes { batch, sequence, range, segment, last }
                    }
                    Err(reason) => {
                        let segment = outcome.segment;
                        ToClient::SegmentUnreadable { batch, segment, reason }
                    }
                };
                self.seats.tell(session, message);
            }
        }
    }

    /// A command that no entry can hold: whoever asked is told, instead of an entry that never passes.
    fn refuse(&mut self, Oversized { command, bytes }: Oversized) {
        let reason = |what: &str| {
            format!(
                "{what} take {bytes} bytes, more than the {ENTRY_BYTES_MAX} of a log entry: put \
                 large values into files, or make the environment smaller"
            )
        };
        match *command {
            Command::OpenBatch { session, batch, .. } => {
                let reason = reason("a call's context, environment and names");
                let message = ToClient::Refused { batch: Some(batch), request: None, reason };
                self.seats.tell(session, message);
            }
            Command::Append { batch, .. } => {
                let reason = reason("the arguments of one message");
                let known = self.state.batches.get(&batch);
                let job = known.and_then(|known| self.state.job_of(known));
                let (Some(known), Some(job)) = (known, job) else {
                    // It is being opened, and its client is told when it is stopped. This is short.
                    let stop = Command::Stop { batch, rest: cancelled(reason) };
                    _ = self.proposals.push(self.now(), stop);
                    return;
                };
                // So that it knows that there is something to cancel.
                let appended = Appended { batch, tasks: known.tasks, sealed: known.sealed };
                self.seats.tell(job.session, ToClient::Appended(vec![appended]));
                let message = ToClient::Refused { batch: Some(batch), request: None, reason };
                self.seats.tell(job.session, message);
            }
            Command::OpenJob { session, request, .. } => {
                let reason = reason("a program's names");
                let message = ToClient::Refused { batch: None, request: Some(request), reason };
                self.seats.tell(session, message);
            }
            Command::Finish { batch, attempt, worker, range, .. } => {
                let cause = Cause::Program { message: reason("the results of one message") };
                let (worker, attempt) = (Some(worker), Some(attempt));
                let failed = Failed { cause, worker, attempt, tries: 1 };
                let fail = Command::Fail { batch, range, failed };
                // It is short, so it fits.
                _ = self.proposals.push(self.now(), fail);
            }
            other => {
                tracing::error!(command = ?other, bytes, "a command is too long: it is dropped")
            }
        }
    }

    /// Puts the bytes into an order.
    fn fill(&self, order: &mut Order) {
        match order {
            Order::Run(run) => {
                for (segment, rows) in self.arguments(run.batch, run.range) {
                    match self.read(segment, rows) {
                        Ok(bytes) => run.segments.push(bytes.into()),
                        // The worker finds that arguments are missing and refuses the range.
                        Err(error) => tracing::error!(%segment, error, "arguments cannot be read"),
                    }
                }
                for given in &mut run.given {
                    given.outcome = self.outcome(given.of, None);
                }
            }
            Order::Give(given) => given.outcome = self.outcome(given.of, None),
            Order::Batch(shared) => {
                let batch = self.state.batches.get(&shared.batch);
                let context = batch.and_then(|batch| batch.progress()).and_then(|p| p.context);
                if let Some(segment) = context {
                    match self.segments.read(segment) {
                        Ok(bytes) => shared.context = bytes.into(),
                        Err(error) => tracing::error!(%error, "a context cannot be read"),
                    }
                }
            }
            Order::Retract { .. }
            | Order::Cancel { .. }
            | Order::Committed { .. }
            | Order::Opened { .. }
            | Order::Forget { .. }
            | Order::Keep { .. }
            | Order::LetGo { .. }
            | Order::Fetched { .. } => {}
        }
    }

    /// The outcome that a question is for, as a segment of one row; what went wrong, if it is not there.
    fn outcome(&self, of: Awaited, owner: Option<&str>) -> Bulk {
        let failed = match self.state.locate(of, owner) {
            Located::Row { segment, row } => {
                match self.read(segment, TaskRange::new(row, row + 1)) {
                    Ok(bytes) => return bytes.into(),
                    Err(error) => {
                        tracing::error!(%segment, error, "an outcome cannot be read");
                        let message = format!("segment {segment} of its coordinator: {error}");
                        let cause = Cause::ResultLost { message };
                        Failed { cause, worker: None, attempt: None, tries: 0 }
                    }
                }
            }
            Located::Failed(failed) => failed,
        };
        let mut text = Vec::new();
        // Words and numbers: nothing in it can refuse.
        _ = codec::encode(&failed, &mut text);
        SegmentBuilder::repeated(0, ERROR, &text, 1).into()
    }

    /// Which rows of which segments hold the arguments of `range`.
    fn arguments(&self, batch: BatchId, range: TaskRange) -> Vec<(SegmentId, TaskRange)> {
        let Some(batch) = self.state.batches.get(&batch) else { return Vec::new() };
        batch
            .arguments_of(range)
            .map(|argument| {
                let part = argument.tasks.intersection(range);
                let first = argument.tasks.start;
                (argument.segment, TaskRange::new(part.start - first, part.end - first))
            })
            .collect()
    }

    fn outcome_bytes(&self, outcome: OutcomeSegment) -> Result<Bytes, String> {
        let OutcomeSegment { segment, first, tasks, .. } = outcome;
        self.read(segment, TaskRange::new(tasks.start - first, tasks.end - first))
    }

    /// The rows `rows` of a stored segment, as a segment.
    fn read(&self, segment: SegmentId, rows: TaskRange) -> Result<Bytes, String> {
        let bytes = self.segments.read(segment).map_err(|error| error.to_string())?;
        let whole = Segment::parse(bytes).map_err(|error| error.to_string())?;
        whole.slice(rows).map_err(|error| error.to_string())
    }
}

fn cancelled(reason: String) -> Failed {
    Failed { cause: Cause::Cancelled { reason }, worker: None, attempt: None, tries: 0 }
}

#[cfg(test)]
mod tests;
