//! Mapped bytes, and where handles find them again.
//!
//! Every map of this process is in one list as long as somebody holds it. A handle that is decoded looks there
//! first: in the client it finds what was put or opened, in an executor what an earlier task has mapped. What
//! an executor does not find, it borrows from its worker, and keeps for the tasks that follow.

use std::cell::RefCell;
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
use allhands_common::limit::SESSION_KEEPS_MAX;
use allhands_common::wire::client::Keep;
use allhands_store::blobs::Blob;
use allhands_store::in_place::{FileInPlace, InPlaceError};
use allhands_store::map::{FileRange, Map, PrivateMap};

use super::kept::{self, Used};
use super::left::Left;
use super::{mention, task};
use crate::cluster::CLUSTER_VARIABLE;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::context;
use crate::executor::loans::{self, Loan};
use crate::session::Session;
use crate::session::holdings::Offered;

/// Mapped bytes of one content.
#[derive(Debug)]
pub(crate) struct Whole {
    content: Content,
    /// Which of its bytes are mapped, or can be.
    mapped: Range<u64>,
    /// Not yet, where nobody has needed them.
    map: OnceLock<Map>,
    origin: Origin,
    /// Whether a task of this process has left it with the worker.
    made_here: AtomicBool,
    /// Has workers keep it, beyond what its origin needs.
    copies: Mutex<Option<Copies>>,
    /// The blob that a file in place is, once somebody had to know.
    as_blob: OnceLock<Content>,
    used: Used,
}

/// Where the bytes come from, and what keeps them there.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This process put them into a store.
    Put(Stored),
    /// A task has left them with a worker on another machine.
    Left(Left),
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
    offered: Option<Offered>,
}

impl Stored {
    /// In the store of an embedded cluster.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) const fn here(cluster: ClusterId, blob: Blob) -> Self {
        Self { cluster, blob, offered: None }
    }

    /// In a store of this process, which gives it to the workers of `cluster`.
    pub(crate) fn offered(cluster: ClusterId, offered: Offered) -> Option<Self> {
        let blob = offered.stored()?.clone();
        Some(Self { cluster, blob, offered: Some(offered) })
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

/// What workers keep, until this is dropped.
#[derive(Debug)]
struct Copies {
    session: Arc<Session>,
    blob: BlobId,
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.session.let_go_of(self.blob);
    }
}

/// Why no more can be kept by workers.
pub(crate) fn too_many_kept() -> String {
    format!(
        "this program has handles on {SESSION_KEEPS_MAX} arrays that lie with workers, which is as many as it may: \
         drop some, or have tasks put more into one"
    )
}

impl Whole {
    /// All of a file.
    pub(super) fn in_place(file: Arc<FileInPlace>) -> Result<Arc<Self>> {
        let identity = file.identity();
        let mapped = 0..identity.bytes;
        let map = file.map(mapped.clone()).map_err(Error::data)?;
        let (content, offers) = (Content::File(identity), Offers::default());
        Ok(listed(Self::new(content, mapped, Some(map), Origin::InPlace { file, offers })))
    }

    /// All of what this process has put.
    pub(crate) fn put(stored: Stored) -> Result<Arc<Self>> {
        let reference = stored.reference();
        let mapped = 0..reference.bytes;
        let map = stored.blob.map(mapped.clone()).map_err(Error::data)?;
        Ok(listed(Self::new(reference.content(), mapped, Some(map), Origin::Put(stored))))
    }

    /// All of what a task has left in the store of this process. It is mapped when it is needed.
    #[cfg(feature = "embedded")]
    pub(crate) fn claimed(stored: Stored) -> Arc<Self> {
        let reference = stored.reference();
        let all = 0..reference.bytes;
        listed(Self::new(reference.content(), all, None, Origin::Put(stored)))
    }

    /// All of what a task has left on another machine. It is fetched when it is needed.
    pub(crate) fn left(left: Left) -> Arc<Self> {
        let reference = left.reference();
        let all = 0..reference.bytes;
        listed(Self::new(reference.content(), all, None, Origin::Left(left)))
    }

