//! One blob that is being fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use allhands_common::blob::{BlobId, chunks_of};
use allhands_common::time::Instant;
use allhands_common::wire::data::{ChunkRange, ChunkSet};

use super::super::{Config, Peer, Want};
use super::Violation;

/// Who waits for what of it.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) bytes: Option<Range<u64>>,
    pub(super) deadline: Instant,
    /// Empty until the manifest is known.
    pub(super) chunks: ChunkRange,
    /// How many of them are not here.
    pub(super) left: u32,
    pub(super) repair: bool,
}

/// What has been tried for a part that was asked for and did not come.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// Who failed to give it.
    pub(super) tried: Vec<Peer>,
    /// To whom we were sent for it.
    pub(super) via: Option<Peer>,
    /// How often we were sent on since somebody failed.
    pub(super) hops: u32,
    /// How often everybody has failed.
    pub(super) rounds: u32,
    /// Not to be asked for again before.
    pub(super) not_before: Instant,
}

impl History {
    pub(super) fn failed_at(&mut self, peer: Peer) {
        if !self.tried.contains(&peer) {
            self.tried.push(peer);
        }
        if self.via == Some(peer) {
            self.via = None;
        }
        self.hops = 0;
    }
}

/// A holder, as we know it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// What a fellow says it has; a source has all.
    pub(super) has: ChunkSet,
    pub(super) source: bool,
    pub(super) followed: bool,
}

impl View {
    pub(super) fn has(&self, chunk: u32) -> bool {
        self.source || self.has.contains(chunk)
    }
}

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) id: BlobId,
    /// Its length; none until the manifest is known.
    pub(super) bytes: Option<u64>,
    pub(super) waiters: BTreeMap<Want, Waiter>,
    pub(super) wanted: ChunkSet,
    pub(super) here: ChunkSet,
    /// Wanted, not here, not asked for, and without a history.
    pub(super) open: ChunkSet,
    /// Wanted, not here, not asked for, and with a history.
    pub(super) again: BTreeMap<u32, History>,
    /// The same for the manifest.
    pub(super) manifest: History,
    pub(super) holders: BTreeMap<Peer, View>,
    /// What fellows have: not to be asked of a source.
    pub(super) elsewhere: ChunkSet,
    /// Sources whose link was lost: when to try again.
    pub(super) back: BTreeMap<Peer, Instant>,
    pub(super) redials: BTreeMap<Peer, u32>,
    pub(super) quarantined: BTreeSet<Peer>,
    /// Everybody who ever was a holder, for the error.
    pub(super) met: BTreeSet<Peer>,
    /// Where we are in it.
    pub(super) cursor: u32,
    pub(super) in_flight: u32,
    /// Since when nobody has what is missing.
    pub(super) starved: Option<Instant>,
}

impl Blob {
    pub(super) fn new(id: BlobId) -> Self {
        Self {
            id,
            bytes: None,
            waiters: BTreeMap::new(),
            wanted: ChunkSet::new(),
            here: ChunkSet::new(),
            open: ChunkSet::new(),
            again: BTreeMap::new(),
            manifest: History::default(),
            holders: BTreeMap::new(),
            elsewhere: ChunkSet::new(),
            back: BTreeMap::new(),
            redials: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            met: BTreeSet::new(),
            cursor: 0,
            in_flight: 0,
            starved: None,
        }
    }

    pub(super) fn is_missing(&self, chunk: u32) -> bool {
        match self.bytes {
            Some(_) => self.wanted.contains(chunk) && !self.here.contains(chunk),
            // Nobody knows yet; whoever asks here may well be right to.
            None => true,
        }
    }

    /// Whether it is missing, and comes from others than those who ask for it here.
    pub(super) fn is_promised(&self, chunk: u32) -> bool {
        let promised = |waiter: &Waiter| !waiter.repair && waiter.chunks.contains(chunk);
        self.is_missing(chunk) && (self.bytes.is_none() || self.waiters.values().any(promised))
    }

