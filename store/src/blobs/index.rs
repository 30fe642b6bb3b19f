//! What the store holds, in RAM: who pins what, what was used when, and what that leaves room for.
//!
//! Pure: the store asks it, and does to the files what it says. Rebuilt from the names at each start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use allhands_common::blob::{BlobId, ChunkId};

use super::body::Body;
use super::entry::entry_bytes;
use super::error::StoreFull;
use super::owner::Owner;

/// What a file system gives space in.
const BLOCK_BYTES: u64 = 4096;

/// Blobs that are tried for one chunk, at most: all zeros may be in thousands.
const PLACES_MAX: usize = 4;

/// What a blob of so many bytes takes on the disk, with its entry.
pub(super) fn disk_bytes(blob_bytes: u64) -> u64 {
    let blocks = |bytes: u64| bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
    blocks(blob_bytes).saturating_add(blocks(entry_bytes(blob_bytes)))
}

#[derive(Debug)]
pub(super) struct Index {
    quota_bytes: u64,
    /// Taken by the blobs.
    held_bytes: u64,
    /// Taken by what is coming in under no name yet.
    incoming_bytes: u64,
    /// Counts uses.
    clock: u64,
    held: BTreeMap<BlobId, Held>,
    /// The blobs, by their last use.
    by_use: BTreeMap<u64, BlobId>,
    by_owner: BTreeMap<Owner, BTreeSet<BlobId>>,
    /// Which blob has which chunk in its manifest, here or not, and where first: some 100 bytes a mebibyte.
    by_chunk: BTreeMap<(ChunkId, BlobId), u32>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) body: Arc<Body>,
    pub(super) used: u64,
    pub(super) owners: BTreeSet<Owner>,
    /// Handles on it.
    handles: usize,
    disk_bytes: u64,
}

impl Held {
    fn may_go(&self) -> bool {
        self.owners.is_empty() && self.handles == 0
    }
}

