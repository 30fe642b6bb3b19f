//! What is said to the leader, as far as the credit goes; and all of it again to a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use allhands_common::id::{BatchId, JobId};
use allhands_common::limit::{DELIVER_BYTES_MAX, SEGMENT_BYTES_MAX, SUBMIT_BYTES_MAX};
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};
use bytes::Bytes;

use super::batch::Held;
use super::{Action, Batch, Config, Core, End, Job, Peer, Step};

/// Acknowledgements wait for company, but not beyond this many batches (a frame's worth), ...
const ACKNOWLEDGEMENTS_MAX: usize = 64;

/// ... nor beyond this many consumed bytes: an eighth of what may be on its way keeps it flowing.
const ACKNOWLEDGE_BYTES: usize = DELIVER_BYTES_MAX / 8;

/// Batches of one message: 16 bytes and a number each, in a command of the log.
const ACKNOWLEDGED_MAX: usize = 1024;

/// A leader that does not know a batch which was committed is asked again, for so long: an answer may
/// be older than the batch, or have come twice, but none is on its way for that long.
pub(super) const DOUBT: Duration = Duration::from_secs(10);

impl Core {
    /// Says what there is to say, as far as the credit goes.
    pub(super) fn speak(&mut self, out: &mut Vec<Action>) {
        let Some(peer) = self.leader else { return };
        let before = out.len();
        while let Some(id) = self.next_to_speak() {
            let Some(batch) = self.batches.get(&id) else {
                self.queue.pop_front();
                continue;
            };
            let Job::Open(job) = self.job else {
                self.ask_for_job(peer, out);
                break;
            };
            if !batch.outbox.was_said && self.open_batches >= self.config.batches_max {
                self.queue.pop_front();
                self.waiting.push_back(id);
                continue;
            }
            if !self.speak_of(id, job, peer, out) {
                break;
            }
            self.queue.pop_front();
        }
        let said = out.len() > before;
        if said
            || self.to_acknowledge.len() >= ACKNOWLEDGEMENTS_MAX
            || self.acknowledge_bytes >= ACKNOWLEDGE_BYTES
        {
            self.said_at = self.now;
            self.acknowledge(peer, out);
        }
    }

    /// Who speaks next: one that had to wait until others were over, before those that came after it.
    fn next_to_speak(&mut self) -> Option<BatchId> {
        if self.open_batches < self.config.batches_max
            && let Some(id) = self.waiting.pop_front()
        {
            self.queue.push_front(id);
        }
        self.queue.front().copied()
    }

    fn ask_for_job(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if self.job == Job::Idle {
            self.job = Job::Asked;
            let Config { program, name, .. } = &self.config;
            let (program, name) = (program.clone(), name.clone());
            self.say(peer, FromClient::OpenJob { request: self.request, program, name }, out);
        }
    }

    /// Says what a batch has to say; `false` when the credit ended before.
    fn speak_of(&mut self, id: BatchId, job: JobId, peer: Peer, out: &mut Vec<Action>) -> bool {
        let Some(batch) = self.batches.get_mut(&id) else {
            return true;
        };
        let Batch { sequence, call, spec, context, outbox, cancelled, .. } = batch;
        let mut say = |message| out.push(Action::Send { peer, message });
        // Also of one that is cancelled: an earlier word of it may still be on its way to this leader.
        let has_room =
            |said: usize, held: &Held| said == 0 || said + held.cost() <= SUBMIT_BYTES_MAX;
        if outbox.opening == Step::Due {
            let first = outbox.held.get(outbox.said).filter(|_| cancelled.is_none());
            if first.is_some_and(|held| !has_room(self.said_bytes, held)) {
                return false;
            }
            self.open_batches += usize::from(!outbox.was_said);
            (outbox.opening, outbox.was_said) = (Step::Said, true);
            let first =
                first.filter(|held| context.len() + held.segment.len() <= SEGMENT_BYTES_MAX);
            let (mut tasks, mut segment) = (0, Bytes::new());
            if let Some(held) = first {
                (tasks, segment) = (held.tasks, held.segment.clone());
                held.needs_of(id).into_iter().for_each(&mut say);
                self.said_bytes += held.cost();
                outbox.said += 1;
            }
            let sealed =
                outbox.sealing == Step::Due && tasks == outbox.given && cancelled.is_none();
            if sealed {
                outbox.sealing = Step::Said;
            }
            say(FromClient::OpenBatch {
                batch: id,
                sequence: *sequence,
                call: *call,
                job,
                spec: spec.clone(),
                context: context.clone().into(),
                tasks,
                segment: segment.into(),
                sealed,
            });
        }
        if let Some(reason) = cancelled {
            if outbox.cancelling == Step::Due {
                outbox.cancelling = Step::Said;
                say(FromClient::Cancel { batch: id, reason: reason.clone() });
            }
            outbox.queued = false;
            return true;
        }
        while let Some(held) = outbox.held.get(outbox.said) {
            if !has_room(self.said_bytes, held) {
                return false;
            }
            self.said_bytes += held.cost();
            outbox.said += 1;
            held.needs_of(id).into_iter().for_each(&mut say);
            say(FromClient::Append {
                batch: id,
                first: held.first,
                tasks: held.tasks,
                segment: held.segment.clone().into(),
            });
        }
        for range in std::mem::take(&mut outbox.unwanted_due).iter() {
            say(FromClient::CancelTasks { batch: id, range });
        }
        if outbox.sealing == Step::Due {
            outbox.sealing = Step::Said;
            say(FromClient::Seal { batch: id, tasks: outbox.given });
        }
        outbox.queued = false;
        true
    }