    fn new(content: Content, mapped: Range<u64>, map: Option<Map>, origin: Origin) -> Self {
        let (as_blob, used, made_here) = (OnceLock::new(), Used::default(), AtomicBool::new(false));
        let map = map.map_or_else(OnceLock::new, OnceLock::from);
        let copies = Mutex::new(None);
        Self { content, mapped, map, origin, made_here, copies, as_blob, used }
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
            Origin::Put(_) | Origin::Left(_) | Origin::Lent(..) => None,
        }
    }

    /// Bytes that lie in what is mapped, if it is already.
    #[inline]
    pub(super) fn bytes(&self, range: &Range<u64>) -> Option<&[u8]> {
        if range.is_empty() {
            return Some(&[]);
        }
        let map = self.map.get()?;
        let at = |offset: u64| (offset - self.mapped.start) as usize;
        Some(&map[at(range.start)..at(range.end)])
    }

    /// Has bytes that are not mapped yet fetched, if need be, and mapped: all of them, or these alone; then that is
    /// their map.
    ///
    /// # Errors
    /// They are nowhere any more, or cannot be had at the moment.
    pub(super) fn load(&self, range: &Range<u64>) -> Result<Option<Map>, Cause> {
        let map = match &self.origin {
            Origin::Put(stored) => stored.blob.map(self.mapped.clone()).map_err(|error| {
                let message = format!(
                    "{} lies in the store of an embedded cluster, and cannot be read, as where that cluster has \
                     ended: {}",
                    self.content,
                    chain(&error)
                );
                Cause::BlobLost { message }
            })?,
            Origin::Left(left) if *range == self.mapped => left.load(range)?,
            Origin::Left(left) => return left.load(range).map(Some),
            // They are mapped from the beginning.
            Origin::InPlace { .. } | Origin::Lent(..) => return Ok(None),
        };
        // Another thread may have been faster.
        _ = self.map.set(map);
        Ok(None)
    }

    /// Has so many workers keep it, as long as this is there. Nothing where all is on one machine.
    ///
    /// # Errors
    /// It is a file in place, or there are too many that workers keep.
    pub(super) fn replicate(&self, workers: u8) -> Result<()> {
        let (session, blob) = match &self.origin {
            Origin::Put(stored) => match &stored.offered {
                Some(offered) => (offered.session(), stored.reference()),
                None => return Ok(()),
            },
            Origin::Left(left) => (left.session(), left.reference()),
            Origin::InPlace { .. } | Origin::Lent(..) => {
                let what = "only workers' copies of what was put, or is a task's result, can be counted; a file \
                            that is used in place is its program's: `put` it";
                return Err(Error::new(ErrorKind::Shape(what.into())));
            }
        };
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if !session.keep(Keep { blob, replicas: workers.max(1), at: None }) {
            return Err(Error::new(ErrorKind::Shape(too_many_kept())));
        }
        *copies = Some(Copies { session: Arc::clone(session), blob: blob.id });
        Ok(())
    }

    /// Whether a task of this process has left it with the worker.
    pub(crate) fn is_made_here(&self) -> bool {
        self.made_here.load(Ordering::Relaxed)
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
            Origin::Put(_) | Origin::Left(_) | Origin::Lent(_, _, None) => false,
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
        self.map.get().map_or(&[], |map| map)
    }

    /// A map of its own of some of the bytes.
    pub(super) fn private(&self, range: &Range<u64>) -> Result<PrivateMap> {
        let bytes = range.end - range.start;
        let file = match &self.origin {
            Origin::Put(stored) => stored.blob.file_range(range.clone()).map_err(Error::data)?,
            Origin::Left(left) => left.file_range(range).map_err(Error::blob)?,
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
            Origin::Put(_) | Origin::Left(_) | Origin::Lent(_, _, None) => Ok(()),
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
    let found = nearby(content, range);
    let found = found.or_else(|| held.iter().find(|whole| whole.covers(range)).cloned());
    // Also where none is found: a task that is refused for that has to be asked.
    mention::begin();
    let whole = match found {
        // A task is not begun before it has all that it was given.
        Some(whole) if context::is_set() && whole.bytes(range).is_none() => {
            whole.load(range).map(|_| whole)
        }
        Some(whole) => Ok(whole),
        None => borrow(content, range.clone()),
    };
    let whole = whole.and_then(|whole| whole.check().map(|()| whole));
    whole.iter().for_each(|whole| whole.used.now());
    task::note(&whole);
    whole
}

/// The blob that the string of a long result names, all of it.
pub(crate) fn lend_string(reference: &[u8]) -> Result<Arc<Whole>, Cause> {
    let Some(reference) = BlobRef::from_bytes(reference) else {
        return Err(Cause::Program { message: "a result was damaged on the way".into() });
    };
    lend(reference)
}

/// The blob that `reference` names, all of it.
pub(crate) fn lend(reference: BlobRef) -> Result<Arc<Whole>, Cause> {
    find(reference.content(), &(0..reference.bytes))
}

fn borrow(content: Content, range: Range<u64>) -> Result<Arc<Whole>, Cause> {
    let whole = borrow_for_now(content, range)?;
    kept::keep(&whole);
    Ok(whole)
}

fn borrow_for_now(content: Content, range: Range<u64>) -> Result<Arc<Whole>, Cause> {
    let Loan { bytes, file, in_place } = loans::borrow(content, range)?;
    let map = file.map().map_err(|error| Cause::Unlent { message: chain(&error) })?;
    let origin = Origin::Lent(file.file, file.offset, in_place);
    Ok(listed(Whole::new(content, bytes, Some(map), origin)))
}

/// What a task of this process has just left with its worker. It stays mapped as long as somebody has it.
pub(crate) fn made(reference: BlobRef) -> Result<Arc<Whole>, Cause> {
    let (content, all) = (reference.content(), 0..reference.bytes);
    let whole = match held(content, |_| true) {
        Some(whole) => whole,
        None => borrow_for_now(content, all)?,
    };
    whole.made_here.store(true, Ordering::Relaxed);
    Ok(whole)
}

/// A whole of all of `content` that this process has for `cluster`, or wherever it is needed.
pub(crate) fn held_for(cluster: ClusterId, content: Content) -> Option<Arc<Whole>> {
    held(content, |whole| match &whole.origin {
        Origin::Put(stored) => stored.cluster() == cluster,
        Origin::Left(left) => left.cluster() == cluster,
        Origin::InPlace { .. } | Origin::Lent(..) => true,
    })
}

fn held(content: Content, is_it: impl Fn(&Whole) -> bool) -> Option<Arc<Whole>> {
    let all = 0..content.bytes();
    let held: Vec<Arc<Whole>> = {
        let live = live();
        live.get(&content).into_iter().flatten().filter_map(Weak::upgrade).collect()
    };
    held.iter().find(|whole| whole.covers(&all) && is_it(whole)).cloned()
}

thread_local! {
    /// What the handles that this thread decodes are on, where somebody knows.
    static NEAR: RefCell<Vec<Arc<Whole>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `read`, which decodes handles on these. Another cluster of this process may have the same.
#[inline]
pub(crate) fn near<R>(wholes: &[Arc<Whole>], read: impl FnOnce() -> R) -> R {
    struct Before(Vec<Arc<Whole>>);
    impl Drop for Before {
        fn drop(&mut self) {
            NEAR.set(std::mem::take(&mut self.0));
        }
    }
    if wholes.is_empty() {
        return read();
    }
    let _before = Before(NEAR.replace(wholes.to_vec()));
    read()
}

fn nearby(content: Content, range: &Range<u64>) -> Option<Arc<Whole>> {
    NEAR.with_borrow(|near| {
        let is_it = |whole: &&Arc<Whole>| {
            whole.covers(range)
                && (whole.content == content || whole.as_blob.get() == Some(&content))
        };
        near.iter().find(is_it).cloned()
    })
}
