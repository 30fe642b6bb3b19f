//! What happened to tasks, and when: for people who ask, and for nothing else.
//!
//! Of each job the newest [`STRETCHES_MAX`] stretches are kept. A *stretch* is what an attempt was given, until its
//! tasks fare differently: then it is cut there. Outcomes that come in order make one stretch grow, so that of
//! a large range there is one; the tasks of kept batches, which people tell apart, stay as they were reported. So
//! all of this costs something a range or a report, and nothing a task.
//!
//! A record outlives its job: whoever looks has often waited for the program to end.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use allhands_common::execution::{Awaited, Mention};
use allhands_common::id::{AttemptId, BatchId, JobId, TaskId, WorkerId};
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::wire::record::{
    End, Moment, PAUSE_ON_MAX, PAUSES_MAX, Pause, STRETCH_EDGES_MAX, Stretch,
};
use smallvec::SmallVec;

use crate::state::Batch;

/// Stretches of one job: of some 250 bytes, so a megabyte.
const STRETCHES_MAX: usize = 4096;

/// Dependencies of one job, of 28 bytes.
const EDGES_MAX: usize = 16_384;

/// Stretches of all jobs: the oldest jobs are forgotten beyond it.
const STRETCHES_IN_ALL_MAX: usize = 16 * STRETCHES_MAX;

/// Jobs of which anything is kept.
const JOBS_MAX: usize = 256;

/// Ranges that became ready and are not given out yet: of those beyond it is not known when.
const READY_MAX: usize = 16_384;

/// Stretches of a job that are counted when the books are checked.
const CHECKED_MAX: usize = 200;

/// What is recorded of all jobs.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The moment of the step that is being taken.
    pub(super) now: Moment,
    jobs: BTreeMap<JobId, Record>,
    /// Stretches of the attempts that there are.
    live: BTreeMap<AttemptId, Live>,
    /// First task of ranges that became ready after they came: the end of each, and when.
    ready: BTreeMap<(BatchId, u32), (u32, Moment)>,
    /// Stretches of all jobs.
    stretches: usize,
}

/// What is recorded of a job.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Number of the first stretch that is here.
    first: u64,
    /// In the order in which they were given out. One without a task has become part of another.
    stretches: VecDeque<Stretch>,
    /// Batches of these stretches.
    batches: BTreeMap<BatchId, Known>,
    edges: usize,
}

/// A batch that stretches are of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) spec: Arc<BatchSpec>,
    pub(super) parent: Option<TaskId>,
    /// How many of them.
    stretches: usize,
}

#[derive(Debug)]
struct Live {
    job: JobId,
    /// Whether outcomes that come in order make one stretch.
    joins: bool,
    numbers: SmallVec<[u64; 2]>,
}

impl Records {
    /// Tasks of a batch are with a worker, since so many microseconds.
    pub(super) fn assigned(
        &mut self,
        (id, batch): (BatchId, &Batch),
        range: TaskRange,
        (attempt, worker): (AttemptId, WorkerId),
        since_us: u64,
    ) {
        let ready = self.take_ready(id, range);
        if !batch.spec.policy.record {
            return;
        }
        let at = self.now.before(since_us);
        let mut stretch = new_stretch(id, batch, range);
        stretch.attempt = Some((attempt, worker));
        stretch.submitted = stretch.submitted.min(at);
        stretch.ready = ready.or_else(|| put_off(batch, &stretch)).map(|ready| ready.min(at));
        stretch.assigned = Some(at);
        let number = self.push(batch, stretch);
        let joins = !batch.kept;
        let live = Live { job: batch.job, joins, numbers: SmallVec::new() };
        self.live.entry(attempt).or_insert(live).numbers.push(number);
    }

    /// Tasks ended of which no attempt was made.
    pub(super) fn not_run(&mut self, (id, batch): (BatchId, &Batch), range: TaskRange, end: End) {
        let ready = self.take_ready(id, range);
        if !batch.spec.policy.record {
            return;
        }
        let stretch = new_stretch(id, batch, range);
        let finished = Some(self.now);
        self.push(batch, Stretch { ready, finished, end: Some(end), ..stretch });
    }

    /// Tasks that had to wait could start now, or at `at`.
    pub(super) fn became_ready(&mut self, batch: BatchId, range: TaskRange, at: Moment) {
        if self.ready.len() < READY_MAX || self.ready.contains_key(&(batch, range.start)) {
            self.ready.insert((batch, range.start), (range.end, at));
        }
    }

