//! What tasks map, on its way to the leader (`common::wire::needs`): gathered while a segment is written, in as few
//! runs as say it, and in fewer where they are too many.

use std::ops::Range;

use allhands_common::blob::{BlobRef, chunks_of};
use allhands_common::id::BlobId;
use allhands_common::wire::data::ChunkRange;
use allhands_common::wire::needs::{BLOB_BYTES_MIN, Needs, PARTS_MAX, Part, RUNS_MAX, Run};

use crate::shared::mention::Named;

/// Chunks that a task maps, by blob: those of which it maps most come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts(Vec<(BlobId, ChunkRange)>);

impl Parts {
    /// What handles look at, and arguments that are blobs.
    pub(crate) fn of(named: &[Named], lifted: impl IntoIterator<Item = BlobRef>) -> Self {
        let mut parts = Self::default();
        for Named { whole, bytes } in named {
            if let Some(blob) = whole.known_blob() {
                parts.add_bytes(blob, whole.content().bytes(), bytes.clone());
            }
        }
        for BlobRef { id, bytes } in lifted {
            parts.add_bytes(id, bytes, 0..bytes);
        }
        parts.cut();
        parts
    }

    /// What the first task of a segment maps.
    pub(crate) fn of_first(needs: &Needs) -> Option<Self> {
        let parts = needs.runs.first()?.parts.iter();
        let named =
            parts.filter_map(|part| Some((*needs.blobs.get(usize::from(part.blob))?, part.chunks)));
        Some(Self(named.collect()))
    }

    fn add_bytes(&mut self, blob: BlobId, length: u64, bytes: Range<u64>) {
        let chunks = chunks_of(bytes);
        if length >= BLOB_BYTES_MIN && !chunks.is_empty() {
            self.add(blob, ChunkRange::new(chunks.start, chunks.end));
        }
    }

    /// Adds chunks of a blob, with those in between.
    fn add(&mut self, blob: BlobId, chunks: ChunkRange) {
        match self.0.iter_mut().find(|(known, _)| *known == blob) {
            Some((_, known)) => {
                *known = ChunkRange::new(known.start.min(chunks.start), known.end.max(chunks.end));
            }
            None => self.0.push((blob, chunks)),
        }
    }

    fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(blob, chunks)| self.add(*blob, *chunks));
        self.cut();
    }

    fn cut(&mut self) {
        self.0.sort_by_key(|(_, chunks)| std::cmp::Reverse(chunks.len()));
        self.0.truncate(PARTS_MAX);
    }
}

/// What the tasks of one segment map, as they come.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// Consecutive tasks that map the same, from the first on.
    runs: Vec<(u32, Parts)>,
    tasks: u32,
}

impl Gathering {
    /// The segment's task `task` maps these; those before it that were not named map nothing.
    pub(crate) fn add(&mut self, task: u32, parts: Parts) {
        let gap = task.saturating_sub(self.tasks);
        if gap > 0 {
            self.runs.push((gap, Parts::default()));
        }
        match self.runs.last_mut() {
            Some((tasks, last)) if *last == parts => *tasks += 1,
            _ => self.runs.push((1, parts)),
        }
        self.tasks += gap + 1;
        if self.runs.len() >= 2 * RUNS_MAX {
            self.halve();
        }
    }

    /// What all of them map, and `common`, which each of them maps; `None` where that is nothing.
    pub(crate) fn take(&mut self, tasks: u32, common: &Parts) -> Option<Box<Needs>> {
        let Self { runs, tasks: named } = std::mem::take(self);
        let mut rest = Self { runs, tasks: named };
        if named < tasks && *common != Parts::default() {
            rest.runs.push((tasks - named, Parts::default()));
        }
        rest.runs.iter_mut().for_each(|(_, parts)| parts.add_all(common));
        while rest.runs.len() > RUNS_MAX {
            rest.halve();
        }
        let mut needs = Needs::default();
        for (tasks, Parts(parts)) in rest.runs {
            let parts = parts.into_iter().filter_map(|(blob, chunks)| {
                let known = needs.blobs.iter().position(|known| *known == blob);
                let place = known.unwrap_or_else(|| {
                    needs.blobs.push(blob);
                    needs.blobs.len() - 1
                });
                Some(Part { blob: u16::try_from(place).ok()?, chunks })
            });
            let parts = parts.collect();
            needs.runs.push(Run { tasks, parts });
        }
        (!needs.is_empty()).then(|| Box::new(needs))
    }

