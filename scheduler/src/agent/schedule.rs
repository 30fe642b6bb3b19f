//! Which piece goes to which executor.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use allhands_common::id::ExecutorId;
use allhands_common::policy::Prefer;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;

use super::executors::{Executor, Kind};
use super::holdings::Piece;
use super::{Agent, AgentAction, Load, ProgramState, Spawn};

/// Pieces of one executor, at most: the loads of its cell.
pub const PIECES_MAX: usize = 32;

/// Expected run time up to which pieces queue at one executor: what a few messages take.
const SHORT_NS: u64 = 1_000_000;

/// Executors beyond one a slot that may be warm, for programs that take turns.
const SPARE_EXECUTORS: usize = 4;

impl Agent {
    /// Gives waiting pieces to executors.
    pub(super) fn schedule(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        let mut kept = VecDeque::new();
        while let Some(piece) = self.waiting.pop_front() {
            if !self.place(now, piece, out) {
                kept.push_back(piece);
            }
        }
        self.waiting = kept;
        self.balance(now, out);
    }

    /// Gives `piece` to an executor, as its work or as its next. Whether there was one.
    fn place(&mut self, now: Instant, piece: Piece, out: &mut Vec<AgentAction>) -> bool {
        let Some((kind, need)) = self.kind_of(piece) else { return false };
        if !self.has_program(piece, out) {
            return false;
        }
        // A call with a cap runs as many tasks as it has ranges out: none of them twice at once.
        if self.is_capped(piece) && self.executors.values().any(|e| e.works_on(piece.attempt)) {
            return false;
        }
        if need.fits(&self.free) {
            let idle = self.executors.iter().find(|(_, e)| e.is_idle() && e.kind == kind);
            let id = match idle.map(|(id, _)| *id) {
                Some(id) => id,
                None => match self.spawn(now, piece, kind, out) {
                    Some(id) => id,
                    None => return false,
                },
            };
            self.free.subtract(&need);
            self.load(now, id, piece, need, out);
            if let Some(executor) = self.executors.get_mut(&id) {
                executor.charged = true;
            }
            return true;
        }
        if self.attempts.get(&piece.attempt).is_some_and(|attempt| attempt.alone) {
            return false;
        }
        let busy = self.executors.iter().filter(|(_, e)| {
            !e.ending
                && e.charged
                && e.kind == kind
                && e.need == need
                && !e.works_on(piece.attempt)
                && self.has_room(e, piece)
        });
        let Some((id, _)) = busy.min_by_key(|(_, e)| e.loads().len()) else { return false };
        self.load(now, *id, piece, need, out);
        true
    }

    /// Whether an executor with work takes another piece: one beside the one that it works on, or many that are
    /// together expected to be done in no time.
    fn has_room(&self, executor: &Executor, piece: Piece) -> bool {
        match executor.loads().len() {
            1 => true,
            0 | PIECES_MAX.. => false,
            _ => self
                .expected_ns(piece)
                .is_some_and(|ns| executor.expected_ns().saturating_add(ns) <= SHORT_NS),
        }
    }

    /// What a piece is expected to take.
    pub(super) fn expected_ns(&self, piece: Piece) -> Option<u64> {
        let attempt = self.attempts.get(&piece.attempt)?;
        let task_ns = self.costs.get(&attempt.batch).copied().or(attempt.task_ns)?;
        Some(task_ns.saturating_mul(piece.range.len().into()))
    }

    /// Whether a piece is of a batch whose `n_jobs` is not that of all slots.
    pub(super) fn is_capped(&self, piece: Piece) -> bool {
        let batch = self.attempts.get(&piece.attempt).map(|attempt| attempt.batch);
        let shared = batch.and_then(|batch| self.batches.get(&batch));
        shared.is_some_and(|shared| shared.spec.policy.n_jobs != -1)
    }