    /// When a task that is given to nobody became ready, if that was noted.
    pub(super) fn ready_at(&self, batch: BatchId, index: u32) -> Option<Moment> {
        let before = self.ready.range((batch, 0)..=(batch, index)).next_back();
        before.filter(|(_, (end, _))| index < *end).map(|(_, (_, at))| *at)
    }

    /// The worker of an attempt says that it runs: not later than now it has begun.
    pub(super) fn runs(&mut self, attempt: AttemptId) {
        let now = self.now;
        let Some(live) = self.live.get(&attempt) else { return };
        let Some(record) = self.jobs.get_mut(&live.job) else { return };
        for number in &live.numbers {
            if let Some(stretch) = record.get_mut(*number).filter(|one| one.end.is_none()) {
                stretch.started.get_or_insert(now);
            }
        }
    }

    /// The task of an attempt waits for others, since so many microseconds; it ran for `run_us` before.
    pub(super) fn blocked(
        &mut self,
        attempt: AttemptId,
        index: u32,
        on: &[Awaited],
        (since_us, run_us): (u64, Option<u64>),
    ) {
        let since = self.now.before(since_us);
        self.each(attempt, TaskRange::new(index, index + 1), |stretch| {
            if stretch.pauses.is_empty() {
                let started = run_us.map(|run_us| Some(since.before(run_us)).max(stretch.assigned));
                stretch.started = started.unwrap_or(stretch.started);
            }
            let waits = stretch.pauses.last().is_some_and(|pause| pause.until.is_none());
            if !waits && stretch.pauses.len() < PAUSES_MAX {
                let more = u32::try_from(on.len().saturating_sub(PAUSE_ON_MAX));
                let on = on.iter().take(PAUSE_ON_MAX).map(|awaited| awaited.task).collect();
                let more = more.unwrap_or(u32::MAX);
                stretch.pauses.push(Pause { on, more, since, until: None });
            } else if let Some(last) = stretch.pauses.last_mut() {
                last.until = None;
            }
        });
    }

    /// The task of an attempt goes on.
    pub(super) fn resumed(&mut self, attempt: AttemptId, index: u32) {
        let now = self.now;
        self.each(attempt, TaskRange::new(index, index + 1), |stretch| {
            if let Some(last) = stretch.pauses.last_mut() {
                last.until = Some(now);
            }
        });
    }

    /// Tasks of an attempt have ended, after they ran for so long in all, in so many lanes.
    pub(super) fn ended(
        &mut self,
        attempt: AttemptId,
        range: TaskRange,
        end: End,
        (run_us, lanes): (u64, u64),
    ) {
        let now = self.now;
        self.each(attempt, range, |stretch| {
            let (part, whole) = (stretch.range.len().into(), u64::from(range.len()).max(1));
            stretch.run_us = run_us.saturating_mul(part) / whole;
            match end {
                End::Ran if stretch.pauses.is_empty() => {
                    let began = now.before(stretch.run_us / lanes.max(1));
                    stretch.started = Some(began).max(stretch.assigned);
                }
                End::Returned | End::Refused => stretch.started = None,
                End::Ran
                | End::Cancelled
                | End::Killed
                | End::Bystander
                | End::GivenUp
                | End::Hopeless
                | End::NotRun => {}
            }
            if let Some(last) = stretch.pauses.last_mut() {
                last.until.get_or_insert(now);
            }
            (stretch.finished, stretch.end) = (Some(now), Some(end));
        });
        if end == End::Ran {
            self.join(attempt, range);
        }
    }

    /// Nobody waits for the outcome of these tasks any more: the worker is lost, or they have another.
    pub(super) fn given_up(&mut self, attempt: AttemptId, range: TaskRange) {
        self.ended(attempt, range, End::GivenUp, (0, 1));
    }

    /// So many of the tasks that have just ended are without a value.
    pub(super) fn failed(&mut self, attempt: AttemptId, range: TaskRange, failed: u32) {
        let mut failed = failed;
        self.ran(attempt, range, |stretch| stretch.failed += core::mem::take(&mut failed));
    }

    /// Outcomes of an attempt are committed.
    pub(super) fn committed(&mut self, attempt: AttemptId, range: TaskRange) {
        let now = self.now;
        self.ran(attempt, range, |stretch| stretch.committed = Some(now));
    }

    /// An attempt is over: what of it has not ended is given up.
    pub(super) fn close(&mut self, attempt: AttemptId) {
        self.given_up(attempt, TaskRange::new(0, u32::MAX));
        self.live.remove(&attempt);
    }

