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
            let state = match (pinned, &self.0.fetcher) {
                (Some(_), _) => State::Here,
                // In a cluster of one process there is nobody to get it from.
                (None, None) => continue,
                (None, Some(fetcher)) => {
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

#[cfg(test)]
mod tests {
    use allhands_common::id::ClusterId;

    use super::*;
    use crate::blobs::StorePlace;

    #[test]
    fn what_no_leader_says_again_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cluster) = (dir.path().join("blobs"), ClusterId([7; 16]));
        let blobs = Blobs::embedded(StorePlace { dir: path, cluster, quota_bytes: 64 << 20 });
        let store = blobs.store().unwrap();
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| store.put_bytes(text).unwrap());
        let reference = |blob: &Blob| BlobRef { id: blob.id(), bytes: 1 };
        let [a_ref, b_ref, c_ref] = [&a, &b, &c].map(reference);
        let pinned = || {
            let mut pinned: Vec<BlobId> =
                store.list().iter().filter(|i| !i.owners.is_empty()).map(|i| i.id).collect();
            pinned.sort_unstable();
            pinned
        };
        let sorted = |mut ids: Vec<BlobId>| {
            ids.sort_unstable();
            ids
        };
        blobs.keep_all(vec![a_ref, b_ref]);
        blobs.keep_all(vec![a_ref]);
        assert_eq!(pinned(), sorted(vec![a_ref.id, b_ref.id]));
        blobs.end_round();
        assert_eq!(pinned(), sorted(vec![a_ref.id, b_ref.id]), "no other leader has come");

        blobs.begin_round();
        blobs.keep_all(vec![b_ref, c_ref]);
        assert_eq!(pinned(), sorted(vec![a_ref.id, b_ref.id, c_ref.id]), "it may still be said");
        blobs.end_round();
        assert_eq!(pinned(), sorted(vec![b_ref.id, c_ref.id]));
        assert!(blobs.is_awaited());
        blobs.let_go(&[b_ref.id, c_ref.id, a_ref.id]);
        assert!(pinned().is_empty() && !blobs.is_awaited());
    }
}
