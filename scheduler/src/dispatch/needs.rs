//! What the tasks of batches map, as their clients have said (`common::wire::needs`): for the choice of workers
//! (`place`).
//!
//! Told before the tasks are committed, kept until they have ended, lost with the leader. A batch that maps nothing
//! is not here, and costs a look into an empty map. A client's word about a batch that never comes goes with its
//! session, and there is only so much of it.

mod check;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, BlobId, SessionId, WorkerId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::Instant;
use allhands_common::wire::data::ChunkRange;
use allhands_common::wire::needs::{Needs as Said, Part as SaidPart};

use super::Dispatcher;
use super::place::ANY;
use crate::State;

/// Runs of all batches of one session, at most: those of a thousand segments, some 10 MiB. Tasks beyond it are placed
/// as if they mapped nothing.
const SESSION_RUNS_MAX: usize = 1 << 16;

/// What tasks map.
#[derive(Debug, Default)]
pub(super) struct Needs {
    batches: BTreeMap<BatchId, Wanted>,
    /// Runs of each session that has any.
    runs_of: BTreeMap<SessionId, usize>,
    /// Tasks whose data a worker could not provide, and which one: they are not tried there again, if others have room.
    unlent: BTreeMap<(BatchId, u32), WorkerId>,
}

/// Tasks of which it is remembered who could not provide their data, at most: 1 MiB.
const UNLENT_MAX: usize = 1 << 14;

/// What the tasks of one batch map.
#[derive(Debug)]
struct Wanted {
    session: SessionId,
    /// By their first task; they do not overlap.
    runs: BTreeMap<u32, Run>,
    /// Since when its tasks wait for workers that have their bytes, while others could take them.
    waits_since: Option<Instant>,
    /// Where the next look begins, if the last one did not come through.
    look_from: u32,
}

/// Consecutive tasks that map the same.
#[derive(Debug)]
struct Run {
    end: u32,
    parts: Box<[Part]>,
}

/// Chunks of a blob that a task maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) blob: BlobId,
    pub(super) chunks: ChunkRange,
}

impl Needs {
    /// Whether anything is known of a batch.
    pub(super) fn has(&self, batch: BatchId) -> bool {
        self.batches.contains_key(&batch)
    }

