//! Which chunks went to which worker with its tasks: what the leader has seen of holders of parts.
//!
//! A worker says of a blob whether all of it is there, not which chunks. The leader knows more: it has given out the
//! tasks that need them. What is given out counts as *coming*, what has an outcome as *here*; what came back
//! unstarted counts no more. Bounded, and lost with the leader: what is beyond or gone costs bytes that travel once
//! more, nothing else.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::id::{BlobId, WorkerId};
use allhands_common::wire::data::{ChunkRange, ChunkSet};

/// Blobs of which chunks of one worker are remembered, at most, ...
pub(super) const SEEN_BLOBS_MAX: usize = 256;

/// ... and the runs of chunks of each: with all of them, 2 MiB a worker.
pub(super) const SEEN_RUNS_MAX: usize = 1024;

/// Runs of chunks of which is known who was given them last, at most: some 5 MiB.
pub(super) const LAST_RUNS_MAX: usize = 1 << 16;

/// Who has which chunks, as far as the leader has seen.
#[derive(Debug, Default)]
pub(in super::super) struct Spread {
    pub(super) seen: BTreeMap<WorkerId, BTreeMap<BlobId, Seen>>,
    /// By blob and first chunk: the chunk behind the last, and who was given them last.
    pub(super) last: BTreeMap<(BlobId, u32), (u32, WorkerId)>,
}

/// Chunks of one blob at one worker.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) here: ChunkSet,
    /// It was given tasks that need them.
    pub(super) coming: ChunkSet,
}

impl Spread {
    /// A worker is given tasks that need these chunks.
    pub(super) fn send(&mut self, worker: WorkerId, blob: BlobId, chunks: ChunkRange) {
        let blobs = self.seen.entry(worker).or_default();
        if !blobs.contains_key(&blob) && blobs.len() >= SEEN_BLOBS_MAX {
            return;
        }
        let seen = blobs.entry(blob).or_default();
        if seen.coming.iter().count() < SEEN_RUNS_MAX {
            seen.coming.insert(chunks);
        }
        self.note_last(worker, blob, chunks);
    }

    /// Tasks that need these chunks have run there.
    pub(in super::super) fn arrived(&mut self, worker: WorkerId, blob: BlobId, chunks: ChunkRange) {
        self.change(worker, blob, |seen| {
            seen.coming.remove(chunks);
            if seen.here.iter().count() < SEEN_RUNS_MAX {
                seen.here.insert(chunks);
            }
        });
    }

    /// Tasks that need these chunks came back unstarted.
    pub(in super::super) fn recall(&mut self, worker: WorkerId, blob: BlobId, chunks: ChunkRange) {
        self.change(worker, blob, |seen| seen.coming.remove(chunks));
    }

    /// How many of these chunks a worker has or is getting; `None` if nothing was seen of it and the blob.
    pub(super) fn count(&self, worker: WorkerId, blob: &BlobId, chunks: ChunkRange) -> Option<u32> {
        let seen = self.seen.get(&worker)?.get(blob)?;
        let count =
            |set: &ChunkSet, of: ChunkRange| set.intersection(of).map(|run| run.len()).sum();
        let here: u32 = count(&seen.here, chunks);
        let others = seen.here.gaps(chunks).map(|gap| count(&seen.coming, gap)).sum::<u32>();
        Some(here + others)
    }

