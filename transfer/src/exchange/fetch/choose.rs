//! Whom to ask for what next.

use std::collections::BTreeMap;

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::{ChunkRange, ChunkSet};

use super::super::{Action, Config, Peer, Request};
use super::blob::{Blob, History, one};
use super::{Fetcher, InFlight, Load, Part, Unfetched};

/// What can be done for a part that has a history.
#[derive(Debug, PartialEq, Eq)]
enum Pick {
    Ask(Peer),
    /// Whoever has it owes us enough already.
    Wait,
    /// Everybody who has it has failed to give it.
    AllFailed,
    Nobody,
}

impl Fetcher {
    pub(super) fn ask_for(
        &mut self,
        config: &Config,
        now: Instant,
        id: BlobId,
        out: &mut Vec<Action>,
    ) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        for (peer, view) in &mut blob.holders {
            if !view.followed {
                view.followed = true;
                out.push(Action::Follow { peer: *peer, blob: id });
            }
        }
        if blob.bytes.is_none() {
            self.ask_for_manifest(config, now, id, out);
            return;
        }
        self.ask_again(config, now, id, out);
        self.ask_sources(config, now, id, out);
        self.ask_fellows(config, now, id, out);
    }

    fn ask_for_manifest(
        &mut self,
        config: &Config,
        now: Instant,
        id: BlobId,
        out: &mut Vec<Action>,
    ) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if blob.in_flight > 0 || blob.manifest.not_before > now {
            return;
        }
        let tried = &blob.manifest.tried;
        let usable = blob.holders.iter().filter(|(peer, _)| !tried.contains(peer));
        let pick = usable.min_by_key(|(peer, view)| (!view.source, load(&self.loads, **peer)));
        match pick.map(|(peer, _)| *peer) {
            Some(peer) if load(&self.loads, peer) < config.peer_chunks_max => {
                let history = core::mem::take(&mut blob.manifest);
                self.ask(config, now, (id, Part::Manifest), peer, history, out);
            }
            Some(_) => {}
            None if !blob.holders.is_empty() => next_round(config, now, &mut blob.manifest),
            None => {}
        }
    }

    fn ask_again(&mut self, config: &Config, now: Instant, id: BlobId, out: &mut Vec<Action>) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        let due = blob.again.iter().filter(|(_, history)| history.not_before <= now);
        let due: Vec<u32> = due.map(|(chunk, _)| *chunk).collect();
        for chunk in due {
            let Some(blob) = self.blobs.get_mut(&id) else { return };
            let Some(history) = blob.again.get(&chunk) else { continue };
            match pick(blob, &self.loads, config, chunk, history) {
                Pick::Ask(peer) => {
                    if self.requests.len() >= config.total_chunks_max as usize {
                        return;
                    }
                    let history = blob.again.remove(&chunk).unwrap_or_default();
                    self.ask(config, now, (id, Part::Chunk(chunk)), peer, history, out);
                }
                Pick::AllFailed => {
                    if let Some(history) = blob.again.get_mut(&chunk) {
                        next_round(config, now, history);
                    }
                }
                Pick::Wait | Pick::Nobody => {}
            }
        }
    }

    /// Sources get what no fellow has. A node that was sent elsewhere for many chunks asks for no more
    /// before it has got some of them.
    fn ask_sources(&mut self, config: &Config, now: Instant, id: BlobId, out: &mut Vec<Action>) {
        loop {
            let Some(blob) = self.blobs.get(&id) else { return };
            if self.requests.len() + blob.again.len() >= config.total_chunks_max as usize {
                return;
            }
            let sources = blob.holders.iter().filter(|(_, view)| view.source);
            let idle = sources
                .map(|(peer, _)| (load(&self.loads, *peer), *peer))
                .filter(|(load, _)| *load < config.peer_chunks_max)
                .min();
            let chunk =
                rotated(&blob.open, blob.cursor).find_map(|run| blob.elsewhere.gaps(run).next());
            let (Some((_, peer)), Some(ChunkRange { start: chunk, .. })) = (idle, chunk) else {
                return;
            };
            self.ask_first(config, now, (id, chunk), peer, out);
        }
    }

    fn ask_fellows(&mut self, config: &Config, now: Instant, id: BlobId, out: &mut Vec<Action>) {
        loop {
            let Some(blob) = self.blobs.get(&id) else { return };
            if self.requests.len() >= config.total_chunks_max as usize {
                return;
            }
            let fellows = blob.holders.iter().filter(|(_, view)| !view.source);
            let next = fellows
                .map(|(peer, view)| (load(&self.loads, *peer), *peer, view))
                .filter(|(load, _, _)| *load < config.peer_chunks_max)
                .filter_map(|(load, peer, view)| {
                    let mut open = rotated(&blob.open, blob.cursor);
                    let chunk = open.find_map(|run| view.has.intersection(run).next())?;
                    Some((load, peer, chunk.start))
                })
                .min();
            let Some((_, peer, chunk)) = next else { return };
            self.ask_first(config, now, (id, chunk), peer, out);
        }
    }

    fn ask_first(
        &mut self,
        config: &Config,
        now: Instant,
        (id, chunk): (BlobId, u32),
        peer: Peer,
        out: &mut Vec<Action>,
    ) {
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.open.remove(one(chunk));
        }
        self.ask(config, now, (id, Part::Chunk(chunk)), peer, History::default(), out);
    }

    fn ask(
        &mut self,
        config: &Config,
        now: Instant,
        (id, part): (BlobId, Part),
        peer: Peer,
        history: History,
        out: &mut Vec<Action>,
    ) {
        debug_assert!(self.requests.len() < config.total_chunks_max as usize);
        let request = Request(self.next);
        self.next += 1;
        out.push(match part {
            Part::Manifest => Action::AskManifest { peer, request, blob: id },
            Part::Chunk(chunk) => {
                Action::Ask { peer, request, blob: id, chunk, failed: history.tried.clone() }
            }
        });
        self.loads.entry(peer).or_insert(Load { requests: 0, heard: now }).requests += 1;
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.in_flight += 1;
            blob.starved = None;
        }
        self.requests.insert(request, InFlight { blob: id, peer, part, asked: now, history });
    }

    /// A blob of which something is missing that nobody has is lost, once those who may yet say that they
    /// have it have had the time to.
    pub(super) fn lose_if_nobody_has_it(
        &mut self,
        config: &Config,
        now: Instant,
        id: BlobId,
        out: &mut Vec<Action>,
    ) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        let hope = blob.in_flight > 0
            || !blob.back.is_empty()
            || match blob.bytes {
                None => !blob.holders.is_empty() && blob.manifest.rounds <= config.rounds_max,
                Some(_) => {
                    let source = blob.holders.values().any(|view| view.source);
                    let open = blob
                        .open
                        .iter()
                        .any(|run| source || blob.elsewhere.intersection(run).next().is_some());
                    open || blob.again.iter().any(|(chunk, history)| {
                        history.not_before > now
                            || pick(blob, &self.loads, config, *chunk, history) != Pick::Nobody
                    })
                }
            };
        if hope {
            blob.starved = None;
            return;
        }
        let since = *blob.starved.get_or_insert(now);
        if since + config.grace <= now {
            let holders = blob.met.iter().copied().collect();
            self.fail_all(id, &Unfetched::Lost { holders }, out);
        }
    }
}

