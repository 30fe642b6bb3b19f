//! What a worker holds: attempts, their pieces, and outcomes that are owed.

use alloc::vec::Vec;

use allhands_common::execution::{Given, Mention};
use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::Segment;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Ended, Held, How};
use bytes::Bytes;

use super::Agent;

/// A range from the leader.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) batch: BatchId,
    pub(super) range: TaskRange,
    /// Tasks without an outcome that were not given back.
    pub(super) open: RangeSet,
    /// Argument segments, each with the index of its first task.
    pub(super) arguments: Vec<(u32, Segment)>,
    pub(super) threads: u16,
    pub(super) alone: bool,
    /// Whether the leader wants it stopped.
    pub(super) cancelled: bool,
    /// Tasks that the leader still wants back.
    pub(super) wanted_back: u32,
    /// What the leader expects a task to take, in nanoseconds.
    pub(super) task_ns: Option<u64>,
    /// The outcomes of which its arguments are made.
    pub(super) given: Vec<Given>,
    /// Its tasks that have had rounds before.
    pub(super) rounds: Vec<(u32, u32)>,
    /// Since when it is here.
    pub(super) since: Instant,
}

/// Part of an attempt, for one executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) attempt: AttemptId,
    pub(super) range: TaskRange,
}

/// An outcome that is not known to be committed.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    pub(super) batch: BatchId,
    pub(super) range: TaskRange,
    pub(super) segment: Bytes,
    pub(super) run_us: u64,
    pub(super) mentions: Vec<Mention>,
}

impl Agent {
    /// Everything that is held, for the leader.
    pub(super) fn inventory(&self, now: Instant) -> Vec<Held> {
        let mut held: Vec<Held> = Vec::new();
        for (id, attempt) in &self.attempts {
            let running = self.executors.values().any(|executor| executor.has_begun(*id));
            held.push(Held {
                attempt: *id,
                batch: attempt.batch,
                open: attempt.open.iter().collect(),
                running,
                owed: Vec::new(),
                blocked: self.blocked_of(now, *id),
                since_us: now.since(attempt.since).as_micros() as u64,
            });
        }
        for ((id, _), owed) in &self.owed {
            let at = match held.binary_search_by_key(id, |held| held.attempt) {
                Ok(at) => at,
                Err(at) => {
                    let entry = Held {
                        attempt: *id,
                        batch: owed.batch,
                        open: Vec::new(),
                        running: false,
                        owed: Vec::new(),
                        blocked: Vec::new(),
                        since_us: 0,
                    };
                    held.insert(at, entry);
                    at
                }
            };
            held[at].owed.push(owed.range);
        }
        held
    }

    /// Tasks of an attempt have ended, or are given back: the leader will hear.
    pub(super) fn end(&mut self, id: AttemptId, range: TaskRange, how: How) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let batch = attempt.batch;
        attempt.open.remove(range);
        self.reports.push(Ended { attempt: id, batch, range, how });
        self.forget_if_over(id);
    }

    /// An outcome was made: it is owed until it is committed.
    pub(super) fn owe(&mut self, id: AttemptId, owed: Owed) {
        let (range, segment, run_us) = (owed.range, owed.segment.clone(), owed.run_us);
        let mentions = owed.mentions.clone();
        self.owed.insert((id, range.start), owed);
        self.end(id, range, How::Ran { segment: segment.into(), run_us, mentions });
    }

    /// All that is owed, to be said again to a new leader.
    pub(super) fn repeat_owed(&mut self) {
        let again = self.owed.iter().map(|((attempt, _), owed)| Ended {
            attempt: *attempt,
            batch: owed.batch,
            range: owed.range,
            how: How::Ran {
                segment: owed.segment.clone().into(),
                run_us: owed.run_us,
                mentions: owed.mentions.clone(),
            },
        });
        self.reports.extend(again);
    }

    /// The leader has decided on these outcomes.
    pub(super) fn settle(&mut self, id: AttemptId, range: TaskRange) {
        let settled: Vec<(AttemptId, u32)> = self
            .owed
            .range((id, 0)..=(id, u32::MAX))
            .filter(|(_, owed)| range.covers(owed.range))
            .map(|(key, _)| *key)
            .collect();
        for key in settled {
            self.owed.remove(&key);
        }
        // A retried task is settled alone, in the midst of an outcome segment: the rest stays owed.
        let split: Vec<((AttemptId, u32), Owed)> = self
            .owed
            .range((id, 0)..=(id, u32::MAX))
            .filter(|(_, owed)| !owed.range.intersection(range).is_empty())
            .map(|(key, owed)| (*key, owed.clone()))
            .collect();
        for (key, owed) in split {
            self.owed.remove(&key);
            let Ok(segment) = Segment::parse(owed.segment.clone()) else { continue };
            let parts = [
                TaskRange::new(owed.range.start, range.start),
                TaskRange::new(range.end, owed.range.end),
            ];
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                let rows =
                    TaskRange::new(part.start - owed.range.start, part.end - owed.range.start);
                if let Ok(segment) = segment.slice(rows) {
                    let (batch, run_us, mentions) =
                        (owed.batch, owed.run_us, owed.mentions.clone());
                    let rest = Owed { batch, range: part, segment, run_us, mentions };
                    self.owed.insert((id, part.start), rest);
                }
            }
        }
    }

    /// An attempt of which nothing is open is forgotten.
    pub(super) fn forget_if_over(&mut self, id: AttemptId) {
        if !self.attempts.get(&id).is_some_and(|attempt| attempt.open.is_empty()) {
            return;
        }
        if let Some(attempt) = self.attempts.remove(&id)
            && self.forgotten.contains(&attempt.batch)
        {
            self.forget_batch(attempt.batch);
        }
    }

    /// A program cannot run here: what needs it goes back.
    pub(super) fn program_failed(
        &mut self,
        program: allhands_common::program::ProgramId,
        cause: &Cause,
    ) {
        self.programs.insert(program, super::ProgramState::Failed(cause.clone()));
        let needs = |agent: &Self, batch: &BatchId| {
            agent.batches.get(batch).is_some_and(|shared| shared.program.id == program)
        };
        let refused: Vec<Piece> = self
            .waiting
            .iter()
            .filter(|piece| {
                self.attempts.get(&piece.attempt).is_some_and(|a| needs(self, &a.batch))
            })
            .copied()
            .collect();
        self.waiting.retain(|piece| !refused.contains(piece));
        for piece in refused {
            self.end(piece.attempt, piece.range, How::Refused { cause: cause.clone() });
        }
    }
}

impl Attempt {
    /// Those of the tasks `range` that have had rounds before.
    pub(super) fn rounds_of(&self, range: TaskRange) -> Vec<(u32, u32)> {
        self.rounds.iter().filter(|(index, _)| range.contains(*index)).copied().collect()
    }

    /// The argument segments of just `range`, in order.
    pub(super) fn slice(&self, range: TaskRange) -> Vec<Bytes> {
        let mut parts = Vec::new();
        for (first, segment) in &self.arguments {
            let tasks = TaskRange::new(*first, first + segment.tasks());
            let part = tasks.intersection(range);
            if part.is_empty() {
                continue;
            }
            if let Ok(bytes) = segment.slice(TaskRange::new(part.start - first, part.end - first)) {
                parts.push(bytes);
            }
        }
        parts
    }
}
