//! Blobs of this process that a cluster on other machines may want: bytes in a store of its own, and files
//! where they are. Each is offered to the cluster for as long as somebody here has its guard ([`Offered`]).
//!
//! The store lies in a temporary directory. It is removed with this, and by the next program of the same user
//! if this one is killed. Nothing has to survive: what a program has put ends with the program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::id::ClusterId;
use allhands_common::limit::SESSION_OFFERS_MAX;
use allhands_common::wire::data::{ChunkRange, ChunkSet};
use allhands_store::blobs::{Blob, OpenStoreError, PutError, Store};
use allhands_store::in_place::{FileInPlace, InPlaceError};
use allhands_store::map::{FileRange, Map};
use allhands_store::scratch::Directory;
use allhands_transfer::store::{ChunkStore, Found, Hold, StoreError, Verified};
use rustix::fs::statvfs;

use super::Session;

/// What this process holds for the cluster. Cheap to clone; the files go with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Holdings(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    books: Mutex<Books>,
    session: Arc<Session>,
    /// Removed after all that is in it was closed.
    _folder: Directory,
}

#[derive(Debug, Default)]
struct Books {
    /// How many guards each blob that is offered has.
    offers: BTreeMap<BlobId, usize>,
    /// Files in place, by what they hold; there may be copies.
    files: BTreeMap<BlobId, Vec<Arc<FileInPlace>>>,
    /// How many guards each result has that comes from a worker.
    received: BTreeMap<BlobId, usize>,
    /// Puts that have begun and not ended: they may end with a blob that nobody offers at the moment.
    putting: usize,
    /// Blobs that nobody offers any more, to be removed once nobody puts.
    doomed: BTreeSet<BlobId>,
}

/// Why this process cannot hold a blob.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// It cannot be put into the store.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] InPlaceError),
    /// There are too many.
    #[error(
        "this program offers {SESSION_OFFERS_MAX} blobs to the cluster, which is as many as it may at a \
         time: drop some, or put them together"
    )]
    TooMany,
}

