//! Equal calls of a job that are one: those of a *memo* are the first that was called, those that are *deferred* the
//! newest of those that were not begun.
//!
//! A call that is another's ends at once, or when the leader says that it was not begun, as the same as the other:
//! whoever waits for it waits for that one. Which calls are equal is seen from the bytes of their arguments, which
//! nobody has to understand for that, and only where the policy asks for it.
//!
//! The one that all are is cancelled once each of their callers has cancelled: until then the others still want it.

use alloc::vec::Vec;

use allhands_common::execution::{Mention, Need};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{BatchId, TaskId};
use allhands_common::limit::FORWARDS_MAX;
use allhands_common::policy::{BatchSpec, EqualCalls};
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, SAME, Segment, SegmentBuilder, split_argument_tag};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::links::Callees;
use super::{Batch, Fate, State};
use crate::Effect;

/// What equal calls of a job have in common: a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallKey([u8; 16]);

impl CallKey {
    /// That of a row of arguments.
    fn of(spec: &BatchSpec, how: &EqualCalls, segment: &Segment, row: u32) -> Option<Self> {
        let mut strings = [&[][..]; ARITY_MAX];
        let (tag, arity) = segment.row(row, &mut strings)?;
        let (number, stand_ins) = split_argument_tag(tag);
        let name = spec.functions.get(usize::from(number))?.name;
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 equal calls of a job");
        hasher.update(&name.module.to_le_bytes());
        hasher.update(&name.offset.to_le_bytes());
        let mut add = |string: &[u8]| {
            hasher.update(&(string.len() as u64).to_le_bytes());
            hasher.update(string);
        };
        match how {
            EqualCalls::Defer { key: Some(key) } => add(key),
            EqualCalls::Memo | EqualCalls::Defer { key: None } => {
                add(&[segment.codec(), stand_ins]);
                strings[..arity].iter().for_each(|string| add(string));
            }
        }
        add(match how {
            EqualCalls::Memo => b"memo",
            EqualCalls::Defer { key: Some(_) } => b"defer by key",
            EqualCalls::Defer { key: None } => b"defer",
        });
        let hash = hasher.finalize();
        let (key, _) = hash.as_bytes().split_first_chunk()?;
        Some(Self(*key))
    }
}

impl State {
    /// The tasks `range` are new, and these are their arguments: those that are another's, if equal calls are to be.
    pub(super) fn meet_equals(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        arguments: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.batches.get(&batch).filter(|known| known.kept) else { return };
        let (spec, job) = (known.spec.clone(), known.job);
        let Some(how) = &spec.policy.equal_calls else { return };
        let Ok(segment) = Segment::parse(arguments) else { return };
        for index in range.start..range.end {
            let task = TaskId { batch, index };
            let Some(key) = CallKey::of(&spec, how, &segment, index - range.start) else { return };
            let known = self.jobs.get(&job).and_then(|job| job.equals.get(&key)).copied();
            let first = known.filter(|first| {
                let (_, fate) = self.follow(*first);
                *how == EqualCalls::Memo && matches!(fate, Fate::Unfinished | Fate::Value)
            });
            if let Some(first) = first {
                self.make_same(task, first, out);
                continue;
            }
            if let Some(job) = self.jobs.get_mut(&job) {
                job.equals.insert(key, task);
            }
            if let Some(known) = self.batches.get_mut(&batch) {
                known.links_mut().keys.insert(index, key);
            }
            let older = known.filter(|older| self.fate(*older) == Fate::Unfinished);
            if let Some(older) = older {
                out.push(Effect::Superseded { task: older });
            }
        }
    }

    /// The newest of the deferred calls that are equal to `task`, if that is another.
    pub fn newest_of(&self, task: TaskId) -> Option<TaskId> {
        let batch = self.batches.get(&task.batch)?;
        let key = batch.links()?.keys.get(&task.index)?;
        let newest = *self.job_of(batch)?.equals.get(key)?;
        Some(newest).filter(|newest| *newest != task && self.fate(task) == Fate::Unfinished)
    }

