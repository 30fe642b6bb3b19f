//! Outcomes that do not come of themselves: of tasks that others have submitted, and of those that are followed to
//! where they were forwarded; and long results, which come when somebody asks for the value. Each is asked for once,
//! however many slots wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::execution::{Awaited, Given};

use crate::data::Data;
use crate::execution::slot::{Long, Outcome, Settled, Slot, outcome_of};
use crate::session::Session;
use crate::session::core::{End, Event};
use crate::session::fetching::FetchedResult;
use crate::shared::whole::Whole;

/// Who waits for which outcome.
#[derive(Debug, Default)]
pub(super) struct Foreign(BTreeMap<Awaited, Vec<Weak<Slot>>>);

impl Foreign {
    /// Adds one that waits; whether it is the first.
    fn add(&mut self, slot: &Arc<Slot>) -> bool {
        let waiting = self.0.entry(slot.of()).or_default();
        waiting.push(Arc::downgrade(slot));
        waiting.len() == 1
    }

    /// One that waited is gone; whether it was the last.
    fn remove(&mut self, of: Awaited) -> bool {
        let Some(waiting) = self.0.get_mut(&of) else { return false };
        waiting.retain(|slot| slot.strong_count() > 0);
        let last = waiting.is_empty();
        if last {
            self.0.remove(&of);
        }
        last
    }

    fn take(&mut self, of: Awaited) -> Vec<Weak<Slot>> {
        self.0.remove(&of).unwrap_or_default()
    }

    pub(super) fn take_all(&mut self) -> Vec<Weak<Slot>> {
        std::mem::take(&mut self.0).into_values().flatten().collect()
    }
}

impl Session {
    /// Has the outcome of `slot` put into it.
    pub(crate) fn await_outcome(&self, slot: &Arc<Slot>) {
        let mut table = self.submits.table();
        if let Some(end) = table.ended.clone() {
            drop(table);
            return slot.settle(Settled::Ended(end));
        }
        table.cut(slot.of().task.batch);
        if table.foreign.add(slot) {
            table.events.push(Event::Await(vec![slot.of()]));
            self.note_submits(table);
        }
    }

    /// A slot that was waited for is gone.
    pub(crate) fn unawait(&self, of: Awaited) {
        let mut table = self.submits.table();
        if table.foreign.remove(of) {
            table.events.push(Event::Unawait(vec![of]));
            self.note_submits(table);
        }
    }

    /// Outcomes that were awaited have come.
    pub(in crate::session) fn submits_given(&self, given: Vec<(Given, Vec<Arc<Whole>>)>) {
        for (Given { of, outcome }, arrays) in given {
            let slots = self.submits.table().foreign.take(of);
            let settled = match outcome_of(&outcome.bytes) {
                Some(outcome) => Settled::Outcome(Outcome { arrays: arrays.into(), ..outcome }),
                None => Settled::Ended(End::Unreadable("an outcome segment is damaged".into())),
            };
            for slot in slots.iter().filter_map(Weak::upgrade) {
                slot.settle(settled.clone());
            }
        }
    }

    /// Has the long result that is the outcome of `slot` put into it.
    pub(crate) fn fetch_long(&self, data: &Data, slot: &Arc<Slot>, reference: BlobRef) {
        let Some(giving) = data.elsewhere() else {
            let gone = "its bytes are not in the store of the worker that ran it any more";
            let here = data.result(&reference.id).map(Long::Here);
            return slot.put_long(here.ok_or_else(|| gone.into()));
        };
        let mut table = self.submits.table();
        let waiting = table.fetching.entry(reference.id).or_default();
        waiting.push(Arc::downgrade(slot));
        let first = waiting.len() == 1;
        drop(table);
        if let Some(Err(error)) = first.then(|| giving.fetch(reference)) {
            let why = format!("cannot be fetched: {}", chain(&error));
            self.submits_fetched(reference.id, &Err(why));
        }
    }

    /// Whether somebody waits for this long result.
    pub(in crate::session) fn submits_fetch(&self, blob: &BlobId) -> bool {
        self.submits.table().fetching.contains_key(blob)
    }

    /// A long result is here, or cannot be had.
    pub(in crate::session) fn submits_fetched(&self, blob: BlobId, result: &FetchedResult) {
        let waiting = self.submits.table().fetching.remove(&blob).unwrap_or_default();
        for slot in waiting.iter().filter_map(Weak::upgrade) {
            slot.put_long(result.clone().map(Long::Received));
        }
    }
}
