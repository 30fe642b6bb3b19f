//! Who is next: highest priority, then the job that holds least, then the batch that holds least.
//!
//! A waiting batch costs one entry here and nothing else in the dispatcher. Batches wait apart by
//! *class* (what they need and which program they run), so that a class without a free worker is
//! passed over as a whole.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use allhands_common::id::{BatchId, JobId, WorkerId};
use allhands_common::program::{Program, ProgramId};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;

/// What a batch needs of a worker, interned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassId(u32);

/// What the tasks of a class need, and which workers can ever hold one.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) need: Resources,
    pub(super) program: Program,
    /// Workers that can, least loaded first.
    pub(super) able: BTreeSet<(u32, WorkerId)>,
    /// Since when work waits that none of the workers there are can hold.
    pub(super) unable_since: Option<Instant>,
}

impl Class {
    /// Workers that can hold a task and have less than this load, least loaded first.
    pub(super) fn below(&self, load: u32) -> impl Iterator<Item = WorkerId> + '_ {
        self.able.range(..(load, WorkerId(0))).map(|(_, worker)| *worker)
    }
}

/// Where a batch waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: i16,
    pub(super) class: ClassId,
    pub(super) job: JobId,
    /// What orders it within its job: those that others wait for first, the deepest before all, then ranges
    /// given out, then age.
    pub(super) depth: Reverse<u32>,
    pub(super) running: u32,
    pub(super) sequence: u32,
}

/// Batches of one priority and class, by job.
type Line = BTreeMap<JobId, BTreeSet<Waiting>>;

/// A batch in its line: depth, ranges given out, age.
type Waiting = (Reverse<u32>, u32, u32, BatchId);

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Queues {
    lines: BTreeMap<(Reverse<i16>, ClassId), Line>,
    pub(super) classes: BTreeMap<ClassId, Class>,
    by_need: BTreeMap<(ProgramId, Resources), ClassId>,
    next_class: u32,
    /// Ranges that each job has given out.
    running: BTreeMap<JobId, u32>,
}

impl Queues {
    /// The class of `need` and `program`; whether it is new.
    pub(super) fn class(&mut self, program: &Program, need: &Resources) -> (ClassId, bool) {
        if let Some(id) = self.known_class(program, need) {
            return (id, false);
        }
        let id = ClassId(self.next_class);
        self.next_class += 1;
        self.by_need.insert((program.id, need.clone()), id);
        let class = Class {
            need: need.clone(),
            program: program.clone(),
            able: BTreeSet::new(),
            unable_since: None,
        };
        self.classes.insert(id, class);
        (id, true)
    }

    /// The class of `need` and `program`, if there was ever one.
    pub(super) fn known_class(&self, program: &Program, need: &Resources) -> Option<ClassId> {
        self.by_need.get(&(program.id, need.clone())).copied()
    }

    pub(super) fn insert(&mut self, place: Place, batch: BatchId) {
        self.lines
            .entry((Reverse(place.priority), place.class))
            .or_default()
            .entry(place.job)
            .or_default()
            .insert((place.depth, place.running, place.sequence, batch));
    }

    pub(super) fn remove(&mut self, place: Place, batch: BatchId) {
        let key = (Reverse(place.priority), place.class);
        let Some(line) = self.lines.get_mut(&key) else { return };
        let Some(batches) = line.get_mut(&place.job) else { return };
        batches.remove(&(place.depth, place.running, place.sequence, batch));
        if batches.is_empty() {
            line.remove(&place.job);
            if line.is_empty() {
                self.lines.remove(&key);
            }
        }
    }

    pub(super) fn contains(&self, place: Place, batch: BatchId) -> bool {
        self.lines
            .get(&(Reverse(place.priority), place.class))
            .and_then(|line| line.get(&place.job))
            .is_some_and(|batches| {
                batches.contains(&(place.depth, place.running, place.sequence, batch))
            })
    }

