//! Every invariant of a worker's books: run after each step by tests and the simulator.

use alloc::format;
use alloc::string::String;

use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::wire::worker::ChildCall;

use super::{Agent, PIECES_MAX};
use crate::Violation;

fn broken(rule: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { rule, what })
}

impl Agent {
    /// Every invariant.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        let mut sum = self.free.clone();
        let busy = self.executors.values().filter(|executor| executor.charged);
        busy.for_each(|executor| sum.add(&executor.need));
        if sum != self.with_all_names(&self.config.resources) {
            let what = format!("{sum:?} of {:?}", self.config.resources);
            return broken("what is free and what is occupied is what there is", what);
        }
        for (id, executor) in &self.executors {
            if executor.charged && !executor.is_busy() {
                return broken("an executor without work occupies nothing", format!("{id}"));
            }
            let loads = executor.loads().len();
            if loads > PIECES_MAX {
                return broken("an executor has a slot for each piece", format!("{id}: {loads}"));
            }
            let (sum, said) = (executor.sum_ns(), executor.expected_ns());
            if sum != said {
                let what = format!("{id}: {sum} ns, books say {said}");
                return broken("an executor's expected time is that of its pieces", what);
            }
        }
        self.check_calls()?;
        self.check_pieces()
    }

    /// An outcome is held back for a call that is not known to be committed, and only for that.
    fn check_calls(&self) -> Result<(), Violation> {
        for ((id, _), owed) in &self.deferred {
            let theirs =
                |child: &ChildCall| child.attempt == *id && owed.range.contains(child.parent.index);
            if !self.calls.values().any(|call| theirs(&call.child)) {
                let what = format!("{} of attempt {id}", owed.range);
                return broken("an outcome is held back for a call", what);
            }
        }
        for ((id, _), owed) in &self.owed {
            let open = self.attempts.get(id).map(|attempt| &attempt.open);
            if open.is_some_and(|open| open.intersection(owed.range).next().is_some()) {
                let what = format!("{} of attempt {id}", owed.range);
                return broken("what is owed is not open", what);
            }
        }
        Ok(())
    }

    /// Each open task of an attempt is in exactly one piece.
    fn check_pieces(&self) -> Result<(), Violation> {
        for (id, attempt) in &self.attempts {
            let waiting = self.waiting.iter().filter(|piece| piece.attempt == *id);
            let placed = self.executors.values().flat_map(|executor| {
                let theirs = executor.loads().iter().filter(|loaded| loaded.piece.attempt == *id);
                theirs.flat_map(|loaded| loaded.open.iter())
            });
            let mut seen = RangeSet::new();
            let begun = self.executors.values().flat_map(|executor| {
                let waiting = executor.suspended.keys().chain(&executor.resumed);
                let theirs = waiting.filter(|(attempt, _)| attempt == id);
                theirs.map(|(_, index)| TaskRange::new(*index, *index + 1))
            });
            let deferred =
                self.deferred.range((*id, 0)..=(*id, u32::MAX)).map(|(_, owed)| owed.range);
            let placed = placed.chain(begun).chain(deferred);
            for range in waiting.map(|piece| piece.range).chain(placed) {
                if seen.intersection(range).next().is_some() {
                    return broken("a task is in one piece", format!("{range} of attempt {id}"));
                }
                seen.insert(range);
            }
            if seen != attempt.open {
                let what = format!("attempt {id}: open {:?}, in pieces {seen:?}", attempt.open);
                return broken("what is open is in a piece", what);
            }
        }
        Ok(())
    }

    /// `resources`, with every custom resource that was ever given back.
    fn with_all_names(&self, resources: &Resources) -> Resources {
        let mut all = resources.clone();
        for name in self.free.custom.keys() {
            all.custom.entry(name.clone()).or_insert(0);
        }
        all
    }
}
