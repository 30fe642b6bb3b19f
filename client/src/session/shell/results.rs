//! Handing outcomes on, some of them when the long results have come that they name.

use allhands_common::id::{BatchId, BlobId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::segment::{Segment, SegmentError};
use bytes::Bytes;

use super::{Opened, Shell};
use crate::session::core::{End, Event};
use crate::session::deliveries::Delivery;
use crate::session::fetching::{FetchedResult, Word};
use crate::session::outcomes::Outcomes;

impl Shell {
    /// The next outcomes of a batch.
    pub(super) fn came(&mut self, batch: BatchId, range: TaskRange, segment: Bytes) {
        let called = self.batches.contains_key(&batch);
        let submitted = !called && self.session.has_submitted(batch);
        if !called && !submitted && !self.session.visiting.reads(&batch) {
            return;
        }
        let segment = match Segment::parse(segment) {
            Ok(segment) if segment.tasks() == range.len() => segment,
            Ok(_) => return self.unreadable(batch, "it has another number of tasks"),
            Err(error) => return self.unreadable(batch, &error.to_string()),
        };
        // Before anything else is said of it: what is not kept goes with the batch.
        let (segment, named) = match self.keep_named(batch, range, segment) {
            Ok(kept) => kept,
            Err(error) => return self.unreadable(batch, &error.to_string()),
        };
        if submitted {
            let segments = self.session.submits_came(batch, range, &segment, named);
            return self.events.push(Event::Consumed { batch, segments });
        }
        if !called {
            return self.session.visiting.came(batch, range, segment, named);
        }
        let names = Outcomes::names(&segment);
        if !names.is_empty() || !named.is_empty() {
            self.naming.insert(batch);
        }
        if self.data.elsewhere().is_none() {
            let outcomes = Outcomes::claimed(segment, |row, id| {
                self.data.claim(TaskId { batch, index: range.start + row }, id)
            });
            return self.deliver(batch, range, Ok(outcomes.naming(named)));
        }
        if names.is_empty() && !self.deliveries.is_waiting(&batch) {
            return self.deliver(batch, range, Ok(Outcomes::plain(segment).naming(named)));
        }
        self.deliveries.add(batch, range, (segment, named), names);
        self.fetch_more();
    }

    /// Results have come, or cannot be had.
    pub(super) fn take_results(&mut self, fetched: Vec<(BlobId, FetchedResult)>) {
        let some = !fetched.is_empty();
        for (blob, result) in fetched {
            self.session.submits_fetched(blob, &result);
            self.take_result(blob, &result);
        }
        if some {
            self.fetch_more();
        }
    }

    fn take_result(&mut self, blob: BlobId, result: &FetchedResult) {
        for (batch, delivery) in self.deliveries.fetched(blob, result) {
            match delivery {
                Delivery::Outcomes(ready) => {
                    let (segment, named) = ready.outcomes;
                    let outcomes = Outcomes::received(segment, ready.stored);
                    let outcomes = outcomes.map(|outcomes| outcomes.naming(named));
                    self.deliver(batch, ready.range, outcomes);
                }
                Delivery::End(end) => self.end(batch, end),
            }
        }
    }

    /// Fetches what there is room for.
    fn fetch_more(&mut self) {
        loop {
            let start = self.deliveries.start();
            if start.is_empty() {
                return;
            }
            for result in start {
                let fetched = self.data.elsewhere().map(|giving| giving.fetch(result));
                if let Some(Err(error)) = fetched {
                    let why = allhands_common::chain::chain(&error);
                    self.take_result(result.id, &Err(format!("cannot be fetched: {why}")));
                }
            }
        }
    }

    fn deliver(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        outcomes: Result<Outcomes, SegmentError>,
    ) {
        let now = self.now();
        let Some(opened) = self.batches.get_mut(&batch) else { return };
        if self.naming.contains(&batch) {
            self.events.push(Event::Fetched { batch, tasks: range });
        }
        match outcomes.and_then(|outcomes| opened.deliver(range, outcomes, now)) {
            Ok(Some(segments)) => self.events.push(Event::Consumed { batch, segments }),
            Ok(None) => {}
            Err(error) => self.unreadable(batch, &error.to_string()),
        }
    }

    fn unreadable(&mut self, batch: BatchId, why: &str) {
        self.end(batch, End::Unreadable(format!("an outcome segment is damaged: {why}")));
        self.events.push(Event::Cancel { batch, reason: "its outcomes cannot be read".into() });
    }

    /// Ends a batch: in order, when what still waits was delivered; otherwise at once.
    pub(super) fn end_in_order(&mut self, batch: BatchId, end: End) {
        match end {
            End::Complete { .. } if self.deliveries.is_waiting(&batch) => {
                self.convoys.retain(|convoy| *convoy != batch);
                self.deliveries.end(batch, end);
            }
            end => self.end(batch, end),
        }
    }

    /// Nothing more is handed on to a batch.
    pub(super) fn forget(&mut self, batch: &BatchId) -> Option<Opened> {
        let opened = self.batches.remove(batch);
        self.naming.remove(batch);
        let unneeded = self.deliveries.forget(batch);
        let unneeded: Vec<BlobId> =
            unneeded.into_iter().filter(|blob| !self.session.submits_fetch(blob)).collect();
        for blob in &unneeded {
            // If nobody fetches any more, there is nothing to cancel.
            _ = self.session.order(Word::Cancel(*blob));
        }
        if !unneeded.is_empty() {
            self.fetch_more();
        }
        opened
    }
}
