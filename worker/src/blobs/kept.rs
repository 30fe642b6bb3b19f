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
use allhands_store::blobs::{Blob, Owner};
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
    /// It is here, and pinned.
    Here,
    /// It is on its way.
    Coming(AbortHandle),
}

/// For whom the store keeps it.
const SESSIONS: Owner = Owner::Lease(0);

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
            let whole = store.hold(&blob.id).filter(Blob::is_complete);
            // Held, it cannot go before it is pinned.
            let pinned = whole.filter(|_| store.pin(&blob.id, SESSIONS).is_ok());
            let state = match pinned {
                Some(_) => State::Here,
                None => {
                    let (blobs, fetcher) = (self.clone(), fetcher.clone());
                    let task = tokio::spawn(async move {
                        let fetched = fetcher.fetch(blob.id, blob.bytes, 0..blob.bytes).await;
                        match fetched {
                            Ok(_hold) => blobs.came(blob.id),
                            Err(error) => {
                                let error = chain(&error);
                                tracing::warn!(blob = %blob.id, error, "a blob cannot be kept here");
                                // Its entry ends with this task, which goes on.
                                drop(blobs.kept().blobs.remove(&blob.id));
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

    fn came(&self, blob: BlobId) {
        let mut kept = self.kept();
        if let Some(entry) = kept.blobs.get_mut(&blob)
            && let Ok(store) = self.store()
        {
            match store.pin(&blob, SESSIONS) {
                Ok(()) => entry.state = State::Here,
                Err(error) => tracing::warn!(%blob, %error, "a blob is here, and cannot be pinned"),
            }
        }
    }

    /// These need not be kept any more.
    pub(crate) fn let_go(&self, blobs: &[BlobId]) {
        let mut kept = self.kept();
        for blob in blobs {
            if let Some(entry) = kept.blobs.remove(blob) {
                self.end(blob, entry);
            }
        }
    }

    fn end(&self, blob: &BlobId, entry: Entry) {
        match (entry.state, self.store()) {
            (State::Coming(task), _) => task.abort(),
            (State::Here, Ok(store)) => _ = store.release(blob, SESSIONS),
            // What cannot be opened has nothing that was pinned.
            (State::Here, Err(_)) => {}
        }
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
        if !gone.is_empty() {
            tracing::info!(blobs = gone.len(), "nobody has asked again to keep these");
        }
        gone.into_iter().for_each(|(blob, entry)| self.end(&blob, entry));
    }

    pub(super) fn has_kept(&self) -> bool {
        !self.kept().blobs.is_empty()
    }
}
