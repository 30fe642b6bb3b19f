//! Puts whole arrays and streams: hashing and writing take a core each, so several threads do both, chunk by
//! chunk.
//!
//! Bytes in memory are hashed first, because often they are here already. A stream cannot be read twice: its
//! bytes are written under no name while they are hashed, each thread with one chunk in its hands, and named
//! at the end. So a put takes a mebibyte of memory a thread, however long it is.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allhands_common::blob::{BlobId, CHUNK_BYTES, CHUNKS_MAX, ChunkId, Manifest};

use super::body::Chunk;
use super::error::{PutError, ReadError, ReserveError};
use super::index::disk_bytes;
use super::{Blob, Store};
use crate::crew;
use crate::disk::DiskFile;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// The longest blob.
pub(super) const BLOB_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK;
/// Space is taken for so much at once, at most, of a source whose length is not known.
const STEP_BYTES_MAX: u64 = 256 << 20;

impl Store {
    /// Stores what `source` gives until it ends, and gives a handle on it. Not durable until
    /// [`Store::make_durable`].
    ///
    /// # Errors
    /// There is no room, the source fails, or the disk does. Nothing is left of it then.
    pub fn put(&self, source: impl Read + Send) -> Result<Blob, PutError> {
        self.put_on(usize::MAX, source)
    }

    /// [`Store::put`] of a source that may take its time: this thread alone waits for it.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_slowly(&self, source: impl Read + Send) -> Result<Blob, PutError> {
        self.put_on(1, source)
    }

    fn put_on(&self, threads: usize, source: impl Read + Send) -> Result<Blob, PutError> {
        let incoming = Incoming::new(self)?;
        let feed = Mutex::new(Feed { source, next: 0, ended: false });
        let hashed = Mutex::new(Vec::new());
        crew::run(threads, || {
            let mut chunk = Vec::new();
            while let Some(index) = take(&feed, &incoming, &mut chunk)? {
                let id = ChunkId::of(&chunk);
                let written = incoming.file.write_at(&chunk, u64::from(index) * CHUNK);
                written.map_err(|source| {
                    // The other threads need not go on to the end.
                    feed.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
                    incoming.failed(source)
                })?;
                let mut hashed = hashed.lock().unwrap_or_else(PoisonError::into_inner);
                hashed.push((index, id));
            }
            Ok(())
        })?;
        let mut hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
        hashed.sort_unstable_by_key(|(index, _)| *index);
        incoming.finish(hashed.into_iter().map(|(_, id)| id).collect())
    }

    /// [`Store::put`] of bytes that are in memory. They are hashed first: what is here already is not written.
    ///
    /// # Errors
    /// There is no room, or the disk fails. What was written then may be left, as of any blob that is here in
    /// part.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, PutError> {
        let chunks = bytes.len().div_ceil(CHUNK_BYTES as usize);
        let manifest = hash_chunks(bytes)?;
        let blob = self.reserve(&manifest).map_err(|error| match error {
            ReserveError::Full(full) => PutError::Full(full),
            ReserveError::DiskFull { dir, .. } => PutError::DiskFull { bytes: 0, dir },
            ReserveError::Io { path, source, .. } => PutError::Io { path, source },
        })?;
        let next = AtomicU32::new(0);
        crew::run(chunks, || {
            while let Some((index, chunk)) = next_chunk(bytes, &next) {
                blob.body.write_hashed(index, chunk).map_err(PutError::Rest)?;
            }
            Ok(())
        })?;
        Ok(blob)
    }
}

fn hash_chunks(bytes: &[u8]) -> Result<Manifest, PutError> {
    let chunks = bytes.len().div_ceil(CHUNK_BYTES as usize);
    let (next, hashed) = (AtomicU32::new(0), Mutex::new(vec![ChunkId([0; 32]); chunks]));
    crew::run(chunks, || {
        while let Some((index, chunk)) = next_chunk(bytes, &next) {
            let id = ChunkId::of(chunk);
            hashed.lock().unwrap_or_else(PoisonError::into_inner)[index as usize] = id;
        }
        Ok(())
    })?;
    let hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Manifest::new(bytes.len() as u64, hashed).map_err(|_| PutError::TooLong)
}

/// The chunk that nobody has taken yet.
fn next_chunk<'b>(bytes: &'b [u8], next: &AtomicU32) -> Option<(u32, &'b [u8])> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    let rest = bytes.get(index as usize * CHUNK_BYTES as usize..)?;
    let chunk = &rest[..rest.len().min(CHUNK_BYTES as usize)];
    (!chunk.is_empty()).then_some((index, chunk))
}

/// The source, and how far it was taken.
struct Feed<R> {
    source: R,
    next: u32,
    ended: bool,
}

/// Takes the next chunk, and space for it: in order, one thread at a time. `None` when there is none.
fn take(
    feed: &Mutex<Feed<impl Read>>,
    incoming: &Incoming<'_>,
    chunk: &mut Vec<u8>,
) -> Result<Option<u32>, PutError> {
    let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
    if feed.ended {
        return Ok(None);
    }
    // Until it is known to go on: when this fails, the other threads end.
    feed.ended = true;
    chunk.clear();
    feed.source.by_ref().take(CHUNK).read_to_end(chunk).map_err(PutError::Source)?;
    if chunk.is_empty() {
        return Ok(None);
    }
    let index = feed.next;
    if index >= CHUNKS_MAX {
        return Err(PutError::TooLong);
    }
    incoming.reach(u64::from(index) * CHUNK + chunk.len() as u64)?;
    feed.next += 1;
    feed.ended = chunk.len() < CHUNK_BYTES as usize;
    Ok(Some(index))
}

