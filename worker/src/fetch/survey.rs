//! What the store holds, as the leader is told: what has come and gone since it was told last.
//!
//! The store is looked through from time to time, because it evicts of itself, and at once when a fetch has
//! ended, because somebody may be waiting for a holder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allhands_common::blob::{BlobId, CHUNK_BYTES};
use allhands_common::limit::{BLOB_NEWS_MAX, WORKER_BLOBS_MAX};
use allhands_common::wire::worker::FromWorker;
use allhands_store::blobs::{BlobInfo, Store};
use tokio::sync::{Notify, mpsc};

/// Between two looks. To look through 8,192 blobs takes some milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Default)]
pub(super) struct Survey(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What the leader was told, or will be in the next registration: last used first.
    said: Vec<(BlobId, bool)>,
    /// What the last registration said.
    registered: Vec<(BlobId, bool)>,
    /// Blobs of which it is to be told in any case.
    asked: BTreeSet<BlobId>,
}

impl Survey {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a registration is to say.
    pub(super) fn register(&self) -> Vec<(BlobId, bool)> {
        let mut state = self.state();
        state.registered = state.said.clone();
        state.said.clone()
    }

    /// The registration was taken: what has changed since it was made. What was said of that in between, a
    /// coordinator that did not lead yet has not heard.
    pub(super) fn registered(&self) -> Vec<FromWorker> {
        let state = self.state();
        changes(&state.registered, &state.said, &BTreeSet::new())
    }

    /// Says at once whether a blob is here.
    pub(super) fn look_at(&self, blob: BlobId) {
        self.state().asked.insert(blob);
        self.0.bell.notify_one();
    }

    /// Looks through the store until nobody listens.
    pub(super) async fn run(self, store: Store, say: mpsc::Sender<FromWorker>) {
        loop {
            let store = store.clone();
            let Ok(listed) = tokio::task::spawn_blocking(move || store.list()).await else {
                return;
            };
            let words = self.compare(listed);
            for word in words {
                if say.send(word).await.is_err() {
                    return;
                }
            }
            // Whoever rings in between is heard at the next turn.
            _ = tokio::time::timeout(PAUSE, self.0.bell.notified()).await;
        }
    }

    /// What is to be said of a store that holds this.
    fn compare(&self, mut listed: Vec<BlobInfo>) -> Vec<FromWorker> {
        listed.retain(|blob| blob.bytes == 0 || !blob.present.is_empty());
        listed.sort_unstable_by_key(|blob| std::cmp::Reverse(blob.used));
        listed.truncate(WORKER_BLOBS_MAX);
        let listed: Vec<(BlobId, bool)> =
            listed.iter().map(|blob| (blob.id, is_whole(blob))).collect();
        let mut state = self.state();
        let asked = std::mem::take(&mut state.asked);
        let said = std::mem::replace(&mut state.said, listed.clone());
        drop(state);
        changes(&said, &listed, &asked)
    }
}

/// What is to be said to somebody who was told `said` of a store that holds `listed`, and of the blobs `asked`
/// in any case.
fn changes(
    said: &[(BlobId, bool)],
    listed: &[(BlobId, bool)],
    asked: &BTreeSet<BlobId>,
) -> Vec<FromWorker> {
    let said: BTreeMap<BlobId, bool> = said.iter().copied().collect();
    let there: BTreeMap<BlobId, bool> = listed.iter().copied().collect();
    let come =
        there.iter().filter(|(blob, whole)| said.get(blob) != Some(whole) || asked.contains(blob));
    let come: Vec<(BlobId, bool)> = come.map(|(blob, whole)| (*blob, *whole)).collect();
    let gone = said.keys().chain(asked).filter(|blob| !there.contains_key(blob));
    let gone: BTreeSet<BlobId> = gone.copied().collect();
    let gone: Vec<BlobId> = gone.into_iter().collect();
    let gone = gone.chunks(BLOB_NEWS_MAX).map(|some| (Vec::new(), some.to_vec()));
    let come = come.chunks(BLOB_NEWS_MAX).map(|some| (some.to_vec(), Vec::new()));
    gone.chain(come).map(|(come, gone)| FromWorker::HaveBlobs { come, gone }).collect()
}

