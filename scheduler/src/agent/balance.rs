//! An executor without work takes from the others.

use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::id::{AttemptId, ExecutorId};
use allhands_common::time::Instant;

use super::executors::Loaded;
use super::{Agent, AgentAction, Share};

/// Run time below which the rest of a piece is not worth sharing.
const LEAST_NS: u64 = 1_000_000;

/// How long the agent waits for news of an executor's piece before it shares the piece out, and after
/// it found nothing to share.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

impl Agent {
    /// What a task of an attempt's batch takes was measured.
    pub(super) fn measure(&mut self, attempt: AttemptId, tasks: u32, run_us: u64) {
        let Some(batch) = self.attempts.get(&attempt).map(|attempt| attempt.batch) else { return };
        if self.batches.contains_key(&batch) && tasks > 0 {
            self.costs.insert(batch, (run_us * 1000 / u64::from(tasks)).max(1));
        }
    }

    /// Lets an executor without work, or a free slot, take part of what another has.
    pub(super) fn balance(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        let busy = self.executors.values().filter(|executor| executor.is_busy());
        if !self.waiting.is_empty() || busy.clone().count() == 0 || self.free.cpus == 0 {
            return;
        }
        let mut look_again = false;
        let mut best: Option<(u64, ExecutorId, AttemptId, Share)> = None;
        for (id, executor) in self.executors.iter().filter(|(_, executor)| executor.ready) {
            if executor.kind.threads > 1 || !executor.need.fits(&self.free) {
                continue;
            }
            if executor.spare_until > now {
                look_again = true;
                continue;
            }
            for (place, Loaded { piece, open, .. }) in executor.loads().iter().enumerate() {
                let Some(attempt) = self.attempts.get(&piece.attempt) else { continue };
                let next = place > 0;
                let fixed = self
                    .batches
                    .get(&attempt.batch)
                    .is_some_and(|shared| shared.spec.policy.batch_size.is_some());
                let left = u64::from(open.len());
                if self.is_capped(*piece) && !next {
                    continue;
                }
                if attempt.cancelled || attempt.wanted_back > 0 || !next && (fixed || left < 2) {
                    continue;
                }
                let rest_ns = match self.costs.get(&attempt.batch).copied().or(attempt.task_ns) {
                    Some(task_ns) => left * task_ns,
                    None => u64::MAX,
                };
                if rest_ns < LEAST_NS && !next {
                    continue;
                }
                // A short piece is soon begun, unless the one before it takes unexpectedly long.
                if executor.since + PATIENCE > now && (!next || rest_ns < LEAST_NS) {
                    look_again = true;
                    continue;
                }
                let share = if next { Share::All } else { Share::Half };
                let rank = if next { u64::MAX } else { rest_ns };
                if best.as_ref().is_none_or(|best| best.0 < rank) {
                    best = Some((rank, *id, piece.attempt, share));
                }
            }
        }
        if let Some((_, executor, attempt, share)) = best {
            // One at a time: the answer comes at once and leads here again.
            out.push(AgentAction::Take { executor, attempt, share });
            if let Some(known) = self.executors.get_mut(&executor) {
                known.since = now;
            }
            look_again = true;
        }
        if look_again {
            self.next_balance = Some(now + PATIENCE);
        }
    }
}