fn pick(
    blob: &Blob,
    loads: &BTreeMap<Peer, Load>,
    config: &Config,
    chunk: u32,
    history: &History,
) -> Pick {
    let free = |peer: Peer| load(loads, peer) < config.peer_chunks_max;
    let via = history.via.filter(|peer| blob.holders.contains_key(peer));
    if let Some(via) = via.filter(|peer| free(*peer)) {
        return Pick::Ask(via);
    }
    let having = || blob.holders.iter().filter(|(_, view)| view.has(chunk));
    let fit = || having().filter(|(peer, _)| !history.tried.contains(peer));
    let best = fit()
        .filter(|(peer, view)| free(**peer) && !(via.is_some() && view.source))
        .min_by_key(|(peer, view)| (view.source, load(loads, **peer)));
    match best {
        Some((peer, _)) => Pick::Ask(*peer),
        None if via.is_some() || fit().next().is_some() => Pick::Wait,
        None if having().next().is_some() && history.rounds <= config.rounds_max => Pick::AllFailed,
        None => Pick::Nobody,
    }
}

/// Everybody has failed: everybody may be asked again, after a while, a few times.
fn next_round(config: &Config, now: Instant, history: &mut History) {
    if history.rounds > config.rounds_max {
        return;
    }
    history.not_before = now + config.backoff * (1 << history.rounds.min(8));
    history.rounds += 1;
    history.tried.clear();
}

fn load(loads: &BTreeMap<Peer, Load>, peer: Peer) -> u32 {
    loads.get(&peer).map_or(0, |load| load.requests)
}

/// The runs of `set` from `from` on, then those before it.
fn rotated(set: &ChunkSet, from: u32) -> impl Iterator<Item = ChunkRange> + '_ {
    let after = set.intersection(ChunkRange::new(from, u32::MAX));
    after.chain(set.intersection(ChunkRange::new(0, from)))
}
