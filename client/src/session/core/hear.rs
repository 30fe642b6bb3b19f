//! What coordinators say, and who of them leads.

use allhands_common::failure::Failed;
use allhands_common::id::{BatchId, CoordinatorId, RequestId, SessionId, Term};
use allhands_common::wire::client::{Appended, ToClient};

use super::{Action, Core, End, Peer, Step};

impl Core {
    pub(super) fn hear(&mut self, peer: Peer, message: ToClient, out: &mut Vec<Action>) {
        match message {
            ToClient::Attached { term, batches, slots } => {
                if term < self.term {
                    return;
                }
                self.term = term;
                self.leader = Some(peer);
                self.count_slots(slots, out);
                self.resume(&batches.into_iter().collect(), peer, out);
            }
            ToClient::Leader { term, leader } => self.follow(term, leader, out),
            ToClient::JobOpened { request, job } => {
                self.job_opened(request, job, out);
            }
            ToClient::JobAttached { request, job, name, batches, more } => {
                self.job_attached((request, job), (name, batches, more), peer, out);
            }
            ToClient::HasProgram(program) => self.program_held(peer, program, out),
            ToClient::JobSeen(summary) => {
                self.looked();
                out.push(Action::JobSeen(summary));
            }
            ToClient::Appended(batches) => {
                batches.into_iter().for_each(|appended| self.appended(appended, out));
            }
            ToClient::Outcomes { batch: id, sequence, range, segment, last } => {
                let Some(batch) = self.batches.get_mut(&id) else {
                    let Some(inbox) = self.visited(id) else { return };
                    inbox.take_in(sequence, range, segment.bytes, |range, segment| {
                        out.push(Action::Deliver { batch: id, range, segment });
                    });
                    if last {
                        inbox.end = Some((sequence + 1, None));
                    }
                    return self.settle_visited(id, out);
                };
                let wanted = batch.cancelled.is_none();
                let outbox = &mut batch.outbox;
                batch.inbox.take_in(sequence, range, segment.bytes, |range, segment| {
                    outbox.unwanted.remove(range);
                    outbox.unwanted_due.remove(range);
                    if wanted {
                        out.push(Action::Deliver { batch: id, range, segment });
                    }
                });
                match last {
                    true => self.ended(id, sequence + 1, None, out),
                    false => self.settle(id, out),
                }
            }
            ToClient::Ended { batch, segments, rest } => self.ended(batch, segments, rest, out),
            ToClient::WantProgram { program, offset, bytes } => {
                out.push(Action::SendProgram { peer, program, offset, bytes });
            }
            ToClient::Refused { batch: Some(id), reason, .. } => {
                self.refused(id, End::Refused(reason), out);
            }
            ToClient::Refused { batch: None, request: Some(request), reason } => {
                if self.has_asked(request) {
                    self.job_refused(request, reason, out);
                }
            }
            ToClient::Refused { batch: None, request: None, reason } => {
                let ids: Vec<BatchId> = self.batches.keys().copied().collect();
                ids.into_iter().for_each(|id| self.refused(id, End::Refused(reason.clone()), out));
            }
            ToClient::SessionExpired => self.expire(peer, out),
            ToClient::SegmentUnreadable { batch, segment, reason } => {
                if self.batches.contains_key(&batch) {
                    let end = End::Unreadable(format!("segment {segment}: {reason}"));
                    out.push(Action::End { batch, end });
                    self.cancel(batch, "its outcomes cannot be read".into());
                } else if self.visited(batch).is_some() {
                    let end = End::Unreadable(format!("segment {segment}: {reason}"));
                    self.give_up_visited(batch, end, out);
                }
            }
            ToClient::Slots { slots } => self.count_slots(slots, out),
            ToClient::Said(notes) => out.push(Action::Said(notes)),
            ToClient::Workers(names) => out.push(Action::Workers(names)),
            ToClient::Wanted { blob, by } => {
                if self.offered.contains(&blob) {
                    out.push(Action::Wanted { blob, by });
                }
            }
            ToClient::Given(given) => self.given(given, out),
            ToClient::Holders { blob, holders } => {
                if self.wanted.contains(&blob) {
                    out.push(Action::Holders { blob, holders });
                }
            }
        }
    }