    /// The attempts that something is recorded of and that are not over.
    pub(super) fn live(&self) -> impl Iterator<Item = &AttemptId> {
        self.live.keys()
    }

    /// Whether what is counted is what is there.
    pub(super) fn is_counted_right(&self) -> bool {
        let all: usize = self.jobs.values().map(|record| record.stretches.len()).sum();
        all == self.stretches && self.jobs.values().all(Record::is_counted_right)
    }

    /// What is recorded of a job.
    pub(super) fn of(&self, job: JobId) -> Option<&Record> {
        self.jobs.get(&job)
    }

    /// Does `change` to the stretches of an attempt that have not ended, cut to `range`.
    fn each(&mut self, attempt: AttemptId, range: TaskRange, mut change: impl FnMut(&mut Stretch)) {
        let Some(live) = self.live.get_mut(&attempt) else { return };
        let Some(record) = self.jobs.get_mut(&live.job) else { return };
        let before = record.stretches.len();
        let (mut rest, mut moved): (SmallVec<[Stretch; 2]>, usize) = (SmallVec::new(), 0);
        for number in &live.numbers {
            let Some(stretch) = record.get_mut(*number).filter(|one| one.end.is_none()) else {
                continue;
            };
            let (whole, part) = (stretch.range, stretch.range.intersection(range));
            if part.is_empty() {
                continue;
            }
            let around =
                [TaskRange::new(whole.start, part.start), TaskRange::new(part.end, whole.end)];
            rest.extend(around.into_iter().filter(|one| !one.is_empty()).map(|one| {
                let edges = stretch.edges.iter().filter(|edge| one.contains(edge.index));
                let edges = edges.copied().collect();
                Stretch { range: one, edges, more_edges: 0, ..stretch.clone() }
            }));
            stretch.range = part;
            moved += stretch.edges.len();
            stretch.edges.retain(|edge| part.contains(edge.index));
            moved -= stretch.edges.len();
            change(stretch);
        }
        record.edges -= moved;
        live.numbers.extend(rest.into_iter().map(|stretch| record.push(stretch)));
        self.stretches += record.stretches.len() - before;
        self.make_room(self.live[&attempt].job);
    }

    /// Does `change` to the stretches that outcomes of a range were noted in.
    fn ran(&mut self, attempt: AttemptId, range: TaskRange, mut change: impl FnMut(&mut Stretch)) {
        let Some(live) = self.live.get(&attempt) else { return };
        let Some(record) = self.jobs.get_mut(&live.job) else { return };
        for number in &live.numbers {
            let stretch = record.get_mut(*number).filter(|one| one.end == Some(End::Ran));
            if let Some(stretch) = stretch.filter(|one| !one.range.intersection(range).is_empty()) {
                change(stretch);
            }
        }
    }

    /// Outcomes that come in order make one stretch: `range`, which has just ended, becomes part of the one before it.
    fn join(&mut self, attempt: AttemptId, range: TaskRange) {
        let Some(live) = self.live.get_mut(&attempt).filter(|live| live.joins) else { return };
        let Some(record) = self.jobs.get_mut(&live.job) else { return };
        let (mut this, mut before) = (None, None);
        for number in &live.numbers {
            let plain = |one: &&mut Stretch| {
                one.end == Some(End::Ran) && one.pauses.is_empty() && one.edges.is_empty()
            };
            let Some(one) = record.get_mut(*number).filter(plain) else { continue };
            if one.range == range {
                this = Some((*number, one.clone()));
            } else if one.range.end == range.start {
                before = Some(*number);
            }
        }
        let (Some((number, this)), Some(before)) = (this, before) else { return };
        if let Some(before) = record.get_mut(before) {
            before.range.end = range.end;
            before.started = before.started.min(this.started);
            before.finished = this.finished;
            before.run_us += this.run_us;
        }
        live.numbers.retain(|known| *known != number);
        let length = record.stretches.len();
        record.drop_joined(number);
        self.stretches -= length - record.stretches.len();
    }

