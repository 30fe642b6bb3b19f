//! Argument segments of tasks that have not ended: what the window of a call is measured by, and what
//! the error of a task shows its arguments from. A step a segment, never one a task.

use std::collections::VecDeque;

use allhands_common::range::TaskRange;
use bytes::Bytes;

/// Committed segments beyond this many bytes are let go, oldest first, although their tasks have not
/// ended: their errors then show no arguments. Calls with a smaller window never reach it.
const COMMITTED_BYTES_MAX: usize = 32 << 20;

/// Argument segments of one part, in order.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    segments: VecDeque<KeptSegment>,
    bytes: usize,
    /// Bytes of `segments` below `committed`.
    committed_bytes: usize,
    committed: u32,
    tasks: u32,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct KeptSegment {
    pub(crate) range: TaskRange,
    /// Tasks of it that have not ended.
    open: u32,
    pub(crate) arguments: Bytes,
    /// What was stored for it counts as so many bytes more.
    stored: usize,
}

impl KeptSegment {
    fn bytes(&self) -> usize {
        self.arguments.len() + self.stored
    }
}

impl Kept {
    pub(in crate::session) fn push(&mut self, tasks: u32, arguments: Bytes, stored: usize) {
        let range = TaskRange::new(self.tasks, self.tasks + tasks);
        self.tasks = range.end;
        let kept = KeptSegment { range, open: tasks, arguments, stored };
        self.bytes += kept.bytes();
        self.segments.push_back(kept);
    }

    pub(in crate::session) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::session) const fn uncommitted_bytes(&self) -> usize {
        self.bytes - self.committed_bytes
    }

    /// The cluster has the first `tasks`.
    pub(in crate::session) fn commit(&mut self, tasks: u32) {
        let from = self.segments.partition_point(|kept| kept.range.end <= self.committed);
        self.committed = self.committed.max(tasks);
        let newly = self.segments.range(from..).take_while(|kept| kept.range.end <= tasks);
        self.committed_bytes += newly.map(KeptSegment::bytes).sum::<usize>();
        while self.committed_bytes > COMMITTED_BYTES_MAX
            && let Some(oldest) = self.segments.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.committed_bytes -= oldest.bytes();
        }
    }

    /// These tasks have ended.
    pub(in crate::session) fn finish(&mut self, range: TaskRange) {
        let from = self.segments.partition_point(|kept| kept.range.end <= range.start);
        let mut ended = from;
        for kept in self.segments.range_mut(from..) {
            if kept.range.start >= range.end {
                break;
            }
            kept.open = kept.open.saturating_sub(kept.range.intersection(range).len());
            ended += 1;
        }
        for at in (from..ended).rev() {
            if self.segments[at].open == 0
                && let Some(gone) = self.segments.remove(at)
            {
                self.bytes -= gone.bytes();
                if gone.range.end <= self.committed {
                    self.committed_bytes -= gone.bytes();
                }
            }
        }
    }

    /// The segments that hold tasks of `range`.
    pub(in crate::session) fn covering(&self, range: TaskRange) -> Vec<KeptSegment> {
        let from = self.segments.partition_point(|kept| kept.range.end <= range.start);
        let there = self.segments.range(from..).take_while(|kept| kept.range.start < range.end);
        there.cloned().collect()
    }

    /// The segment that holds a task, for the error of one that has no outcome.
    pub(crate) fn of(&self, task: u32) -> Option<KeptSegment> {
        self.covering(TaskRange::new(task, task.saturating_add(1))).pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Kept {
        let mut kept = Kept::default();
        [10, 20, 30].into_iter().for_each(|tasks| {
            kept.push(tasks, Bytes::from(vec![0; tasks as usize]), 0);
        });
        kept
    }

    #[test]
    fn a_segment_goes_with_the_last_of_its_tasks() {
        let mut kept = three();
        kept.finish(TaskRange::new(5, 35));
        assert_eq!(kept.bytes(), 10 + 30);
        kept.finish(TaskRange::new(0, 5));
        kept.finish(TaskRange::new(35, 60));
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn what_was_stored_counts_until_its_tasks_have_ended() {
        let mut kept = Kept::default();
        kept.push(2, Bytes::from_static(b"abc"), 100);
        kept.commit(2);
        assert_eq!((kept.bytes(), kept.uncommitted_bytes()), (103, 0));
        kept.finish(TaskRange::new(0, 2));
        assert_eq!((kept.bytes(), kept.uncommitted_bytes()), (0, 0));
    }

    #[test]
    fn committed_bytes_follow_in_any_order() {
        let mut kept = three();
        kept.commit(30);
        assert_eq!(kept.uncommitted_bytes(), 30);
        kept.finish(TaskRange::new(30, 60));
        assert_eq!((kept.bytes(), kept.uncommitted_bytes()), (30, 0));
        kept.commit(60);
        kept.finish(TaskRange::new(0, 30));
        assert_eq!((kept.bytes(), kept.uncommitted_bytes()), (0, 0));
    }

    #[test]
    fn a_task_is_found_in_its_segment() {
        let kept = three();
        assert_eq!(kept.of(29).unwrap().range, TaskRange::new(10, 30));
        assert!(kept.of(60).is_none());
    }
}
