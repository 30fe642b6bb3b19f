//! What joins tasks: who names whom, who was called by whom, and how long an outcome stays because of that.
//!
//! A task that names another *pins* the other's batch until it has ended; so does an outcome that names a
//! task until its own batch is forgotten, and a parent that has not ended each batch that it has called. A
//! kept batch goes once its client wants nothing more of it and nothing pins it; one that a task has called
//! has no client.
//!
//! Chains of such batches may be long. Nothing here recurses: what became loose or unwanted is put on a
//! list, and the command that did it works the lists off at its end.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use allhands_common::codec;
use allhands_common::execution::TASK_ID_BYTES;
use allhands_common::execution::{Mention, Need};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, TaskId};
use allhands_common::limit::FORWARDS_MAX;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, FAILED, FORWARDED, SAME, Segment};
use serde::{Deserialize, Serialize};

use super::{Batch, CallKey, OutcomeSegment, State};

/// Longest text of a root cause that dependants are told, in bytes.
const MESSAGE_BYTES_MAX: usize = 400;

/// What joins the tasks of a batch to others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Links {
    /// The task that has called it.
    pub parent: Option<Parent>,
    /// Batches that its unfinished tasks have called.
    pub children: BTreeMap<u32, Vec<BatchId>>,
    /// Whom its unfinished tasks name.
    pub mentions: BTreeMap<u32, Vec<(TaskId, Need)>>,
    /// How many unfinished tasks, outcomes and parents pin it.
    pub pins: u32,
    /// Batches that its outcomes pin.
    pub holds: Vec<BatchId>,
    /// Where its outcomes are among the outcome segments: by the first task of each stretch.
    pub places: BTreeMap<u32, u32>,
    /// Tasks that ended without a value, or with the function's own error: by the first one of each stretch.
    pub faults: BTreeMap<u32, Fault>,
    /// Tasks that ended by returning an execution, or as the same as another.
    pub forwards: BTreeMap<u32, TaskId>,
    /// Of these, those that ended as the same as another.
    pub same: BTreeSet<u32>,
    /// By what its tasks are equal to others, where that is asked for.
    pub keys: BTreeMap<u32, CallKey>,
    /// Of unfinished tasks that others are the same as: which of these tasks, itself included, are still wanted.
    pub wanted: BTreeMap<u32, BTreeSet<TaskId>>,
}

/// The call that a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Who called.
    pub task: TaskId,
    /// The newest attempt that did: what only earlier ones have called is not wanted once it has ended.
    pub attempt: AttemptId,
    /// How many parents there are above it, itself included.
    pub depth: u32,
    /// Whether it is the parent's no more: that has ended, or has had a round since.
    pub let_go: bool,
}

/// How a stretch of kept tasks ended without a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The task after the last one.
    pub end: u32,
    /// Of what.
    pub kind: FaultKind,
}

/// Why a task has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// Its function returned `Err`.
    Returned,
    /// It failed.
    Failed {
        /// The task at the root; `None`: it is that itself.
        root: Option<TaskId>,
        /// What of, shortened.
        message: String,
    },
    /// It returned an execution that leads back to it.
    Cycle,
}

/// What became of a task, as others that name it need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'a> {
    /// There is no such task (any more).
    Unknown,
    /// It has not ended.
    Unfinished,
    /// It has a value.
    Value,
    /// It ended without one.
    Fault(&'a FaultKind),
    /// Its batch was stopped before it ended.
    Stopped(&'a Failed),
    /// Its outcome is that of another.
    Forwarded(TaskId),
}

impl Fate<'_> {
    /// Whether nothing will change it any more.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Unknown | Self::Unfinished => false,
            Self::Value | Self::Fault(_) | Self::Stopped(_) | Self::Forwarded(_) => true,
        }
    }
}

impl Links {
    fn fault(&self, index: u32) -> Option<&FaultKind> {
        let (_, fault) = self.faults.range(..=index).next_back()?;
        (index < fault.end).then_some(&fault.kind)
    }

    /// Notes how the stretch `tasks` ended; neighbours that ended alike become one.
    fn note_fault(&mut self, tasks: TaskRange, kind: FaultKind) {
        if let Some((_, last)) = self.faults.range_mut(..tasks.start).next_back()
            && last.end == tasks.start
            && last.kind == kind
        {
            last.end = tasks.end;
            return;
        }
        self.faults.insert(tasks.start, Fault { end: tasks.end, kind });
    }
}

