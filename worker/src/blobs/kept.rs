//! Blobs that sessions have handles on, kept here because the leader says so.
//!
//! What is not here yet is fetched first: so a second holder comes to be, and what a worker that leaves has alone goes
//! on. A leader says it to each worker that registers; what an earlier one has said holds for a while
//! ([`KEEP_GRACE_MS`](allhands_common::limit::KEEP_GRACE_MS)), in which sessions come back and say what they hold.
//! Nothing of this survives the process; the blobs do, as far as the store does not need their room meanwhile.

use std::collections::BTreeMap;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::wire::worker::FromWorker;
use allhands_store::blobs::Blob;
use allhands_transfer::store::Hold;
use tokio::task::AbortHandle;

use super::Blobs;

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    blobs: BTreeMap<BlobId, Entry>,
    /// Counts registrations.
    round: u64,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// In which registration it was said last.
    round: u64,
}

#[derive(Debug)]
enum State {
    /// It is here.
    Here(#[expect(dead_code, reason = "it holds")] Held),
    /// It is on its way.
    Coming(AbortHandle),
    /// It cannot be had.
    Lost,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they hold")]
enum Held {
    Stored(Blob),
    Fetched(Hold),
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let State::Coming(task) = &self.state {
            task.abort();
        }
    }
}

impl Blobs {
    /// Keeps these, also those that are not here yet. To be called inside a runtime.
    pub(crate) fn keep_all(&self, blobs: Vec<BlobRef>) {
        let Some(fetcher) = &self.0.fetcher else { return };
        // Its store is open, or there would be no fetcher.
        let Ok(store) = self.store() else { return };
        let mut kept = self.kept();
        let round = kept.round;
        for blob in blobs {
            if let Some(known) = kept.blobs.get_mut(&blob.id) {
                known.round = round;
                continue;
            }
            let state = match store.hold(&blob.id).filter(Blob::is_complete) {
                Some(here) => State::Here(Held::Stored(here)),
                None => {
                    let (blobs, fetcher) = (self.clone(), fetcher.clone());
                    let task = tokio::spawn(async move {
                        let fetched = fetcher.fetch(blob.id, blob.bytes, 0..blob.bytes).await;
                        match fetched {
                            Ok(hold) => blobs.came(blob.id, hold),
                            Err(error) => {
                                let error = chain(&error);
                                tracing::warn!(blob = %blob.id, error, "a blob cannot be kept here");
                                blobs.lost(blob.id);
                                fetcher.say(FromWorker::CannotKeep { blob: blob.id }).await;
                            }
                        }
                    });
                    State::Coming(task.abort_handle())
                }
            };
            kept.blobs.insert(blob.id, Entry { state, round });
        }
    }

    fn came(&self, blob: BlobId, hold: Hold) {
        if let Some(entry) = self.kept().blobs.get_mut(&blob) {
            entry.state = State::Here(Held::Fetched(hold));
        }
    }

    fn lost(&self, blob: BlobId) {
        let entry = self.kept().blobs.remove(&blob);
        // It is the task of the entry that says so, and goes on.
        if let Some(mut entry) = entry {
            entry.state = State::Lost;
        }
    }

    /// These need not be kept any more.
    pub(crate) fn let_go(&self, blobs: &[BlobId]) {
        let mut kept = self.kept();
        let gone: Vec<_> = blobs.iter().filter_map(|blob| kept.blobs.remove(blob)).collect();
        drop(kept);
        // Closes their files.
        drop(gone);
    }

    /// A leader has taken the registration, and will say what is to be kept.
    pub(crate) fn begin_round(&self) {
        self.kept().round += 1;
    }

    /// What was not said again since lasts no longer.
    pub(crate) fn end_round(&self) {
        let mut kept = self.kept();
        let round = kept.round;
        let gone: Vec<_> = kept.blobs.extract_if(.., |_, entry| entry.round < round).collect();
        drop(kept);
        if !gone.is_empty() {
            tracing::info!(blobs = gone.len(), "nobody has asked again to keep these");
        }
    }

    pub(super) fn has_kept(&self) -> bool {
        !self.kept().blobs.is_empty()
    }
}
