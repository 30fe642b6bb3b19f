//! Which task of a call a task of one of its parts is. A call has one part as a rule, and then both
//! counts agree; calls with policies of their own lie in parts of their own.

use std::ops::Range;

/// Contiguous tasks of a part that are contiguous in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexRun {
    /// First row, or task of the part.
    pub(crate) first: u32,
    /// How many.
    pub(crate) tasks: u32,
    /// The first one's place in the call.
    pub(crate) index: usize,
}

impl IndexRun {
    /// Each row with its place in the call.
    pub(crate) fn rows(self) -> impl Iterator<Item = (u32, usize)> {
        (0..self.tasks).map(move |offset| (self.first + offset, self.index + offset as usize))
    }
}

/// All tasks of a part.
#[derive(Debug, Default)]
pub(crate) struct Indices {
    runs: Vec<IndexRun>,
    tasks: u32,
}

impl Indices {
    /// How many tasks the part has.
    pub(crate) const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The part's next task is the call's `index`-th.
    #[inline]
    pub(crate) fn push(&mut self, index: usize) {
        match self.runs.last_mut() {
            Some(run) if run.index + run.tasks as usize == index => run.tasks += 1,
            _ => self.runs.push(IndexRun { first: self.tasks, tasks: 1, index }),
        }
        self.tasks += 1;
    }

    /// The place in the call of the part's task.
    pub(crate) fn index(&self, task: u32) -> usize {
        let at = self.runs.partition_point(|run| run.first + run.tasks <= task);
        self.runs.get(at).map_or(0, |run| run.index + (task - run.first) as usize)
    }

    /// The tasks `range` of the part, as rows that count from its first.
    pub(crate) fn rows(&self, range: Range<u32>) -> Vec<IndexRun> {
        let from = self.runs.partition_point(|run| run.first + run.tasks <= range.start);
        let inside = self.runs[from..].iter().take_while(|run| run.first < range.end);
        inside
            .map(|run| {
                let first = run.first.max(range.start);
                let end = (run.first + run.tasks).min(range.end);
                IndexRun {
                    first: first - range.start,
                    tasks: end - first,
                    index: run.index + (first - run.first) as usize,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_knows_the_places_of_its_tasks() {
        let mut indices = Indices::default();
        [0, 1, 2, 7, 8, 20].into_iter().for_each(|index| indices.push(index));
        assert_eq!((indices.index(2), indices.index(3), indices.index(5)), (2, 7, 20));
        let rows = indices.rows(1..5);
        let flat: Vec<_> = rows.iter().flat_map(|run| run.rows()).collect();
        assert_eq!(flat, [(0, 1), (1, 2), (2, 7), (3, 8)]);
    }
}
