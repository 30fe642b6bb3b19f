//! What of the record is told to who asks.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, TaskId};
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::record::{PAGE_BYTES_MAX, Page, Recorded, Stretch, WAITING_SHOWN_MAX};

use super::Dispatcher;
use super::record::new_stretch;
use super::view::shown;
use crate::State;
use crate::state::Batch;

/// About what a stretch and its batch have in a page, besides dependencies and waits.
const STRETCH_BYTES: usize = 400;

/// What a dependency, or a task that another waits for, has there.
const EDGE_BYTES: usize = 32;

impl Dispatcher {
    /// What is recorded of a job, from stretch `from` on, as much as a page holds. `None`: there is no such job, and
    /// nothing of it is recorded (any more).
    pub fn record(&self, now: Instant, state: &State, job: JobId, from: u64) -> Option<Page> {
        let record = self.records.of(job);
        if record.is_none() && !state.jobs.contains_key(&job) {
            return None;
        }
        let mut page = Page {
            job,
            now: self.moment(now),
            stretches: Vec::new(),
            waiting: Vec::new(),
            more_waiting: 0,
            batches: Vec::new(),
            workers: Vec::new(),
            forgotten: record.map_or(0, super::record::Record::forgotten),
            next: None,
        };
        let mut bytes = 0;
        for (number, stretch) in record.into_iter().flat_map(|record| record.from(from)) {
            bytes += bytes_of(stretch);
            if bytes > PAGE_BYTES_MAX && !page.stretches.is_empty() {
                page.next = Some(number);
                break;
            }
            page.stretches.push(stretch.clone());
        }
        if page.next.is_none() {
            self.add_waiting(state, &mut page);
        }
        let all = || page.stretches.iter().chain(&page.waiting);
        let batches: BTreeSet<BatchId> = all().map(|stretch| stretch.batch).collect();
        let workers: BTreeSet<_> = all().filter_map(|one| Some(one.attempt?.1)).collect();
        page.batches = batches
            .into_iter()
            .filter_map(|id| {
                let known = record.and_then(|record| record.batch(id));
                known.map(|known| recorded(id, &known.spec, known.parent)).or_else(|| {
                    let batch = state.batches.get(&id)?;
                    let parent = batch.links().and_then(|links| links.parent);
                    Some(recorded(id, &batch.spec, parent.map(|parent| parent.task)))
                })
            })
            .collect();
        page.workers = workers.into_iter().map(|id| (id, shown(&state.worker_name(id)))).collect();
        Some(page)
    }

    /// Tasks that are with nobody and wait. Looks at each batch of the job once.
    fn add_waiting(&self, state: &State, page: &mut Page) {
        let mut batches: BTreeMap<(u32, BatchId), &Batch> = BTreeMap::new();
        for (id, batch) in state.batches_of(page.job) {
            if !batch.over() && batch.spec.policy.record {
                batches.insert((batch.sequence, *id), batch);
            }
        }
        let mut bytes = 0;
        for ((_, id), batch) in batches {
            let whole = TaskRange::new(0, batch.tasks);
            let idle: Vec<TaskRange> = match self.active.get(&id) {
                Some(active) => active.idle(whole).collect(),
                None => batch.unfinished(whole).iter().collect(),
            };
            for range in idle.into_iter().filter(|range| !range.is_empty()) {
                if page.waiting.len() >= WAITING_SHOWN_MAX || bytes > PAGE_BYTES_MAX {
                    page.more_waiting += 1;
                    continue;
                }
                let stretch = new_stretch(id, batch, range);
                bytes += bytes_of(&stretch);
                let waits = self.active.get(&id).is_some_and(|active| active.waits(range.start));
                let ready = (!waits).then(|| self.records.ready_at(id, range.start));
                let ready = ready.map(|at| at.unwrap_or(stretch.submitted));
                page.waiting.push(Stretch { ready, ..stretch });
            }
        }
    }
}

fn recorded(batch: BatchId, spec: &BatchSpec, parent: Option<TaskId>) -> Recorded {
    let function: String = match spec.functions.as_slice() {
        [only] => shown(&only.label),
        _ => shown(&spec.name),
    };
    Recorded { batch, function, parent }
}

fn bytes_of(stretch: &Stretch) -> usize {
    let on: usize = stretch.pauses.iter().map(|pause| pause.on.len() + 1).sum();
    STRETCH_BYTES + EDGE_BYTES * (stretch.edges.len() + on)
}
