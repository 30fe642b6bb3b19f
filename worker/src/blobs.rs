//! The data of one machine that tasks map: blobs in a chunk store, and files of clients in this process that
//! stay where they are.
//!
//! The pool's counters give executors descriptors of what they ask for (`fetch`, then
//! `lend`). The embedded cluster's client puts its arrays straight into the same store, and
//! registers its files in place; its store is opened when it is first needed: most programs never do. `results` is
//! what tasks have left, `kept` what sessions have handles on.

mod kept;
mod results;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use allhands_common::blob::{BlobId, Content, FileRef};
use allhands_common::chain::chain;
use allhands_common::failure::Cause;
use allhands_common::id::ClusterId;
use allhands_store::blobs::{OpenStoreError, ReadError, Store};
use allhands_store::in_place::{FileInPlace, InPlaceError};
use allhands_store::map::FileRange;
use allhands_transfer::store::Hold;

use self::kept::Kept;
pub(crate) use self::results::Maker;
use self::results::Results;
use crate::fetch::{FetchError, Fetcher};

/// What may be lent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: Home,
    /// Gets what is on other machines, and says what is here. Without one this is the worker of an embedded
    /// cluster, whose client claims results.
    fetcher: Option<Fetcher>,
    results: Mutex<Results>,
    kept: Mutex<Kept>,
    files: Mutex<Files>,
}

/// Files in place of clients in this process. Those that are gone are removed when another comes.
#[derive(Debug, Default)]
struct Files {
    open: BTreeMap<FileRef, Weak<FileInPlace>>,
    /// Which of them are known to be which blob.
    named: BTreeMap<BlobId, FileRef>,
}

/// Bytes that an executor may map.
#[derive(Debug)]
pub(crate) struct Lent {
    /// The first of them in their content.
    pub(crate) start: u64,
    pub(crate) file: FileRange,
    /// Which file in place they are of, if they are none of the store.
    pub(crate) in_place: Option<FileRef>,
}

/// The chunk store.
#[derive(Debug)]
enum Home {
    Open(Store),
    /// To be opened when it is first needed.
    Later(StorePlace, Mutex<Option<Store>>),
}

/// Where a store will be, and how large.
#[derive(Debug, Clone)]
pub struct StorePlace {
    /// Its directory, which is made.
    pub dir: PathBuf,
    /// Whose blobs are in it.
    pub cluster: ClusterId,
    /// What it may take of the disk, in bytes.
    pub quota_bytes: u64,
}

impl StorePlace {
    /// In `dir`, with half of what is free on its disk now.
    ///
    /// # Errors
    /// The system does not say what is free.
    pub fn with_half_of_the_disk(dir: PathBuf, cluster: ClusterId) -> io::Result<Self> {
        let there = dir.ancestors().find(|place| place.exists()).unwrap_or(&dir);
        let free = rustix::fs::statvfs(there)?;
        let quota_bytes = free.f_bavail.saturating_mul(free.f_frsize) / 2;
        Ok(Self { dir, cluster, quota_bytes })
    }
}

impl Blobs {
    /// Those of a worker in the process of its only client. Nothing yet; the store will be at `place`, and what
    /// nobody holds any more goes from it at once.
    pub fn embedded(place: StorePlace) -> Self {
        Self::with(Home::Later(place, Mutex::default()), None)
    }

    /// Those of a worker among others: what is not in `store`, `fetcher` gets there.
    pub fn of_worker(store: Store, fetcher: Fetcher) -> Self {
        Self::with(Home::Open(store), Some(fetcher))
    }

