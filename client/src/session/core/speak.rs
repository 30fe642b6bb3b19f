//! What is said to the leader, as far as the credit goes; and all of it again to a new one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use allhands_common::execution::Mention;
use allhands_common::id::{BatchId, JobId};
use allhands_common::limit::{DELIVER_BYTES_MAX, SEGMENT_BYTES_MAX, SUBMIT_BYTES_MAX};
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};
use bytes::Bytes;

use super::batch::Held;
use super::{Action, Batch, Core, End, Job, Peer, Purpose, Step, Turn};

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
        if self.config.purpose != Purpose::Attached {
            self.ask_for_job(peer, out);
            self.end_refused(out);
        }
        let mut early = 0;
        while let Some(turn) = self.next_to_speak() {
            let Some(batch) = self.batches.get(&turn.batch()) else {
                self.queue.pop_front();
                continue;
            };
            let Job::Open(job) = self.job else {
                self.ask_for_job(peer, out);
                break;
            };
            let is_new = !batch.kept && !batch.outbox.was_said;
            if is_new && self.open_batches >= self.config.batches_max {
                self.queue.pop_front();
                self.waiting.push_back(turn.batch());
                continue;
            }
            if self.is_early(batch) {
                // Some of them may be behind it.
                self.queue.rotate_left(1);
                early += 1;
                if early >= self.queue.len() {
                    break;
                }
                continue;
            }
            if !self.speak_of(turn, job, peer, out) {
                break;
            }
            early = 0;
            self.queue.pop_front();
        }
        self.say_fetched(peer, out);
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
    fn next_to_speak(&mut self) -> Option<Turn> {
        if self.open_batches < self.config.batches_max
            && let Some(id) = self.waiting.pop_front()
        {
            self.queue.push_front(Turn::All(id));
        }
        self.queue.front().copied()
    }

    /// Whether what a batch has to say names tasks of this session of which nothing was said. Kept batches are
    /// said in order, so that theirs were.
    fn is_early(&self, batch: &Batch) -> bool {
        let unsaid = batch.outbox.held.iter().skip(batch.outbox.said);
        let is_unsaid = |mention: &Mention| {
            let named = self.batches.get(&mention.on.batch);
            named.is_some_and(|named| !named.outbox.has_said(mention.on.index))
        };
        !batch.kept && unsaid.flat_map(|held| &held.mentions).any(is_unsaid)
    }

    /// Says what a batch has to say; `false` when the credit ended before.
    fn speak_of(&mut self, turn: Turn, job: JobId, peer: Peer, out: &mut Vec<Action>) -> bool {
        let id = turn.batch();
        let Some(batch) = self.batches.get_mut(&id) else {
            return true;
        };
        let Batch { sequence, call, spec, context, outbox, cancelled, kept, .. } = batch;
        // A segment that was committed meanwhile needs no turn, nor do others take it.
        let has_turn = |held: &Held| match turn {
            Turn::All(_) => true,
            Turn::Segment(_, order) => held.order == order,
            Turn::Rest(_) => false,
        };
        let mut say = |message| out.push(Action::Send { peer, message });
        // Also of one that is cancelled: an earlier word of it may still be on its way to this leader.
        let has_room =
            |said: usize, held: &Held| said == 0 || said + held.cost() <= SUBMIT_BYTES_MAX;
        if outbox.opening == Step::Due {
            let first = outbox.held.get(outbox.said);
            let first = first.filter(|held| cancelled.is_none() && has_turn(held));
            if first.is_some_and(|held| !has_room(self.said_bytes, held)) {
                return false;
            }
            self.open_batches += usize::from(!*kept && !outbox.was_said);
            (outbox.opening, outbox.was_said) = (Step::Said, true);
            let first =
                first.filter(|held| context.len() + held.segment.len() <= SEGMENT_BYTES_MAX);
            let (mut tasks, mut segment, mut mentions) = (0, Bytes::new(), Vec::new());
            if let Some(held) = first {
                (tasks, segment) = (held.tasks, held.segment.clone());
                mentions = held.mentions.clone();
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
                kept: *kept,
                mentions,
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
        while let Some(held) = outbox.held.get(outbox.said).filter(|held| has_turn(held)) {
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
                mentions: held.mentions.clone(),
            });
        }
        // What else there is to say comes behind the last of them, whosever turn it is then.
        outbox.queued &= matches!(turn, Turn::Segment(..));
        if outbox.said < outbox.held.len() {
            return true;
        }
        for range in std::mem::take(&mut outbox.unwanted_due).iter() {
            say(FromClient::CancelTasks { batch: id, range });
        }
        if outbox.sealing == Step::Due {
            outbox.sealing = Step::Said;
            say(FromClient::Seal { batch: id, tasks: outbox.given });
        }
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
                acknowledged.extend(self.acknowledge_visited(id).map(|segments| (id, segments)));
                continue;
            };
            batch.inbox.acknowledging = false;
            let segments = match batch.is_done() {
                true => DONE_WITH_BATCH,
                false => batch.inbox.consumed,
            };
            acknowledged.push((id, segments));
            if batch.is_done() {
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
            low: self.low,
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
        }
        self.queue = turns(&self.batches);
        self.said_bytes = 0;
        self.offer_all(peer, out);
        self.keep_all(peer, out);
        self.want_all(peer, out);
        self.ask_all(peer, out);
        self.visit_again(peer, out);
        forgotten.into_iter().for_each(|id| self.end(id, End::Forgotten, out));
        let again: Vec<(BatchId, u32)> =
            self.finished.iter().map(|(_, batch, segments)| (*batch, *segments)).collect();
        for some in again.chunks(ACKNOWLEDGED_MAX) {
            out.push(Action::Send { peer, message: FromClient::Acknowledge(some.to_vec()) });
        }
    }
}

/// Everybody's turn with a leader that knows no more than what is committed: first segments of kept batches, in
/// order.
fn turns(batches: &BTreeMap<BatchId, Batch>) -> VecDeque<Turn> {
    let kept = batches.iter().filter(|(_, batch)| batch.kept);
    let segments =
        kept.flat_map(|(id, batch)| batch.outbox.held.iter().map(|held| (held.order, *id)));
    let mut segments: Vec<(u64, BatchId)> = segments.collect();
    segments.sort_unstable();
    let segments = segments.into_iter().map(|(order, id)| Turn::Segment(id, order));
    let rest = batches.iter().map(|(id, batch)| match batch.kept {
        true => Turn::Rest(*id),
        false => Turn::All(*id),
    });
    segments.chain(rest).collect()
}
