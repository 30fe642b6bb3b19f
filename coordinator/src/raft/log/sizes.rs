//! How many bytes each entry of the log has, so that reads, snapshots and purges are bounded by bytes.
//!
//! Four bytes an entry, in RAM only: filled from the log when it is opened, kept in step by every write.

use std::collections::VecDeque;

/// Sizes of the entries `first..first + bytes.len()`.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    first: u64,
    bytes: VecDeque<u32>,
}

impl Sizes {
    /// Notes an entry; a gap (after a snapshot was installed) or an overwrite starts anew from there.
    pub(crate) fn append(&mut self, index: u64, bytes: u64) {
        if index != self.next() {
            if index > self.next() || index < self.first {
                self.bytes.clear();
                self.first = index;
            } else {
                self.truncate(index);
            }
        }
        self.bytes.push_back(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Forgets entry `index` and all after it.
    pub(crate) fn truncate(&mut self, index: u64) {
        self.bytes
            .truncate(usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX));
    }

    /// Forgets all entries up to and with `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        while self.first <= index && self.bytes.pop_front().is_some() {
            self.first += 1;
        }
        self.first = self.first.max(index.saturating_add(1));
    }

    /// Bytes of the entries `start..end` that are here.
    pub(crate) fn between(&self, start: u64, end: u64) -> u64 {
        self.range(start, end).map(|(_, bytes)| bytes).sum()
    }

    /// The end of the longest run from `start` that has at most `budget` bytes: at least one entry, at most `end`.
    pub(crate) fn run(&self, start: u64, end: u64, budget: u64) -> u64 {
        let mut total = 0;
        for (index, bytes) in self.range(start, end) {
            total += bytes;
            if total > budget {
                return index.max(start + 1);
            }
        }
        end
    }

    /// The last index that may go so that at most `budget` bytes stay behind `last`, that one included.
    pub(crate) fn purgeable(&self, last: u64, budget: u64) -> Option<u64> {
        let mut kept = 0;
        for (index, bytes) in self.range(self.first, last.saturating_add(1)).rev() {
            kept += bytes;
            if kept > budget {
                return Some(index);
            }
        }
        None
    }

    fn next(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    fn range(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        let slot = |index: u64| (index.clamp(self.first, self.next()) - self.first) as usize;
        let (from, to) = (slot(start), slot(end).max(slot(start)));
        self.bytes
            .range(from..to)
            .enumerate()
            .map(move |(at, bytes)| (self.first + (from + at) as u64, u64::from(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: u64, bytes: &[u64]) -> Sizes {
        let mut sizes = Sizes::default();
        sizes.purge(first - 1);
        for (at, bytes) in bytes.iter().enumerate() {
            sizes.append(first + at as u64, *bytes);
        }
        sizes
    }

    #[test]
    fn a_run_is_bounded_by_bytes_but_never_empty() {
        let sizes = of(5, &[10, 10, 10, 100]);
        assert_eq!(sizes.run(5, 9, 20), 7);
        assert_eq!(sizes.run(8, 9, 20), 9);
        assert_eq!(sizes.run(5, 9, 1000), 9);
        assert_eq!(sizes.between(6, 8), 20);
    }

    #[test]
    fn what_may_be_purged_leaves_the_budget_behind() {
        let sizes = of(5, &[10, 10, 10, 10]);
        assert_eq!(sizes.purgeable(8, 20), Some(6));
        assert_eq!(sizes.purgeable(8, 40), None);
        assert_eq!(sizes.purgeable(6, 5), Some(6));
    }

    #[test]
    fn truncation_and_purge_move_both_ends() {
        let mut sizes = of(5, &[1, 2, 3, 4]);
        sizes.truncate(7);
        assert_eq!(sizes.between(0, 100), 3);
        sizes.purge(5);
        assert_eq!(sizes.between(0, 100), 2);
        sizes.append(20, 9);
        assert_eq!(sizes.between(0, 100), 9);
    }
}
