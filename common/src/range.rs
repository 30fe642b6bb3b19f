//! Task ranges: what is scheduled, sent, retried and recorded; and sets of them.

use core::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The tasks `start..end` of one batch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct TaskRange {
    /// First task.
    pub start: u32,
    /// One after the last task.
    pub end: u32,
}

impl TaskRange {
    /// The tasks `start..end`; empty when `end <= start`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// How many tasks.
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `index` is in it.
    pub const fn contains(self, index: u32) -> bool {
        self.start <= index && index < self.end
    }

    /// Whether all of `other` is in it.
    pub const fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// What both have.
    pub fn intersection(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Display for TaskRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A set of tasks of one batch, as sorted ranges that neither touch nor overlap. Costs 8 bytes a
/// *run*, whatever the number of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RangeSet(SmallVec<[TaskRange; 2]>);

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(SmallVec::new_const())
    }

    /// The set of one range.
    pub fn of(range: TaskRange) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tasks. One step a run.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|range| range.len()).sum()
    }

    /// The runs, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = TaskRange> + '_ {
        self.0.iter().copied()
    }

    /// The first run.
    pub fn first(&self) -> Option<TaskRange> {
        self.0.first().copied()
    }

    /// Whether `index` is in it.
    pub fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|range| range.end <= index);
        self.0.get(at).is_some_and(|range| range.contains(index))
    }

    /// Whether all of `range` is in it.
    pub fn covers(&self, range: TaskRange) -> bool {
        let at = self.0.partition_point(|run| run.end <= range.start);
        range.is_empty() || self.0.get(at).is_some_and(|run| run.covers(range))
    }

    /// The parts of `range` that are in it, in order.
    pub fn intersection(&self, range: TaskRange) -> impl Iterator<Item = TaskRange> + '_ {
        let at = self.0.partition_point(|run| run.end <= range.start);
        self.0[at..]
            .iter()
            .map(move |run| run.intersection(range))
            .take_while(|part| !part.is_empty())
    }

    /// The parts of `range` that are not in it, in order.
    pub fn gaps(&self, range: TaskRange) -> impl Iterator<Item = TaskRange> + '_ {
        let at = self.0.partition_point(|run| run.end <= range.start);
        let runs = self.0[at..].iter().copied().take_while(move |run| run.start < range.end);
        let beyond = TaskRange::new(range.end, range.end);
        let mut start = range.start;
        runs.chain(core::iter::once(beyond)).filter_map(move |run| {
            let gap = TaskRange::new(start, run.start);
            start = start.max(run.end);
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// Adds the tasks of `range`.
    pub fn insert(&mut self, range: TaskRange) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|run| run.end < range.start);
        let to = self.0.partition_point(|run| run.start <= range.end);
        if from == to {
            self.0.insert(from, range);
            return;
        }
        let merged =
            TaskRange::new(range.start.min(self.0[from].start), range.end.max(self.0[to - 1].end));
        self.0[from] = merged;
        self.0.drain(from + 1..to);
    }

    /// Takes the tasks of `range` out.
    pub fn remove(&mut self, range: TaskRange) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|run| run.end <= range.start);
        let to = self.0.partition_point(|run| run.start < range.end);
        if from == to {
            return;
        }
        let left = TaskRange::new(self.0[from].start, range.start);
        let right = TaskRange::new(range.end, self.0[to - 1].end);
        let (mut gone_from, mut gone_to) = (from, to);
        if !left.is_empty() {
            self.0[from] = left;
            gone_from += 1;
        }
        if !right.is_empty() {
            if gone_from == to {
                self.0.insert(to, right);
                return;
            }
            self.0[to - 1] = right;
            gone_to -= 1;
        }
        self.0.drain(gone_from..gone_to);
    }

    /// Takes up to `tasks` tasks out of the first run.
    pub fn take_front(&mut self, tasks: u32) -> Option<TaskRange> {
        let first = self.first()?;
        let taken = TaskRange::new(first.start, first.end.min(first.start.saturating_add(tasks)));
        self.remove(taken);
        (!taken.is_empty()).then_some(taken)
    }
}

impl FromIterator<TaskRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = TaskRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    fn tasks(set: &RangeSet) -> BTreeSet<u32> {
        set.iter().flat_map(|range| range.start..range.end).collect()
    }

    #[test]
    fn neighbours_become_one_run() {
        let mut set = RangeSet::of(TaskRange::new(0, 5));
        set.insert(TaskRange::new(5, 9));
        assert_eq!(set.iter().count(), 1);
        assert_eq!(set.take_front(4), Some(TaskRange::new(0, 4)));
        assert_eq!(set.take_front(100), Some(TaskRange::new(4, 9)));
        assert_eq!(set.take_front(1), None);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0u32..60, 0u32..12), 0..40),
            probe in (0u32..60, 0u32..20),
        ) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (add, start, len) in steps {
                let range = TaskRange::new(start, start + len);
                if add {
                    set.insert(range);
                    model.extend(start..start + len);
                } else {
                    set.remove(range);
                    (start..start + len).for_each(|index| { model.remove(&index); });
                }
                prop_assert_eq!(tasks(&set), model.clone());
                let runs: Vec<_> = set.iter().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            let range = TaskRange::new(probe.0, probe.0 + probe.1);
            let inside: RangeSet = set.intersection(range).collect();
            let outside: RangeSet = set.gaps(range).collect();
            let expected: BTreeSet<u32> = (range.start..range.end).filter(|i| model.contains(i)).collect();
            let missing: BTreeSet<u32> = (range.start..range.end).filter(|i| !model.contains(i)).collect();
            prop_assert_eq!(tasks(&inside), expected);
            prop_assert_eq!(set.covers(range), missing.is_empty());
            prop_assert_eq!(tasks(&outside), missing);
            prop_assert_eq!(set.contains(probe.0), model.contains(&probe.0));
        }
    }
}
