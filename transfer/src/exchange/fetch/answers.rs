//! What holders say, and what becomes of the requests of those who say nothing.

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::{ChunkRange, ChunkSet, HAVE_RUNS_MAX};

use super::super::{Action, Config, Peer, Refused, Request};
use super::blob::one;
use super::wants::scatter;
use super::{Fetcher, InFlight, Known, Part};

impl Fetcher {
    pub(in super::super) fn manifest_came(
        &mut self,
        config: &Config,
        now: Instant,
        request: Request,
        id: BlobId,
        (bytes, present): (u64, ChunkSet),
        out: &mut Vec<Action>,
    ) {
        if let Some(taken) = self.take(request) {
            self.heard(taken.peer, now);
        }
        if self.blobs.get(&id).is_some_and(|blob| blob.bytes.is_none()) {
            self.learn(config, id, Known { bytes, present }, out);
        }
    }

    pub(in super::super) fn stored(
        &mut self,
        now: Instant,
        request: Request,
        id: BlobId,
        chunk: u32,
        out: &mut Vec<Action>,
    ) {
        if let Some(taken) = self.take(request) {
            self.heard(taken.peer, now);
        }
        // It may have come late, when it was already asked of somebody else.
        let other = self.requests.iter().find(|(_, other)| {
            other.blob == id && matches!(other.part, Part::Chunk(asked) if asked == chunk)
        });
        if let Some(request) = other.map(|(number, _)| *number)
            && let Some(taken) = self.take(request)
        {
            out.push(Action::Cancel { peer: taken.peer, request });
        }
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if blob.here.contains(chunk) {
            return;
        }
        blob.here.insert(one(chunk));
        blob.open.remove(one(chunk));
        blob.again.remove(&chunk);
        blob.starved = None;
        let waiters = blob.waiters.values_mut().filter(|waiter| waiter.chunks.contains(chunk));
        waiters.for_each(|waiter| waiter.left -= 1);
        if blob.bytes.is_some() {
            self.finish_met(id, out);
        }
    }

