//! Every invariant of the state: run after each entry by tests and the simulator.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use allhands_common::id::{BatchId, TaskId};

use super::links::Links;
use super::{Batch, Fate, State};
use crate::Violation;

fn broken(rule: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { rule, what })
}

impl State {
    /// Every invariant, as it is between two entries.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        if !self.loose.is_empty() || !self.unwanted.is_empty() {
            let what = format!("{:?}, {:?}", self.loose, self.unwanted);
            return broken("what a command lets loose it sweeps", what);
        }
        for (id, job) in &self.jobs {
            let key_of = |task: &TaskId| {
                let batch = self.batches.get(&task.batch).filter(|batch| batch.job == *id);
                batch.and_then(Batch::links).and_then(|links| links.keys.get(&task.index))
            };
            if let Some((key, task)) =
                job.equals.iter().find(|(key, task)| key_of(task) != Some(key))
            {
                return broken("equal calls are those of a batch", format!("{key:?}: {task}"));
            }
        }
        for (id, batch) in &self.batches {
            if self.job_of(batch).is_none() {
                return broken("a batch has a job", format!("{id}"));
            }
            if batch.is_done() && batch.links().is_none_or(|links| links.pins == 0) {
                return broken("what nobody reads and nothing names is gone", format!("{id}"));
            }
            if let Some(links) = batch.links() {
                self.check_links(*id, batch, links)?;
            }
        }
        self.check_pins()
    }

    /// What joins a batch to others is of its unfinished tasks, or of its outcomes where it keeps them.
    fn check_links(&self, id: BatchId, batch: &Batch, links: &Links) -> Result<(), Violation> {
        let named = links.mentions.keys().chain(links.children.keys());
        let waits = |index: &&u32| {
            **index < batch.tasks && !batch.has_ended(**index) && batch.stopped().is_none()
        };
        if let Some(index) = named.clone().find(|index| !waits(index)) {
            return broken("only unfinished tasks name and call others", format!("{id}:{index}"));
        }
        for (index, children) in &links.children {
            let task = TaskId { batch: id, index: *index };
            let theirs = |child: &&BatchId| {
                let links = self.batches.get(child).and_then(Batch::links);
                links.and_then(|links| links.parent).is_some_and(|parent| parent.task == task)
            };
            if let Some(child) = children.iter().find(|child| !theirs(child)) {
                return broken("a child knows who has called it", format!("{child} of {task}"));
            }
        }
        if let Some(parent) = links.parent {
            let above = self.batches.get(&parent.task.batch).and_then(Batch::links);
            let children = above.and_then(|above| above.children.get(&parent.task.index));
            let listed = children.is_some_and(|children| children.contains(&id));
            let waits = self.fate(parent.task) == Fate::Unfinished;
            if (waits && !parent.let_go) != listed {
                return broken("who has called it knows its child", format!("{id}: {parent:?}"));
            }
        }
        let outcomes = !links.places.is_empty() || !links.faults.is_empty();
        if !batch.kept && (outcomes || !links.forwards.is_empty() || !links.holds.is_empty()) {
            return broken("outcomes that go are not noted", format!("{id}: {links:?}"));
        }
        let ended = batch.progress().into_iter().flat_map(|progress| progress.ended.iter());
        let mut kept = ended.filter(|_| batch.kept).flat_map(|range| range.start..range.end);
        if let Some(index) = kept.find(|index| batch.outcome_of(*index).is_none()) {
            return broken("a kept outcome is found", format!("{id}:{index}"));
        }
        if let Some(index) = links.same.iter().find(|index| !links.forwards.contains_key(index)) {
            return broken("what is the same as another says which", format!("{id}:{index}"));
        }
        let open = |index: &&u32| !waits(index);
        if let Some(index) = links.wanted.keys().find(open) {
            return broken("only unfinished tasks are wanted by others", format!("{id}:{index}"));
        }
        for index in links.forwards.keys() {
            let task = TaskId { batch: id, index: *index };
            if matches!(self.follow(task).1, Fate::Forwarded(_)) {
                return broken("what is forwarded leads somewhere", format!("{task}"));
            }
        }
        Ok(())
    }

    /// The pins of each batch are those who name it, whether it is there or not.
    fn check_pins(&self) -> Result<(), Violation> {
        let mut pins: BTreeMap<BatchId, u32> = BTreeMap::new();
        for links in self.batches.values().filter_map(Batch::links) {
            let mentions = links.mentions.values().flatten().map(|(task, _)| task.batch);
            let children = links.children.values().flatten().copied();
            for named in mentions.chain(children).chain(links.holds.iter().copied()) {
                *pins.entry(named).or_default() += 1;
            }
        }
        for (id, batch) in &self.batches {
            let said = batch.links().map_or(0, |links| links.pins);
            let named = pins.remove(id).unwrap_or(0);
            if named != said {
                return broken("pins are those who name it", format!("{id}: {named}, not {said}"));
            }
        }
        if pins != self.early_pins {
            let what = format!("{pins:?}, not {:?}", self.early_pins);
            return broken("early pins are those who name what is not there", what);
        }
        Ok(())
    }
}