/// A file that has no name yet. It goes when this is dropped, unless it got one.
struct Incoming<'s> {
    store: &'s Store,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// The file's length.
    allocated: u64,
    /// What of it is used.
    bytes: u64,
    /// What the quota counts for it.
    charged: u64,
    named: bool,
}

impl<'s> Incoming<'s> {
    fn new(store: &'s Store) -> Result<Self, PutError> {
        let number = store.shared.incoming.fetch_add(1, Ordering::Relaxed);
        let path = store.shared.layout.incoming(number);
        match store.shared.disk.create(&path) {
            Ok(file) => Ok(Self { store, path, file, taken: Mutex::default() }),
            Err(source) => Err(PutError::Io { path, source }),
        }
    }

    /// Takes space for the first `bytes` bytes, and for some more that may follow.
    fn reach(&self, bytes: u64) -> Result<(), PutError> {
        let mut taken = self.lock();
        taken.bytes = bytes;
        if bytes <= taken.allocated {
            return Ok(());
        }
        let ahead = taken.allocated + taken.allocated.clamp(CHUNK, STEP_BYTES_MAX);
        match self.grow(&mut taken, ahead.max(bytes)) {
            Err(PutError::Full(_) | PutError::DiskFull { .. }) if ahead > bytes => {
                self.grow(&mut taken, bytes)
            }
            grown => grown,
        }
    }

    /// Makes the file `bytes` long.
    fn grow(&self, taken: &mut Taken, bytes: u64) -> Result<(), PutError> {
        let more = disk_bytes(bytes).saturating_sub(taken.charged);
        let mut index = self.store.lock();
        self.store.make_room(&mut index, more).map_err(PutError::Full)?;
        while let Err(source) = self.file.allocate(bytes) {
            if source.kind() != io::ErrorKind::StorageFull {
                return Err(self.failed(source));
            }
            // Others have filled the disk: what the quota would still let stay has to go.
            if !self.store.evict_one(&mut index) {
                let dir = self.store.shared.layout.root.clone();
                return Err(PutError::DiskFull { bytes: taken.allocated, dir });
            }
        }
        index.charge(more);
        taken.charged += more;
        taken.allocated = bytes;
        Ok(())
    }

    /// Gives the bytes their name, or adds them to the blob that has it.
    fn finish(self, chunks: Vec<ChunkId>) -> Result<Blob, PutError> {
        let bytes = self.lock().bytes;
        let manifest = Manifest::new(bytes, chunks).map_err(|_| PutError::TooLong)?;
        let id = manifest.id();
        let known = self.store.get(&id);
        if let Some(blob) = known {
            return self.complete(blob);
        }
        if self.lock().allocated > bytes {
            self.file.cut(bytes).map_err(|source| self.failed(source))?;
        }
        self.file.seal().map_err(|source| self.failed(source))?;
        match self.publish(id, manifest)? {
            (blob, true) => Ok(blob),
            (blob, false) => self.complete(blob),
        }
    }

    /// Whether the blob that is there now is this file.
    fn publish(&self, id: BlobId, manifest: Manifest) -> Result<(Blob, bool), PutError> {
        let store = self.store;
        let mut index = store.lock();
        if let Some(body) = index.hold(&id) {
            // Somebody else was faster.
            let used = index.touch(&id);
            drop(index);
            return Ok((store.handle(body, used), false));
        }
        let paths = store.shared.layout.blob(&id);
        let used = index.tick();
        let named = store.shared.disk.rename(&self.path, &paths.bytes);
        named
            .and_then(|()| store.write_entry(&paths, &manifest, used, true))
            .inspect_err(|_| store.clear(&paths))
            .map_err(|source| self.failed(source))?;
        let mut taken = self.lock();
        taken.named = true;
        index.discharge(std::mem::take(&mut taken.charged));
        let proven = vec![Chunk::Proven; manifest.chunks().len()];
        Ok((store.add(&mut index, id, manifest, proven, used), true))
    }

    /// Writes what a blob lacks that is here in part, or was damaged.
    fn complete(&self, blob: Blob) -> Result<Blob, PutError> {
        let mut bytes = Vec::new();
        loop {
            let index = match blob.verify() {
                Ok(()) => return Ok(blob),
                Err(ReadError::Missing { index, .. } | ReadError::Damaged { index, .. }) => index,
                Err(error) => return Err(PutError::Check(error)),
            };
            let Range { start, end } = blob.manifest().range_of(index).unwrap_or_default();
            bytes.resize((end - start) as usize, 0);
            self.file.read_at(&mut bytes, start).map_err(|source| self.failed(source))?;
            blob.write_chunk(index, &bytes).map_err(PutError::Rest)?;
        }
    }

    fn failed(&self, source: io::Error) -> PutError {
        PutError::Io { path: self.path.clone(), source }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        let mut index = self.store.lock();
        let taken = self.lock();
        index.discharge(taken.charged);
        if !taken.named
            && let Err(error) = self.store.shared.disk.remove(&self.path)
        {
            tracing::warn!(path = ?self.path, %error, "what was coming in cannot be removed");
        }
    }
}
