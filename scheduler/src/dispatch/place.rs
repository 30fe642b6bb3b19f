//! Which worker takes which tasks of a batch that maps blobs: one that has their bytes, unless to wait for it
//! costs more than to move them.
//!
//! The least loaded worker with room (`roomy`) takes tasks whose bytes nobody has, or of which nobody has more than
//! it. For others:
//!
//! | who has the bytes | roomy has nothing to do | roomy has |
//! |---|---|---|
//! | is idle | gets them | gets them |
//! | will be done before the bytes could travel | gets them, or they wait | gets them, or they wait |
//! | will not, or nobody knows | roomy gets them | gets them, or they wait |
//!
//! "They wait" where who has the bytes has no room either: not beyond the time in which the bytes would travel, for
//! what is expected of its tasks may be wrong. Nobody measures links: [`MOVED_BYTES_PER_S`] is assumed of all.
//!
//! How much of a blob a worker has: all, if it says so; else what was seen to go there (`blobs::spread`); else,
//! where it says that it has a part and nothing was seen of it, as after a change of the leader, half.

use alloc::collections::BTreeMap;
use core::time::Duration;

use allhands_common::blob::CHUNK_BYTES;
use allhands_common::id::{AttemptId, BatchId, WorkerId};
use allhands_common::policy::Prefer;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;

use super::Dispatcher;
use super::needs::Part;
use super::queue::{Class, ClassId};
use super::workers::Worker;
use crate::State;

/// Bytes that are assumed to travel to a worker in a second: what a network of 2.5 GBit/s carries, and a tenth of
/// what one of 25 does.
const MOVED_BYTES_PER_S: u64 = 256 << 20;

/// Pieces of what waits that are looked at for a range: some microseconds each.
const PIECES_LOOKED_AT_MAX: usize = 64;

/// Pieces that one range may be made of.
const PIECES_OF_RANGE_MAX: usize = 64;

/// Workers that are looked at for one that has the bytes: the least loaded ones, and as many of those that are known
/// to have some.
const HOLDERS_LOOKED_AT_MAX: usize = 8;

/// Attempts of a worker that are looked at to tell when it will be done.
const ATTEMPTS_LOOKED_AT_MAX: usize = 64;

/// Where the next tasks of a batch go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// To this worker, from among these.
    Give(WorkerId, TaskRange),
    /// To nobody for now; at the latest then they are looked at again.
    Wait(Option<Instant>),
}

/// All tasks there may be.
pub(super) const ANY: TaskRange = TaskRange::new(0, u32::MAX);