    pub(super) fn say(&mut self, peer: Peer, message: FromClient, out: &mut Vec<Action>) {
        self.said_at = self.now;
        out.push(Action::Send { peer, message });
    }

    /// Says which outcomes were consumed; whether there was anything to say.
    pub(super) fn acknowledge(&mut self, peer: Peer, out: &mut Vec<Action>) -> bool {
        let due = std::mem::take(&mut self.to_acknowledge);
        self.acknowledge_bytes = 0;
        let mut acknowledged = Vec::with_capacity(due.len());
        for id in due {
            let Some(batch) = self.batches.get_mut(&id) else {
                continue;
            };
            batch.inbox.acknowledging = false;
            let segments = match batch.inbox.is_finished() {
                true => DONE_WITH_BATCH,
                false => batch.inbox.consumed,
            };
            acknowledged.push((id, segments));
            if batch.inbox.is_finished() {
                self.batches.remove(&id);
                self.finished.push_back((self.now, id, segments));
            }
        }
        for some in acknowledged.chunks(ACKNOWLEDGED_MAX) {
            self.say(peer, FromClient::Acknowledge(some.to_vec()), out);
        }
        !acknowledged.is_empty()
    }

    pub(super) fn attach(&self, peer: Peer, out: &mut Vec<Action>) {
        let open = self.batches.iter().filter(|(_, batch)| batch.is_open());
        let message = FromClient::Attach {
            session: self.config.session,
            low: self.request,
            batches: open.map(|(id, batch)| (*id, batch.inbox.received)).collect(),
        };
        out.push(Action::Send { peer, message });
    }

    /// A leader has said what it knows: everything else is to be said again.
    pub(super) fn resume(
        &mut self,
        known: &BTreeMap<BatchId, u32>,
        peer: Peer,
        out: &mut Vec<Action>,
    ) {
        if self.job == Job::Asked {
            self.job = Job::Idle;
        }
        let mut forgotten = Vec::new();
        self.queue.clear();
        self.waiting.clear();
        for (id, batch) in &mut self.batches {
            batch.outbox.again();
            if let Some(tasks) = known.get(id) {
                batch.outbox.commit(*tasks);
                batch.outbox.opening = Step::Done;
                batch.doubted = None;
                out.push(Action::Committed { batch: *id, tasks: *tasks });
            } else if batch.outbox.opening == Step::Done && !batch.inbox.over {
                // It may be the answer to an attach of before the batch.
                let since = *batch.doubted.get_or_insert(self.now);
                if self.now - since >= DOUBT {
                    forgotten.push(*id);
                }
            }
            batch.outbox.queued = true;
            self.queue.push_back(*id);
        }
        self.said_bytes = 0;
        self.offer_all(peer, out);
        self.want_all(peer, out);
        forgotten.into_iter().for_each(|id| self.end(id, End::Forgotten, out));
        let again: Vec<(BatchId, u32)> =
            self.finished.iter().map(|(_, batch, segments)| (*batch, *segments)).collect();
        for some in again.chunks(ACKNOWLEDGED_MAX) {
            out.push(Action::Send { peer, message: FromClient::Acknowledge(some.to_vec()) });
        }
    }
}
