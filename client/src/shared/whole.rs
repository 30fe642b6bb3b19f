//! Mapped bytes, and where handles find them again.
//!
//! Every map of this process is in one list as long as somebody holds it. A handle that is decoded looks there
//! first: in the client it finds what was put or opened, in an executor what an earlier task has mapped. What
//! an executor does not find, it borrows from its worker, and keeps for the tasks that follow.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use allhands_common::blob::{BlobId, BlobRef, Content, FileRef};
use allhands_common::chain::chain;
use allhands_common::failure::Cause;
use allhands_common::id::ClusterId;
use allhands_store::blobs::Blob;
use allhands_store::in_place::{FileInPlace, InPlaceError};
use allhands_store::map::{FileRange, Map, PrivateMap};

use super::kept::{self, Used};
use super::{mention, task};
use crate::cluster::CLUSTER_VARIABLE;
use crate::error::{Error, Result};
use crate::executor::loans::{self, Loan};
use crate::session::holdings::Offered;

/// Mapped bytes of one content.
#[derive(Debug)]
pub(crate) struct Whole {
    content: Content,
    /// Which of its bytes are mapped.
    mapped: Range<u64>,
    map: Map,
    origin: Origin,
    /// The blob that a file in place is, once somebody had to know.
    as_blob: OnceLock<Content>,
    used: Used,
}

/// Where the bytes come from, and what keeps them there.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This process put them into a store.
    Put(Stored),
    /// They are in a file that this process has opened.
    InPlace { file: Arc<FileInPlace>, offers: Offers },
    /// A worker lent them: the file, where the mapped bytes begin in it, and which file in place it is.
    Lent(OwnedFd, u64, Option<FileRef>),
}

/// A blob that this process has put into a store for a cluster. It stays there as long as this.
#[derive(Debug)]
pub(crate) struct Stored {
    cluster: ClusterId,
    blob: Blob,
    /// Has workers of other machines find it here.
    _offered: Option<Offered>,
}

impl Stored {
    /// In the store of an embedded cluster.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "there is none"))]
    pub(crate) const fn here(cluster: ClusterId, blob: Blob) -> Self {
        Self { cluster, blob, _offered: None }
    }

    /// In a store of this process, which gives it to the workers of `cluster`.
    pub(crate) fn offered(cluster: ClusterId, offered: Offered) -> Option<Self> {
        let blob = offered.stored()?.clone();
        Some(Self { cluster, blob, _offered: Some(offered) })
    }

    /// For which cluster.
    pub(crate) const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What a task is given in place of it.
    pub(crate) fn reference(&self) -> BlobRef {
        BlobRef { id: self.blob.id(), bytes: self.blob.manifest().bytes() }
    }
}

impl Whole {
    /// All of a file.
    pub(super) fn in_place(file: Arc<FileInPlace>) -> Result<Arc<Self>> {
        let identity = file.identity();
        let mapped = 0..identity.bytes;
        let map = file.map(mapped.clone()).map_err(Error::data)?;
        let (content, offers) = (Content::File(identity), Offers::default());
        Ok(listed(Self::new(content, mapped, map, Origin::InPlace { file, offers })))
    }

    /// All of what this process has put.
    pub(crate) fn put(stored: Stored) -> Result<Arc<Self>> {
        let reference = stored.reference();
        let mapped = 0..reference.bytes;
        let map = stored.blob.map(mapped.clone()).map_err(Error::data)?;
        Ok(listed(Self::new(reference.content(), mapped, map, Origin::Put(stored))))
    }

    fn new(content: Content, mapped: Range<u64>, map: Map, origin: Origin) -> Self {
        let (as_blob, used) = (OnceLock::new(), Used::default());
        Self { content, mapped, map, origin, as_blob, used }
    }

    pub(crate) const fn content(&self) -> Content {
        self.content
    }

