//! Segment files: the bytes of argument and outcome segments, append-only, beside the log.
//!
//! The core loop appends what an applied entry carries, reads what it sends, discards what the state dropped. The raft
//! layer syncs the files before it purges the log entries that carried the segments, links them into snapshots and
//! moves live segments out of files that are mostly dead. An embedded cluster uses a temporary directory and
//! [`Durability::Process`].
//!
//! In RAM a segment costs where it is, about 20 bytes; short ones are read from their file each time, whose end is in
//! RAM and whose rest is in the kernel's cache while it matters.
//!
//! After a crash: what was synced is there. What was not may be torn; such a segment is either cut, skipped or noticed
//! when it is read, and the log, replayed, appends it again ([`Segments::append`] checks what it finds). Discards are
//! not written down: segments that the state no longer knows come back and go with [`Segments::retain`] once the log
//! is replayed.

mod cache;
mod disk;
mod error;
mod format;
mod index;
mod maintain;
mod scan;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use allhands_common::id::SegmentId;
use bytes::Bytes;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{AppendError, MaintainError, ReadError};
pub use format::{SegmentHead, SegmentPlace};
use index::{Index, Known};
pub use maintain::{Check, Linked};
pub use scan::OpenSegmentsError;

use crate::raft::config::Durability;
use cache::Cache;

/// A file is closed at this size.
pub const FILE_BYTES: u64 = 64 << 20;
/// The design's budget of segment bytes in RAM.
pub const CACHE_BYTES: usize = 256 << 20;
/// Longest segment: it arrives in one entry of the log. Above 1 MiB the core makes it a blob.
pub const SEGMENT_BYTES_MAX: usize = crate::raft::types::ENTRY_BYTES_MAX;

/// The store of segments; clones share it. All calls block on the disk at most, never on each other's I/O when reading.
#[derive(Debug, Clone)]
pub struct Segments {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    durability: Durability,
    file_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    index: Index,
    cache: Cache,
    /// Set by the first failed write or sync: the kernel may have dropped what it did not write.
    latched: bool,
}

impl Segments {
    /// Opens or makes the segment files in `dir`, with at most `cache_bytes` of them in RAM.
    pub fn open(
        dir: &Path,
        durability: Durability,
        cache_bytes: usize,
    ) -> Result<Self, OpenSegmentsError> {
        Self::open_on(Arc::new(RealDisk), dir, durability, cache_bytes, FILE_BYTES)
    }

