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

use allhands_common::blob::{BlobRef, Content};
use allhands_common::failure::Cause;
use allhands_common::id::ClusterId;
use allhands_store::blobs::Blob;
use allhands_store::in_place::{FileInPlace, InPlaceError};
use allhands_store::map::{FileRange, Map, PrivateMap};

use super::mention;
use crate::cluster::CLUSTER_VARIABLE;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{context, loans};
use crate::session::holdings::Offered;

/// Maps that an executor keeps for tasks that may follow; the one that was used least recently goes first.
/// Each holds an open file.
const KEPT_MAX: usize = 128;

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
}

/// Where the bytes come from, and what keeps them there.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This process put them into a store for this cluster.
    Put {
        cluster: ClusterId,
        blob: Blob,
        /// Has workers of other machines find it here.
        _offered: Option<Offered>,
    },
    /// They are in a file that this process has opened.
    InPlace { file: Arc<FileInPlace>, offers: Offers },
    /// A worker lent them: the file, where the mapped bytes begin in it.
    Lent(OwnedFd, u64),
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

    /// All of a blob of `cluster`'s store, in this process.
    pub(crate) fn put(cluster: ClusterId, blob: Blob) -> Result<Arc<Self>> {
        Self::of_blob(cluster, blob, None)
    }

    /// All of a blob that this process gives to the workers of `cluster`.
    pub(crate) fn offered(cluster: ClusterId, offered: Offered) -> Result<Arc<Self>> {
        match offered.stored().cloned() {
            Some(blob) => Self::of_blob(cluster, blob, Some(offered)),
            None => Err(Error::new(ErrorKind::Data)),
        }
    }

    fn of_blob(cluster: ClusterId, blob: Blob, _offered: Option<Offered>) -> Result<Arc<Self>> {
        let mapped = 0..blob.manifest().bytes();
        let map = blob.map(mapped.clone()).map_err(Error::data)?;
        let content = Content::Blob { id: blob.id(), bytes: mapped.end };
        Ok(listed(Self::new(content, mapped, map, Origin::Put { cluster, blob, _offered })))
    }

    const fn new(content: Content, mapped: Range<u64>, map: Map, origin: Origin) -> Self {
        Self { content, mapped, map, origin, as_blob: OnceLock::new() }
    }

    pub(crate) const fn content(&self) -> Content {
        self.content
    }

    /// By what name handles on it travel. A file in place is hashed for that where they may leave the machine.
    pub(super) fn travels_as(self: &Arc<Self>) -> Result<Content, InPlaceError> {
        match &self.origin {
            Origin::InPlace { file, .. } if may_leave() => {
                if let Some(known) = self.as_blob.get() {
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
            Origin::Put { .. } | Origin::Lent(..) => None,
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

    /// All that is mapped.
    pub(crate) fn all(&self) -> &[u8] {
        &self.map
    }

    /// A map of its own of some of the bytes.
    pub(super) fn private(&self, range: &Range<u64>) -> Result<PrivateMap> {
        let bytes = range.end - range.start;
        let file = match &self.origin {
            Origin::Put { blob, .. } => blob.file_range(range.clone()).map_err(Error::data)?,
            Origin::InPlace { file, .. } => file.file_range(range.clone()).map_err(Error::data)?,
            Origin::Lent(file, offset) => {
                let file = file.try_clone().map_err(Error::data)?;
                FileRange { file, offset: offset + (range.start - self.mapped.start), bytes }
            }
        };
        file.map_private().map_err(Error::data)
    }

    /// Whether it is a file in place that is not any more what it was.
    pub(crate) fn check(&self) -> Result<(), Cause> {
        let changed = |path: PathBuf| Cause::SourceChanged { path: path.display().to_string() };
        match (&self.origin, self.content) {
            (Origin::InPlace { file, .. }, _) => {
                file.check().map_err(|_| changed(file.path().to_owned()))
            }
            (Origin::Lent(file, _), Content::File(expected)) => {
                // Only its descriptor is known here; the system knows its name.
                let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                let path = || std::fs::read_link(&name).unwrap_or_default();
                let now = file
                    .try_clone()
                    .ok()
                    .and_then(|file| FileInPlace::of(file, Path::new("")).ok());
                match now.is_some_and(|now| now.identity() == expected) {
                    true => Ok(()),
                    false => Err(changed(path())),
                }
            }
            (Origin::Put { .. } | Origin::Lent(..), _) => Ok(()),
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

/// What an executor keeps, the most recently used last.
static KEPT: Mutex<Vec<Arc<Whole>>> = Mutex::new(Vec::new());

thread_local! {
    static TASK: RefCell<Task> = const { RefCell::new(Task { in_place: Vec::new(), failure: None }) };
    /// Arguments of the running task that are blobs.
    static LENT: RefCell<Vec<Arc<Whole>>> = const { RefCell::new(Vec::new()) };
}

/// Runs a task some of whose arguments are all of these.
pub(crate) fn lending<R>(arguments: Vec<Arc<Whole>>, run: impl FnOnce() -> R) -> R {
    // A task may itself run tasks, inline.
    let before = LENT.replace(arguments);
    let ran = run();
    LENT.set(before);
    ran
}

/// What an argument is a blob of, if it is one.
#[inline]
pub(crate) fn lent_at(bytes: &[u8]) -> Option<Content> {
    LENT.with_borrow(|lent| {
        let is_it = |whole: &&Arc<Whole>| std::ptr::eq(bytes, &*whole.map);
        lent.iter().find(is_it).map(|whole| whole.content)
    })
}

/// What the running task of this thread has to do with handles.
struct Task {
    /// Files in place that it uses.
    in_place: Vec<Arc<Whole>>,
    /// Why a handle among its arguments was not found.
    failure: Option<Cause>,
}

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
    let found = live()
        .get(&content)
        .and_then(|maps| maps.iter().filter_map(Weak::upgrade).find(|whole| whole.covers(range)));
    let whole = match found {
        Some(whole) => Ok(whole),
        None => borrow(content, range.clone()),
    };
    let whole = whole.and_then(|whole| whole.check().map(|()| whole));
    if context::is_set() {
        TASK.with_borrow_mut(|task| task.note(&whole));
    }
    whole
}

/// The blob that `reference` names, all of it.
pub(crate) fn lend(reference: &[u8]) -> Result<Arc<Whole>, Cause> {
    let Some(reference) = BlobRef::from_bytes(reference) else {
        return Err(Cause::Program { message: "its arguments were damaged on the way".into() });
    };
    find(reference.content(), &(0..reference.bytes))
}

fn borrow(content: Content, mapped: Range<u64>) -> Result<Arc<Whole>, Cause> {
    let FileRange { file, offset, bytes } = loans::borrow(content, mapped.clone())?;
    let range = FileRange { file, offset, bytes };
    let unmapped = |error: allhands_store::map::MapError| Cause::Unlent {
        message: allhands_common::chain::chain(&error),
    };
    let map = range.map().map_err(unmapped)?;
    let origin = Origin::Lent(range.file, offset);
    let whole = listed(Whole::new(content, mapped, map, origin));
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let oldest = (kept.len() >= KEPT_MAX).then(|| kept.remove(0));
    kept.push(Arc::clone(&whole));
    drop(kept);
    drop(oldest);
    Ok(whole)
}

impl Task {
    /// It was given this.
    fn note(&mut self, found: &Result<Arc<Whole>, Cause>) {
        match found {
            Err(cause) => self.failure = Some(cause.clone()),
            Ok(whole) if matches!(whole.content, Content::Blob { .. }) => {}
            Ok(whole) => {
                if !self.in_place.iter().any(|file| Arc::ptr_eq(file, whole)) {
                    self.in_place.push(Arc::clone(whole));
                }
            }
        }
    }
}

/// The task on this thread has ended, or was `refused` for one of its arguments.
///
/// # Errors
/// Why a handle was not found, if it was refused for that; or a file in place that it used was changed: what
/// was computed from that is worth nothing.
#[inline]
pub(crate) fn end_task(refused: bool) -> Result<(), Cause> {
    TASK.with_borrow_mut(|task| {
        if task.in_place.is_empty() && task.failure.is_none() {
            return Ok(());
        }
        let unchanged = task.in_place.drain(..).try_for_each(|file| file.check());
        match task.failure.take() {
            Some(failure) if refused => Err(failure),
            _ => unchanged,
        }
    })
}