    /// By what name handles on it travel. A file in place is hashed for that where they may leave the machine.
    pub(super) fn travels_as(self: &Arc<Self>) -> Result<Content, InPlaceError> {
        match &self.origin {
            Origin::InPlace { file, .. } if may_leave() => {
                if let Some(known) = self.as_blob.get() {
                    // Some of it may have travelled already, the rest could not any more.
                    file.check()?;
                    return Ok(*known);
                }
                let manifest = file.manifest()?;
                let content = Content::Blob { id: manifest.id(), bytes: manifest.bytes() };
                if self.as_blob.set(content).is_ok() {
                    live().entry(content).or_default().push(Arc::downgrade(self));
                }
                Ok(content)
            }
            _ => Ok(self.content),
        }
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::InPlace { file, .. } => Some(file.path()),
            Origin::Put(_) | Origin::Lent(..) => None,
        }
    }

    /// Bytes that lie in what is mapped.
    pub(super) fn bytes(&self, range: &Range<u64>) -> &[u8] {
        if range.is_empty() {
            return &[];
        }
        let at = |offset: u64| (offset - self.mapped.start) as usize;
        &self.map[at(range.start)..at(range.end)]
    }

    /// The blob that it is known to be.
    pub(crate) fn known_blob(&self) -> Option<BlobId> {
        match self.as_blob.get().unwrap_or(&self.content) {
            Content::Blob { id, .. } => Some(*id),
            Content::File(_) => None,
        }
    }

    /// Whether it is a file in place, which may change.
    pub(super) const fn is_in_place(&self) -> bool {
        match &self.origin {
            Origin::InPlace { .. } | Origin::Lent(_, _, Some(_)) => true,
            Origin::Put(_) | Origin::Lent(_, _, None) => false,
        }
    }

    pub(super) const fn used(&self) -> &Used {
        &self.used
    }

    /// How many bytes are mapped.
    pub(super) const fn len(&self) -> u64 {
        self.mapped.end - self.mapped.start
    }

    /// All that is mapped.
    pub(crate) fn all(&self) -> &[u8] {
        &self.map
    }

    /// A map of its own of some of the bytes.
    pub(super) fn private(&self, range: &Range<u64>) -> Result<PrivateMap> {
        let bytes = range.end - range.start;
        let file = match &self.origin {
            Origin::Put(stored) => stored.blob.file_range(range.clone()).map_err(Error::data)?,
            Origin::InPlace { file, .. } => file.file_range(range.clone()).map_err(Error::data)?,
            Origin::Lent(file, offset, _) => {
                let file = file.try_clone().map_err(Error::data)?;
                FileRange { file, offset: offset + (range.start - self.mapped.start), bytes }
            }
        };
        file.map_private().map_err(Error::data)
    }

    /// Whether it is a file in place that is not any more what it was.
    pub(crate) fn check(&self) -> Result<(), Cause> {
        let changed = |path: PathBuf| Cause::SourceChanged { path: path.display().to_string() };
        match &self.origin {
            Origin::InPlace { file, .. } => {
                file.check().map_err(|_| changed(file.path().to_owned()))
            }
            Origin::Lent(file, _, Some(expected)) => {
                // Only its descriptor is known here; the system knows its name.
                let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                let path = || std::fs::read_link(&name).unwrap_or_default();
                let now = file
                    .try_clone()
                    .ok()
                    .and_then(|file| FileInPlace::of(file, Path::new("")).ok());
                match now.is_some_and(|now| now.identity() == *expected) {
                    true => Ok(()),
                    false => Err(changed(path())),
                }
            }
            Origin::Put(_) | Origin::Lent(_, _, None) => Ok(()),
        }
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.mapped.start <= range.start && range.end <= self.mapped.end
    }
}

/// Offers of a file in place to clusters on other machines, one each, for as long as the file is held.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<Vec<(ClusterId, Offered)>>);

impl Offers {
    /// Has `offer` make one to `cluster` unless there is.
    pub(crate) fn offer(
        &self,
        cluster: ClusterId,
        offer: impl FnOnce() -> Result<Offered>,
    ) -> Result<()> {
        let mut offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !offers.iter().any(|(known, _)| *known == cluster) {
            offers.push((cluster, offer()?));
        }
        Ok(())
    }
}

/// Whether this process speaks with a cluster on other machines, or is set up to.
static LEAVES: AtomicBool = AtomicBool::new(false);

/// From now on handles may leave this machine.
pub(crate) fn let_leave() {
    LEAVES.store(true, Ordering::Relaxed);
}

fn may_leave() -> bool {
    static SET_UP: LazyLock<bool> = LazyLock::new(|| std::env::var_os(CLUSTER_VARIABLE).is_some());
    LEAVES.load(Ordering::Relaxed) || *SET_UP
}

/// All maps of this process; those that are gone are removed when their content is looked for.
static LIVE: Mutex<BTreeMap<Content, Vec<Weak<Whole>>>> = Mutex::new(BTreeMap::new());

fn live() -> MutexGuard<'static, BTreeMap<Content, Vec<Weak<Whole>>>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listed(whole: Whole) -> Arc<Whole> {
    mention::begin();
    let whole = Arc::new(whole);
    live().entry(whole.content).or_default().push(Arc::downgrade(&whole));
    whole
}

impl Drop for Whole {
    fn drop(&mut self) {
        let mut live = live();
        for name in [Some(&self.content), self.as_blob.get()].into_iter().flatten() {
            if let Some(maps) = live.get_mut(name) {
                maps.retain(|map| map.strong_count() > 0);
                if maps.is_empty() {
                    live.remove(name);
                }
            }
        }
    }
}

/// The map that holds `range` of `content`, borrowed from the worker if need be.
pub(crate) fn find(content: Content, range: &Range<u64>) -> Result<Arc<Whole>, Cause> {
    // Dropped when the list is not locked any more: the last one to let go of a map takes it off the list.
    let held: Vec<Arc<Whole>> = {
        let live = live();
        live.get(&content).into_iter().flatten().filter_map(Weak::upgrade).collect()
    };
    let found = held.iter().find(|whole| whole.covers(range)).cloned();
    // Also where none is found: a task that is refused for that has to be asked.
    mention::begin();
    let whole = match found {
        Some(whole) => Ok(whole),
        None => borrow(content, range.clone()),
    };
    let whole = whole.and_then(|whole| whole.check().map(|()| whole));
    whole.iter().for_each(|whole| whole.used.now());
    task::note(&whole);
    whole
}

/// The blob that `reference` names, all of it.
pub(crate) fn lend(reference: &[u8]) -> Result<Arc<Whole>, Cause> {
    let Some(reference) = BlobRef::from_bytes(reference) else {
        return Err(Cause::Program { message: "its arguments were damaged on the way".into() });
    };
    find(reference.content(), &(0..reference.bytes))
}

fn borrow(content: Content, range: Range<u64>) -> Result<Arc<Whole>, Cause> {
    let Loan { bytes, file, in_place } = loans::borrow(content, range)?;
    let map = file.map().map_err(|error| Cause::Unlent { message: chain(&error) })?;
    let origin = Origin::Lent(file.file, file.offset, in_place);
    let whole = listed(Whole::new(content, bytes, map, origin));
    kept::keep(&whole);
    Ok(whole)
}