    /// What kind of executor a piece needs, and what it occupies.
    fn kind_of(&self, piece: Piece) -> Option<(Kind, Resources)> {
        let attempt = self.attempts.get(&piece.attempt)?;
        let shared = self.batches.get(&attempt.batch)?;
        let policy = &shared.spec.policy;
        let threads = if attempt.alone { 1 } else { attempt.threads };
        let cpus = match policy.prefer {
            // One at a time, be it a suspect that runs alone: `n_jobs` counts threads.
            Prefer::Threads => self.config.resources.cpus,
            Prefer::Processes => policy.resources.cpus,
        };
        let kind = Kind {
            program: shared.program.id,
            owner: shared.owner.clone(),
            threads,
            cpus,
            env: shared.spec.env.clone(),
        };
        Some((kind, Resources { cpus, ..policy.resources.clone() }))
    }

    /// Whether the program of a piece is there; asks for it where it is not.
    fn has_program(&mut self, piece: Piece, out: &mut Vec<AgentAction>) -> bool {
        let shared = self.attempts.get(&piece.attempt).and_then(|a| self.batches.get(&a.batch));
        let Some(program) = shared.map(|shared| &shared.program) else { return false };
        match self.programs.get(&program.id) {
            Some(ProgramState::Ready) => true,
            Some(ProgramState::Fetching) => false,
            Some(ProgramState::Failed(_)) | None => {
                out.push(AgentAction::FetchProgram(program.clone()));
                self.programs.insert(program.id, ProgramState::Fetching);
                false
            }
        }
    }

    /// Starts an executor for `piece`; an idle one of another kind makes room.
    fn spawn(
        &mut self,
        now: Instant,
        piece: Piece,
        kind: Kind,
        out: &mut Vec<AgentAction>,
    ) -> Option<ExecutorId> {
        let shared = self.attempts.get(&piece.attempt).and_then(|a| self.batches.get(&a.batch))?;
        let program = shared.program.clone();
        let room = self.config.resources.cpus as usize + SPARE_EXECUTORS;
        if self.executors.values().filter(|executor| !executor.ending).count() >= room {
            // Where all that could go have tasks that wait, one more has to be: what these wait for may be this.
            let oldest = self.executors.iter_mut().filter(|(_, e)| e.is_spare());
            if let Some((id, executor)) = oldest.min_by_key(|(_, executor)| executor.since) {
                executor.ending = true;
                out.push(AgentAction::Stop { executor: *id });
            } else if !self.executors.values().any(|e| !e.suspended.is_empty()) {
                return None;
            }
        }
        let id = self.next_executor;
        self.next_executor.0 += 1;
        out.push(AgentAction::Spawn(Spawn {
            executor: id,
            program,
            owner: kind.owner.clone(),
            threads: kind.threads,
            cpus: kind.cpus,
            env: kind.env.clone(),
        }));
        self.executors.insert(id, Executor::new(kind, now));
        Some(id)
    }

    fn load(
        &mut self,
        now: Instant,
        id: ExecutorId,
        piece: Piece,
        need: Resources,
        out: &mut Vec<AgentAction>,
    ) {
        let expected_ns = self.expected_ns(piece);
        let Some(executor) = self.executors.get_mut(&id) else { return };
        if !executor.is_busy() {
            executor.since = now;
        }
        executor.need = need;
        executor.push(piece, expected_ns);
        if executor.ready {
            self.send_load(id, piece, out);
        }
    }

    pub(super) fn send_load(&self, id: ExecutorId, piece: Piece, out: &mut Vec<AgentAction>) {
        let Some(attempt) = self.attempts.get(&piece.attempt) else { return };
        let Some(shared) = self.batches.get(&attempt.batch) else { return };
        let load = Load {
            attempt: piece.attempt,
            range: piece.range,
            shared: shared.clone(),
            segments: attempt.slice(piece.range),
            given: attempt.given.clone(),
            rounds: attempt.rounds_of(piece.range),
        };
        out.push(AgentAction::Load { executor: id, load });
    }
}
