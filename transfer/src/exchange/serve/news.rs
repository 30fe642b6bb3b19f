//! Who follows which blob, and what they have not been told yet.

use std::collections::BTreeMap;

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::{ChunkRange, ChunkSet, HAVE_OTHERS_MAX, HAVE_RUNS_MAX};

use super::super::{Action, Config, Peer};

/// What one follower has not been told.
#[derive(Debug, Default)]
struct Follower {
    chunks: ChunkSet,
    others: Vec<Peer>,
    /// How many others it was told of in all.
    introduced: usize,
}

#[derive(Debug, Default)]
pub(super) struct News {
    blobs: BTreeMap<BlobId, BTreeMap<Peer, Follower>>,
    /// When to tell what is untold.
    due: Option<Instant>,
}

impl News {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether `peer` is a follower now and needs to know what is here already.
    pub(super) fn followed(
        &mut self,
        config: &Config,
        now: Instant,
        peer: Peer,
        blob: BlobId,
        may_be_introduced: bool,
        reachable: &dyn Fn(Peer) -> bool,
    ) -> bool {
        let follows = self.blobs.values().filter(|followers| followers.contains_key(&peer)).count();
        if follows >= config.follows_max {
            return false;
        }
        let followers = self.blobs.entry(blob).or_default();
        let mut new = Follower::default();
        // The newest are those that are likeliest still there and at work.
        for (other, follower) in followers.iter_mut().rev().filter(|(other, _)| **other != peer) {
            if reachable(*other) && new.introduced < HAVE_OTHERS_MAX {
                new.others.push(*other);
                new.introduced += 1;
            }
            if may_be_introduced && follower.introduced < HAVE_OTHERS_MAX {
                follower.others.push(peer);
                follower.introduced += 1;
            }
        }
        followers.insert(peer, new);
        self.tell_at(now + config.tell);
        true
    }

    pub(super) fn unfollowed(&mut self, peer: Peer, blob: BlobId) {
        if let Some(followers) = self.blobs.get_mut(&blob) {
            followers.remove(&peer);
            followers.values_mut().for_each(|other| other.others.retain(|other| *other != peer));
            if followers.is_empty() {
                self.blobs.remove(&blob);
            }
        }
    }

    pub(super) fn gone(&mut self, peer: Peer) {
        let blobs: Vec<BlobId> = self.blobs.keys().copied().collect();
        blobs.into_iter().for_each(|blob| self.unfollowed(peer, blob));
    }

    pub(super) fn present(&mut self, at: Instant, peer: Peer, blob: BlobId, chunks: &ChunkSet) {
        if let Some(follower) = self.blobs.get_mut(&blob).and_then(|all| all.get_mut(&peer)) {
            chunks.iter().for_each(|run| follower.chunks.insert(run));
            self.tell_at(at);
        }
    }

    pub(super) fn arrived(&mut self, at: Instant, blob: BlobId, chunk: u32) {
        if let Some(followers) = self.blobs.get_mut(&blob) {
            let run = ChunkRange::new(chunk, chunk + 1);
            followers.values_mut().for_each(|follower| follower.chunks.insert(run));
            self.tell_at(at);
        }
    }

    fn tell_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(super) fn tell(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        let mut more = false;
        for (blob, followers) in &mut self.blobs {
            for (peer, follower) in followers {
                if follower.chunks.is_empty() && follower.others.is_empty() {
                    continue;
                }
                let chunks: Vec<ChunkRange> = follower.chunks.iter().take(HAVE_RUNS_MAX).collect();
                chunks.iter().for_each(|run| follower.chunks.remove(*run));
                more |= !follower.chunks.is_empty();
                let others = core::mem::take(&mut follower.others);
                out.push(Action::Tell { peer: *peer, blob: *blob, chunks, others });
            }
        }
        if more {
            self.due = Some(now);
        }
    }
}