    /// [`Segments::open`] on another disk, with files of another size: for tests and simulations.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        durability: Durability,
        cache_bytes: usize,
        file_bytes: u64,
    ) -> Result<Self, OpenSegmentsError> {
        std::fs::create_dir_all(dir)
            .map_err(|source| OpenSegmentsError::Io { dir: dir.to_owned(), source })?;
        let index = Index::scan(&*disk, dir)?;
        let state = State { index, cache: Cache::new(cache_bytes), latched: false };
        let dir = dir.to_owned();
        let state = Mutex::new(state);
        // The index counts places in a file in 32 bits.
        let file_bytes = file_bytes.min(u64::from(u32::MAX));
        Ok(Self { shared: Arc::new(Shared { dir, disk, durability, file_bytes, state }) })
    }

    /// Stores a segment, in RAM and the page cache; durable after [`Segments::sync`]. Storing it again is storing it
    /// once.
    pub fn append(&self, id: SegmentId, bytes: &Bytes) -> Result<(), AppendError> {
        let length = bytes.len();
        if length > SEGMENT_BYTES_MAX {
            return Err(AppendError::TooLarge { id, bytes: length, max: SEGMENT_BYTES_MAX });
        }
        let head = SegmentHead::of(id, bytes);
        let mut state = self.lock().ok_or(AppendError::Latched)?;
        if state.latched {
            return Err(AppendError::Latched);
        }
        if let Some(known) = state.index.get(id) {
            // Found by the scan at start: what is in the file may be torn. Keep it only if it is whole.
            let stored = match known.proven {
                true => self.head(&state, id, known).map(|place| place.head),
                false => self.read_known(&state, id, known).map(|(head, _)| head),
            };
            match stored {
                Ok(stored) if stored == head => {
                    state.index.prove(id);
                    return Ok(());
                }
                Ok(_) if known.proven => return Err(AppendError::Conflict { id }),
                _ => {}
            }
            self.take_out(&mut state, id);
        }
        let written = state.index.write(
            &*self.shared.disk,
            &self.shared.dir,
            self.shared.file_bytes,
            head,
            bytes,
        );
        match written {
            Ok(()) => {
                if Cache::keeps(length) {
                    // The copy keeps the cache's budget honest: `bytes` is part of a whole entry.
                    state.cache.insert(id, Bytes::copy_from_slice(bytes));
                }
                Ok(())
            }
            Err((file, source)) => {
                state.latched = true;
                Err(AppendError::Io { id, path: format::file_path(&self.shared.dir, file), source })
            }
        }
    }

    /// The bytes of a segment: from RAM, else from its file, checked.
    pub fn read(&self, id: SegmentId) -> Result<Bytes, ReadError> {
        let (known, source) = {
            let mut state = self.lock().ok_or(ReadError::Unknown { id })?;
            if let Some(bytes) = state.cache.get(id) {
                return Ok(bytes);
            }
            let known = state.index.get(id).ok_or(ReadError::Unknown { id })?;
            (known, state.index.source(known).ok_or(ReadError::Unknown { id })?)
        };
        let (_, bytes) = source.read(&self.shared.dir, id, known)?;
        if Cache::keeps(bytes.len())
            && let Some(mut state) = self.lock()
            && state.index.get(id).is_some()
        {
            state.cache.insert(id, bytes.clone());
        }
        Ok(bytes)
    }

    /// Forgets a segment. Its file goes with the last live segment in it. Unknown ids are ignored.
    pub fn discard(&self, id: SegmentId) {
        if let Some(mut state) = self.lock() {
            self.take_out(&mut state, id);
        }
    }

    /// Bytes of segments that are in RAM.
    pub fn cached_bytes(&self) -> usize {
        self.lock().map_or(0, |state| state.cache.held_bytes())
    }

    /// Bytes on disk, and how many of them are live.
    pub fn disk_bytes(&self) -> (u64, u64) {
        self.lock().map_or((0, 0), |state| state.index.disk_bytes())
    }

    fn take_out(&self, state: &mut State, id: SegmentId) {
        state.cache.remove(id);
        let Some(empty) = state.index.remove(id) else {
            return;
        };
        // A name that cannot be removed costs space until the next start finds the file empty.
        let path = format::file_path(&self.shared.dir, empty);
        if let Err(error) = self.shared.disk.remove(&path) {
            tracing::warn!(?path, %error, "an empty segment file cannot be removed");
        }
    }

    fn head(&self, state: &State, id: SegmentId, known: Known) -> Result<SegmentPlace, ReadError> {
        let source = state.index.source(known).ok_or(ReadError::Unknown { id })?;
        source.head(&self.shared.dir, id, known)
    }

    fn read_known(
        &self,
        state: &State,
        id: SegmentId,
        known: Known,
    ) -> Result<(SegmentHead, Bytes), ReadError> {
        let source = state.index.source(known).ok_or(ReadError::Unknown { id })?;
        source.read(&self.shared.dir, id, known)
    }

    /// `None` after a panic inside the lock: what is in the files is then unknown.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        self.shared.state.lock().ok()
    }
}

/// Reads a segment out of the copy of its file in `dir`: a snapshot's.
pub fn read_linked(dir: &Path, place: SegmentPlace) -> Result<Bytes, ReadError> {
    let path = format::file_path(dir, place.file);
    let SegmentPlace { head, offset, .. } = place;
    let io = |source| ReadError::Io { id: head.id, path: path.clone(), source };
    let file = RealDisk.open(&path).map_err(io)?;
    let mut bytes = vec![0; head.length as usize];
    file.read_at(&mut bytes, offset).map_err(io)?;
    if !head.matches(&bytes) {
        return Err(ReadError::Mismatch { id: head.id, path, offset });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