impl Index {
    pub(super) fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            held_bytes: 0,
            incoming_bytes: 0,
            clock: 0,
            held: BTreeMap::new(),
            by_use: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            by_chunk: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, id: &BlobId) -> Option<&Held> {
        self.held.get(id)
    }

    pub(super) fn blobs(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The next use's number.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Adds a blob that is not there, last used at `used`: a number that [`Index::tick`] gave.
    pub(super) fn insert(&mut self, body: Arc<Body>, used: u64) {
        let disk_bytes = disk_bytes(body.manifest.bytes());
        self.held_bytes += disk_bytes;
        self.by_use.insert(used, body.id);
        let id = body.id;
        for (at, chunk) in (0..).zip(body.manifest.chunks()) {
            self.by_chunk.entry((*chunk, id)).or_insert(at);
        }
        let held = Held { body, used, owners: BTreeSet::new(), handles: 0, disk_bytes };
        self.held.insert(id, held);
    }

    /// Notes a use; its number where that has to be written down: nothing was used since it was.
    pub(super) fn touch(&mut self, id: &BlobId) -> Option<u64> {
        let held = self.held.get_mut(id)?;
        if held.used == self.clock {
            return None;
        }
        self.by_use.remove(&held.used);
        self.clock += 1;
        held.used = self.clock;
        self.by_use.insert(self.clock, *id);
        Some(self.clock)
    }

    /// One handle more on a blob.
    pub(super) fn hold(&mut self, id: &BlobId) -> Option<Arc<Body>> {
        let held = self.held.get_mut(id)?;
        held.handles += 1;
        Some(held.body.clone())
    }

    /// One handle fewer on this blob; another one of the same name, which came after it, is left alone. Whether
    /// nobody has it any more, neither by a handle nor by a pin.
    pub(super) fn let_go(&mut self, body: &Arc<Body>) -> bool {
        match self.held.get_mut(&body.id) {
            Some(held) if Arc::ptr_eq(&held.body, body) => {
                held.handles -= 1;
                held.handles == 0 && held.owners.is_empty()
            }
            Some(_) | None => false,
        }
    }

    /// Whether the pin is new; `None` for a blob that is not here.
    pub(super) fn pin(&mut self, id: &BlobId, owner: Owner) -> Option<bool> {
        let held = self.held.get_mut(id)?;
        self.by_owner.entry(owner).or_default().insert(*id);
        Some(held.owners.insert(owner))
    }

    /// Whether there was such a pin.
    pub(super) fn release(&mut self, id: &BlobId, owner: Owner) -> bool {
        if let Some(ids) = self.by_owner.get_mut(&owner) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        self.held.get_mut(id).is_some_and(|held| held.owners.remove(&owner))
    }

    /// Blobs other than `but` whose manifest has a chunk, a few of them, and where.
    pub(super) fn places_of(&self, chunk: &ChunkId, but: &BlobId) -> Vec<(BlobId, u32)> {
        let all = self.by_chunk.range((*chunk, BlobId([0; 32]))..=(*chunk, BlobId([0xff; 32])));
        let places = all.map(|((_, id), at)| (*id, *at)).filter(|(id, _)| id != but);
        places.take(PLACES_MAX).collect()
    }

    /// What an owner pins.
    pub(super) fn pinned_by(&self, owner: Owner) -> Vec<BlobId> {
        self.by_owner.get(&owner).into_iter().flatten().copied().collect()
    }

    /// Takes a blob out, whoever pins it; its owners have no pin any more.
    pub(super) fn remove(&mut self, id: &BlobId) -> Option<Held> {
        let owners: Vec<Owner> = self.held.get(id)?.owners.iter().copied().collect();
        for owner in &owners {
            self.release(id, *owner);
        }
        let mut held = self.held.remove(id)?;
        self.by_use.remove(&held.used);
        self.held_bytes -= held.disk_bytes;
        for chunk in held.body.manifest.chunks() {
            self.by_chunk.remove(&(*chunk, *id));
        }
        held.owners = owners.into_iter().collect();
        Some(held)
    }

    /// The blobs that have to go so that `needed_bytes` fit, those not used for longest first.
    ///
    /// # Errors
    /// All that may go would not be enough: then none should.
    pub(super) fn make_room(&self, needed_bytes: u64) -> Result<Vec<BlobId>, StoreFull> {
        let taken = self.held_bytes + self.incoming_bytes;
        let mut excess = taken.saturating_add(needed_bytes).saturating_sub(self.quota_bytes);
        let mut victims = Vec::new();
        for held in self.by_use.values().filter_map(|id| self.held.get(id)) {
            if excess == 0 {
                break;
            }
            if held.may_go() {
                excess = excess.saturating_sub(held.disk_bytes);
                victims.push(held.body.id);
            }
        }
        if excess == 0 {
            return Ok(victims);
        }
        let usage = self.usage();
        Err(StoreFull {
            needed_bytes,
            quota_bytes: self.quota_bytes,
            held_bytes: usage.held_bytes,
            pinned_bytes: usage.pinned_bytes,
        })
    }

    /// The blob that goes first.
    pub(super) fn oldest(&self) -> Option<BlobId> {
        let mut by_use = self.by_use.values().filter_map(|id| self.held.get(id));
        by_use.find(|held| held.may_go()).map(|held| held.body.id)
    }

    /// So many bytes are coming in under no name yet, or were.
    pub(super) fn charge(&mut self, bytes: u64) {
        self.incoming_bytes += bytes;
    }

    /// So many of them are not any more.
    pub(super) fn discharge(&mut self, bytes: u64) {
        self.incoming_bytes -= bytes;
    }

    pub(super) fn usage(&self) -> Usage {
        let pinned = self.held.values().filter(|held| !held.may_go());
        let pinned: u64 = pinned.map(|held| held.disk_bytes).sum();
        Usage {
            quota_bytes: self.quota_bytes,
            held_bytes: self.held_bytes + self.incoming_bytes,
            pinned_bytes: pinned + self.incoming_bytes,
            blobs: self.held.len(),
        }
    }
}

/// What a store has taken of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What it may take, in bytes.
    pub quota_bytes: u64,
    /// What it has taken: blobs with their entries, in whole blocks, and what is being put.
    pub held_bytes: u64,
    /// What of that cannot be evicted: it is pinned, or somebody has a handle on it.
    pub pinned_bytes: u64,
    /// How many blobs it has, complete or not.
    pub blobs: usize,
}
