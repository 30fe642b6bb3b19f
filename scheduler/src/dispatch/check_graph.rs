//! The invariants of who waits for which outcome.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;

use allhands_common::id::{SessionId, TaskId};

use super::Dispatcher;
use super::check::{Violation, broken};
use super::graph::{Watcher, end_of};
use crate::State;
use crate::state::Fate;

impl Dispatcher {
    pub(super) fn check_graph(&self, state: &State) -> Result<(), Violation> {
        let graph = &self.graph;
        if !graph.hopeless.is_empty() || !graph.unheard.is_empty() || !graph.given.is_empty() {
            return broken("a step works off what it has found of the graph", format!("{graph:?}"));
        }
        self.check_watchers(state)?;
        self.check_blocked(state)
    }

    /// Who waits, waits for what may come, and each as often as the books say.
    fn check_watchers(&self, state: &State) -> Result<(), Violation> {
        let mut edges: BTreeMap<TaskId, u32> = BTreeMap::new();
        let mut awaited: BTreeMap<SessionId, usize> = BTreeMap::new();
        for (end, watchers) in &self.graph.watchers {
            let fate = state.fate(*end);
            if watchers.is_empty() || fate.is_final() {
                let what = format!("{end}, {fate:?}: {watchers:?}");
                return broken("only what has not ended is waited for", what);
            }
            for watcher in watchers {
                match watcher {
                    Watcher::Dependant { task, .. } => *edges.entry(*task).or_default() += 1,
                    Watcher::Session(session, _) => *awaited.entry(*session).or_default() += 1,
                    Watcher::Worker(..) => {}
                }
            }
        }
        if awaited != self.graph.awaited {
            let what = format!("{awaited:?}, books say {:?}", self.graph.awaited);
            return broken("what clients await is counted", what);
        }
        if let Some(session) = awaited.keys().find(|session| !self.clients.contains_key(session)) {
            return broken("only clients that are known await", format!("{session}"));
        }
        for (id, active) in &self.active {
            for (index, others) in active.waiting() {
                let task = TaskId { batch: *id, index };
                let there = edges.get(&task).copied().unwrap_or(0);
                if others == 0 || there != others {
                    let what = format!("{task} waits for {others}, watches {there}");
                    return broken("a dependant watches all that it waits for", what);
                }
            }
        }
        Ok(())
    }

    /// Who has begun and waits is with an attempt, and is heard of again.
    fn check_blocked(&self, state: &State) -> Result<(), Violation> {
        let mut blocked = BTreeSet::new();
        for attempt in self.attempts.values() {
            for index in attempt.blocked.iter().flat_map(|range| range.start..range.end) {
                let task = TaskId { batch: attempt.batch, index };
                blocked.insert(task);
                let Some(waits) = self.graph.blocked.get(&task) else {
                    return broken("it is known for what a blocked task waits", format!("{task}"));
                };
                let unseen = waits.on.iter().filter(|_| !waits.stuck).find(|awaited| {
                    let end = end_of(state, **awaited);
                    let watcher = Watcher::Worker(attempt.worker, **awaited);
                    let watched = self.graph.watchers.get(&end);
                    state.fate(end) == Fate::Unfinished
                        && !watched.is_some_and(|all| all.contains(&watcher))
                        && !self.was_given(attempt.worker, **awaited)
                });
                if let Some(awaited) = unseen {
                    let what = format!("{task} waits for {awaited:?}");
                    return broken("what a blocked task waits for is watched", what);
                }
            }
        }
        match self.graph.blocked.keys().find(|task| !blocked.contains(task)) {
            Some(task) => broken("a blocked task is with an attempt", format!("{task}")),
            None => Ok(()),
        }
    }
}
