//! Puts bytes whose name is not known yet: they are hashed and written on the way, and named at the end.
//!
//! Several threads take one chunk after the other from the source, each into its own buffer, hash it while it is
//! in the core's cache, and write it. So a put takes a mebibyte of memory a thread however long it is, and hashing overlaps with writing.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use allhands_common::blob::{BlobId, CHUNK_BYTES, CHUNKS_MAX, ChunkId, Manifest};

use super::body::Chunk;
use super::error::{PutError, ReadError};
use super::index::disk_bytes;
use super::{Blob, Store};
use crate::crew;
use crate::disk::DiskFile;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// The longest blob.
pub(super) const BLOB_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK;
/// Space is taken for so much at once, at most, of a source whose length is not known.
const STEP_BYTES_MAX: u64 = 256 << 20;

/// Where chunks come from, in order.
trait Source<'s>: Send {
    /// The next chunk, in `buffer` or where it is; shorter than a chunk only at the end, and empty after it.
    fn next<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]>
    where
        's: 'b;
}

struct Slice<'s>(&'s [u8]);

impl<'s> Source<'s> for Slice<'s> {
    fn next<'b>(&mut self, _: &'b mut Vec<u8>) -> io::Result<&'b [u8]>
    where
        's: 'b,
    {
        let (chunk, rest) = self.0.split_at(self.0.len().min(CHUNK_BYTES as usize));
        self.0 = rest;
        Ok(chunk)
    }
}

struct Stream<R>(R);

impl<'s, R: Read + Send> Source<'s> for Stream<R> {
    fn next<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]>
    where
        's: 'b,
    {
        buffer.clear();
        self.0.by_ref().take(CHUNK).read_to_end(buffer)?;
        Ok(buffer)
    }
}

impl Store {
    /// Stores what `source` gives until it ends, and gives a handle on it. Not durable until [`Store::make_durable`].
    ///
    /// # Errors
    /// There is no room, the source fails, or the disk does.
    pub fn put(&self, source: impl Read + Send) -> Result<Blob, PutError> {
        self.put_from(&mut Stream(source), None)
    }

    /// [`Store::put`] of bytes that are in memory.
    ///
    /// # Errors
    /// There is no room, or the disk fails.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, PutError> {
        self.put_from(&mut Slice(bytes), Some(bytes.len() as u64))
    }

    fn put_from<'s>(
        &self,
        source: &mut dyn Source<'s>,
        length: Option<u64>,
    ) -> Result<Blob, PutError> {
        let incoming = Incoming::new(self)?;
        if let Some(bytes) = length {
            incoming.grow(&mut incoming.lock(), bytes)?;
        }
        let feed = Mutex::new(Feed { source, next: 0, ended: false });
        let hashed = Mutex::new(Vec::new());
        let parts = length.map_or(usize::MAX, |bytes| bytes.div_ceil(CHUNK) as usize);
        crew::run(parts, || {
            let mut buffer = Vec::new();
            while let Some((index, chunk)) = take(&feed, &incoming, &mut buffer)? {
                let id = ChunkId::of(chunk);
                let written = incoming.file.write_at(chunk, u64::from(index) * CHUNK);
                written.map_err(|source| incoming.failed(source))?;
                let mut hashed = hashed.lock().unwrap_or_else(PoisonError::into_inner);
                hashed.push((index, id));
            }
            Ok(())
        })?;
        let mut hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
        hashed.sort_unstable_by_key(|(index, _)| *index);
        incoming.finish(hashed.into_iter().map(|(_, id)| id).collect())
    }
}

/// The source, and how far it was taken.
struct Feed<'f, 's> {
    source: &'f mut dyn Source<'s>,
    next: u32,
    ended: bool,
}

/// Takes the next chunk, and space for it: in order, one thread at a time.
fn take<'b, 's: 'b>(
    feed: &Mutex<Feed<'_, 's>>,
    incoming: &Incoming<'_>,
    buffer: &'b mut Vec<u8>,
) -> Result<Option<(u32, &'b [u8])>, PutError> {
    let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
    if feed.ended {
        return Ok(None);
    }
    // Until it is known to go on: the others end when this one fails.
    feed.ended = true;
    let chunk = feed.source.next(buffer).map_err(PutError::Source)?;
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
    Ok(Some((index, chunk)))
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
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
