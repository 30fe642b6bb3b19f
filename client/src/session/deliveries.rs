//! Outcomes that wait for long results: which of them are fetched when, and what may be delivered then.
//!
//! A batch's outcomes are delivered in their order, and its end after them: once some of them wait, so do those
//! that come after them. Other batches do not. What was not delivered is not acknowledged, so that its worker
//! still keeps it.
//!
//! A queue and nothing else: the session's loop fills it and does what it says. What is here in bytes is bounded
//! by the leader, who sends no more of a batch than its credit; what is fetched at a time, here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::id::BatchId;
use allhands_common::range::TaskRange;
use allhands_common::segment::Segment;

use super::core::End;
use crate::shared::whole::Whole;

/// Results that are fetched at a time, at most: enough for as many workers to be busy, few enough for the leader
/// to know of all of them.
pub(super) const FETCHES_MAX: usize = 64;

/// And together so many bytes, unless it is one: the first ones are delivered before the last ones come.
pub(super) const FETCH_BYTES_MAX: u64 = 256 << 20;

/// Outcomes that wait; `T` is a result that is here.
#[derive(Debug)]
pub(super) struct Deliveries<T> {
    batches: BTreeMap<BatchId, VecDeque<Waiting<T>>>,
    /// What is being fetched or is to be.
    blobs: BTreeMap<BlobId, Needed>,
    /// What is to be fetched, in order; also what nobody needs any more.
    queue: VecDeque<BlobId>,
    fetching: usize,
    fetching_bytes: u64,
    next: u64,
}

/// A result that somebody waits for.
#[derive(Debug)]
struct Needed {
    reference: BlobRef,
    /// By batch and number, each once.
    by: Vec<(BatchId, u64)>,
    fetching: bool,
}

/// The next of a batch.
#[derive(Debug)]
enum Waiting<T> {
    Outcomes { number: u64, missing: usize, outcomes: Ready<T> },
    End(End),
}

/// Outcomes with what they name.
#[derive(Debug)]
pub(super) struct Ready<T> {
    pub(super) range: TaskRange,
    /// With what they hold handles on.
    pub(super) outcomes: (Segment, Vec<Arc<Whole>>),
    /// Each once.
    pub(super) stored: Vec<(BlobId, Result<T, String>)>,
}

/// What is to be handed on.
#[derive(Debug)]
pub(super) enum Delivery<T> {
    Outcomes(Ready<T>),
    /// Nothing more will come of the batch.
    End(End),
}

impl<T> Default for Deliveries<T> {
    fn default() -> Self {
        Self {
            batches: BTreeMap::new(),
            blobs: BTreeMap::new(),
            queue: VecDeque::new(),
            fetching: 0,
            fetching_bytes: 0,
            next: 0,
        }
    }
}

impl<T: Clone> Deliveries<T> {
    /// Whether outcomes of a batch wait, so that what follows has to.
    pub(super) fn is_waiting(&self, batch: &BatchId) -> bool {
        self.batches.contains_key(batch)
    }

    /// The next outcomes of a batch, which name these results or follow some that do.
    pub(super) fn add(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        segment: (Segment, Vec<Arc<Whole>>),
        mut names: Vec<BlobRef>,
    ) {
        names.sort_unstable_by_key(|name| name.id);
        names.dedup_by_key(|name| name.id);
        let (number, missing) = (self.next, names.len());
        self.next += 1;
        for reference in names {
            let needed = self.blobs.entry(reference.id).or_insert_with(|| {
                self.queue.push_back(reference.id);
                Needed { reference, by: Vec::new(), fetching: false }
            });
            needed.by.push((batch, number));
        }
        let outcomes = Ready { range, outcomes: segment, stored: Vec::new() };
        let waiting = Waiting::Outcomes { number, missing, outcomes };
        self.batches.entry(batch).or_default().push_back(waiting);
    }

    /// The end of a batch that waits.
    pub(super) fn end(&mut self, batch: BatchId, end: End) {
        self.batches.entry(batch).or_default().push_back(Waiting::End(end));
    }

    /// What is to be fetched now.
    pub(super) fn start(&mut self) -> Vec<BlobRef> {
        let mut start = Vec::new();
        while let Some(blob) = self.queue.front() {
            let Some(needed) = self.blobs.get_mut(blob).filter(|needed| !needed.fetching) else {
                self.queue.pop_front();
                continue;
            };
            let bytes = self.fetching_bytes.saturating_add(needed.reference.bytes);
            let alone = self.fetching == 0;
            if !alone && (self.fetching >= FETCHES_MAX || bytes > FETCH_BYTES_MAX) {
                break;
            }
            needed.fetching = true;
            (self.fetching, self.fetching_bytes) = (self.fetching + 1, bytes);
            start.push(needed.reference);
            self.queue.pop_front();
        }
        start
    }

    /// A result is here, or cannot be had: what may be delivered now, in order.
    pub(super) fn fetched(
        &mut self,
        blob: BlobId,
        result: &Result<T, String>,
    ) -> Vec<(BatchId, Delivery<T>)> {
        // One that was cancelled may have come all the same.
        let Some(needed) = self.remove(&blob) else { return Vec::new() };
        let mut ready = Vec::new();
        for (batch, number) in needed.by {
            for waiting in self.batches.get_mut(&batch).into_iter().flatten() {
                if let Waiting::Outcomes { number: its, missing, outcomes } = waiting
                    && *its == number
                {
                    *missing -= 1;
                    outcomes.stored.push((blob, result.clone()));
                    break;
                }
            }
            self.take_ready(batch, &mut ready);
        }
        ready
    }

    /// A batch wants nothing any more: what need not be fetched any longer.
    pub(super) fn forget(&mut self, batch: &BatchId) -> Vec<BlobId> {
        if self.batches.remove(batch).is_none() {
            return Vec::new();
        }
        self.blobs.values_mut().for_each(|needed| needed.by.retain(|(by, _)| by != batch));
        let unneeded = self.blobs.iter().filter(|(_, needed)| needed.by.is_empty());
        let unneeded: Vec<BlobId> = unneeded.map(|(blob, _)| *blob).collect();
        let removed = unneeded.into_iter().filter_map(|blob| self.remove(&blob));
        removed.filter(|needed| needed.fetching).map(|needed| needed.reference.id).collect()
    }

    fn remove(&mut self, blob: &BlobId) -> Option<Needed> {
        let needed = self.blobs.remove(blob)?;
        if needed.fetching {
            self.fetching -= 1;
            self.fetching_bytes -= needed.reference.bytes;
        }
        Some(needed)
    }

    fn take_ready(&mut self, batch: BatchId, ready: &mut Vec<(BatchId, Delivery<T>)>) {
        let Some(waiting) = self.batches.get_mut(&batch) else { return };
        let is_due = |first: &mut Waiting<T>| match first {
            Waiting::Outcomes { missing, .. } => *missing == 0,
            Waiting::End(_) => true,
        };
        while let Some(first) = waiting.pop_front_if(is_due) {
            let delivery = match first {
                Waiting::Outcomes { outcomes, .. } => Delivery::Outcomes(outcomes),
                Waiting::End(end) => Delivery::End(end),
            };
            ready.push((batch, delivery));
        }
        if waiting.is_empty() {
            self.batches.remove(&batch);
        }
    }
}

#[cfg(test)]
mod tests;
