//! The chunk store: blobs of one machine, on disk, content-addressed, mapped read-only.
//!
//! A worker, coordinator or client opens one, reserves space for what it will receive, writes chunks in any
//! order as they come ([`Blob::write_chunk`]), or puts whole streams ([`Store::put`]), and reads, maps or
//! gives away what is there. All calls block on the disk and belong on a thread that may; a [`Store`] is
//! shared by cloning it.
//!
//! A blob is one file that has all its space from the beginning ([`Store::reserve`] is where a full disk
//! shows), and an entry beside it (`blobs/layout.rs`, `blobs/entry.rs`). No byte is handed out before its
//! chunk's hash was seen to be right: chunks that are read, each time; chunks that are mapped, once in a
//! process.
//!
//! **A crash of the process** loses nothing that was written, but leases. **A crash of the machine** loses what
//! was not made durable ([`Store::make_durable`]): no write waits for the disk for its own sake, what is left is
//! found and checked afterwards. Partial blobs stay and are completed.
//!
//! **Space.** A blob stays while an owner pins it or somebody has a [`Blob`] handle on it. Others go, those not
//! used for longest first, when room is needed; a map of one that went keeps its pages, and their space, until
//! it is dropped.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allhands_common::blob::{BlobId, ChunkId, Manifest};
use allhands_common::id::ClusterId;

use crate::disk::{Disk, DiskFile, RealDisk};

mod blob;
mod body;
mod entry;
mod error;
mod gather;
mod index;
mod layout;
mod open;
mod owner;
mod put;
mod reserve;
#[cfg(test)]
mod tests;
mod verified;

pub use blob::Blob;
pub use body::Written;
use body::{Body, Chunk};
pub use error::{
    OpenStoreError, PinError, PutError, ReadError, ReserveError, StoreFull, SyncError, WriteError,
};
pub use gather::GatherError;
pub use index::Usage;
use index::{Held, Index};
use layout::Layout;
pub use owner::{Owner, ParseOwnerError};
pub use verified::Verified;

/// The blobs in one directory, which belongs to this process while a clone of this or a [`Blob`] is there.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    layout: Layout,
    index: Mutex<Index>,
    /// Names what comes in without one.
    incoming: AtomicU64,
    /// Whether blobs go with their last handle.
    collects: AtomicBool,
    /// Held, not read.
    _lock: std::fs::File,
}

/// What the store knows of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its id.
    pub id: BlobId,
    /// Its length.
    pub bytes: u64,
    /// Its chunks that are here.
    pub present: Vec<Range<u32>>,
    /// Who pins it.
    pub owners: Vec<Owner>,
    /// The greater, the later it was used.
    pub used: u64,
}

impl Store {
    /// Opens or makes the store of `cluster` in `dir`, which may take `quota_bytes`. What a crash has left is
    /// put in order; what is beyond the quota is evicted.
    ///
    /// # Errors
    /// Another process has it, it belongs to another cluster or version, or the system refuses.
    pub fn open(dir: &Path, cluster: ClusterId, quota_bytes: u64) -> Result<Self, OpenStoreError> {
        Self::open_on(Arc::new(RealDisk), dir, cluster, quota_bytes)
    }