impl Dispatcher {
    /// Where the next tasks of a batch go, when `roomy` is the least loaded worker with room for them.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        state: &State,
        (class, id): (ClassId, BatchId),
        (roomy, short): (WorkerId, bool),
    ) -> Choice {
        if !self.needs.has(id) {
            return Choice::Give(roomy, ANY);
        }
        let Some(policy) = state.batches.get(&id).map(|batch| &batch.spec.policy) else {
            return Choice::Give(roomy, ANY);
        };
        // The threads of such a call are shared out among the workers: that decides.
        if policy.prefer == Prefer::Threads && policy.n_jobs != -1 {
            return Choice::Give(roomy, ANY);
        }
        let fixed = policy.batch_size;
        self.activate(state, id);
        let (choice, looked_to) = self.look(now, state, (class, id), (roomy, short), fixed);
        if let Some(index) = looked_to {
            self.needs.set_look_from(id, index);
        }
        let waits = matches!(choice, Choice::Wait(Some(_)));
        let since = self.needs.waits_since(id).unwrap_or(now);
        self.needs.set_waits_since(id, waits.then_some(since));
        choice
    }

    /// The choice, and the task at which the look ended before it had seen all.
    fn look(
        &self,
        now: Instant,
        state: &State,
        (class_id, id): (ClassId, BatchId),
        (roomy, short): (WorkerId, bool),
        fixed: Option<u32>,
    ) -> (Choice, Option<u32>) {
        let to_roomy = (Choice::Give(roomy, ANY), None);
        let Some(class) = self.queues.classes.get(&class_id) else { return to_roomy };
        let Some(active) = self.active.get(&id) else { return to_roomy };
        let roomy_is_idle =
            self.workers.get(&roomy).is_some_and(|known| known.is_idle_for(&class.need));
        let since = self.needs.waits_since(id);
        let first = active.pending.first().map(|first| first.start);
        let mut busy_for = BTreeMap::new();
        let (mut moved, mut late_at, mut looked_to) = (None, None, None);
        let ranges = self.needs.in_turn(id, &active.pending);
        let pieces = ranges.flat_map(|range| {
            self.needs.pieces(id, range).map(move |(piece, parts)| (piece, parts, range.end))
        });
        for (number, (piece, parts, end)) in pieces.enumerate() {
            if number == PIECES_LOOKED_AT_MAX {
                looked_to = Some(piece.start);
                break;
            }
            // A range of fixed length is that of its first task, wherever others have the rest.
            let begins = match fixed {
                Some(size) if Some(piece.start) != first => whole_range(piece, end, size),
                Some(_) | None => Some(piece.start),
            };
            let Some(start) = begins else { continue };
            let all = TaskRange::new(start, end);
            let give = |worker| {
                let alike = || self.extend(class, id, (piece, parts), all, worker);
                (Choice::Give(worker, if fixed.is_some() { all } else { alike() }), None)
            };
            let holder = self.holder(class, roomy, parts);
            let Some(known) = self.workers.get(&holder).filter(|_| holder != roomy) else {
                return give(roomy);
            };
            if known.is_idle_for(&class.need) {
                return give(holder);
            }
            let travels = self.lacks(roomy, parts) - self.lacks(holder, parts);
            let travel = travel_time(travels);
            let is_late = since.is_some_and(|since| since + travel <= now);
            let busy = *busy_for.entry(holder).or_insert_with(|| self.busy_for(state, holder));
            if roomy_is_idle && (is_late || busy.is_none_or(|busy| busy > travel)) {
                moved.get_or_insert_with(|| if fixed.is_some() { all } else { piece });
            } else if known.has_room(&class.need, short) {
                return give(holder);
            } else if roomy_is_idle {
                let at = since.unwrap_or(now) + travel;
                late_at = Some(late_at.map_or(at, |late_at: Instant| late_at.min(at)));
            }
        }
        match moved {
            Some(tasks) => (Choice::Give(roomy, tasks), looked_to),
            None => (Choice::Wait(late_at), looked_to),
        }
    }

    /// Who has most of what a task maps: `roomy` where nobody has more.
    fn holder(&self, class: &Class, roomy: WorkerId, parts: &[Part]) -> WorkerId {
        let (mut best, mut lacking) = (roomy, self.lacks(roomy, parts));
        let least_loaded = class.below(u32::MAX).take(HOLDERS_LOOKED_AT_MAX);
        let holders = parts.iter().flat_map(|part| self.blobs.holders(part.blob, part.chunks));
        for worker in least_loaded.chain(holders.take(HOLDERS_LOOKED_AT_MAX)) {
            if lacking == 0 {
                break;
            }
            if worker != best
                && self.workers.get(&worker).is_some_and(|known| is_able(class, known))
            {
                let lacks = self.lacks(worker, parts);
                if lacks < lacking {
                    (best, lacking) = (worker, lacks);
                }
            }
        }
        best
    }

    /// `piece`, which goes to `worker`, with those of `all` behind it of which it has as little or as much.
    fn extend(
        &self,
        class: &Class,
        id: BatchId,
        (piece, parts): (TaskRange, &[Part]),
        all: TaskRange,
        worker: WorkerId,
    ) -> TaskRange {
        let has_all = self.lacks(worker, parts) == 0;
        let behind = self.needs.pieces(id, TaskRange::new(piece.end, all.end));
        let alike = behind.take(PIECES_OF_RANGE_MAX).take_while(|(_, parts)| {
            let lacks_none = self.lacks(worker, parts) == 0;
            has_all == lacks_none && (has_all || self.holder(class, worker, parts) == worker)
        });
        TaskRange::new(piece.start, alike.last().map_or(piece.end, |(last, _)| last.end))
    }

    /// Chunks that would have to travel to a worker.
    fn lacks(&self, worker: WorkerId, parts: &[Part]) -> u32 {
        let lacks = |part: &Part| {
            let has = self.blobs.has(worker, &part.blob, part.chunks);
            part.chunks.len().saturating_sub(has)
        };
        parts.iter().map(lacks).fold(0, u32::saturating_add)
    }

    /// When a worker will be done with what it has, as far as is known of its tasks.
    fn busy_for(&self, state: &State, id: WorkerId) -> Option<Duration> {
        let worker = self.workers.get(&id)?;
        let mut sum_ns = 0u64;
        for attempt in worker.attempts.iter().take(ATTEMPTS_LOOKED_AT_MAX) {
            let Some(attempt) = self.attempts.get(attempt).filter(|one| !one.open.is_empty())
            else {
                continue;
            };
            let batch = state.batches.get(&attempt.batch)?;
            let cost =
                self.active.get(&attempt.batch).map(|active| active.cost).unwrap_or_default();
            let task_ns = cost.or(self.learned(state, batch)).task_ns?;
            let all_ns = task_ns.saturating_mul(attempt.open.len().into());
            sum_ns = sum_ns.saturating_add(all_ns.saturating_mul(attempt.need.cpus.into()));
        }
        Some(Duration::from_nanos(sum_ns / u64::from(worker.total.cpus.max(1))))
    }

    /// The same choice, unless its first task is one whose data this worker could not provide: then another one with
    /// room, if there is one.
    pub(super) fn avoid(
        &self,
        (class, id): (ClassId, BatchId),
        short: bool,
        (worker, within): (WorkerId, TaskRange),
    ) -> (WorkerId, TaskRange) {
        let same = (worker, within);
        if !self.needs.has_unlent() {
            return same;
        }
        let pending = self.active.get(&id).map(|active| &active.pending);
        let Some(first) = pending.and_then(|pending| pending.intersection(within).next()) else {
            return same;
        };
        let Some(index) = self.needs.first_unlent(id, first, worker) else { return same };
        if index > first.start {
            // A range ends before it.
            return (worker, TaskRange::new(first.start, index));
        }
        let other = self.queues.classes.get(&class).and_then(|class| {
            let others = class.below(Worker::full_load(short)).filter(|id| *id != worker);
            let has_room = |id: &WorkerId| {
                self.workers.get(id).is_some_and(|known| known.has_room(&class.need, short))
            };
            others.take(HOLDERS_LOOKED_AT_MAX).find(has_room)
        });
        (other.unwrap_or(worker), TaskRange::new(index, index + 1))
    }

    /// How many tasks from the end of an attempt may be asked back for `idle`, which would have to be sent what they
    /// map: so many that both are done at the same time. All the same where it takes longer than is expected.
    pub(super) fn worth_moving(
        &self,
        now: Instant,
        state: &State,
        id: AttemptId,
        idle: WorkerId,
    ) -> Moving {
        let Some(attempt) = self.attempts.get(&id).filter(|one| self.needs.has(one.batch)) else {
            return Moving::Any;
        };
        let Some(last) = attempt.open.iter().next_back() else { return Moving::Any };
        let one = TaskRange::new(last.end - 1, last.end);
        let Some((_, parts)) = self.needs.pieces(attempt.batch, one).next() else {
            return Moving::Any;
        };
        let there = self.lacks(attempt.worker, parts);
        let travel = travel_time(self.lacks(idle, parts).saturating_sub(there));
        let Some(busy) = self.busy_for(state, attempt.worker) else { return Moving::Any };
        if travel.is_zero() || attempt.spared.is_some_and(|since| since + travel <= now) {
            return Moving::Any;
        }
        let open = attempt.open.len().max(1);
        let gain = busy.saturating_sub(travel).as_nanos() * u128::from(open) / 2;
        match u32::try_from(gain / busy.as_nanos().max(1)).unwrap_or(u32::MAX) {
            0 => Moving::Not,
            tasks => Moving::AtMost(tasks),
        }
    }
}

/// How many unstarted tasks may be asked back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moving {
    /// As many as would be if nothing had to travel.
    Any,
    /// These.
    AtMost(u32),
    /// None, for now.
    Not,
}

fn is_able(class: &Class, worker: &Worker) -> bool {
    worker.usable() && worker.suits(&class.need, &class.program)
}

/// Where a range of `size` tasks begins in `piece` of what waits up to `end`.
fn whole_range(piece: TaskRange, end: u32, size: u32) -> Option<u32> {
    let start = piece.start.checked_next_multiple_of(size)?;
    let is_whole = start.checked_add(size).is_some_and(|behind| behind <= end);
    (is_whole && start < piece.end).then_some(start)
}

/// How long chunks are expected to travel.
fn travel_time(chunks: u32) -> Duration {
    let bytes = u128::from(chunks) * u128::from(CHUNK_BYTES);
    let ns = bytes * 1_000_000_000 / u128::from(MOVED_BYTES_PER_S);
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}