    fn count_slots(&mut self, slots: u32, out: &mut Vec<Action>) {
        self.workless_since = match slots {
            0 => self.workless_since.or(Some(self.now)),
            _ => None,
        };
        out.push(Action::Slots(slots));
    }

    fn appended(&mut self, appended: Appended, out: &mut Vec<Action>) {
        let Appended { batch: id, tasks, sealed } = appended;
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        self.said_bytes -= batch.outbox.commit(tasks);
        batch.outbox.opening = Step::Done;
        if sealed {
            batch.outbox.sealing = Step::Done;
        }
        out.push(Action::Committed { batch: id, tasks });
        self.ask_of(id, out);
    }

    fn ended(&mut self, id: BatchId, segments: u32, rest: Option<Failed>, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            let Some(inbox) = self.visited(id) else { return };
            inbox.end = Some((segments, rest));
            return self.settle_visited(id, out);
        };
        batch.inbox.end = Some((segments, rest));
        if batch.cancelled.is_some() {
            batch.inbox.received = segments;
        }
        self.settle(id, out);
    }

    /// Hands on the end of a batch, if this is it.
    fn settle(&mut self, id: BatchId, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        let received = batch.inbox.received;
        if let Some(rest) = batch.inbox.ends_now() {
            self.said_bytes -= batch.outbox.said_bytes();
            self.open_batches -= usize::from(!batch.kept && batch.outbox.was_said);
            batch.outbox.held.clear();
            batch.outbox.said = 0;
            if batch.cancelled.is_none() {
                out.push(Action::End { batch: id, end: End::Complete { rest } });
            }
        }
        if batch.cancelled.is_some() {
            self.consume(id, received);
        } else if batch.is_done() {
            let consumed = batch.inbox.consumed;
            self.consume(id, consumed);
        }
    }

    /// The cluster does not take a batch. If it has some of it, as when it is an append that was refused,
    /// it would keep the batch open and run what it has: that is cancelled.
    fn refused(&mut self, id: BatchId, end: End, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.get(&id) else {
            return;
        };
        if batch.outbox.opening != Step::Done {
            return self.end(id, end, out);
        }
        if batch.is_wanted() {
            out.push(Action::End { batch: id, end });
            self.cancel(id, "part of it was refused".into());
        }
    }

    /// A batch that the cluster does not have (any more).
    pub(super) fn end(&mut self, id: BatchId, end: End, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.remove(&id) else {
            return;
        };
        self.said_bytes -= batch.outbox.said_bytes();
        self.open_batches -= usize::from(!batch.kept && batch.is_open());
        if batch.cancelled.is_none() && !batch.inbox.over {
            out.push(Action::End { batch: id, end });
        }
    }

    pub(super) fn end_all(&mut self, end: &End, out: &mut Vec<Action>) {
        let ids: Vec<BatchId> = self.batches.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, end.clone(), out));
    }

    /// The lease had run out while nobody could be reached: a new stay begins, of another name.
    fn expire(&mut self, peer: Peer, out: &mut Vec<Action>) {
        self.end_all(&End::Expired, out);
        self.finished.clear();
        let renewed = blake3::derive_key("allhands 2026 next session", &self.config.session.0);
        self.config.session = SessionId::from_hash(renewed.into());
        out.push(Action::Renamed(self.config.session));
        // A stay of which no leader knows has had no answer: one that names any has expired.
        self.low = RequestId(0);
        self.job_expired(out);
        self.lose_leader();
        self.attach(peer, out);
    }

    /// A coordinator knows of a leader.
    fn follow(&mut self, term: Term, leader: CoordinatorId, out: &mut Vec<Action>) {
        if term < self.term {
            return;
        }
        if term > self.term {
            self.term = term;
            self.lose_leader();
        }
        if self.leader.is_some() {
            return;
        }
        let is_it = |id: &Option<CoordinatorId>| id.is_none_or(|id| id == leader);
        let peers: Vec<Peer> =
            self.peers.iter().filter(|(_, id)| is_it(id)).map(|(peer, _)| *peer).collect();
        peers.into_iter().for_each(|peer| self.attach(peer, out));
    }

    pub(super) fn lose_leader(&mut self) {
        if self.leader.take().is_some() {
            self.leaderless_since = self.now;
        }
    }
}
