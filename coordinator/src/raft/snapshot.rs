//! Snapshots on disk: the encoded state and the segments it refers to, at one index of the log.
//!
//! ```text
//! snapshots/snapshot-{index:020}-{sequence:020}/state      see `snapshot::format`
//!                                              /*.seg      hard links of the segment files
//! snapshots/building-…, snapshots/incoming-…               removed at start
//! ```
//!
//! Driven by the state machine adapter (build, install, read) and by the receiver of a leader's snapshot. A snapshot is
//! written under another name, synced, renamed, and the directory synced: after a crash it is there whole or not at
//! all. Its segment files are linked, so the live store may discard and unlink. The last two are kept; a snapshot that
//! fails its checksum is passed over for the one before.

mod format;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

pub(crate) use format::SnapshotFile;

use super::config::Durability;
use super::types::SnapshotMeta;
use crate::segments::SegmentPlace;

const KEPT: usize = 2;
const STATE: &str = "state";

/// A snapshot as openraft hands it around: where it is. Its files do not change as long as it is one of the last two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHandle {
    pub(crate) dir: PathBuf,
}

impl SnapshotHandle {
    pub(crate) fn state_path(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Reads and checks the state file.
    pub(crate) fn read(&self) -> io::Result<SnapshotFile> {
        SnapshotFile::decode(fs::read(self.state_path())?.into())
    }
}

/// The snapshots of one node; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    root: PathBuf,
    durability: Durability,
    state: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    newest: Option<(SnapshotMeta, SnapshotHandle)>,
    next: u64,
}

impl Snapshots {
    /// Opens or makes the directory, removes what was not finished, and checks the newest snapshot.
    pub(crate) fn open(root: &Path, durability: Durability) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let mut published = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            match entry.file_name().to_str().and_then(parse_name) {
                Some(order) => published.push((order, entry.path())),
                None => fs::remove_dir_all(entry.path())?,
            }
        }
        published.sort();
        let next =
            published.iter().map(|((_, sequence), _)| sequence + 1).max().unwrap_or_default();
        let mut newest = None;
        for (_, dir) in published.into_iter().rev() {
            let handle = SnapshotHandle { dir };
            match handle.read() {
                Ok(file) => {
                    newest = Some((file.meta, handle));
                    break;
                }
                Err(error) => tracing::error!(?handle, %error, "passing over a damaged snapshot"),
            }
        }
        let state = Arc::new(Mutex::new(Known { newest, next }));
        Ok(Self { root: root.to_owned(), durability, state })
    }

    pub(crate) fn newest(&self) -> Option<(SnapshotMeta, SnapshotHandle)> {
        self.known().newest.clone()
    }

    /// An empty directory, for a snapshot that is being built or received. Not a snapshot until published.
    pub(crate) fn scratch(&self, purpose: &str) -> io::Result<PathBuf> {
        let mut known = self.known();
        let dir = self.root.join(format!("{purpose}-{:020}", known.next));
        known.next += 1;
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Writes the state into `scratch`, which has the segment files already, and makes it the newest snapshot.
    pub(crate) fn publish(
        &self,
        scratch: &Path,
        meta: SnapshotMeta,
        state: &Bytes,
        places: &[SegmentPlace],
    ) -> io::Result<SnapshotHandle> {
        let mut file = File::create_new(scratch.join(STATE))?;
        format::encode_into(&mut file, &meta, state, places)?;
        if self.durability.syncs() {
            file.sync_all()?;
            File::open(scratch)?.sync_all()?;
        }
        let mut known = self.known();
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let handle = SnapshotHandle { dir: self.root.join(name(index, known.next)) };
        known.next += 1;
        fs::rename(scratch, &handle.dir)?;
        if self.durability.syncs() {
            File::open(&self.root)?.sync_all()?;
        }
        known.newest = Some((meta, handle.clone()));
        drop(known);
        self.prune()?;
        Ok(handle)
    }

    fn prune(&self) -> io::Result<()> {
        let mut published = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if let Some(order) = entry.file_name().to_str().and_then(parse_name) {
                // By age, not by index: a leader's snapshot may replace a later one of ours.
                published.push((order.1, entry.path()));
            }
        }
        published.sort();
        let surplus = published.len().saturating_sub(KEPT);
        for (_, dir) in published.into_iter().take(surplus) {
            fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    /// Whether a handle is one of ours, published.
    pub(crate) fn owns(&self, handle: &SnapshotHandle) -> bool {
        handle.dir.parent() == Some(&self.root)
            && handle.dir.file_name().and_then(|name| name.to_str()).and_then(parse_name).is_some()
    }

    /// Nothing is left half done under this lock, so a panic elsewhere does not spoil it.
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(index: u64, sequence: u64) -> String {
    format!("snapshot-{index:020}-{sequence:020}")
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, sequence) = name.strip_prefix("snapshot-")?.split_once('-')?;
    Some((index.parse().ok()?, sequence.parse().ok()?))
}