    /// Makes one run of two: what they map, and what lies between.
    fn halve(&mut self) {
        let pairs = self.runs.chunks(2).map(|pair| {
            let tasks = pair.iter().map(|(tasks, _)| tasks).sum();
            let mut parts = Parts::default();
            pair.iter().for_each(|(_, some)| parts.add_all(some));
            (tasks, parts)
        });
        self.runs = pairs.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(blob: u8, start: u32, end: u32) -> Parts {
        Parts([(BlobId([blob; 32]), ChunkRange::new(start, end))].into())
    }

    /// Blob, first chunk and the one behind the last.
    type Chunks = (u8, u32, u32);

    fn runs(needs: &Needs) -> Vec<(u32, Vec<Chunks>)> {
        let part = |part: &Part| {
            (needs.blobs[usize::from(part.blob)].0[0], part.chunks.start, part.chunks.end)
        };
        needs.runs.iter().map(|run| (run.tasks, run.parts.iter().map(part).collect())).collect()
    }

    #[test]
    fn neighbours_that_map_the_same_are_one_run() {
        let mut gathering = Gathering::default();
        (0..3).for_each(|task| gathering.add(task, parts(1, 0, 8)));
        gathering.add(5, parts(2, 8, 9));
        let needs = gathering.take(9, &Parts::default()).unwrap();
        assert!(needs.is_valid());
        assert_eq!(
            runs(&needs),
            [(3, vec![(1, 0, 8)]), (2, vec![]), (1, vec![(2, 8, 9)])],
            "what follows maps nothing"
        );
        assert_eq!(gathering.take(9, &Parts::default()), None, "it begins anew");
    }

    #[test]
    fn what_all_tasks_map_is_in_every_run() {
        let mut gathering = Gathering::default();
        let common = parts(9, 0, 100);
        assert_eq!(runs(&gathering.take(7, &common).unwrap()), [(7, vec![(9, 0, 100)])]);
        gathering.add(2, parts(1, 3, 4));
        let needs = gathering.take(4, &common).unwrap();
        let all = vec![(9, 0, 100)];
        assert_eq!(runs(&needs), [(2, all.clone()), (1, vec![(9, 0, 100), (1, 3, 4)]), (1, all)]);
    }

    #[test]
    fn too_many_runs_become_fewer_and_lose_no_chunk() {
        let mut gathering = Gathering::default();
        let tasks = 10 * RUNS_MAX as u32 + 3;
        (0..tasks).for_each(|task| gathering.add(task, parts(1, task, task + 1)));
        let needs = gathering.take(tasks, &Parts::default()).unwrap();
        assert!(needs.is_valid(), "{} runs", needs.runs.len());
        assert!(needs.runs.len() > RUNS_MAX / 2);
        let mut at = 0;
        for (tasks, parts) in runs(&needs) {
            assert_eq!(parts, [(1, at, at + tasks)]);
            at += tasks;
        }
        assert_eq!(at, tasks);
    }

    #[test]
    fn of_many_blobs_the_largest_count() {
        let mut gathering = Gathering::default();
        let mut many = Parts::default();
        (0..8).for_each(|blob| many.add_all(&parts(blob, 0, u32::from(blob) + 1)));
        gathering.add(0, many);
        let needs = gathering.take(1, &Parts::default()).unwrap();
        assert!(needs.is_valid());
        assert_eq!(runs(&needs)[0].1.iter().map(|part| part.0).collect::<Vec<_>>(), [7, 6, 5, 4]);
    }
}
