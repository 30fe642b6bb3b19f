//! One blob: its files, and which of its chunks are there.
//!
//! ```text
//!             write_chunk: hash right        written
//!   Absent ────────────────────────► Writing ─────────► Proven ◄─── hash right ─── Claimed (by the entry, at open)
//!     ▲ ▲                               │                  │                          │
//!     │ └───────── disk refused ────────┘                  │ hash wrong               │ hash wrong
//!     │                                                    ▼                          │
//!     │◄──────────── renew: a new file ──────────────── Damaged                       │
//!     └──────────────────────────── (of a sealed file: Damaged) ──────────────────────┘
//! ```
//! Only what is proven is handed out, and it is never written again in that file: somebody may have it
//! mapped. A complete file is sealed and not written at all. A chunk that turns out to be damaged is written
//! into a new file, to which what is still whole is copied.
//!
//! A claim is set after the chunk was written, and nothing is synced: after a crash some claims are wrong.
//! They are checked when the chunk is first used, by its hash.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use allhands_common::blob::{BlobId, CHUNK_BYTES, ChunkId, Manifest};

use super::entry;
use super::error::{ReadError, WriteError};
use super::layout::Paths;
use super::verified::Verified;
use crate::crew;
use crate::disk::{Access, Disk, DiskFile};

/// What is known of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Not here.
    Absent,
    /// A thread writes it.
    Writing,
    /// Said to be here by the entry that was found when the store was opened.
    Claimed,
    /// Here: this process has written it, or has seen that its hash is right.
    Proven,
    /// It was here, and the disk gave back something else. Its place is not written again.
    Damaged,
}

impl Chunk {
    /// Whether it counts as here.
    const fn is_here(self) -> bool {
        match self {
            Self::Claimed | Self::Proven => true,
            Self::Absent | Self::Writing | Self::Damaged => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) id: BlobId,
    pub(super) manifest: Arc<Manifest>,
    pub(super) paths: Paths,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    /// A chunk is not being written any more.
    written: Condvar,
}

#[derive(Debug)]
struct State {
    chunks: Vec<Chunk>,
    /// Counts the files that the blob has had: what was read from an earlier one says nothing of this one.
    file: u64,
    /// All of it was there: the file is not written any more.
    sealed: bool,
    /// The names are gone, or another blob's.
    removed: bool,
}

/// What became of a chunk that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was written.
    Now,
    /// It was here already.
    Before,
}