    fn with(home: Home, fetcher: Option<Fetcher>) -> Self {
        let (results, kept, files) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { home, fetcher, results, kept, files }))
    }

    /// The chunk store, opened now if it was not.
    ///
    /// # Errors
    /// It cannot be opened; the next call tries again.
    pub fn store(&self) -> Result<Store, OpenStoreError> {
        let (place, opened) = match &self.0.home {
            Home::Open(store) => return Ok(store.clone()),
            Home::Later(place, opened) => (place, opened),
        };
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*opened {
            return Ok(store.clone());
        }
        let store = Store::open(&place.dir, place.cluster, place.quota_bytes)?;
        store.collect_what_nobody_holds();
        Ok(opened.insert(store).clone())
    }

    /// From now on `file` may be lent, for as long as somebody else holds it; also as this blob, if that is known.
    pub fn register(&self, file: &Arc<FileInPlace>, blob: Option<BlobId>) {
        let (identity, mut files) = (file.identity(), self.files());
        if !files.open.contains_key(&identity) {
            files.open.retain(|_, held| held.strong_count() > 0);
            let Files { open, named } = &mut *files;
            named.retain(|_, file| open.contains_key(file));
        }
        files.open.insert(identity, Arc::downgrade(file));
        files.named.extend(blob.map(|blob| (blob, identity)));
    }

    /// Waits until the bytes `range` of a blob are here, if they come from other machines. To be held until they
    /// are lent.
    pub(crate) async fn fetch(
        &self,
        content: Content,
        range: Range<u64>,
    ) -> Result<Option<Hold>, Cause> {
        match (content, &self.0.fetcher) {
            (Content::Blob { id, bytes }, Some(fetcher)) => {
                match fetcher.fetch(id, bytes, range).await {
                    Ok(hold) => Ok(Some(hold)),
                    Err(error @ FetchError::NobodyHasIt { .. }) => {
                        Err(Cause::BlobLost { message: chain(&error) })
                    }
                    Err(error) => Err(Cause::Unlent { message: chain(&error) }),
                }
            }
            (Content::Blob { .. } | Content::File(_), _) => Ok(None),
        }
    }

    /// The bytes `range` of `content`, and those of its window that can be had at once, for an executor to map.
    /// Blocks on the disk: a chunk that was here at the start is hashed before it is first lent.
    pub(crate) fn lend(&self, content: Content, range: Range<u64>) -> Result<Lent, Cause> {
        match content {
            Content::Blob { id, .. } => self.lend_blob(id, range),
            Content::File(file) => self.lend_file(file, range),
        }
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.0.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend_blob(&self, id: BlobId, range: Range<u64>) -> Result<Lent, Cause> {
        let unlent = |error: &dyn std::error::Error| Cause::Unlent { message: chain(error) };
        let store = self.store().map_err(|error| unlent(&error))?;
        let lost = |what: &str| Cause::BlobLost { message: format!("blob {id} {what}") };
        let blob = match store.get(&id) {
            Some(blob) => blob,
            // A file in place that travels elsewhere goes by the name of its blob here, too.
            None => match self.named(&id) {
                Some(file) => return self.lend_file(file, range),
                None => return Err(lost("is in no store that this worker can ask")),
            },
        };
        let wide = window::around(&range, blob.manifest().bytes());
        let range = if blob.is_proven(wide.clone()) { wide } else { range };
        let start = range.start;
        let lent = blob.file_range(range).map(|file| Lent { start, file, in_place: None });
        lent.map_err(|error| match error {
            ReadError::Missing { .. } | ReadError::Gone { .. } => lost("is here only in part"),
            ReadError::Damaged { .. } => lost("was damaged on the disk of its only holder"),
            ReadError::Beyond { .. } | ReadError::Io { .. } | ReadError::Map { .. } => {
                unlent(&error)
            }
        })
    }

    /// The file in place that is this blob.
    fn named(&self, id: &BlobId) -> Option<FileRef> {
        self.files().named.get(id).copied()
    }

    fn lend_file(&self, file: FileRef, range: Range<u64>) -> Result<Lent, Cause> {
        let found = self.files().open.get(&file).and_then(Weak::upgrade);
        let found = found.ok_or_else(|| Cause::BlobLost {
            message: format!("{} is not open in the client any more", Content::File(file)),
        })?;
        let range = window::around(&range, file.bytes);
        let start = range.start;
        let lent = found.file_range(range);
        let lent = lent.map(|lent| Lent { start, file: lent, in_place: Some(file) });
        lent.map_err(|error| match error {
            InPlaceError::Changed { path } => {
                Cause::SourceChanged { path: path.display().to_string() }
            }
            error => Cause::Unlent { message: chain(&error) },
        })
    }

    /// Where a file in place lies that was lent, if it is open and not what it was.
    pub(crate) fn changed(&self, file: &FileRef) -> Option<PathBuf> {
        let found = self.files().open.get(file).and_then(Weak::upgrade)?;
        found.check().is_err().then(|| found.path().to_owned())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