impl Batch {
    /// Where the outcome of a kept task is: the segment, and the task that its first row is of.
    pub fn outcome_of(&self, index: u32) -> Option<&OutcomeSegment> {
        let progress = self.progress()?;
        let (_, place) = self.links()?.places.range(..=index).next_back()?;
        let outcome = progress.outcomes.get(*place as usize)?;
        outcome.tasks.contains(index).then_some(outcome)
    }

    /// Notes, of the rows of `outcomes` that were accepted of the tasks `part`, what those who name these tasks need.
    pub(super) fn note_outcomes(&mut self, first: u32, part: TaskRange, outcomes: &Segment) {
        let place = self.progress_mut().outcomes.len();
        let links = self.links_mut();
        links.places.insert(part.start, u32::try_from(place).unwrap_or(u32::MAX));
        for (tag, rows) in outcomes.runs() {
            let tasks = TaskRange::new(first + rows.start, first + rows.end).intersection(part);
            for task in tasks.start..tasks.end {
                let one = TaskRange::new(task, task + 1);
                let text = outcomes.value(task - first).map_or(&[][..], |(_, text)| text);
                match tag {
                    ERROR => links.note_fault(one, failed(text)),
                    FAILED => links.note_fault(one, FaultKind::Returned),
                    FORWARDED | SAME => {
                        if tag == SAME {
                            links.same.insert(task);
                        }
                        if let Some((to, _)) = text.split_first_chunk::<TASK_ID_BYTES>() {
                            links.forwards.insert(task, TaskId::from_bytes(*to));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What those who depend on a task that failed are told.
fn failed(text: &[u8]) -> FaultKind {
    let (root, mut message) = match codec::decode::<Failed>(text).map(|failed| failed.cause) {
        Ok(Cause::DependencyFailed { root, message }) => (Some(root), message),
        Ok(cause) => (None, cause.to_string()),
        Err(_) => (None, "failed in a way that this release cannot read".into()),
    };
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    FaultKind::Failed { root, message }
}

impl State {
    /// What became of a task.
    pub fn fate(&self, task: TaskId) -> Fate<'_> {
        let Some(batch) = self.batches.get(&task.batch) else { return Fate::Unknown };
        if task.index >= batch.tasks {
            // It may come yet, while the batch grows.
            return match batch.stopped() {
                _ if batch.sealed => Fate::Unknown,
                Some(stop) => Fate::Stopped(&stop.rest),
                None => Fate::Unfinished,
            };
        }
        if !batch.has_ended(task.index) {
            return batch.stopped().map_or(Fate::Unfinished, |stop| Fate::Stopped(&stop.rest));
        }
        let Some(links) = batch.links().filter(|_| batch.kept) else { return Fate::Unknown };
        if let Some(fault) = links.fault(task.index) {
            return Fate::Fault(fault);
        }
        links.forwards.get(&task.index).map_or(Fate::Value, |to| Fate::Forwarded(*to))
    }

    /// The task at the end of those that `task` was forwarded to, itself as a rule, and what became of it.
    pub fn follow(&self, task: TaskId) -> (TaskId, Fate<'_>) {
        let mut end = task;
        for _ in 0..FORWARDS_MAX {
            match self.fate(end) {
                Fate::Forwarded(to) => end = to,
                fate => return (end, fate),
            }
        }
        (end, Fate::Unknown)
    }

    /// The unfinished tasks of `range` now name these others.
    pub(super) fn link(&mut self, batch: BatchId, range: TaskRange, mentions: &[Mention]) {
        for mention in mentions.iter().filter(|mention| range.contains(mention.index)) {
            self.pin(mention.on.batch);
            if let Some(known) = self.batches.get_mut(&batch) {
                let named = known.links_mut().mentions.entry(mention.index).or_default();
                named.push((mention.on, mention.need));
            }
        }
    }

    /// Something names a task of `batch`. It may be opened later than that is heard of.
    pub(super) fn pin(&mut self, batch: BatchId) {
        match self.batches.get_mut(&batch) {
            Some(known) => known.links_mut().pins += 1,
            None => *self.early_pins.entry(batch).or_insert(0) += 1,
        }
    }

    pub(super) fn unpin(&mut self, batch: BatchId) {
        if let Some(known) = self.batches.get_mut(&batch) {
            let links = known.links_mut();
            links.pins = links.pins.saturating_sub(1);
            if links.pins == 0 || known.is_done() {
                self.loose.push(batch);
            }
        } else if let Some(pins) = self.early_pins.get_mut(&batch) {
            *pins -= 1;
            if *pins == 0 {
                self.early_pins.remove(&batch);
            }
        }
    }

    /// The pins of a batch that is opened now, by those who were first.
    pub(super) fn take_early_pins(&mut self, batch: BatchId) {
        if let Some(pins) = self.early_pins.remove(&batch)
            && let Some(known) = self.batches.get_mut(&batch)
        {
            known.links_mut().pins += pins;
        }
    }

    /// Tasks of `batch` have ended: whom they named they name no more, and who was called by them is theirs no more.
    /// Of the callees stay those that are wanted: all, those that the attempt `by` has called, or none.
    pub(super) fn unlink(&mut self, batch: BatchId, ended: TaskRange, by: Callees) {
        let Some(known) = self.batches.get_mut(&batch).filter(|known| known.links().is_some())
        else {
            return;
        };
        let links = known.links_mut();
        let mentions = take_range(&mut links.mentions, ended);
        take_range(&mut links.wanted, ended);
        for (on, _) in mentions.into_iter().flatten() {
            if !cfg!(plant = "mention_pins_for_ever") {
                self.unpin(on.batch);
            }
        }
        self.let_go_of_children(batch, ended, by);
    }

    /// Whom tasks of `batch` have called is theirs no more: they, or a round of theirs, have ended.
    pub(super) fn let_go_of_children(&mut self, batch: BatchId, of: TaskRange, by: Callees) {
        let Some(known) = self.batches.get_mut(&batch).filter(|known| known.links().is_some())
        else {
            return;
        };
        let children = take_range(&mut known.links_mut().children, of);
        for child in children.into_iter().flatten() {
            let links = self.batches.get_mut(&child).map(Batch::links_mut);
            let parent = links.and_then(|links| links.parent.as_mut());
            let parent = parent.map(|parent| {
                parent.let_go = true;
                *parent
            });
            let stays = match by {
                Callees::All => true,
                Callees::Of(attempt) if !cfg!(plant = "claimed_child_cancelled") => {
                    parent.is_some_and(|parent| parent.attempt >= attempt)
                }
                Callees::Of(_) => false,
                Callees::None => false,
            };
            if !stays {
                self.unwanted.push(child);
            }
            self.unpin(child);
        }
    }

    /// Pins what an accepted outcome names, for as long as it is there.
    pub(super) fn hold(&mut self, batch: BatchId, accepted: TaskRange, mentions: &[Mention]) {
        // A batch that its own outcomes pin would stay for ever.
        let others = |mention: &&Mention| mention.on.batch != batch;
        let named = mentions.iter().filter(|mention| accepted.contains(mention.index));
        for mention in named.filter(others) {
            self.pin(mention.on.batch);
            if let Some(known) = self.batches.get_mut(&batch) {
                known.links_mut().holds.push(mention.on.batch);
            }
        }
    }

    /// Looks whether what `batch`'s tasks were forwarded to leads back to them: then it leads nowhere.
    pub(super) fn break_cycles(&mut self, batch: BatchId, ended: TaskRange) {
        let Some(links) = self.batches.get(&batch).and_then(Batch::links) else { return };
        let forwarded = links.forwards.range(ended.start..ended.end);
        let circles: Vec<u32> = forwarded
            .map(|(index, to)| (*index, *to))
            .filter(|(index, to)| self.leads_to(*to, TaskId { batch, index: *index }))
            .map(|(index, _)| index)
            .collect();
        let Some(known) = self.batches.get_mut(&batch).filter(|_| !circles.is_empty()) else {
            return;
        };
        for index in circles {
            let links = known.links_mut();
            links.forwards.remove(&index);
            links.note_fault(TaskRange::new(index, index + 1), FaultKind::Cycle);
        }
    }

    fn leads_to(&self, from: TaskId, to: TaskId) -> bool {
        let mut end = from;
        for _ in 0..FORWARDS_MAX {
            match self.fate(end) {
                _ if end == to => return true,
                Fate::Forwarded(next) => end = next,
                _ => return false,
            }
        }
        true
    }
}

/// Which of the batches that a task has called are wanted when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callees {
    /// All.
    All,
    /// Those that this attempt has called, and later ones.
    Of(AttemptId),
    /// None: it was cancelled, or ran too long.
    None,
}

fn take_range<T>(map: &mut BTreeMap<u32, T>, range: TaskRange) -> Vec<T> {
    let keys: Vec<u32> = map.range(range.start..range.end).map(|(index, _)| *index).collect();
    keys.into_iter().filter_map(|index| map.remove(&index)).collect()
}