    /// A deferred call was not begun, and a newer one was made meanwhile: it is that, unless that is cancelled already.
    pub(super) fn forward(&mut self, task: TaskId, out: &mut Vec<Effect>) {
        if self.fate(task) != Fate::Unfinished {
            return;
        }
        let newest = self
            .newest_of(task)
            .filter(|newest| matches!(self.follow(*newest).1, Fate::Unfinished | Fate::Value));
        match newest {
            Some(newest) => self.make_same(task, newest, out),
            None => out.push(Effect::NotForwarded { task }),
        }
    }

    /// A task ends as the same as another.
    fn make_same(&mut self, task: TaskId, as_: TaskId, out: &mut Vec<Effect>) {
        let as_ = self.same_as(as_);
        let TaskId { batch, index } = task;
        if let Some(known) = self.batches.get_mut(&as_.batch)
            && !known.has_ended(as_.index)
        {
            let wanted = &mut known.links_mut().wanted;
            wanted.entry(as_.index).or_insert_with(|| [as_].into()).insert(task);
        }
        // Whoever was it before is that now.
        let theirs = self.batches.get_mut(&batch);
        let theirs = theirs.and_then(|known| known.links_mut().wanted.remove(&index));
        if let (Some(theirs), Some(known)) = (theirs, self.batches.get_mut(&as_.batch))
            && let Some(wanted) = known.links_mut().wanted.get_mut(&as_.index)
        {
            // Whether it is wanted itself its own callers have said.
            if !theirs.contains(&task) {
                wanted.remove(&task);
            }
            wanted.extend(theirs);
        }
        let one = TaskRange::new(index, index + 1);
        let outcome = SegmentBuilder::repeated(0, SAME, &as_.to_bytes(), 1);
        let mention = Mention { index, on: as_, need: Need::Handle };
        self.finish(batch, one, outcome, (&[mention], Callees::All), out);
    }

    /// The task that `task` is the same as, itself as a rule.
    pub fn same_as(&self, task: TaskId) -> TaskId {
        let mut end = task;
        for _ in 0..FORWARDS_MAX {
            let links = self.batches.get(&end.batch).and_then(Batch::links);
            let links = links.filter(|links| links.same.contains(&end.index));
            match links.and_then(|links| links.forwards.get(&end.index)) {
                Some(to) => end = *to,
                None => return end,
            }
        }
        end
    }

    /// Whoever called these tasks wants no more of them: those end that nobody else wants.
    pub(super) fn cancel_tasks(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        failed: &Failed,
        out: &mut Vec<Effect>,
    ) {
        // A deadline is the call's own, and is over for everybody.
        let shared = self
            .batches
            .get(&batch)
            .and_then(Batch::links)
            .is_some_and(|links| !links.same.is_empty() || !links.wanted.is_empty());
        if !shared || !matches!(failed.cause, Cause::Cancelled { .. }) {
            return self.end_tasks(batch, range, failed, out);
        }
        for index in range.start..range.end {
            let task = TaskId { batch, index };
            if let Some(TaskId { batch, index }) = self.nobody_wants(task) {
                self.end_tasks(batch, TaskRange::new(index, index + 1), failed, out);
            }
        }
    }

    fn end_tasks(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        failed: &Failed,
        out: &mut Vec<Effect>,
    ) {
        self.fail(batch, range, failed, out);
        out.push(Effect::CalledOff { batch, range });
    }

    /// Whoever called a task wants no more of it. The task that is to end, if nobody else wants that.
    pub(super) fn nobody_wants(&mut self, task: TaskId) -> Option<TaskId> {
        let end = self.same_as(task);
        let links = self.batches.get_mut(&end.batch).filter(|known| known.links().is_some());
        let wanted = links.and_then(|known| known.links_mut().wanted.get_mut(&end.index));
        let Some(wanted) = wanted else {
            return (end == task).then_some(task);
        };
        wanted.remove(&task);
        wanted.is_empty().then_some(end)
    }
}
