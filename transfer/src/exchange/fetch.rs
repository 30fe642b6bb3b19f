//! The half that wants chunks.
//!
//! *Sources* are the holders that the leader named as whole; everybody else is a *fellow*, who wants the
//! blob too or got it in the same way. A chunk that a fellow is known to have is never asked of a source
//! unless that fellow failed, so that a source sends about one copy, however many want it. Each node starts
//! at another place of the blob, so that all ask the source for different chunks and then each other.

mod answers;
mod blob;
mod choose;
mod wants;

use std::collections::BTreeMap;
use std::ops::Range;

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::ChunkSet;

use self::blob::{Blob, History};
use super::machine::Violation;
use super::{Action, Config, Peer, Request};

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which blob.
    pub blob: BlobId,
    /// Which of its bytes; none: all. Only the chunks under them travel.
    pub bytes: Option<Range<u64>>,
    /// Who is known to have some of it, and whether all of it.
    pub holders: Vec<(Peer, bool)>,
    /// What the store knows already, if it has the manifest.
    pub known: Option<Known>,
    /// When it is too late.
    pub deadline: Instant,
    /// It was here and is damaged. Whoever asks for it here is not made to wait for it: it may have to come
    /// from there.
    pub repair: bool,
}

/// What a store has of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How long the blob is, in bytes.
    pub bytes: u64,
    /// Which of its chunks are there.
    pub present: ChunkSet,
}

/// Why a want was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfetched {
    /// Nobody that could be asked has the chunks that are missing.
    Lost {
        /// Everybody who was asked.
        holders: Vec<Peer>,
    },
    /// Its deadline has passed.
    Late {
        /// Chunks that are missing, of a blob whose length is known.
        missing: Option<u32>,
    },
    /// The store cannot keep it.
    Store,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Manifest,
    Chunk(u32),
}

/// A request that is not answered yet.
#[derive(Debug)]
struct InFlight {
    blob: BlobId,
    peer: Peer,
    part: Part,
    asked: Instant,
    history: History,
}

/// What a peer owes us; those that owe nothing have none.
#[derive(Debug, Clone, Copy)]
struct Load {
    requests: u32,
    heard: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Fetcher {
    /// Who came first is served first.
    order: BTreeMap<u64, BlobId>,
    blobs: BTreeMap<BlobId, Blob>,
    requests: BTreeMap<Request, InFlight>,
    loads: BTreeMap<Peer, Load>,
    next: u64,
    wake: Option<Instant>,
}

impl Fetcher {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Whether a chunk that is not here will be, if all goes well.
    pub(super) fn is_coming(&self, blob: BlobId, chunk: u32) -> bool {
        self.blobs.get(&blob).is_some_and(|blob| blob.is_missing(chunk))
    }

    /// The same for whoever asks for it here: whether it may wait.
    pub(super) fn is_promised(&self, blob: BlobId, chunk: u32) -> bool {
        self.blobs.get(&blob).is_some_and(|blob| blob.is_promised(chunk))
    }

    /// As of the last [`Self::pump`].
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// Acts on what is overdue, asks for whatever may be asked for, and finds out when to look again.
    pub(super) fn pump(&mut self, config: &Config, now: Instant, out: &mut Vec<Action>) {
        self.overdue(config, now, out);
        let order: Vec<BlobId> = self.order.values().copied().collect();
        for id in order {
            self.ask_for(config, now, id, out);
            self.lose_if_nobody_has_it(config, now, id, out);
        }
        self.wake = self.wake_after(config, now);
    }

    /// Removes a request and what it weighs.
    fn take(&mut self, request: Request) -> Option<InFlight> {
        let taken = self.requests.remove(&request)?;
        if let Some(load) = self.loads.get_mut(&taken.peer) {
            load.requests -= 1;
            if load.requests == 0 {
                self.loads.remove(&taken.peer);
            }
        }
        if let Some(blob) = self.blobs.get_mut(&taken.blob) {
            blob.in_flight -= 1;
        }
        Some(taken)
    }

    fn heard(&mut self, peer: Peer, now: Instant) {
        if let Some(load) = self.loads.get_mut(&peer) {
            load.heard = now;
        }
    }

    fn wake_after(&self, config: &Config, now: Instant) -> Option<Instant> {
        let silences = self.loads.values().map(|load| load.heard + config.silence);
        let replies = self.requests.values().map(|request| request.asked + config.reply);
        let blobs = self.blobs.values().flat_map(|blob| blob.deadlines(config));
        silences.chain(replies).chain(blobs).filter(|at| *at > now).min()
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), Violation> {
        let wrong = |what: String| Err(Violation(what));
        if self.requests.len() > config.total_chunks_max as usize {
            return wrong(format!("{} requests in flight", self.requests.len()));
        }
        if self.order.len() != self.blobs.len() {
            return wrong(format!("{} places for {} blobs", self.order.len(), self.blobs.len()));
        }
        let mut loads: BTreeMap<Peer, u32> = BTreeMap::new();
        let mut parts: BTreeMap<(BlobId, Part), Request> = BTreeMap::new();
        for (number, request) in &self.requests {
            *loads.entry(request.peer).or_default() += 1;
            if let Some(other) = parts.insert((request.blob, request.part), *number) {
                return wrong(format!("{other:?} and {number:?} ask for the same"));
            }
            let Some(blob) = self.blobs.get(&request.blob) else {
                return wrong(format!("{number:?} is for a blob that nobody wants"));
            };
            if let Part::Chunk(chunk) = request.part
                && (blob.open.contains(chunk) || !blob.is_missing(chunk))
            {
                return wrong(format!("{number:?} asks for a chunk that is open, or not missing"));
            }
        }
        if let Some((peer, load)) = loads.iter().find(|(peer, load)| {
            **load > config.peer_chunks_max
                || self.loads.get(peer).is_none_or(|held| held.requests != **load)
        }) {
            return wrong(format!("{peer:?} owes {load} requests"));
        }
        if loads.len() != self.loads.len() {
            return wrong("a peer that owes nothing has a load".to_owned());
        }
        self.blobs.values().try_for_each(|blob| {
            let in_flight = parts.keys().filter(|(id, _)| *id == blob.id).count();
            blob.check(in_flight, config)
        })
    }
}