/// Why this process has no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no directory for its data can be made in {}", std::env::temp_dir().display())]
    Folder(#[source] io::Error),
    #[error("the store of its data cannot be opened")]
    Store(#[from] OpenStoreError),
}

/// A blob that the cluster can have from this process, until this is dropped.
#[derive(Debug)]
pub(crate) struct Offered {
    holdings: Holdings,
    blob: BlobId,
    /// Where its bytes are.
    stored: Option<Blob>,
    file: Option<Arc<FileInPlace>>,
}

impl Holdings {
    /// An empty store, which may take half of what is free in the directory of temporary files.
    pub(super) fn open(cluster: ClusterId, session: Arc<Session>) -> Result<Self, OpenError> {
        let folder = Directory::temporary().map_err(OpenError::Folder)?;
        let disk = statvfs(folder.path()).map_err(|error| OpenError::Folder(error.into()))?;
        let quota_bytes = disk.f_bavail.saturating_mul(disk.f_frsize) / 2;
        let store = Store::open(folder.path(), cluster, quota_bytes)?;
        let books = Mutex::default();
        Ok(Self(Arc::new(Shared { store, books, session, _folder: folder })))
    }

    /// Keeps bytes and offers them.
    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result<Offered, HoldError> {
        self.put(|store| store.put_bytes(bytes))
    }

    /// Keeps all that comes out of `source`, which may be more than fits in memory, and offers it.
    pub(crate) fn put_reader(&self, source: impl Read + Send) -> Result<Offered, HoldError> {
        self.put(|store| store.put(source))
    }

    fn put(
        &self,
        put: impl FnOnce(&Store) -> Result<Blob, PutError>,
    ) -> Result<Offered, HoldError> {
        let _putting = Putting::begin(&self.0);
        let blob = put(&self.0.store)?;
        self.offer(blob.id(), Some(blob), None)
    }

    /// Offers a file where it is. It is read now, to learn what blob it is, unless this process knows that
    /// already; and again, chunk by chunk, by whoever wants some of it.
    pub(crate) fn add_file(&self, file: Arc<FileInPlace>) -> Result<Offered, HoldError> {
        let manifest = file.manifest()?;
        self.offer(manifest.id(), None, Some(file))
    }

    fn offer(
        &self,
        blob: BlobId,
        stored: Option<Blob>,
        file: Option<Arc<FileInPlace>>,
    ) -> Result<Offered, HoldError> {
        let mut books = self.0.books();
        if books.offers.len() >= SESSION_OFFERS_MAX && !books.offers.contains_key(&blob) {
            books.doomed.extend(stored.map(|stored| stored.id()));
            return Err(HoldError::TooMany);
        }
        let guards = books.offers.entry(blob).or_default();
        *guards += 1;
        if *guards == 1 {
            self.0.session.offer(blob, true);
        }
        books.doomed.remove(&blob);
        if let Some(file) = &file {
            books.files.entry(blob).or_default().push(Arc::clone(file));
        }
        drop(books);
        Ok(Offered { holdings: self.clone(), blob, stored, file })
    }

    fn files(&self, blob: BlobId) -> Vec<Arc<FileInPlace>> {
        self.0.books().files.get(&blob).cloned().unwrap_or_default()
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what nobody offers any more. What somebody still maps stays mapped.
    fn tidy(&self, books: &mut Books) {
        if books.putting > 0 {
            return;
        }
        for blob in std::mem::take(&mut books.doomed) {
            // Its last guard dooms it again.
            if books.received.contains_key(&blob) {
                continue;
            }
            if let Err(error) = self.store.remove(&blob) {
                tracing::debug!(%blob, %error, "a blob is not removed");
            }
        }
    }
}

/// A result of a worker that is in the store, or being fetched into it: until this is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    holdings: Holdings,
    id: BlobId,
    blob: Option<Blob>,
}

impl Holdings {
    /// From now on what comes of a blob stays.
    pub(crate) fn receive(&self, id: BlobId) -> Received {
        *self.0.books().received.entry(id).or_default() += 1;
        Received { holdings: self.clone(), id, blob: None }
    }
}

impl Received {
    /// All of it, if it is here. Blocks on the disk where it is a file in place that happens to be the same.
    pub(super) fn complete(&mut self) -> Result<Option<&Blob>, HoldError> {
        let shared = &self.holdings.0;
        if self.blob.is_none() {
            let stored = shared.store.get(&self.id).filter(Blob::is_complete);
            self.blob = match (stored, self.holdings.files(self.id).first()) {
                (Some(stored), _) => Some(stored),
                (None, Some(file)) => {
                    let bytes = file.map(0..file.identity().bytes)?;
                    // A file that has changed is another blob.
                    let copy = shared.store.put_bytes(&bytes)?;
                    Some(copy).filter(|copy| copy.id() == self.id)
                }
                (None, None) => None,
            };
        }
        Ok(self.blob.as_ref())
    }

    /// Its bytes `range`, if they are all here.
    pub(crate) fn map(&self, range: Range<u64>) -> Option<Map> {
        self.holdings.0.store.get(&self.id)?.map(range).ok()
    }

    /// The same, to be mapped otherwise.
    pub(crate) fn file_range(&self, range: Range<u64>) -> Option<FileRange> {
        self.holdings.0.store.get(&self.id)?.file_range(range).ok()
    }

    /// Where its bytes are, once it is complete.
    pub(crate) const fn blob(&self) -> Option<&Blob> {
        self.blob.as_ref()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let shared = &self.holdings.0;
        let blob = self.blob.take();
        let mut books = shared.books();
        let Some(guards) = books.received.get_mut(&self.id) else { return };
        *guards -= 1;
        if *guards == 0 {
            books.received.remove(&self.id);
            drop(blob);
            if !books.offers.contains_key(&self.id) {
                books.doomed.insert(self.id);
                shared.tidy(&mut books);
            }
        }
    }
}

/// A put that has begun.
struct Putting<'a>(&'a Shared);