    /// What `range` maps, run by run; with tasks in between that map nothing.
    pub(super) fn pieces(
        &self,
        batch: BatchId,
        range: TaskRange,
    ) -> impl Iterator<Item = (TaskRange, &[Part])> {
        let runs = self.batches.get(&batch).map(|wanted| &wanted.runs);
        let mut at = range.start;
        core::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let here = runs.and_then(|runs| runs.range(..=at).next_back());
            let (end, parts) = match here.filter(|(_, run)| run.end > at) {
                Some((_, run)) => (run.end, &*run.parts),
                None => {
                    let next = runs.and_then(|runs| runs.range(at..).next());
                    (next.map_or(range.end, |(start, _)| *start), &[][..])
                }
            };
            let piece = TaskRange::new(at, end.min(range.end));
            at = piece.end;
            Some((piece, parts))
        })
    }

    fn say(&mut self, session: SessionId, batch: BatchId, first: u32, said: Said) {
        let runs_of = self.runs_of.get(&session).copied().unwrap_or(0);
        let known = self.batches.get(&batch);
        let next = known.and_then(|wanted| wanted.runs.last_key_value());
        // It may be said again over another connection.
        let again = next.is_some_and(|(_, run)| run.end > first);
        let foreign = known.is_some_and(|wanted| wanted.session != session);
        if again || foreign || runs_of + said.runs.len() > SESSION_RUNS_MAX || !said.is_valid() {
            return;
        }
        let mut runs = Vec::with_capacity(said.runs.len());
        let mut start = first;
        for run in said.runs {
            let Some(end) = start.checked_add(run.tasks) else { return };
            let part = |part: &SaidPart| {
                let blob = said.blobs.get(usize::from(part.blob)).copied()?;
                Some(Part { blob, chunks: part.chunks })
            };
            let parts: Box<[Part]> = run.parts.iter().filter_map(part).collect();
            if !parts.is_empty() {
                runs.push((start, Run { end, parts }));
            }
            start = end;
        }
        if runs.is_empty() {
            return;
        }
        self.runs_of.insert(session, runs_of + runs.len());
        let new = || Wanted { session, runs: BTreeMap::new(), waits_since: None, look_from: 0 };
        self.batches.entry(batch).or_insert_with(new).runs.extend(runs);
    }

    /// Tasks have ended.
    pub(super) fn ended(&mut self, batch: BatchId, range: TaskRange) {
        self.forget_unlent(batch, range);
        let Some(wanted) = self.batches.get_mut(&batch) else { return };
        let before = wanted.runs.len();
        let touched = wanted.runs.range(..range.end).rev();
        let touched = touched.take_while(|(_, run)| run.end > range.start);
        let touched: Vec<u32> = touched.map(|(start, _)| *start).collect();
        for start in touched {
            let Some(run) = wanted.runs.get_mut(&start) else { continue };
            if range.start > start && range.end < run.end {
                // One that ends in the middle stays whole: it would become two.
                continue;
            }
            if range.start > start {
                run.end = range.start;
                continue;
            }
            let Some(run) = wanted.runs.remove(&start) else { continue };
            if run.end > range.end {
                wanted.runs.insert(range.end, run);
            }
        }
        let gone = before - wanted.runs.len();
        let (session, is_empty) = (wanted.session, wanted.runs.is_empty());
        if is_empty {
            self.batches.remove(&batch);
        }
        self.discount(session, gone);
    }

    /// A batch is over, or will never be.
    pub(super) fn forget(&mut self, batch: BatchId) {
        self.forget_unlent(batch, ANY);
        if let Some(wanted) = self.batches.remove(&batch) {
            self.discount(wanted.session, wanted.runs.len());
        }
    }

    /// A session is gone, with its batches.
    pub(super) fn forget_session(&mut self, session: SessionId) {
        if self.runs_of.remove(&session).is_some() {
            self.batches.retain(|_, wanted| wanted.session != session);
        }
    }

    fn forget_unlent(&mut self, batch: BatchId, range: TaskRange) {
        if self.unlent.is_empty() {
            return;
        }
        let gone = self.unlent.range((batch, range.start)..(batch, range.end));
        let gone: Vec<(BatchId, u32)> = gone.map(|(task, _)| *task).collect();
        gone.iter().for_each(|task| _ = self.unlent.remove(task));
    }

    /// Whether it is remembered of any task.
    pub(super) fn has_unlent(&self) -> bool {
        !self.unlent.is_empty()
    }

    /// The first task of `range` whose data `worker` could not provide.
    pub(super) fn first_unlent(
        &self,
        batch: BatchId,
        range: TaskRange,
        worker: WorkerId,
    ) -> Option<u32> {
        let mut tasks = self.unlent.range((batch, range.start)..(batch, range.end));
        tasks.find(|(_, unlent)| **unlent == worker).map(|((_, index), _)| *index)
    }

    fn discount(&mut self, session: SessionId, runs: usize) {
        let Some(count) = self.runs_of.get_mut(&session) else { return };
        *count -= runs;
        if *count == 0 {
            self.runs_of.remove(&session);
        }
    }

    /// Since when tasks of a batch wait for those who have their bytes.
    pub(super) fn waits_since(&self, batch: BatchId) -> Option<Instant> {
        self.batches.get(&batch)?.waits_since
    }

    pub(super) fn set_waits_since(&mut self, batch: BatchId, since: Option<Instant>) {
        if let Some(wanted) = self.batches.get_mut(&batch) {
            wanted.waits_since = since;
        }
    }

    /// Tasks of `pending`, those first at which the last look ended.
    pub(super) fn in_turn<'a>(
        &'a self,
        batch: BatchId,
        pending: &'a RangeSet,
    ) -> impl Iterator<Item = TaskRange> + 'a {
        let from = self.batches.get(&batch).map_or(0, |wanted| wanted.look_from);
        let behind = pending.intersection(TaskRange::new(from, u32::MAX));
        behind.chain(pending.intersection(TaskRange::new(0, from)))
    }

    pub(super) fn set_look_from(&mut self, batch: BatchId, index: u32) {
        if let Some(wanted) = self.batches.get_mut(&batch) {
            wanted.look_from = index;
        }
    }
}

impl Dispatcher {
    /// Runs of tasks of which is known what they map, for those who watch its memory.
    pub fn needs_runs(&self) -> usize {
        self.needs.runs_of.values().sum()
    }

    /// A client says what its next tasks will map.
    pub(super) fn needs_said(
        &mut self,
        state: &State,
        session: SessionId,
        (batch, first): (BatchId, u32),
        said: Said,
    ) {
        if state.batches.get(&batch).is_none_or(|known| known.stopped().is_none()) {
            self.needs.say(session, batch, first, said);
        }
    }