    /// When the last of the tasks of `range` became ready, if that was noted; it is noted no more.
    fn take_ready(&mut self, batch: BatchId, range: TaskRange) -> Option<Moment> {
        if self.ready.is_empty() {
            return None;
        }
        // One that begins before may reach into it.
        let before = self.ready.range((batch, 0)..(batch, range.start)).next_back();
        let reaches = before.filter(|(_, (end, _))| *end > range.start).map(|((_, at), _)| *at);
        let first = reaches.unwrap_or(range.start);
        let noted = self.ready.range((batch, first)..(batch, range.end));
        let noted: SmallVec<[(u32, u32, Moment); 2]> =
            noted.map(|((_, start), (end, at))| (*start, *end, *at)).collect();
        for (start, end, at) in &noted {
            self.ready.remove(&(batch, *start));
            if *start < range.start {
                self.ready.insert((batch, *start), (range.start, *at));
            }
            if *end > range.end {
                self.ready.insert((batch, range.end), (*end, *at));
            }
        }
        noted.iter().map(|(_, _, at)| *at).max()
    }

    /// A batch is forgotten: what is noted of its tasks that were not given out goes.
    pub(super) fn forget_batch(&mut self, batch: BatchId) {
        if !self.ready.is_empty() {
            self.take_ready(batch, TaskRange::new(0, u32::MAX));
        }
    }

    fn push(&mut self, batch: &Batch, stretch: Stretch) -> u64 {
        let record = self.jobs.entry(batch.job).or_default();
        record.batches.entry(stretch.batch).or_insert_with(|| Known {
            spec: Arc::clone(&batch.spec),
            parent: batch.links().and_then(|links| links.parent).map(|parent| parent.task),
            stretches: 0,
        });
        let number = record.push(stretch);
        self.stretches += 1;
        self.make_room(batch.job);
        number
    }

    /// Forgets what is too much: the oldest of a job, and the oldest jobs.
    fn make_room(&mut self, job: JobId) {
        if let Some(record) = self.jobs.get_mut(&job) {
            let before = record.stretches.len();
            while record.stretches.len() > STRETCHES_MAX || record.edges > EDGES_MAX {
                record.drop_first();
            }
            self.stretches -= before - record.stretches.len();
        }
        while self.stretches > STRETCHES_IN_ALL_MAX || self.jobs.len() > JOBS_MAX {
            let Some((_, oldest)) = self.jobs.pop_first() else { return };
            self.stretches -= oldest.stretches.len();
        }
    }
}

impl Record {
    /// How many stretches there were before those that are here.
    pub(super) const fn forgotten(&self) -> u64 {
        self.first
    }

    /// The stretches from number `from` on, each with its number.
    pub(super) fn from(&self, from: u64) -> impl Iterator<Item = (u64, &Stretch)> {
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let numbered = (self.first..).zip(&self.stretches).skip(skipped);
        numbered.filter(|(_, stretch)| !stretch.range.is_empty())
    }

    /// A batch of these stretches.
    pub(super) fn batch(&self, id: BatchId) -> Option<&Known> {
        self.batches.get(&id)
    }

    fn is_counted_right(&self) -> bool {
        // It is looked at after each step: a long one is as right as it was when it was short.
        if self.stretches.len() > CHECKED_MAX {
            return true;
        }
        let edges: usize = self.stretches.iter().map(|stretch| stretch.edges.len()).sum();
        let known: usize = self.batches.values().map(|known| known.stretches).sum();
        edges == self.edges && known == self.stretches.len()
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Stretch> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.stretches.get_mut(place)
    }

    /// Adds a stretch of a batch that is known.
    fn push(&mut self, stretch: Stretch) -> u64 {
        if let Some(known) = self.batches.get_mut(&stretch.batch) {
            known.stretches += 1;
        }
        self.edges += stretch.edges.len();
        self.stretches.push_back(stretch);
        self.first + self.stretches.len() as u64 - 1
    }

    fn drop_first(&mut self) {
        if let Some(gone) = self.stretches.pop_front() {
            self.first += 1;
            self.gone(&gone);
        }
    }

    /// A stretch has become part of another.
    fn drop_joined(&mut self, number: u64) {
        if let Some(stretch) = self.get_mut(number) {
            stretch.range = TaskRange::default();
        }
        while let Some(gone) = self.stretches.pop_back_if(|last| last.range.is_empty()) {
            self.gone(&gone);
        }
    }

    fn gone(&mut self, stretch: &Stretch) {
        self.edges -= stretch.edges.len();
        if let Some(known) = self.batches.get_mut(&stretch.batch) {
            known.stretches -= 1;
            if known.stretches == 0 {
                self.batches.remove(&stretch.batch);
            }
        }
    }
}

