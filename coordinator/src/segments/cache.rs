//! The segments last written or read, up to a budget of bytes. In RAM only.
//!
//! Short ones are not kept: an entry here costs about 150 bytes, and the kernel has their page.

use std::collections::BTreeMap;

use allhands_common::id::SegmentId;
use bytes::Bytes;

/// Shortest segment that is kept: a page.
const KEPT_BYTES_MIN: usize = 4096;

/// Least recently used goes first. Holds buffers of its own, so that a small segment never keeps the whole
/// message alive that it arrived in: the budget is what is in RAM.
#[derive(Debug)]
pub(super) struct Cache {
    budget_bytes: usize,
    held_bytes: usize,
    clock: u64,
    segments: BTreeMap<SegmentId, (u64, Bytes)>,
    by_use: BTreeMap<u64, SegmentId>,
}

impl Cache {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            held_bytes: 0,
            clock: 0,
            segments: BTreeMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// Whether a segment of this length is worth an entry.
    pub(super) const fn keeps(length: usize) -> bool {
        length >= KEPT_BYTES_MIN
    }

    pub(super) fn get(&mut self, id: SegmentId) -> Option<Bytes> {
        let (used, bytes) = self.segments.get_mut(&id)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, id);
        Some(bytes.clone())
    }

    /// `bytes` must be a buffer of its own.
    pub(super) fn insert(&mut self, id: SegmentId, bytes: Bytes) {
        self.remove(id);
        if bytes.len() > self.budget_bytes {
            return;
        }
        self.clock += 1;
        self.held_bytes += bytes.len();
        self.segments.insert(id, (self.clock, bytes));
        self.by_use.insert(self.clock, id);
        while self.held_bytes > self.budget_bytes
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    pub(super) fn remove(&mut self, id: SegmentId) {
        if let Some((used, bytes)) = self.segments.remove(&id) {
            self.by_use.remove(&used);
            self.held_bytes -= bytes.len();
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_the_least_used_goes() {
        let mut cache = Cache::new(10);
        for id in 1..=3 {
            cache.insert(SegmentId(id), Bytes::from(vec![0; 3]));
        }
        assert!(cache.get(SegmentId(1)).is_some());
        cache.insert(SegmentId(4), Bytes::from(vec![0; 4]));
        assert_eq!(cache.held_bytes(), 10);
        assert!(cache.get(SegmentId(2)).is_none());
        assert!(cache.get(SegmentId(1)).is_some());
        cache.insert(SegmentId(5), Bytes::from(vec![0; 11]));
        assert!(cache.get(SegmentId(5)).is_none());
        assert_eq!(cache.held_bytes(), 10);
    }
}
