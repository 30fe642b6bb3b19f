//! What is recorded of a job, as `--json` prints it and as the timeline and the graph draw it.

use std::collections::BTreeMap;

use allhands_common::execution::{Mention, Need};
use allhands_common::id::{BatchId, TaskId, WorkerId};
use allhands_common::wire::record::{End, Page, Pause, Stretch};
use serde::Serialize;

/// All that is recorded of a job. Times are microseconds of the cluster's time.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(super) job: u64,
    /// When it was asked.
    pub(super) now_us: u64,
    /// Older attempts that are not known any more.
    pub(super) forgotten: u64,
    /// In the order in which they were given out; those that ended without an attempt among them.
    pub(super) attempts: Vec<Row>,
    /// Tasks that wait, for others or for a slot.
    pub(super) waiting: Vec<Row>,
    /// How many more groups of these there are.
    pub(super) more_waiting: u64,
}

/// Tasks of an attempt that fared alike, or that wait.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(super) batch: String,
    /// The first of the tasks, and the one behind the last.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) function: String,
    /// Which task has called it.
    pub(super) parent: Option<String>,
    pub(super) attempt: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) state: State,
    pub(super) submitted_us: u64,
    /// When they could have started.
    pub(super) ready_us: Option<u64>,
    pub(super) assigned_us: Option<u64>,
    pub(super) started_us: Option<u64>,
    pub(super) blocked: Vec<Blocked>,
    pub(super) finished_us: Option<u64>,
    pub(super) committed_us: Option<u64>,
    /// How many of them ended without a value.
    pub(super) failed: u32,
    /// How long they ran together, where that is known.
    pub(super) run_us: u64,
    pub(super) dependencies: Vec<Dependency>,
    /// How many dependencies are not listed.
    pub(super) more_dependencies: u32,
    #[serde(skip)]
    pub(super) id: BatchId,
    #[serde(skip)]
    pub(super) caller: Option<TaskId>,
    #[serde(skip)]
    pub(super) mentions: Vec<Mention>,
}

/// A task had begun and waited for others.
#[derive(Debug, Serialize)]
pub(crate) struct Blocked {
    pub(super) on: Vec<String>,
    /// How many more.
    pub(super) more: u32,
    pub(super) since_us: u64,
    pub(super) until_us: Option<u64>,
}

/// One task names another.
#[derive(Debug, Serialize)]
pub(crate) struct Dependency {
    task: String,
    on: String,
    need: &'static str,
}

/// How tasks stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// For others, before it starts.
    Waiting,
    /// For a slot.
    Queued,
    /// With a worker, and not known to run.
    Assigned,
    Running,
    Blocked,
    Done,
    /// Some of them, or all.
    Failed,
    Returned,
    Cancelled,
    Killed,
    Bystander,
    Refused,
    GivenUp,
    DependencyFailed,
    NotRun,
}

impl State {
    /// As it is printed.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Assigned => "given out",
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Returned => "given back",
            Self::Cancelled => "cancelled",
            Self::Killed => "killed",
            Self::Bystander => "bystander",
            Self::Refused => "refused",
            Self::GivenUp => "given up",
            Self::DependencyFailed => "no value",
            Self::NotRun => "not run",
        }
    }

    fn of(stretch: &Stretch) -> Self {
        match stretch.end {
            Some(End::Ran) if stretch.failed == 0 => Self::Done,
            Some(End::Ran) => Self::Failed,
            Some(End::Returned) => Self::Returned,
            Some(End::Cancelled) => Self::Cancelled,
            Some(End::Killed) => Self::Killed,
            Some(End::Bystander) => Self::Bystander,
            Some(End::Refused) => Self::Refused,
            Some(End::GivenUp) => Self::GivenUp,
            Some(End::Hopeless) => Self::DependencyFailed,
            Some(End::NotRun) => Self::NotRun,
            None if stretch.pauses.last().is_some_and(|last| last.until.is_none()) => Self::Blocked,
            None if stretch.started.is_some() || !stretch.pauses.is_empty() => Self::Running,
            None if stretch.assigned.is_some() => Self::Assigned,
            None if stretch.ready.is_some() => Self::Queued,
            None => Self::Waiting,
        }
    }
}

impl Record {
    pub(crate) fn new(page: Page) -> Self {
        let batches = page.batches.into_iter();
        let batches: BTreeMap<BatchId, _> =
            batches.map(|one| (one.batch, (one.function, one.parent))).collect();
        let workers: BTreeMap<WorkerId, String> = page.workers.into_iter().collect();
        let row = |stretch: Stretch| {
            let (function, parent) = batches.get(&stretch.batch).cloned().unwrap_or_default();
            let worker = stretch.attempt.map(|(_, worker)| {
                workers.get(&worker).cloned().unwrap_or_else(|| worker.to_string())
            });
            Row::new(stretch, function, parent, worker)
        };
        Self {
            job: page.job.0,
            now_us: page.now.0,
            forgotten: page.forgotten,
            attempts: page.stretches.into_iter().map(row).collect(),
            waiting: page.waiting.into_iter().map(row).collect(),
            more_waiting: page.more_waiting,
        }
    }

    /// All rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.attempts.iter().chain(&self.waiting)
    }
}

impl Row {
    fn new(
        stretch: Stretch,
        function: String,
        parent: Option<TaskId>,
        worker: Option<String>,
    ) -> Self {
        let state = State::of(&stretch);
        let batch = stretch.batch;
        Self {
            batch: batch.to_string(),
            start: stretch.range.start,
            end: stretch.range.end,
            function,
            parent: parent.map(|parent| parent.to_string()),
            attempt: stretch.attempt.map(|(attempt, _)| attempt.to_string()),
            worker,
            state,
            submitted_us: stretch.submitted.0,
            ready_us: stretch.ready.map(|at| at.0),
            assigned_us: stretch.assigned.map(|at| at.0),
            started_us: stretch.started.map(|at| at.0),
            blocked: stretch.pauses.into_iter().map(Blocked::new).collect(),
            finished_us: stretch.finished.map(|at| at.0),
            committed_us: stretch.committed.map(|at| at.0),
            failed: stretch.failed,
            run_us: stretch.run_us,
            dependencies: stretch.edges.iter().map(|edge| Dependency::new(batch, edge)).collect(),
            more_dependencies: stretch.more_edges,
            id: batch,
            caller: parent,
            mentions: stretch.edges,
        }
    }

    /// How many tasks.
    pub(super) const fn tasks(&self) -> u32 {
        self.end - self.start
    }
}

impl Blocked {
    fn new(pause: Pause) -> Self {
        Self {
            on: pause.on.iter().map(ToString::to_string).collect(),
            more: pause.more,
            since_us: pause.since.0,
            until_us: pause.until.map(|at| at.0),
        }
    }
}

impl Dependency {
    fn new(batch: BatchId, edge: &Mention) -> Self {
        Self {
            task: TaskId { batch, index: edge.index }.to_string(),
            on: edge.on.to_string(),
            need: match edge.need {
                Need::Value => "value",
                Need::Returned => "returned",
                Need::End => "end",
                Need::Handle => "handle",
            },
        }
    }
}