    /// Who was given these chunks last, in order of the chunks.
    pub(super) fn last_of(
        &self,
        blob: BlobId,
        chunks: ChunkRange,
    ) -> impl Iterator<Item = WorkerId> + '_ {
        let before = self.last.range((blob, 0)..(blob, chunks.start)).next_back();
        let before = before.filter(move |(_, (end, _))| *end > chunks.start);
        let within = self.last.range((blob, chunks.start)..(blob, chunks.end));
        before.into_iter().chain(within).map(|(_, (_, worker))| *worker)
    }

    /// A worker has all of a blob, or none of it any more.
    pub(in super::super) fn forget(&mut self, worker: WorkerId, blob: BlobId) {
        let Some(blobs) = self.seen.get_mut(&worker) else { return };
        if blobs.remove(&blob).is_none() {
            return;
        }
        if blobs.is_empty() {
            self.seen.remove(&worker);
        }
        self.forget_last(blob, |last| last == worker);
    }

    /// Of what was seen of a worker only this is true.
    pub(in super::super) fn retain(
        &mut self,
        worker: WorkerId,
        is_there: impl Fn(&BlobId) -> bool,
    ) {
        let Some(blobs) = self.seen.get(&worker) else { return };
        let gone: Vec<BlobId> = blobs.keys().filter(|blob| !is_there(blob)).copied().collect();
        gone.into_iter().for_each(|blob| self.forget(worker, blob));
    }

    /// What is wrong with it, if anything is.
    pub(super) fn fault(&self, is_known: impl Fn(WorkerId) -> bool) -> Option<String> {
        if let Some(worker) = self.seen.keys().find(|worker| !is_known(**worker)) {
            return Some(format!("worker {worker} is not known, and has chunks"));
        }
        for (worker, blobs) in &self.seen {
            let empty = |seen: &Seen| seen.here.is_empty() && seen.coming.is_empty();
            if blobs.is_empty() || blobs.len() > SEEN_BLOBS_MAX || blobs.values().any(empty) {
                return Some(format!("worker {worker} has chunks of {} blobs", blobs.len()));
            }
        }
        let mut end = None;
        for ((blob, first), (behind, worker)) in &self.last {
            let overlaps = end.is_some_and(|(of, end)| of == *blob && end > *first);
            if overlaps || behind <= first || !is_known(*worker) {
                return Some(format!("chunks {first}..{behind} of {blob} went to {worker}"));
            }
            end = Some((*blob, *behind));
        }
        (self.last.len() > LAST_RUNS_MAX).then(|| "it is known of too many chunks".into())
    }

    fn change(&mut self, worker: WorkerId, blob: BlobId, change: impl FnOnce(&mut Seen)) {
        let Some(blobs) = self.seen.get_mut(&worker) else { return };
        let Some(seen) = blobs.get_mut(&blob) else { return };
        change(seen);
        if seen.here.is_empty() && seen.coming.is_empty() {
            self.forget(worker, blob);
        }
    }

    /// Who was given these chunks before was not the last.
    fn note_last(&mut self, worker: WorkerId, blob: BlobId, chunks: ChunkRange) {
        if self.last.len() + 2 > LAST_RUNS_MAX {
            return;
        }
        let (mut start, mut end) = (chunks.start, chunks.end);
        let before = self.last.range_mut((blob, 0)..(blob, start)).next_back();
        if let Some(((_, first), (behind, who))) = before
            && *behind >= start
        {
            let (old_end, old) = (*behind, *who);
            if old == worker {
                (start, end) = (*first, end.max(old_end));
            } else {
                *behind = start;
                if old_end > end {
                    self.last.insert((blob, end), (old_end, old));
                }
            }
        }
        let covered = self.last.range((blob, start)..=(blob, end));
        let covered: Vec<_> =
            covered.map(|((_, first), (end, who))| (*first, *end, *who)).collect();
        for (first, old_end, old) in covered {
            if old == worker {
                end = end.max(old_end);
                self.last.remove(&(blob, first));
            } else if first < end {
                self.last.remove(&(blob, first));
                if old_end > end {
                    self.last.insert((blob, end), (old_end, old));
                }
            }
        }
        self.last.insert((blob, start), (end, worker));
    }

    fn forget_last(&mut self, blob: BlobId, is_gone: impl Fn(WorkerId) -> bool) {
        let of_blob = self.last.range((blob, 0)..=(blob, u32::MAX));
        let gone = of_blob.filter(|(_, (_, worker))| is_gone(*worker));
        let gone: Vec<(BlobId, u32)> = gone.map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| _ = self.last.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: BlobId = BlobId([1; 32]);
    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    fn range(start: u32, end: u32) -> ChunkRange {
        ChunkRange::new(start, end)
    }

    #[test]
    fn what_comes_back_unstarted_counts_no_more_and_what_ran_does() {
        let mut spread = Spread::default();
        spread.send(A, BLOB, range(0, 8));
        assert_eq!(spread.count(A, &BLOB, range(4, 12)), Some(4));
        spread.arrived(A, BLOB, range(0, 4));
        spread.recall(A, BLOB, range(0, 8));
        assert_eq!(spread.count(A, &BLOB, range(0, 8)), Some(4));
        assert_eq!(spread.count(B, &BLOB, range(0, 8)), None);
        spread.forget(A, BLOB);
        assert_eq!(spread.count(A, &BLOB, range(0, 8)), None);
        assert!(spread.seen.is_empty() && spread.last.is_empty());
    }

    #[test]
    fn the_last_one_of_each_chunk_is_known() {
        // Every pair of ranges, and who asks about which chunk, against a list of chunks.
        let mut seed = 7u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        let mut spread = Spread::default();
        let mut model = [None; 40];
        for _ in 0..2_000 {
            let start = next(38);
            let chunks = range(start, start + 1 + next(40 - start - 1).min(9));
            let worker = WorkerId(u64::from(next(3)));
            spread.send(worker, BLOB, chunks);
            (chunks.start..chunks.end).for_each(|chunk| model[chunk as usize] = Some(worker));
            for chunk in 0..40 {
                let last: Vec<_> = spread.last_of(BLOB, range(chunk, chunk + 1)).collect();
                let expected: Vec<_> = model[chunk as usize].into_iter().collect();
                assert_eq!(last, expected, "chunk {chunk}");
            }
            let runs: Vec<_> =
                spread.last.iter().map(|((_, start), (end, who))| (*start, *end, *who)).collect();
            let touch =
                |pair: &[(u32, u32, WorkerId)]| pair[0].1 == pair[1].0 && pair[0].2 == pair[1].2;
            assert!(runs.windows(2).all(|pair| pair[0].1 <= pair[1].0 && !touch(pair)), "{runs:?}");
        }
    }
}