fn is_whole(blob: &BlobInfo) -> bool {
    let chunks = blob.bytes.div_ceil(CHUNK_BYTES.into());
    let present: u64 = blob.present.iter().map(|run| u64::from(run.end - run.start)).sum();
    present == chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(number: u8, present: u32, used: u64) -> BlobInfo {
        let (id, bytes) = (BlobId([number; 32]), 2 * u64::from(CHUNK_BYTES));
        let present = (present > 0).then_some(0..present).into_iter().collect();
        BlobInfo { id, bytes, present, owners: Vec::new(), used }
    }

    const fn id(number: u8) -> BlobId {
        BlobId([number; 32])
    }

    fn have(come: &[(BlobId, bool)], gone: &[BlobId]) -> FromWorker {
        FromWorker::HaveBlobs { come: come.into(), gone: gone.into() }
    }

    #[test]
    fn only_what_has_changed_is_said() {
        let survey = Survey::default();
        let words = survey.compare(vec![info(1, 1, 1), info(2, 2, 2), info(3, 0, 3)]);
        assert_eq!(words, [have(&[(id(1), false), (id(2), true)], &[])], "3 has nothing yet");
        assert_eq!(survey.register(), [(id(2), true), (id(1), false)], "last used first");
        assert_eq!(survey.compare(vec![info(1, 1, 1), info(2, 2, 2)]), []);
        let words = survey.compare(vec![info(1, 2, 1), info(3, 1, 3)]);
        assert_eq!(words, [have(&[], &[id(2)]), have(&[(id(1), true), (id(3), false)], &[])]);
    }

    #[test]
    fn what_was_wanted_is_said_in_any_case() {
        let survey = Survey::default();
        survey.compare(vec![info(1, 1, 1)]);
        survey.look_at(id(1));
        survey.look_at(id(2));
        let words = survey.compare(vec![info(1, 1, 1)]);
        assert_eq!(words, [have(&[], &[id(2)]), have(&[(id(1), false)], &[])]);
        assert_eq!(survey.compare(vec![info(1, 1, 1)]), []);
    }

    #[test]
    fn what_has_changed_while_a_registration_was_on_its_way_is_said_after_it() {
        let survey = Survey::default();
        survey.compare(vec![info(1, 1, 1), info(2, 2, 2)]);
        survey.register();
        assert_eq!(survey.registered(), []);
        survey.compare(vec![info(2, 2, 2), info(3, 2, 3)]);
        let words = [have(&[], &[id(1)]), have(&[(id(3), true)], &[])];
        assert_eq!(survey.registered(), words);
        assert_eq!(survey.registered(), words, "by whichever leader takes it");
        survey.register();
        assert_eq!(survey.registered(), []);
    }

    #[test]
    fn it_is_said_in_messages_of_bounded_length() {
        let survey = Survey::default();
        let many: Vec<BlobInfo> = (0..WORKER_BLOBS_MAX + 100)
            .map(|number| {
                let mut one = info(0, 2, number as u64);
                one.id.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
                one
            })
            .collect();
        let words = survey.compare(many);
        assert_eq!(words.len(), WORKER_BLOBS_MAX / BLOB_NEWS_MAX);
        let all = words.iter().map(|word| match word {
            FromWorker::HaveBlobs { come, gone } => {
                assert!(come.len() + gone.len() <= BLOB_NEWS_MAX);
                come.len()
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(all.sum::<usize>(), WORKER_BLOBS_MAX);
        assert_eq!(survey.register()[0].0.0[..8], (WORKER_BLOBS_MAX as u64 + 99).to_le_bytes());
    }
}