    /// Adds a holder, or makes a fellow a source.
    pub(super) fn meet(&mut self, config: &Config, peer: Peer, source: bool) {
        if self.quarantined.contains(&peer) {
            return;
        }
        if self.holders.len() >= config.holders_max && !self.holders.contains_key(&peer) {
            return;
        }
        self.met.insert(peer);
        self.back.remove(&peer);
        let view = self.holders.entry(peer).or_default();
        if source && !view.source {
            view.source = true;
            self.count_elsewhere();
        }
    }

    /// Removes a holder; says whether it was one.
    pub(super) fn part_from(&mut self, peer: Peer) -> Option<View> {
        let view = self.holders.remove(&peer)?;
        self.count_elsewhere();
        Some(view)
    }

    /// After a fellow has gone, or has less than was thought.
    pub(super) fn count_elsewhere(&mut self) {
        let fellows = self.holders.values().filter(|view| !view.source);
        self.elsewhere = fellows.flat_map(|view| view.has.iter()).collect();
    }

    /// After the manifest came, and after a want came or went.
    pub(super) fn count_open(&mut self, asked: &ChunkSet) {
        let wanted: ChunkSet = self.waiters.values().map(|waiter| waiter.chunks).collect();
        self.wanted = wanted;
        let missing: Vec<_> =
            self.wanted.iter().flat_map(|run| self.here.gaps(run).collect::<Vec<_>>()).collect();
        self.again.retain(|chunk, _| missing.iter().any(|run| run.contains(*chunk)));
        self.open = missing.into_iter().collect();
        asked.iter().for_each(|run| self.open.remove(run));
        let again: Vec<u32> = self.again.keys().copied().collect();
        again.into_iter().for_each(|chunk| self.open.remove(one(chunk)));
    }

    /// Which chunks a waiter waits for, now that the length is known.
    pub(super) fn size_waiter(&mut self, want: Want) {
        let (Some(bytes), Some(waiter)) = (self.bytes, self.waiters.get_mut(&want)) else {
            return;
        };
        let range = waiter.bytes.clone().unwrap_or(0..bytes);
        let chunks = chunks_of(range.start.min(bytes)..range.end.min(bytes));
        waiter.chunks = ChunkRange::new(chunks.start, chunks.end);
        waiter.left = self.here.gaps(waiter.chunks).map(ChunkRange::len).sum();
    }

    /// Every moment at which something of it becomes overdue.
    pub(super) fn deadlines(&self, config: &Config) -> impl Iterator<Item = Instant> + '_ {
        let waiters = self.waiters.values().map(|waiter| waiter.deadline);
        let again = self.again.values().map(|history| history.not_before);
        let starved = self.starved.map(|since| since + config.grace);
        let manifest = core::iter::once(self.manifest.not_before);
        waiters.chain(again).chain(self.back.values().copied()).chain(starved).chain(manifest)
    }

    pub(super) fn check(&self, in_flight: usize, config: &Config) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Violation(format!("{}: {what}", self.id)));
        if self.in_flight as usize != in_flight {
            return wrong("its count of requests is wrong");
        }
        if self.waiters.is_empty() {
            return wrong("nobody wants it");
        }
        if self.holders.len() > config.holders_max {
            return wrong("too many holders");
        }
        if self.holders.keys().any(|peer| self.quarantined.contains(peer)) {
            return wrong("a holder is quarantined");
        }
        if self.open.iter().any(|run| self.here.intersection(run).next().is_some()) {
            return wrong("a chunk is open and here");
        }
        if self.again.keys().any(|chunk| self.open.contains(*chunk) || self.here.contains(*chunk)) {
            return wrong("a chunk that is to be asked for again is open, or here");
        }
        if self.waiters.values().any(|waiter| {
            waiter.left != self.here.gaps(waiter.chunks).map(ChunkRange::len).sum::<u32>()
                || (self.bytes.is_some() && waiter.left == 0)
        }) {
            return wrong("a waiter's count is wrong, or it waits for nothing");
        }
        Ok(())
    }
}

pub(super) const fn one(chunk: u32) -> ChunkRange {
    ChunkRange::new(chunk, chunk + 1)
}
