//! How what is consumed or abandoned leaves the state.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, SessionId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::wire::client::DONE_WITH_BATCH;

use super::links::Callees;
use super::{Batch, Job, State};
use crate::Effect;

/// Batches whose outcomes name one another that are found, at most: more of them stay until their job ends.
const CIRCLE_BATCHES_MAX: usize = 64;

impl State {
    pub(super) fn acknowledge(&mut self, batch: BatchId, segments: u32, out: &mut Vec<Effect>) {
        let Some(known) = self.batches.get_mut(&batch) else { return };
        if let Some(progress) = known.progress.as_deref_mut() {
            let from = progress.acknowledged - progress.dropped;
            let count = segments.saturating_sub(progress.acknowledged) as usize;
            let count = count.min(progress.outcomes.len() - from as usize);
            let read = progress.outcomes.iter().skip(from as usize).take(count);
            let bytes: u64 = read.map(|outcome| u64::from(outcome.bytes)).sum();
            progress.unread_bytes -= bytes.min(progress.unread_bytes);
            progress.acknowledged += count as u32;
            if !known.kept {
                for outcome in progress.outcomes.drain(..count).filter(|outcome| outcome.last) {
                    out.push(Effect::Drop { segment: outcome.segment });
                }
                progress.dropped = progress.acknowledged;
            }
            out.push(Effect::Acknowledged { batch });
        }
        if segments == DONE_WITH_BATCH && known.over() {
            let job = self.jobs.get(&known.job);
            // What goes on without its client keeps all outcomes until its time is over.
            if job.is_none_or(|job| job.detached.is_none()) {
                known.progress_mut().done = true;
                self.forget_if_done(batch, out);
            }
        }
    }

    /// Forgets a batch that is over, that nobody reads and nothing names.
    pub(super) fn forget_if_done(&mut self, batch: BatchId, out: &mut Vec<Effect>) {
        if !self.batches.get(&batch).is_some_and(Batch::is_done) {
            return;
        }
        let pins = if cfg!(plant = "pinned_batch_goes") { 0 } else { self.pins_of(batch) };
        match pins {
            0 => self.forget(batch, out),
            _ => self.circle_of(batch).into_iter().for_each(|batch| self.forget(batch, out)),
        }
    }

    fn pins_of(&self, batch: BatchId) -> u32 {
        self.batches.get(&batch).and_then(Batch::links).map_or(0, |links| links.pins)
    }

    /// The batches that nobody reads and that only one another's outcomes name, if `batch` is one: a task
    /// that returns what it has called, and was returned by that itself.
    fn circle_of(&self, batch: BatchId) -> Vec<BatchId> {
        let holds = |id: &BatchId| {
            let links = self.batches.get(id).and_then(Batch::links).into_iter();
            let held = links.flat_map(|links| links.holds.iter().copied());
            held.filter(|held| self.batches.get(held).is_some_and(Batch::is_done))
        };
        // How many of each one's pins are those of the others.
        let (mut pins, mut open) = (BTreeMap::from([(batch, 0u32)]), alloc::vec![batch]);
        while let Some(next) = open.pop() {
            for held in holds(&next) {
                *pins.entry(held).or_insert_with(|| {
                    open.push(held);
                    0
                }) += 1;
            }
            if pins.len() > CIRCLE_BATCHES_MAX {
                return Vec::new();
            }
        }
        while let Some(named) =
            pins.iter().find(|(id, pins)| self.pins_of(**id) > **pins).map(|(id, _)| *id)
        {
            pins.remove(&named);
            for held in holds(&named) {
                pins.entry(held).and_modify(|pins| *pins -= 1);
            }
        }
        if pins.contains_key(&batch) { pins.into_keys().collect() } else { Vec::new() }
    }

    /// Takes a batch out of the state.
    pub(super) fn forget(&mut self, batch: BatchId, out: &mut Vec<Effect>) {
        let tasks = self.batches.get(&batch).map_or(0, |known| known.tasks);
        self.unlink(batch, TaskRange::new(0, tasks), Callees::None);
        let Some(gone) = self.batches.remove(&batch) else { return };
        for (index, key) in gone.links().into_iter().flat_map(|links| &links.keys) {
            if let Some(job) = self.jobs.get_mut(&gone.job)
                && job.equals.get(key) == Some(&TaskId { batch, index: *index })
            {
                job.equals.remove(key);
            }
        }
        // Others may name it yet: of another client, or of the same, which goes with all that it has.
        let pins = gone.links().map_or(0, |links| links.pins);
        if pins > 0 {
            self.early_pins.insert(batch, pins);
        }
        for held in gone.links().into_iter().flat_map(|links| &links.holds) {
            self.unpin(*held);
        }
        for argument in &gone.arguments {
            out.push(Effect::Drop { segment: argument.segment });
        }
        if let Some(progress) = gone.progress() {
            let outcomes = progress.outcomes.iter().filter(|outcome| outcome.last);
            for segment in outcomes.map(|outcome| outcome.segment).chain(progress.context) {
                out.push(Effect::Drop { segment });
            }
        }
        let Batch { job, sequence, call, .. } = gone;
        out.push(Effect::BatchForgotten { batch, job, sequence, call });
    }

    /// An attached client is gone: nothing of it stays.
    pub(super) fn close_session(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        if self.sessions.remove(&session).is_none() {
            return;
        }
        self.let_go_of_jobs(session, out);
        let goes_on =
            |job: &Job| job.detached.is_some() && !cfg!(plant = "detached_ends_with_its_client");
        let mine = |job: &JobId| {
            let job = self.jobs.get(job);
            job.is_some_and(|job| job.session == session && !goes_on(job))
        };
        let batches = self.batches.iter().filter(|(_, batch)| mine(&batch.job));
        let batches: Vec<BatchId> = batches.map(|(id, _)| *id).collect();
        batches.into_iter().for_each(|batch| self.forget(batch, out));
        self.jobs.retain(|_, job| job.session != session || goes_on(job));
        out.push(Effect::SessionClosed { session });
    }
}