    pub(in super::super) fn damaged(&mut self, id: BlobId, chunk: u32) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if blob.here.contains(chunk) {
            blob.here.remove(one(chunk));
            let waiters = blob.waiters.values_mut().filter(|waiter| waiter.chunks.contains(chunk));
            waiters.for_each(|waiter| waiter.left += 1);
            self.count_open(id);
        }
    }

    pub(in super::super) fn wrong(
        &mut self,
        now: Instant,
        request: Request,
        out: &mut Vec<Action>,
    ) {
        let Some(InFlight { blob: id, peer, .. }) = self.requests.get(&request) else { return };
        let (id, peer) = (*id, *peer);
        self.heard(peer, now);
        out.push(Action::Report { peer, blob: id });
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.quarantined.insert(peer);
            if blob.part_from(peer).is_some_and(|view| view.followed) {
                out.push(Action::Unfollow { peer, blob: id });
            }
        }
        for other in self.requests_of(peer, Some(id)) {
            if other != request {
                out.push(Action::Cancel { peer, request: other });
            }
            self.fail(other);
        }
    }

    pub(in super::super) fn redirected(
        &mut self,
        config: &Config,
        now: Instant,
        request: Request,
        to: Peer,
    ) {
        let Some(InFlight { blob: id, peer, part, mut history, .. }) = self.take(request) else {
            return;
        };
        self.heard(peer, now);
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        blob.meet(config, to, false);
        history.hops += 1;
        let known = blob.holders.contains_key(&to);
        if known && !history.tried.contains(&to) && history.hops <= config.hops_max {
            history.via = Some(to);
        } else {
            history.failed_at(to);
        }
        if blob.holders.get(&peer).is_some_and(|view| view.source) {
            // Somebody is just before us here: go on at another place.
            let end = blob.wanted.iter().next_back().map_or(0, |run| run.end);
            blob.cursor = scatter(config.place ^ request.0, end);
        }
        self.put_back(id, part, history);
    }

    pub(in super::super) fn refused(
        &mut self,
        config: &Config,
        now: Instant,
        request: Request,
        why: Refused,
    ) {
        let Some(InFlight { blob: id, peer, part, mut history, .. }) = self.take(request) else {
            return;
        };
        self.heard(peer, now);
        match why {
            Refused::Busy => history.not_before = now + config.backoff,
            Refused::NotHere => {
                history.failed_at(peer);
                if let Some(blob) = self.blobs.get_mut(&id)
                    && let Some(view) = blob.holders.get_mut(&peer)
                    && let Part::Chunk(chunk) = part
                {
                    view.has.remove(one(chunk));
                    blob.count_elsewhere();
                }
            }
        }
        self.put_back(id, part, history);
    }

    pub(in super::super) fn have(
        &mut self,
        config: &Config,
        now: Instant,
        peer: Peer,
        id: BlobId,
        chunks: &[ChunkRange],
        others: &[Peer],
    ) {
        self.heard(peer, now);
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        blob.meet(config, peer, false);
        if let Some(view) = blob.holders.get_mut(&peer) {
            let runs = || chunks.iter().take(HAVE_RUNS_MAX).copied();
            runs().for_each(|run| view.has.insert(run));
            if !view.source {
                runs().for_each(|run| blob.elsewhere.insert(run));
            }
        }
        for other in others {
            blob.meet(config, *other, false);
        }
    }

    pub(in super::super) fn holder_gone(&mut self, config: &Config, now: Instant, peer: Peer) {
        for blob in self.blobs.values_mut() {
            let Some(view) = blob.part_from(peer) else { continue };
            let redials = blob.redials.entry(peer).or_default();
            if view.source && *redials < config.redials_max {
                *redials += 1;
                blob.back.insert(peer, now + config.backoff * *redials);
            }
        }
        for request in self.requests_of(peer, None) {
            self.fail(request);
        }
    }

    /// What was due by `now` and did not happen.
    pub(super) fn overdue(&mut self, config: &Config, now: Instant, out: &mut Vec<Action>) {
        self.too_late(now, out);
        let silent: Vec<Peer> = self
            .loads
            .iter()
            .filter(|(_, load)| load.heard + config.silence <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in silent {
            out.push(Action::GiveUp { peer });
            self.holder_gone(config, now, peer);
        }
        let slow: Vec<(Request, Peer)> = self
            .requests
            .iter()
            .filter(|(_, request)| request.asked + config.reply <= now)
            .map(|(number, request)| (*number, request.peer))
            .collect();
        for (request, peer) in slow {
            out.push(Action::Cancel { peer, request });
            self.fail(request);
        }
        for blob in self.blobs.values_mut() {
            let due: Vec<Peer> =
                blob.back.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect();
            for peer in due {
                blob.meet(config, peer, true);
                blob.manifest.tried.retain(|tried| *tried != peer);
                blob.again
                    .values_mut()
                    .for_each(|history| history.tried.retain(|tried| *tried != peer));
            }
        }
    }

    fn requests_of(&self, peer: Peer, id: Option<BlobId>) -> Vec<Request> {
        let of = self
            .requests
            .iter()
            .filter(|(_, request)| request.peer == peer && id.is_none_or(|id| id == request.blob));
        of.map(|(number, _)| *number).collect()
    }

    /// A request did not get what it was for.
    fn fail(&mut self, request: Request) {
        let Some(InFlight { blob, peer, part, mut history, .. }) = self.take(request) else {
            return;
        };
        history.failed_at(peer);
        self.put_back(blob, part, history);
    }

    fn put_back(&mut self, id: BlobId, part: Part, history: super::History) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        match part {
            Part::Manifest if blob.bytes.is_none() => blob.manifest = history,
            Part::Chunk(chunk) if blob.is_missing(chunk) => {
                blob.again.insert(chunk, history);
            }
            Part::Manifest | Part::Chunk(_) => {}
        }
    }
}