    /// The next batch that is not among those `passed`, of a class that is not among `full`.
    pub(super) fn next(&self, full: &[ClassId], passed: &[BatchId]) -> Option<(ClassId, BatchId)> {
        let held = |job: &JobId| self.running.get(job).copied().unwrap_or(0);
        let first = |batches: &BTreeSet<Waiting>| {
            batches.iter().map(|(.., batch)| *batch).find(|batch| !passed.contains(batch))
        };
        self.lines.iter().filter(|((_, class), _)| !full.contains(class)).find_map(|(key, line)| {
            let next = match line.len() {
                1 => line.values().find_map(first),
                _ => {
                    let jobs = line.iter().filter_map(|(job, all)| Some((held(job), first(all)?)));
                    jobs.min_by_key(|(held, _)| *held).map(|(_, batch)| batch)
                }
            };
            next.map(|batch| (key.1, batch))
        })
    }

    /// A batch is gone of which nothing was ever given out.
    pub(super) fn forget_untouched(&mut self, job: JobId, sequence: u32, batch: BatchId) {
        self.lines.retain(|_, line| {
            if let Some(batches) = line.get_mut(&job) {
                batches.remove(&(Reverse(0), 0, sequence, batch));
                if batches.is_empty() {
                    line.remove(&job);
                }
            }
            !line.is_empty()
        });
    }

    /// A job is gone, and with it what waits of it.
    pub(super) fn forget_job(&mut self, job: JobId) {
        self.lines.retain(|_, line| {
            line.remove(&job);
            !line.is_empty()
        });
    }

    /// A job's ranges became one more or one fewer.
    pub(super) fn count(&mut self, job: JobId, more: bool) {
        let running = self.running.entry(job).or_insert(0);
        *running = if more { *running + 1 } else { running.saturating_sub(1) };
        if *running == 0 {
            self.running.remove(&job);
        }
    }

    /// Ranges that each job has given out, where there are any.
    pub(super) const fn running(&self) -> &BTreeMap<JobId, u32> {
        &self.running
    }

    /// Every batch that waits, in no order.
    pub(super) fn batches(&self) -> impl Iterator<Item = BatchId> + '_ {
        self.lines.values().flat_map(|line| line.values().flatten()).map(|(.., batch)| *batch)
    }

    /// The batches that wait of one class.
    pub(super) fn batches_of(&self, class: ClassId) -> impl Iterator<Item = BatchId> + '_ {
        let lines = self.lines.iter().filter(move |((_, of), _)| *of == class);
        lines.flat_map(|(_, line)| line.values().flatten()).map(|(.., batch)| *batch)
    }

    /// A worker may be given work of those classes that `able` says.
    pub(super) fn enlist(&mut self, worker: WorkerId, load: u32, able: impl Fn(&Class) -> bool) {
        for class in self.classes.values_mut().filter(|class| able(class)) {
            class.able.insert((load, worker));
        }
    }

    /// A worker is to be given nothing.
    pub(super) fn delist(&mut self, worker: WorkerId, load: u32) {
        for class in self.classes.values_mut() {
            class.able.remove(&(load, worker));
        }
    }

    /// A worker's load has changed.
    pub(super) fn reload(&mut self, worker: WorkerId, old: u32, new: u32) {
        if old == new {
            return;
        }
        for class in self.classes.values_mut() {
            if class.able.remove(&(old, worker)) {
                class.able.insert((new, worker));
            }
        }
    }

    /// Forgets the classes of programs that no job runs any more.
    pub(super) fn retain_programs(&mut self, used: impl Fn(&ProgramId) -> bool) {
        let gone: Vec<(ProgramId, Resources)> =
            self.by_need.keys().filter(|(program, _)| !used(program)).cloned().collect();
        for key in gone {
            if let Some(id) = self.by_need.remove(&key) {
                self.classes.remove(&id);
            }
        }
    }
}
