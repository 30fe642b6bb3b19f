//! Delivery: outcome segments go to their client in the order of their commit, each once per cursor,
//! never more unconsumed bytes than the client's credit.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, SessionId};
use allhands_common::limit::DELIVER_BYTES_MAX;
use allhands_common::wire::client::{DONE_WITH_BATCH, ToClient};

use super::Dispatcher;
use crate::{Action, State};

/// Where the delivery of a batch stands.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// To whom.
    reader: Option<SessionId>,
    /// Outcome segments sent on the present connection, those before it included.
    sent: u32,
    /// Bytes of each that was sent and not consumed, oldest first, and their sum.
    in_flight: VecDeque<(u32, u32)>,
    in_flight_bytes: usize,
    /// Whether the client was told that the batch is over.
    end_told: bool,
}

impl Delivery {
    /// Whether the client was told that the batch is over.
    pub(super) const fn end_is_told(&self) -> bool {
        self.end_told
    }
}

impl Dispatcher {
    /// Sends what there is credit for.
    pub(super) fn deliver(&mut self, state: &State, id: BatchId, out: &mut Vec<Action>) {
        let Some(batch) = state.batches.get(&id) else { return };
        // What a task has called is given to who asks for it.
        let Some(job) = state.job_of(batch).filter(|_| batch.depth() == 0) else { return };
        let session = job.session;
        // Who has attached to a job says what it reads.
        let reader = self.deliveries.get(&id).and_then(|delivery| delivery.reader);
        let unread = job.is_visited() && reader != Some(session);
        if unread && !cfg!(plant = "delivered_without_read") {
            return;
        }
        if !self.clients.get(&session).is_some_and(|client| client.attached) {
            return;
        }
        let (over, total) = (batch.over(), batch.outcome_segments());
        // Who is done with a batch that others name has heard all of it, of this leader or an earlier one.
        let done = batch.progress().is_some_and(|progress| progress.done);
        if done || total == 0 && !over {
            return;
        }
        let delivery = self.deliveries.entry(id).or_default();
        delivery.reader = Some(session);
        if let Some(progress) = batch.progress() {
            // What is kept can be read again, by whoever attaches to its job.
            delivery.sent = delivery.sent.max(progress.dropped);
            while delivery.in_flight_bytes < DELIVER_BYTES_MAX {
                let at = (delivery.sent - progress.dropped) as usize;
                let Some(outcome) = progress.outcomes.get(at).copied() else { break };
                let sequence = delivery.sent;
                delivery.sent += 1;
                delivery.in_flight.push_back((sequence, outcome.bytes));
                delivery.in_flight_bytes += outcome.bytes as usize;
                // The last word of a batch that ended well goes along with its last outcomes.
                let last = over && delivery.sent == total && batch.stopped().is_none();
                delivery.end_told |= last;
                out.push(Action::Deliver { session, batch: id, sequence, outcome, last });
                self.spoken_to.insert(session);
            }
        }
        if over && delivery.sent == total && !delivery.end_told {
            delivery.end_told = true;
            let rest = batch.stopped().map(|stop| stop.rest.clone());
            let message = ToClient::Ended { batch: id, segments: total, rest };
            self.tell(session, message, out);
        }
    }

    /// The client has consumed the first `segments` outcome segments.
    pub(super) fn consumed(
        &mut self,
        state: &State,
        id: BatchId,
        segments: u32,
        out: &mut Vec<Action>,
    ) {
        let over = state.batches.get(&id).filter(|batch| batch.over());
        if let Some(batch) = over.filter(|_| segments == DONE_WITH_BATCH)
            && !cfg!(plant = "read_is_sent_again")
        {
            // It may stay, as those of detached jobs do, and a new leader does not know who has read it.
            let sent = batch.outcome_segments();
            self.deliveries.insert(id, Delivery { sent, end_told: true, ..Delivery::default() });
            return;
        }
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        while let Some((_, bytes)) = delivery.in_flight.front().filter(|sent| sent.0 < segments) {
            delivery.in_flight_bytes -= *bytes as usize;
            delivery.in_flight.pop_front();
        }
        self.deliver(state, id, out);
    }

    /// The client has come (back) and has received the first `received` outcome segments.
    pub(super) fn redeliver(
        &mut self,
        state: &State,
        id: BatchId,
        received: u32,
        out: &mut Vec<Action>,
    ) {
        let sent = if cfg!(plant = "no_cursor") { 0 } else { received };
        let job = state.batches.get(&id).and_then(|batch| state.job_of(batch));
        let reader = job.map(|job| job.session);
        self.deliveries.insert(id, Delivery { reader, sent, ..Delivery::default() });
        self.deliver(state, id, out);
    }
}