    /// A worker is given tasks: it will have what they map.
    pub(super) fn needs_given(&mut self, worker: WorkerId, batch: BatchId, range: TaskRange) {
        for (_, parts) in self.needs.pieces(batch, range) {
            parts.iter().for_each(|part| self.blobs.sent(worker, part.blob, part.chunks));
        }
    }

    /// Tasks have run at a worker: it has what they map.
    pub(super) fn needs_there(&mut self, worker: WorkerId, batch: BatchId, range: TaskRange) {
        for (_, parts) in self.needs.pieces(batch, range) {
            let spread = &mut self.blobs.spread;
            parts.iter().for_each(|part| spread.arrived(worker, part.blob, part.chunks));
        }
    }

    /// A worker has given tasks back unstarted: it has not asked for what they map.
    pub(super) fn needs_recalled(&mut self, worker: WorkerId, batch: BatchId, range: TaskRange) {
        for (_, parts) in self.needs.pieces(batch, range) {
            let spread = &mut self.blobs.spread;
            parts.iter().for_each(|part| spread.recall(worker, part.blob, part.chunks));
        }
    }

    /// A worker could not provide what a task maps.
    pub(super) fn needs_not_there(&mut self, worker: WorkerId, batch: BatchId, task: u32) {
        for (_, parts) in self.needs.pieces(batch, TaskRange::new(task, task + 1)) {
            let spread = &mut self.blobs.spread;
            parts.iter().for_each(|part| spread.forget(worker, part.blob));
        }
        if self.needs.unlent.len() < UNLENT_MAX {
            self.needs.unlent.insert((batch, task), worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use allhands_common::wire::needs::Run as SaidRun;
    use alloc::vec;

    use super::*;

    const BATCH: BatchId = BatchId([1; 16]);
    const SESSION: SessionId = SessionId([2; 16]);

    /// Runs of so many tasks, every other one of which maps nothing.
    fn needs(runs: &[u32]) -> Needs {
        let mut needs = Needs::default();
        let run = |(number, tasks): (usize, &u32)| {
            let part = SaidPart { blob: 0, chunks: ChunkRange::new(number as u32, 100) };
            let parts = if number % 2 == 0 { vec![part] } else { Vec::new() };
            SaidRun { tasks: *tasks, parts }
        };
        let runs = runs.iter().enumerate().map(run).collect();
        needs.say(SESSION, BATCH, 10, Said { blobs: vec![BlobId([3; 32])], runs });
        needs
    }

    fn pieces(needs: &Needs, start: u32, end: u32) -> Vec<(u32, u32, Option<u32>)> {
        let pieces = needs.pieces(BATCH, TaskRange::new(start, end));
        let first = |parts: &[Part]| parts.first().map(|part| part.chunks.start);
        pieces.map(|(piece, parts)| (piece.start, piece.end, first(parts))).collect()
    }

    #[test]
    fn every_task_is_in_one_piece() {
        let needs = needs(&[5, 5, 1]);
        let all =
            [(0, 10, None), (10, 15, Some(0)), (15, 20, None), (20, 21, Some(2)), (21, 99, None)];
        assert_eq!(pieces(&needs, 0, 99), all);
        assert_eq!(pieces(&needs, 12, 13), [(12, 13, Some(0))]);
        assert_eq!(pieces(&needs, 14, 14), []);
        assert_eq!(pieces(&Needs::default(), 3, 9), [(3, 9, None)]);
    }

    #[test]
    fn what_has_ended_is_forgotten_from_both_ends() {
        let mut needs = needs(&[10, 2, 10]);
        let end = |needs: &mut Needs, start, end| needs.ended(BATCH, TaskRange::new(start, end));
        end(&mut needs, 12, 15);
        assert_eq!(pieces(&needs, 10, 20), [(10, 20, Some(0))], "what ends in the middle stays");
        end(&mut needs, 0, 12);
        end(&mut needs, 19, 23);
        assert_eq!(
            pieces(&needs, 0, 40),
            [(0, 12, None), (12, 19, Some(0)), (19, 23, None), (23, 32, Some(2)), (32, 40, None)]
        );
        assert_eq!(needs.runs_of[&SESSION], 2);
        end(&mut needs, 12, 19);
        end(&mut needs, 20, 40);
        assert!(needs.batches.is_empty() && needs.runs_of.is_empty());
    }
}