/// Tasks of a batch of which nothing is known but when they came.
pub(super) fn new_stretch(id: BatchId, batch: &Batch, range: TaskRange) -> Stretch {
    let links = batch.links().into_iter();
    let named = links.flat_map(|links| links.mentions.range(range.start..range.end));
    let edges = named.flat_map(|(index, named)| {
        named.iter().map(|(on, need)| Mention { index: *index, on: *on, need: *need })
    });
    let mut edges: Vec<Mention> = edges.collect();
    let more_edges = edges.len().saturating_sub(STRETCH_EDGES_MAX);
    edges.truncate(STRETCH_EDGES_MAX);
    let argument = batch.arguments_of(range).next().map_or(0, |argument| argument.after_ms);
    Stretch {
        batch: id,
        range,
        attempt: None,
        submitted: Moment(batch.opened.after(argument.into()).0.saturating_mul(1000)),
        ready: None,
        assigned: None,
        started: None,
        pauses: Vec::new(),
        finished: None,
        end: None,
        committed: None,
        failed: 0,
        run_us: 0,
        edges,
        more_edges: u32::try_from(more_edges).unwrap_or(u32::MAX),
    }
}

/// When tasks are ready that their policy puts off.
fn put_off(batch: &Batch, stretch: &Stretch) -> Option<Moment> {
    let delay_ms = batch.spec.policy.delay_ms?;
    Some(Moment(stretch.submitted.0.saturating_add(delay_ms.saturating_mul(1000))))
}

#[cfg(test)]
mod tests {
    use allhands_common::id::Term;
    use allhands_common::policy::Policy;
    use allhands_common::time::ClusterTime;

    use super::*;

    const BATCH: BatchId = BatchId([1; 16]);

    fn batch(job: u64) -> Batch {
        let policy = Policy::default();
        let (name, functions, env) = ("call".into(), Vec::new(), Vec::new());
        Batch {
            job: JobId(job),
            sequence: 0,
            call: 0,
            tasks: 100,
            spec: BatchSpec { name, functions, policy, env }.into(),
            opened: ClusterTime(0),
            arguments: SmallVec::new(),
            sealed: true,
            kept: false,
            progress: None,
        }
    }

    fn assign(records: &mut Records, job: u64, range: TaskRange, number: u64) -> AttemptId {
        let attempt = AttemptId { term: Term(1), number };
        records.assigned((BATCH, &batch(job)), range, (attempt, WorkerId(1)), 0);
        attempt
    }

    #[test]
    fn the_oldest_jobs_are_forgotten() {
        let mut records = Records::default();
        let one = TaskRange::new(0, 1);
        for job in 0..JOBS_MAX as u64 + 10 {
            assign(&mut records, job, one, job);
        }
        assert!(records.of(JobId(9)).is_none() && records.of(JobId(10)).is_some());
        let jobs = 1000..1000 + 2 * (STRETCHES_IN_ALL_MAX / STRETCHES_MAX) as u64;
        for job in jobs.clone() {
            let each = 0..STRETCHES_MAX as u64 + 5;
            each.for_each(|number| _ = assign(&mut records, job, one, job << 32 | number));
        }
        let kept: usize = records.jobs.values().map(|record| record.stretches.len()).sum();
        assert_eq!((kept, records.stretches), (STRETCHES_IN_ALL_MAX, STRETCHES_IN_ALL_MAX));
        let newest = records.of(JobId(jobs.end - 1)).unwrap();
        assert_eq!((newest.stretches.len(), newest.forgotten()), (STRETCHES_MAX, 5));
        // What is not there any more ends without a trace.
        records.close(AttemptId { term: Term(1), number: 0 });
    }

    #[test]
    fn when_ranges_became_ready_is_noted_as_they_are_cut() {
        let mut records = Records::default();
        records.became_ready(BATCH, TaskRange::new(0, 10), Moment(5));
        records.became_ready(BATCH, TaskRange::new(20, 30), Moment(7));
        assert_eq!(records.take_ready(BATCH, TaskRange::new(12, 20)), None);
        assert_eq!(records.take_ready(BATCH, TaskRange::new(4, 22)), Some(Moment(7)));
        assert_eq!(records.take_ready(BATCH, TaskRange::new(4, 22)), None, "it is given out");
        let at = [0, 3, 4, 10, 21, 22, 29, 30].map(|index| records.ready_at(BATCH, index));
        let (five, seven) = (Some(Moment(5)), Some(Moment(7)));
        assert_eq!(at, [five, five, None, None, None, seven, seven, None]);
        records.forget_batch(BATCH);
        assert!(records.ready.is_empty());
    }

    #[test]
    fn a_stretch_is_small() {
        assert!(size_of::<Stretch>() <= 288, "{}", size_of::<Stretch>());
    }
}
