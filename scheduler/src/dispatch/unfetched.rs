//! Long results that lie with workers until the client of their batch has fetched them: how many bytes they are, so
//! that no more are made than the workers' stores have room for, and when their workers need not keep them any more.
//!
//! Soft: it is counted from the first that was fetched on, a new leader counts from nothing, and what it is not told of goes with its batch.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use allhands_common::blob::BlobRef;
use allhands_common::id::{BatchId, WorkerId};
use allhands_common::limit::UNFETCHED_BYTES_MAX;
use allhands_common::range::TaskRange;
use allhands_common::segment::{STORED, Segment};
use allhands_common::wire::worker::Order;

use super::Dispatcher;
use crate::State;

/// Of one batch, by task.
#[derive(Debug, Default)]
pub(super) struct Unfetched {
    /// Whether its client fetches them as they come: it has said so of some. Whoever leaves them where they are until
    /// it needs them would otherwise wait for what is never made.
    counts: bool,
    tasks: BTreeMap<u32, u64>,
    bytes: u64,
}

impl Unfetched {
    /// Whether no more should be made.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes > UNFETCHED_BYTES_MAX
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the long results of the tasks `range`.
    pub(super) fn note(&mut self, range: TaskRange, outcomes: &Segment) {
        if !self.counts {
            return;
        }
        for (_, rows) in outcomes.runs().filter(|(tag, _)| *tag == STORED) {
            for row in rows.start..rows.end {
                let named = outcomes.value(row).and_then(|(_, string)| BlobRef::from_bytes(string));
                let bytes = named.map_or(0, |named| named.bytes);
                // Of two attempts of a task the client gets one.
                let before = self.tasks.insert(range.start + row, bytes).unwrap_or(0);
                self.bytes = (self.bytes - before).saturating_add(bytes);
            }
        }
    }

    fn fetched(&mut self, tasks: TaskRange) {
        let there: Vec<u32> = self.tasks.range(tasks.start..tasks.end).map(|(at, _)| *at).collect();
        for task in there {
            self.bytes -= self.tasks.remove(&task).unwrap_or(0).min(self.bytes);
        }
    }
}

impl Dispatcher {
    /// A client has fetched the results of these tasks.
    pub(super) fn fetched(&mut self, state: &State, batch: BatchId, tasks: Vec<TaskRange>) {
        if !state.batches.contains_key(&batch) {
            // Its workers were told to forget it.
            return;
        }
        let mut workers: BTreeSet<WorkerId> =
            self.blobs.results.get(&batch).cloned().unwrap_or_default();
        if let Some(active) = self.active.get_mut(&batch) {
            active.unfetched.counts = true;
            tasks.iter().for_each(|range| active.unfetched.fetched(*range));
            workers.extend(&active.known_by);
        }
        for worker in workers {
            self.order(worker, Order::Fetched { batch, tasks: tasks.clone() });
        }
        self.requeue(state, batch);
    }
}
