//! The half that answers those who want chunks from here.
//!
//! A chunk that was just sent to somebody is not sent to the next who asks: that one is sent to the first,
//! and so on as a binary tree (see `recent`), so that a chunk that everybody wants leaves here about once a
//! second. A request for a chunk that is on its way here waits for it.

mod news;
mod recent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;

use self::news::News;
use self::recent::Recent;
use super::machine::Violation;
use super::{Action, Config, Peer, Refused, Ticket};

/// One chunk of one blob.
type Place = (BlobId, u32);

/// Somebody who may ask.
#[derive(Debug)]
struct Asker {
    /// Whether others can be sent there.
    reachable: bool,
    /// In line, oldest first.
    queue: VecDeque<(u64, Place)>,
    /// Being read or sent.
    sending: BTreeMap<u64, Place>,
    /// Waiting for a chunk that is on its way here.
    parked: BTreeMap<u64, Parked>,
}

#[derive(Debug, Clone, Copy)]
struct Parked {
    place: Place,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    askers: BTreeMap<Peer, Asker>,
    /// Who is next in turn: those with something in line.
    turn: VecDeque<Peer>,
    /// Tickets that wait for a place, for when it comes.
    parked: BTreeMap<Place, BTreeSet<Ticket>>,
    recent: Recent,
    news: News,
    sending: u32,
    wake: Option<Instant>,
}

impl Server {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    pub(super) fn came(&mut self, peer: Peer, reachable: bool) {
        self.gone(peer);
        let (queue, sending, parked) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        self.askers.insert(peer, Asker { reachable, queue, sending, parked });
    }

    pub(super) fn gone(&mut self, peer: Peer) {
        self.news.gone(peer);
        let Some(asker) = self.askers.remove(&peer) else { return };
        self.turn.retain(|other| *other != peer);
        self.sending -= u32::try_from(asker.sending.len()).unwrap_or(u32::MAX);
        for (request, parked) in asker.parked {
            unpark(&mut self.parked, parked.place, Ticket { peer, request });
        }
        let waiting = asker.queue.into_iter().chain(asker.sending);
        waiting.for_each(|(_, place)| self.recent.withdraw(place, peer));
    }

    pub(super) fn asked(
        &mut self,
        config: &Config,
        now: Instant,
        ticket: Ticket,
        place: Place,
        failed: Vec<Peer>,
        out: &mut Vec<Action>,
    ) {
        let askers = &self.askers;
        let Some(asker) = askers.get(&ticket.peer) else { return };
        let usable = |peer: Peer| {
            !failed.contains(&peer) && askers.get(&peer).is_some_and(|asker| asker.reachable)
        };
        if let Some(to) = self.recent.instead(now, place, ticket.peer, &usable) {
            out.push(Action::Redirect { ticket, to });
            return;
        }
        if asker.queue.len() + asker.parked.len() >= config.asker_waiting_max {
            out.push(Action::Refuse { ticket, why: Refused::Busy });
            return;
        }
        if config.redirect > core::time::Duration::ZERO {
            self.recent.accept(place, ticket.peer);
        }
        self.queue(ticket, place);
    }

    fn queue(&mut self, ticket: Ticket, place: Place) {
        let Some(asker) = self.askers.get_mut(&ticket.peer) else { return };
        asker.queue.push_back((ticket.request, place));
        if !self.turn.contains(&ticket.peer) {
            self.turn.push_back(ticket.peer);
        }
    }

    pub(super) fn withdrawn(&mut self, ticket: Ticket) {
        let Some(asker) = self.askers.get_mut(&ticket.peer) else { return };
        if let Some(parked) = asker.parked.remove(&ticket.request) {
            unpark(&mut self.parked, parked.place, ticket);
            self.recent.withdraw(parked.place, ticket.peer);
        }
        // What is being sent is sent.
        if let Some(at) = asker.queue.iter().position(|(request, _)| *request == ticket.request)
            && let Some((_, place)) = asker.queue.remove(at)
        {
            self.recent.withdraw(place, ticket.peer);
            if asker.queue.is_empty() {
                self.turn.retain(|peer| *peer != ticket.peer);
            }
        }
    }

    pub(super) fn served(
        &mut self,
        config: &Config,
        now: Instant,
        ticket: Ticket,
        found: bool,
        coming: &dyn Fn(BlobId, u32) -> bool,
        out: &mut Vec<Action>,
    ) {
        let Some(asker) = self.askers.get_mut(&ticket.peer) else { return };
        let Some(place) = asker.sending.remove(&ticket.request) else { return };
        self.sending -= 1;
        if found {
            self.recent.served(place, ticket.peer, now + config.redirect);
        } else if coming(place.0, place.1) {
            let until = now + config.park;
            asker.parked.insert(ticket.request, Parked { place, until });
            self.parked.entry(place).or_default().insert(ticket);
        } else {
            self.recent.withdraw(place, ticket.peer);
            out.push(Action::Refuse { ticket, why: Refused::NotHere });
        }
    }