impl<'a> Putting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.books().putting += 1;
        Self(shared)
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        let mut books = self.0.books();
        books.putting -= 1;
        self.0.tidy(&mut books);
    }
}

impl Offered {
    /// Which.
    #[cfg(test)]
    pub(crate) const fn blob(&self) -> BlobId {
        self.blob
    }

    /// Who speaks for it.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.holdings.0.session
    }

    /// Where its bytes are, if they were put; else they are in a file.
    pub(crate) const fn stored(&self) -> Option<&Blob> {
        self.stored.as_ref()
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        let shared = &self.holdings.0;
        let stored = self.stored.take();
        let mut books = shared.books();
        if let Some(file) = &self.file
            && let Some(files) = books.files.get_mut(&self.blob)
        {
            if let Some(at) = files.iter().position(|other| Arc::ptr_eq(other, file)) {
                files.swap_remove(at);
            }
            if files.is_empty() {
                books.files.remove(&self.blob);
            }
        }
        let Some(guards) = books.offers.get_mut(&self.blob) else { return };
        *guards -= 1;
        if *guards == 0 {
            books.offers.remove(&self.blob);
            shared.session.offer(self.blob, false);
            books.doomed.insert(self.blob);
            drop(stored);
            shared.tidy(&mut books);
        }
    }
}

/// As a source of chunks. What is fetched into it is kept as anywhere else.
impl ChunkStore for Holdings {
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError> {
        for file in self.files(blob) {
            match file.manifest() {
                // A file that was changed may have been hashed again in the meantime.
                Ok(manifest) if manifest.id() == blob => return Ok(Some(manifest)),
                Ok(_) => {}
                Err(error) => not_served(blob, &error),
            }
        }
        ChunkStore::manifest(&self.0.store, blob)
    }

    fn open(&self, manifest: &Manifest) -> Result<Hold, StoreError> {
        match self.files(manifest.id()).into_iter().next() {
            Some(file) => Ok(Hold::new(file)),
            None => ChunkStore::open(&self.0.store, manifest),
        }
    }

    fn gather(&self, blob: BlobId, bytes: Range<u64>) -> Result<ChunkSet, StoreError> {
        match self.all_of_file(blob) {
            Some(chunks) => Ok(chunks),
            None => ChunkStore::gather(&self.0.store, blob, bytes),
        }
    }

    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError> {
        match self.all_of_file(blob) {
            Some(chunks) => Ok(chunks),
            None => ChunkStore::present(&self.0.store, blob),
        }
    }

    fn read(&self, blob: BlobId, chunk: u32) -> Result<Found, StoreError> {
        for file in self.files(blob) {
            let read = file.manifest().and_then(|manifest| file.read_chunk(&manifest, chunk));
            match read {
                Ok(bytes) => return Ok(Found::Whole(bytes)),
                Err(error) => not_served(blob, &error),
            }
        }
        ChunkStore::read(&self.0.store, blob, chunk)
    }

    fn write(&self, blob: BlobId, chunk: u32, bytes: &Verified) -> Result<(), StoreError> {
        ChunkStore::write(&self.0.store, blob, chunk, bytes)
    }
}

impl Holdings {
    /// All chunks of a blob that is a file which is still what it was.
    fn all_of_file(&self, blob: BlobId) -> Option<ChunkSet> {
        let files = self.files(blob);
        let file = files.iter().find(|file| file.check().is_ok())?;
        let chunks = file.manifest().ok()?.chunks().len();
        Some(ChunkSet::from_iter([ChunkRange::new(0, u32::try_from(chunks).unwrap_or(u32::MAX))]))
    }
}

/// It counts as absent: whoever asked learns that this process does not have it.
fn not_served(blob: BlobId, error: &InPlaceError) {
    let error = allhands_common::chain::chain(error);
    tracing::warn!(%blob, error, "a file that was given to the cluster cannot be read");
}

#[cfg(test)]
mod tests;