impl Body {
    /// A blob whose files are there, with what is known of its chunks.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        paths: Paths,
        id: BlobId,
        manifest: Manifest,
        chunks: Vec<Chunk>,
    ) -> Self {
        let sealed = chunks.iter().all(|chunk| chunk.is_here());
        let state = Mutex::new(State { chunks, file: 0, sealed, removed: false });
        let manifest = Arc::new(manifest);
        Self { id, manifest, paths, disk, state, written: Condvar::new() }
    }

    /// Which chunks are here.
    pub(super) fn here(&self) -> Vec<bool> {
        self.lock().chunks.iter().map(|chunk| chunk.is_here()).collect()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.lock().chunks.iter().all(|chunk| chunk.is_here())
    }

    /// Whether these chunks can be handed out at once.
    pub(super) fn is_proven(&self, chunks: Range<u32>) -> bool {
        let state = self.lock();
        let of = state.chunks.get(chunks.start as usize..chunks.end as usize);
        of.is_some_and(|of| of.iter().all(|chunk| *chunk == Chunk::Proven))
    }

    /// Writes a chunk whose bytes have its hash, unless it is here. Waits while another thread writes it.
    pub(super) fn write_chunk(&self, index: u32, bytes: &[u8]) -> Result<Written, WriteError> {
        let id = self.id;
        let Some(chunk) = self.chunk(index) else {
            let chunks = self.manifest.chunks().len() as u32;
            return Err(WriteError::Beyond { id, index, chunks });
        };
        if !self.has_length(index, bytes) || ChunkId::of(bytes) != chunk {
            return Err(WriteError::Mismatch { id, index, bytes: bytes.len() });
        }
        self.write_hashed(index, bytes)
    }

    /// [`Body::write_chunk`] of a chunk that was hashed before.
    pub(super) fn write_verified(
        &self,
        index: u32,
        verified: &Verified,
    ) -> Result<Written, WriteError> {
        let id = self.id;
        let Some(chunk) = self.chunk(index) else {
            let chunks = self.manifest.chunks().len() as u32;
            return Err(WriteError::Beyond { id, index, chunks });
        };
        let bytes = verified.bytes();
        if verified.id() != chunk || !self.has_length(index, bytes) {
            return Err(WriteError::Mismatch { id, index, bytes: bytes.len() });
        }
        self.write_hashed(index, bytes)
    }

    /// Whoever made the manifest may have hashed a chunk of another length.
    fn has_length(&self, index: u32, bytes: &[u8]) -> bool {
        let range = self.manifest.range_of(index);
        range.is_some_and(|range| range.end - range.start == bytes.len() as u64)
    }

    /// [`Body::write_chunk`] of a chunk whose hash was seen to be right.
    pub(super) fn write_hashed(&self, index: u32, bytes: &[u8]) -> Result<Written, WriteError> {
        let id = self.id;
        let io = |source| WriteError::Io { id, index, path: self.paths.bytes.clone(), source };
        let mut denied = false;
        let mut state = self.lock();
        let file = loop {
            if state.removed {
                return Err(WriteError::Gone { id });
            }
            match state.chunks[index as usize] {
                Chunk::Proven => return Ok(Written::Before),
                Chunk::Writing => {
                    state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Chunk::Claimed => {
                    drop(state);
                    match self.read_chunk(index, &mut Vec::new()) {
                        Ok(()) => return Ok(Written::Before),
                        Err(ReadError::Io { source, .. }) => return Err(io(source)),
                        // It is not here any more, or the blob is not.
                        Err(_) => state = self.lock(),
                    }
                }
                Chunk::Damaged => state = self.renew(state).map_err(io)?,
                Chunk::Absent => match self.disk.open(&self.paths.bytes, Access::Write) {
                    Ok(file) => {
                        state.chunks[index as usize] = Chunk::Writing;
                        break file;
                    }
                    // It was sealed before a crash that took some of the claims.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !denied => {
                        denied = true;
                        state.chunks[index as usize] = Chunk::Damaged;
                    }
                    Err(error) => return Err(io(error)),
                },
            }
        };
        drop(state);
        let written = file.write_at(bytes, u64::from(index) * u64::from(CHUNK_BYTES));
        let mut state = self.lock();
        state.chunks[index as usize] = match written {
            Ok(()) => Chunk::Proven,
            Err(_) => Chunk::Absent,
        };
        self.written.notify_all();
        written.map_err(io)?;
        if state.removed {
            return Err(WriteError::Gone { id });
        }
        self.claim(&state, index);
        if state.chunks.iter().all(|chunk| chunk.is_here()) {
            state.sealed = true;
            self.seal(&*file);
        }
        Ok(Written::Now)
    }

    /// Reads a chunk into `bytes` if it is here and whole.
    pub(super) fn read_chunk(&self, index: u32, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        let id = self.id;
        let (Some(range), Some(chunk)) = (self.manifest.range_of(index), self.chunk(index)) else {
            let at = u64::from(index) * u64::from(CHUNK_BYTES);
            return Err(ReadError::Beyond { id, bytes: self.manifest.bytes(), at });
        };
        loop {
            let state = self.lock();
            let seen = (state.chunks[index as usize], state.file);
            if !seen.0.is_here() {
                return Err(ReadError::Missing { id, index });
            }
            let file = self.open(&state)?;
            drop(state);
            bytes.resize((range.end - range.start) as usize, 0);
            let read = file.read_at(bytes, range.start);
            let whole = read.is_ok() && ChunkId::of(bytes) == chunk;

            let mut state = self.lock();
            let now = (state.chunks[index as usize], state.file);
            if whole {
                if now == seen {
                    state.chunks[index as usize] = Chunk::Proven;
                }
                return Ok(());
            }
            if now != seen {
                // Something else stands there by now.
                continue;
            }
            state.chunks[index as usize] = match seen.0 {
                // Nobody was handed it by this process.
                Chunk::Claimed if !state.sealed => Chunk::Absent,
                _ => Chunk::Damaged,
            };
            tracing::warn!(blob = %id, chunk = index, "a chunk is damaged on disk: it counts as missing");
            self.claim(&state, index);
            return Err(ReadError::Damaged { id, index, source: read.err() });
        }
    }

    /// Opens the file for reading, if these chunks are all here and whole. What was claimed is checked first.
    pub(super) fn open_proven(&self, chunks: Range<u32>) -> Result<Arc<dyn DiskFile>, ReadError> {
        loop {
            let state = self.lock();
            let of = |index: &u32| state.chunks[*index as usize];
            if let Some(index) = chunks.clone().find(|index| !of(index).is_here()) {
                return Err(ReadError::Missing { id: self.id, index });
            }
            let claimed: Vec<u32> =
                chunks.clone().filter(|index| of(index) == Chunk::Claimed).collect();
            if claimed.is_empty() {
                return self.open(&state);
            }
            drop(state);
            self.prove(&claimed)?;
        }
    }

    /// Checks what is claimed of these chunks. One that turns out to be damaged counts as missing.
    pub(super) fn prove_whole(&self, chunks: Range<u32>) -> Result<(), ReadError> {
        let state = self.lock();
        let claimed: Vec<u32> =
            chunks.filter(|index| state.chunks[*index as usize] == Chunk::Claimed).collect();
        drop(state);
        let next = AtomicU32::new(0);
        crew::run(claimed.len(), || {
            let mut bytes = Vec::new();
            while let Some(index) = claimed.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                match self.read_chunk(*index, &mut bytes) {
                    Ok(()) | Err(ReadError::Missing { .. } | ReadError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    fn prove(&self, claimed: &[u32]) -> Result<(), ReadError> {
        let next = AtomicU32::new(0);
        crew::run(claimed.len(), || {
            let mut bytes = Vec::new();
            while let Some(index) = claimed.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                self.read_chunk(*index, &mut bytes)?;
            }
            Ok(())
        })
    }

    /// Copies what is whole into a new file, which takes the place of this one, where a damaged chunk stands. The
    /// quota does not count both: it is rare, and soon over.
    fn renew<'a>(&'a self, mut state: MutexGuard<'a, State>) -> io::Result<MutexGuard<'a, State>> {
        while state.chunks.contains(&Chunk::Writing) {
            state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.removed || !state.chunks.contains(&Chunk::Damaged) {
            return Ok(state);
        }
        let path = &self.paths.renewed;
        let old = self.disk.open(&self.paths.bytes, Access::Read)?;
        let whole = self.copy(&state, &*old, path).inspect_err(|_| {
            _ = self.disk.remove(path);
        })?;
        for (chunk, whole) in state.chunks.iter_mut().zip(whole) {
            *chunk = if whole { Chunk::Proven } else { Chunk::Absent };
        }
        state.file += 1;
        state.sealed = false;
        Ok(state)
    }

    /// Which chunks are whole, and in the new file.
    fn copy(&self, state: &State, old: &dyn DiskFile, path: &Path) -> io::Result<Vec<bool>> {
        let new = match self.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(path)?;
                self.disk.create(path)?
            }
            new => new?,
        };
        new.allocate(self.manifest.bytes())?;
        let mut bytes = Vec::new();
        let mut copied = vec![false; state.chunks.len()];
        for (index, copied) in (0..).zip(&mut copied) {
            let (Some(range), Some(chunk)) = (self.manifest.range_of(index), self.chunk(index))
            else {
                break;
            };
            bytes.resize((range.end - range.start) as usize, 0);
            *copied = state.chunks[index as usize].is_here()
                && old.read_at(&mut bytes, range.start).is_ok()
                && ChunkId::of(&bytes) == chunk;
            if *copied {
                new.write_at(&bytes, range.start)?;
            }
        }
        // What was durable of the old file has to be so of the new one, before it takes its name.
        new.sync()?;
        self.disk.rename(path, &self.paths.bytes)?;
        Ok(copied)
    }

    /// Notes in the entry what is here of the eight chunks around `index`. A claim that is not written is a
    /// chunk that is fetched again after a restart.
    fn claim(&self, state: &State, index: u32) {
        if state.removed {
            return;
        }
        let first = index as usize / 8 * 8;
        let eight = state.chunks[first..].iter().take(8);
        let byte = eight.rev().fold(0, |byte, chunk| byte << 1 | u8::from(chunk.is_here()));
        let offset = entry::claim_offset(state.chunks.len(), index);
        let written = self
            .disk
            .open(&self.paths.entry, Access::Write)
            .and_then(|file| file.write_at(&[byte], offset));
        if let Err(error) = written {
            tracing::warn!(blob = %self.id, %error, "what is here of a blob cannot be noted");
        }
    }

    /// Notes when the blob was last used.
    pub(super) fn note_used(&self, used: u64) {
        let state = self.lock();
        if !state.removed {
            // Last uses only order the evictions.
            _ = self
                .disk
                .open(&self.paths.entry, Access::Write)
                .and_then(|file| file.write_at(&used.to_le_bytes(), entry::USED_OFFSET));
        }
    }

    /// Takes away the right to write the complete file.
    fn seal(&self, file: &dyn DiskFile) {
        if let Err(error) = file.seal() {
            tracing::warn!(blob = %self.id, %error, "a complete blob's file stays writable");
        }
    }

    /// Syncs bytes and entry, of a blob that is complete. The file that could not be.
    pub(super) fn sync(&self) -> Result<(), (PathBuf, io::Error)> {
        let state = self.lock();
        if state.removed {
            return Err((self.paths.bytes.clone(), io::ErrorKind::NotFound.into()));
        }
        let open = |path: &Path| {
            self.disk.open(path, Access::Read).map_err(|error| (path.to_owned(), error))
        };
        let (bytes, entry) = (open(&self.paths.bytes)?, open(&self.paths.entry)?);
        drop(state);
        bytes.sync().map_err(|error| (self.paths.bytes.clone(), error))?;
        entry.sync().map_err(|error| (self.paths.entry.clone(), error))
    }

    /// Removes the names. The open file, whose space is given back when it is dropped: that may take its time.
    pub(super) fn remove(&self) -> Option<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.removed = true;
        let file = self.disk.open(&self.paths.bytes, Access::Read).ok();
        // The entry first: bytes without one are an orphan, which the next start collects.
        for path in [&self.paths.entry, &self.paths.bytes] {
            if let Err(error) = self.disk.remove(path) {
                tracing::warn!(?path, %error, "a file of a blob cannot be removed");
            }
        }
        file
    }

    fn open(&self, state: &State) -> Result<Arc<dyn DiskFile>, ReadError> {
        if state.removed {
            return Err(ReadError::Gone { id: self.id });
        }
        self.disk.open(&self.paths.bytes, Access::Read).map_err(|source| {
            let path = self.paths.bytes.clone();
            ReadError::Io { id: self.id, path, source }
        })
    }

    fn chunk(&self, index: u32) -> Option<ChunkId> {
        self.manifest.chunks().get(index as usize).copied()
    }

    /// What is noted under the lock is whole after each statement, so a panic there leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