    /// [`Store::open`] on another disk: for tests and simulations.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster: ClusterId,
        quota_bytes: u64,
    ) -> Result<Self, OpenStoreError> {
        open::open(disk, dir, cluster, quota_bytes)
    }

    /// From now on a blob that nobody pins goes with the last handle on it, instead of when room is needed: for
    /// a store of things that are of use to those who have a handle only.
    pub fn collect_what_nobody_holds(&self) {
        self.shared.collects.store(true, Ordering::Relaxed);
    }

    /// A handle on a blob that is here, complete or not. To ask for it is to use it.
    pub fn get(&self, id: &BlobId) -> Option<Blob> {
        let mut index = self.lock();
        let (body, used) = (index.hold(id)?, index.touch(id));
        drop(index);
        Some(self.handle(body, used))
    }

    /// [`Store::get`] that is no use of it: it keeps the blob from going, and counts for nothing else.
    pub fn hold(&self, id: &BlobId) -> Option<Blob> {
        let body = self.lock().hold(id)?;
        Some(self.handle(body, None))
    }

    /// Other blobs than `but` that have a chunk, a few of them, and where in them it is.
    fn holding(&self, chunk: &ChunkId, but: &BlobId) -> Vec<(Blob, u32)> {
        let mut index = self.lock();
        let places = index.places_of(chunk, but);
        let held: Vec<_> =
            places.into_iter().filter_map(|(id, at)| Some((index.hold(&id)?, at))).collect();
        drop(index);
        held.into_iter().map(|(body, at)| (self.handle(body, None), at)).collect()
    }

    /// Keeps a blob from being evicted until `owner` releases it. Pinning it again is pinning it once.
    ///
    /// # Errors
    /// It is not here, or the pin cannot be written down.
    pub fn pin(&self, id: &BlobId, owner: Owner) -> Result<(), PinError> {
        let mut index = self.lock();
        let held = index.get(id).ok_or(PinError::Unknown { id: *id })?;
        if owner.lasts() && !held.owners.contains(&owner) {
            let path = self.shared.layout.pin(owner, id);
            match self.shared.disk.create(&path) {
                Ok(_) => {}
                // A release that could not remove the name left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(PinError::Io { id: *id, path, source }),
            }
        }
        index.pin(id, owner);
        Ok(())
    }

    /// Ends a pin. Whether there was one.
    pub fn release(&self, id: &BlobId, owner: Owner) -> bool {
        self.lock_and_release(&mut self.lock(), id, owner)
    }

    /// Ends all pins of an owner; how many there were.
    pub fn release_all(&self, owner: Owner) -> usize {
        let mut index = self.lock();
        let ids = index.pinned_by(owner);
        ids.iter().filter(|id| self.lock_and_release(&mut index, id, owner)).count()
    }

    /// Makes a complete blob durable, with the pins that were set before: when this returns they survive a
    /// crash of the machine. What was there at the start and was not used since is checked first.
    ///
    /// # Errors
    /// The blob is not complete, or the disk fails.
    pub fn make_durable(&self, id: &BlobId) -> Result<(), SyncError> {
        let incomplete = |source| SyncError::Incomplete { id: *id, source };
        let blob = self.get(id).ok_or_else(|| incomplete(ReadError::Gone { id: *id }))?;
        blob.verify().map_err(incomplete)?;
        let names = |path: &Path| {
            self.shared.disk.sync_directory(path).map_err(|error| (path.to_owned(), error))
        };
        let layout = &self.shared.layout;
        let synced =
            blob.body.sync().and_then(|()| names(&layout.blobs)).and_then(|()| names(&layout.pins));
        synced.map_err(|(path, source)| {
            // The kernel may have dropped what it could not write, and would say so only once.
            self.take_out(&mut self.lock(), id);
            SyncError::Lost { id: *id, path, source }
        })
    }

    /// Lets go of a blob that nobody pins; whether it was here. Handles on it find it gone, maps stay.
    ///
    /// # Errors
    /// Somebody pins it.
    pub fn remove(&self, id: &BlobId) -> Result<bool, PinError> {
        let mut index = self.lock();
        let Some(held) = index.get(id) else { return Ok(false) };
        if let Some(owner) = held.owners.first() {
            let others = held.owners.len() - 1;
            return Err(PinError::Pinned { id: *id, owner: *owner, others });
        }
        let file = self.take_out(&mut index, id);
        drop(index);
        drop(file);
        Ok(true)
    }

    /// All blobs, in the order of their ids.
    pub fn list(&self) -> Vec<BlobInfo> {
        let index = self.lock();
        let owners = |held: &Held| held.owners.iter().copied().collect();
        let all = index.blobs().map(|held| (held.body.clone(), owners(held), held.used));
        let all: Vec<_> = all.collect();
        drop(index);
        let info = |(body, owners, used): (Arc<Body>, Vec<Owner>, u64)| BlobInfo {
            id: body.id,
            bytes: body.manifest.bytes(),
            present: blob::runs(body.here(), true),
            owners,
            used,
        };
        all.into_iter().map(info).collect()
    }

    /// What it has taken of its disk.
    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    fn lock_and_release(&self, index: &mut Index, id: &BlobId, owner: Owner) -> bool {
        let released = index.release(id, owner);
        if released && owner.lasts() {
            self.remove_pin(id, owner);
        }
        released
    }

    /// A name that stays is a pin that comes back at the next start: its owner releases it again, or never
    /// knew it.
    fn remove_pin(&self, id: &BlobId, owner: Owner) {
        let path = self.shared.layout.pin(owner, id);
        if let Err(error) = self.shared.disk.remove(&path) {
            tracing::warn!(?path, %error, "a pin cannot be removed");
        }
    }

    /// A handle is gone. The file of a blob that goes with it, to be dropped when the index is not locked.
    fn let_go(&self, body: &Arc<Body>) -> Option<Arc<dyn DiskFile>> {
        let mut index = self.lock();
        let last = index.let_go(body);
        let goes = last && self.shared.collects.load(Ordering::Relaxed);
        if goes { self.take_out(&mut index, &body.id) } else { None }
    }

    /// Takes a blob out with its pins. Its file, to be dropped when the index is not locked any more: that
    /// frees its space, which may take its time.
    fn take_out(&self, index: &mut Index, id: &BlobId) -> Option<Arc<dyn DiskFile>> {
        let held = index.remove(id)?;
        for owner in held.owners.iter().filter(|owner| owner.lasts()) {
            self.remove_pin(id, *owner);
        }
        held.body.remove()
    }

    /// Not called while the index is locked: a blob that is being renewed is locked for long.
    fn handle(&self, body: Arc<Body>, used: Option<u64>) -> Blob {
        if let Some(used) = used {
            body.note_used(used);
        }
        Blob::new(self.clone(), body)
    }

    /// What is noted under the lock is whole after each call of the index, so a panic there leaves nothing
    /// half done.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body whose files are here.
    fn body(&self, id: BlobId, manifest: Manifest, chunks: Vec<Chunk>) -> Arc<Body> {
        let Shared { disk, layout, .. } = &*self.shared;
        Arc::new(Body::new(disk.clone(), layout.blob(&id), id, manifest, chunks))
    }
}
