//! Workers that keep long results of batches, and have to be told when a batch is over.
//!
//! Whoever was sent ranges by this leader is told as it is (`known_by`). This is for those who were sent them by
//! an earlier one, or in an earlier registration.

use alloc::vec::Vec;

use allhands_common::id::{BatchId, WorkerId};
use allhands_common::limit::WORKER_RESULTS_MAX;
use allhands_common::wire::worker::Order;

use super::super::Dispatcher;
use super::Blobs;
use crate::State;

impl Blobs {
    pub(super) fn remove_results(&mut self, worker: WorkerId, batch: BatchId) {
        if let Some(keepers) = self.results.get_mut(&batch) {
            keepers.remove(&worker);
            if keepers.is_empty() {
                self.results.remove(&batch);
            }
        }
    }
}

impl Dispatcher {
    /// A worker has registered, and keeps results of these batches.
    pub(super) fn take_results(
        &mut self,
        state: &State,
        worker: WorkerId,
        mut batches: Vec<BatchId>,
    ) {
        batches.truncate(WORKER_RESULTS_MAX);
        let (there, gone): (Vec<BatchId>, Vec<BatchId>) =
            batches.into_iter().partition(|batch| state.batches.contains_key(batch));
        for batch in gone {
            self.order(worker, Order::Forget { batch });
        }
        let Some(place) = self.blobs.places.get_mut(&worker) else { return };
        place.results.extend(&there);
        for batch in there {
            self.blobs.results.entry(batch).or_default().insert(worker);
        }
    }

    /// A batch is over and gone: so are the results that workers keep of it.
    pub(in super::super) fn forget_results(&mut self, batch: BatchId) {
        for worker in self.blobs.results.remove(&batch).unwrap_or_default() {
            if let Some(place) = self.blobs.places.get_mut(&worker) {
                place.results.remove(&batch);
            }
            let sent = |active: &super::super::Active| active.known_by.contains(&worker);
            if !self.active.get(&batch).is_some_and(sent) {
                self.order(worker, Order::Forget { batch });
            }
        }
    }
}
