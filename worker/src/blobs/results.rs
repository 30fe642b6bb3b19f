//! What tasks have left here: long results, and arrays that they have put or written.
//!
//! It stays for its batch's sake: until the batch is forgotten, or the client has fetched what the outcome of that
//! very task names. What it has handles on is [kept](super::kept) longer. Nothing of this survives the process; the
//! blobs do, as far as the store does not need their room.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::limit::WORKER_RESULTS_MAX;
use allhands_common::range::TaskRange;
use allhands_store::blobs::Blob;
use allhands_store::map::FileRange;
use allhands_store::pieces::Pieces;
use rustix::fs::{SealFlags, fcntl_get_seals};

use super::Blobs;

/// Batches that are over and whose last results may still come, at most: of tasks that were cancelled and run on
/// for a while.
const FORGOTTEN_MAX: usize = 1024;

/// Results of tasks.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// By batch, with the task of each: those that nobody has claimed.
    kept: BTreeMap<BatchId, Vec<(u32, Blob)>>,
    /// Batches that nobody will ask about any more, the last ones.
    forgotten: VecDeque<BatchId>,
}

/// Whose result it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker {
    pub(crate) batch: BatchId,
    pub(crate) task: u32,
}

impl Blobs {
    /// Stores a long result, the first `bytes` bytes of a memory file. It stays until it is claimed or nobody will
    /// ask for it; whoever asks the leader is sent here.
    pub(crate) fn keep(&self, of: Maker, file: OwnedFd, bytes: u64) -> Result<BlobRef, Cause> {
        let bad = |what: &str| Cause::BadResult { message: what.to_owned() };
        // What its executor could still change would be stored under a name that is not its own.
        let seals = fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK) {
            return Err(bad("it was handed over in a file that can still be written"));
        }
        let map =
            FileRange { file, offset: 0, bytes }.map().map_err(|error| bad(&chain(&error)))?;
        let store = self.store().map_err(|error| full(&error))?;
        Ok(self.left(of, store.put_bytes(&map).map_err(|error| full(&error))?))
    }

    /// Stores an array that a task pours through a pipe, however long that takes; nothing of one that it does not
    /// finish. It stays as one that was [kept](Self::keep).
    pub(crate) fn pour(&self, of: Maker, pipe: OwnedFd) -> Result<BlobRef, Cause> {
        let store = self.store().map_err(|error| full(&error))?;
        let poured = store.put_slowly(Pieces::new(File::from(pipe)));
        Ok(self.left(of, poured.map_err(|error| full(&error))?))
    }

    fn left(&self, Maker { batch, task }: Maker, blob: Blob) -> BlobRef {
        let (id, bytes) = (blob.id(), blob.manifest().bytes());
        let mut results = self.results();
        if !results.forgotten.contains(&batch) {
            results.kept.entry(batch).or_default().push((task, blob));
        }
        drop(results);
        if let Some(fetcher) = &self.0.fetcher {
            fetcher.announce(id);
        }
        BlobRef { id, bytes }
    }

    /// Takes over what the `task`-th task of `batch` has left: from now on it stays as long as what is returned.
    /// Equal bytes that another task has left are that one's.
    pub fn claim(&self, batch: BatchId, task: u32, id: &BlobId) -> Option<Blob> {
        let mut results = self.results();
        let of_batch = results.kept.get_mut(&batch)?;
        let at = of_batch.iter().position(|(of, blob)| *of == task && blob.id() == *id)?;
        let (_, blob) = of_batch.swap_remove(at);
        if of_batch.is_empty() {
            results.kept.remove(&batch);
        }
        Some(blob)
    }

    /// Nobody will ask for what these tasks of `batch` have left.
    pub(crate) fn fetched(&self, batch: BatchId, tasks: &[TaskRange]) {
        let mut results = self.results();
        let Some(of_batch) = results.kept.get_mut(&batch) else { return };
        let is_of = |(task, _): &mut (u32, Blob)| tasks.iter().any(|range| range.contains(*task));
        let gone: Vec<_> = of_batch.extract_if(.., is_of).collect();
        if of_batch.is_empty() {
            results.kept.remove(&batch);
        }
        drop(results);
        // Closes its files.
        drop(gone);
    }

    /// Nobody will claim what tasks of `batch` have left.
    pub(crate) fn forget(&self, batch: BatchId) {
        let mut results = self.results();
        let kept = results.kept.remove(&batch);
        results.forgotten.truncate(FORGOTTEN_MAX - 1);
        results.forgotten.push_front(batch);
        drop(results);
        drop(kept);
    }

    /// Batches of whose tasks there are results here.
    pub(crate) fn batches(&self) -> Vec<BatchId> {
        self.results().kept.keys().copied().take(WORKER_RESULTS_MAX).collect()
    }

    /// Whether somebody may still come for what tasks have left here.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.results().kept.is_empty() || self.has_kept()
    }
}

fn full(error: &dyn std::error::Error) -> Cause {
    Cause::Unlent { message: format!("its result cannot be kept: {}", chain(error)) }
}

#[cfg(test)]
mod tests;