    /// A chunk has come here: those who wait for it get it, those who follow are told soon.
    pub(super) fn arrived(
        &mut self,
        config: &Config,
        now: Instant,
        blob: BlobId,
        chunk: u32,
        _out: &mut Vec<Action>,
    ) {
        self.news.arrived(now + config.tell, blob, chunk);
        for ticket in self.parked.remove(&(blob, chunk)).unwrap_or_default() {
            if let Some(asker) = self.askers.get_mut(&ticket.peer) {
                asker.parked.remove(&ticket.request);
            }
            self.queue(ticket, (blob, chunk));
        }
    }

    pub(super) fn followed(
        &mut self,
        config: &Config,
        now: Instant,
        peer: Peer,
        blob: BlobId,
        out: &mut Vec<Action>,
    ) {
        let askers = &self.askers;
        let Some(asker) = askers.get(&peer) else { return };
        let reachable = |peer: Peer| askers.get(&peer).is_some_and(|asker| asker.reachable);
        if self.news.followed(config, now, peer, blob, asker.reachable, &reachable) {
            out.push(Action::LookUp { blob, peer });
        }
    }

    pub(super) fn unfollowed(&mut self, peer: Peer, blob: BlobId) {
        self.news.unfollowed(peer, blob);
    }

    pub(super) fn present(
        &mut self,
        config: &Config,
        now: Instant,
        peer: Peer,
        blob: BlobId,
        chunks: &allhands_common::wire::data::ChunkSet,
    ) {
        self.news.present(now + config.tell, peer, blob, chunks);
    }

    /// Sends what may be sent, turn by turn, and says what is due.
    pub(super) fn pump(&mut self, config: &Config, now: Instant, out: &mut Vec<Action>) {
        self.recent.forget(now);
        self.unpark_overdue(now, out);
        self.news.tell(now, out);
        let mut skipped = 0;
        while self.sending < config.total_sends_max && skipped < self.turn.len() {
            let Some(peer) = self.turn.pop_front() else { break };
            let Some(asker) = self.askers.get_mut(&peer) else { continue };
            if asker.sending.len() >= config.asker_sends_max as usize {
                self.turn.push_back(peer);
                skipped += 1;
                continue;
            }
            skipped = 0;
            let Some((request, place)) = asker.queue.pop_front() else { continue };
            asker.sending.insert(request, place);
            self.sending += 1;
            let ticket = Ticket { peer, request };
            out.push(Action::Serve { ticket, blob: place.0, chunk: place.1 });
            if !asker.queue.is_empty() {
                self.turn.push_back(peer);
            }
        }
        let parked = self.askers.values().flat_map(|asker| asker.parked.values());
        let parked = parked.map(|parked| parked.until);
        self.wake = parked.chain(self.news.due()).min();
    }

    fn unpark_overdue(&mut self, now: Instant, out: &mut Vec<Action>) {
        for (peer, asker) in &mut self.askers {
            let over = asker.parked.iter().filter(|(_, parked)| parked.until <= now);
            let over: Vec<(u64, Place)> =
                over.map(|(request, parked)| (*request, parked.place)).collect();
            for (request, place) in over {
                asker.parked.remove(&request);
                let ticket = Ticket { peer: *peer, request };
                unpark(&mut self.parked, place, ticket);
                self.recent.withdraw(place, *peer);
                out.push(Action::Refuse { ticket, why: Refused::NotHere });
            }
        }
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Violation(what.to_owned()));
        let sending: usize = self.askers.values().map(|asker| asker.sending.len()).sum();
        if sending != self.sending as usize || self.sending > config.total_sends_max {
            return wrong("the count of chunks being sent is wrong, or too high");
        }
        let parked: usize = self.askers.values().map(|asker| asker.parked.len()).sum();
        if parked != self.parked.values().map(BTreeSet::len).sum::<usize>() {
            return wrong("a parked request is in one list only");
        }
        for (peer, asker) in &self.askers {
            if asker.sending.len() > config.asker_sends_max as usize {
                return wrong("too much is sent to one asker");
            }
            if asker.queue.is_empty() == self.turn.contains(peer) {
                return wrong("an asker's turn does not fit its queue");
            }
        }
        Ok(())
    }
}

fn unpark(parked: &mut BTreeMap<Place, BTreeSet<Ticket>>, place: Place, ticket: Ticket) {
    if let Some(tickets) = parked.get_mut(&place) {
        tickets.remove(&ticket);
        if tickets.is_empty() {
            parked.remove(&place);
        }
    }
}
