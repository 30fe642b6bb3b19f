//! Answers as they are printed. The names of the fields are part of the command's interface: fields
//! are added, never renamed. Ids that do not fit a double are text.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use allhands_common::id::{ClusterId, CoordinatorId, TaskId};
use allhands_common::wire::admin;
use serde::Serialize;

use crate::output::Table;

/// `allhands status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    cluster: String,
    term: u64,
    leader: u64,
    coordinators: Vec<CoordinatorView>,
    workers: Vec<WorkerView>,
    jobs: u32,
    pending: u64,
    /// Tasks that are with a worker, whether it has started them or not.
    running: u64,
}

#[derive(Debug, Serialize)]
struct CoordinatorView {
    id: u64,
    address: String,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    id: String,
    name: String,
    state: &'static str,
    slots: u32,
    memory_bytes: u64,
    resources: BTreeMap<String, u32>,
    tasks: u64,
}

impl StatusView {
    pub(crate) fn new(cluster: ClusterId, status: admin::Status, up: &[CoordinatorId]) -> Self {
        let state = |id| match id {
            id if id == status.leader => "leader",
            id if up.contains(&id) => "follower",
            _ => "silent",
        };
        let coordinators = status
            .coordinators
            .into_iter()
            .map(|(id, address)| CoordinatorView { id: id.0, address, state: state(id) })
            .collect();
        let mut workers: Vec<_> = status.workers.into_iter().map(WorkerView::new).collect();
        workers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Self {
            cluster: cluster.to_string(),
            term: status.term.0,
            leader: status.leader.0,
            coordinators,
            workers,
            jobs: status.jobs,
            pending: status.pending,
            running: status.running,
        }
    }
}

impl WorkerView {
    fn new(worker: admin::WorkerView) -> Self {
        Self {
            id: worker.worker.to_string(),
            name: worker.name,
            state: match (worker.present, worker.draining) {
                (false, _) => "absent",
                (true, true) => "draining",
                (true, false) => "ready",
            },
            slots: worker.resources.cpus,
            memory_bytes: worker.resources.memory_bytes,
            resources: worker.resources.custom,
            tasks: worker.tasks,
        }
    }

    fn has(&self) -> String {
        let memory = (self.memory_bytes > 0).then(|| memory(self.memory_bytes));
        let custom = self.resources.iter().map(|(name, count)| format!("{name}={count}"));
        memory.into_iter().chain(custom).collect::<Vec<_>>().join(" ")
    }
}

/// As `--resource` takes it, rounded down.
fn memory(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("memory={}MiB", bytes >> 20),
        _ => format!("memory={}GiB", bytes >> 30),
    }
}

impl Display for StatusView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster {}  leader {}  term {}", self.cluster, self.leader, self.term)?;
        let (jobs, pending, running) = (self.jobs, self.pending, self.running);
        writeln!(f, "jobs {jobs}  tasks pending {pending}  given out {running}\n")?;
        let mut table = Table::new(["coordinator", "address", "state"]);
        for one in &self.coordinators {
            table.row([one.id.to_string(), one.address.clone(), one.state.into()]);
        }
        writeln!(f, "{table}")?;
        let mut table = Table::new(["worker", "id", "state", "slots", "tasks", "has"]);
        for one in &self.workers {
            let (slots, tasks) = (one.slots.to_string(), one.tasks.to_string());
            table.row([
                one.name.clone(),
                one.id.clone(),
                one.state.into(),
                slots,
                tasks,
                one.has(),
            ]);
        }
        write!(f, "{table}")
    }
}

/// `allhands jobs`.
#[derive(Debug, Serialize)]
pub(crate) struct JobsView {
    jobs: Vec<JobSummaryView>,
    /// Jobs before these.
    more_jobs: u64,
}

#[derive(Debug, Serialize)]
struct JobSummaryView {
    job: u64,
    name: String,
    owner: String,
    batches_total: u64,
    tasks: u64,
    ended: u64,
    failed: u64,
    /// As in [`StatusView`].
    running: u64,
}

/// `allhands job`.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    #[serde(flatten)]
    summary: JobSummaryView,
    batches: Vec<BatchView>,
    /// Batches that are not shown.
    more_batches: u64,
    /// Tasks that run and say how far they are.
    progress: Vec<ProgressView>,
}

#[derive(Debug, Serialize)]
struct ProgressView {
    task: String,
    done: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct BatchView {
    batch: String,
    name: String,
    group: Option<String>,
    state: &'static str,
    tasks: u32,
    sealed: bool,
    ended: u32,
    failed: u32,
    /// As in [`StatusView`].
    running: u32,
}

impl JobsView {
    pub(crate) fn new(admin::Jobs { jobs, more }: admin::Jobs) -> Self {
        Self { jobs: jobs.into_iter().map(JobSummaryView::new).collect(), more_jobs: more }
    }
}

impl JobSummaryView {
    fn new(job: admin::JobSummary) -> Self {
        Self {
            job: job.job.0,
            name: job.name,
            owner: job.owner,
            batches_total: job.batches,
            tasks: job.tasks,
            ended: job.ended,
            failed: job.failed,
            running: job.running,
        }
    }
}

impl JobView {
    pub(crate) fn new(
        admin::JobView { summary, batches, more }: admin::JobView,
        progress: Vec<(TaskId, u64, u64)>,
    ) -> Self {
        let progress = progress.into_iter();
        let progress = progress.map(|(task, done, total)| ProgressView {
            task: task.to_string(),
            done,
            total,
        });
        Self {
            summary: JobSummaryView::new(summary),
            batches: batches.into_iter().map(BatchView::new).collect(),
            more_batches: more,
            progress: progress.collect(),
        }
    }
}

impl BatchView {
    fn new(batch: admin::BatchView) -> Self {
        Self {
            batch: batch.batch.to_string(),
            name: batch.name,
            group: batch.group,
            state: match (batch.stopped, batch.sealed) {
                (true, _) => "stopped",
                (false, true) if batch.ended == batch.tasks => "ended",
                (false, _) => "open",
            },
            tasks: batch.tasks,
            sealed: batch.sealed,
            ended: batch.ended,
            failed: batch.failed,
            running: batch.running,
        }
    }
}

impl Display for JobsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["job", "name", "owner", "batches", "tasks", "ended", "failed", "given out"];
        let mut table = Table::new(heading);
        for job in &self.jobs {
            table.row([
                job.job.to_string(),
                job.name.clone(),
                job.owner.clone(),
                job.batches_total.to_string(),
                job.tasks.to_string(),
                job.ended.to_string(),
                job.failed.to_string(),
                job.running.to_string(),
            ]);
        }
        write!(f, "{table}")?;
        match self.more_jobs {
            0 => Ok(()),
            more => writeln!(f, "\nand {more} earlier jobs"),
        }
    }
}

impl Display for JobView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobSummaryView { job, name, owner, .. } = &self.summary;
        writeln!(f, "job {job}  {name}  of {owner}\n")?;
        let heading = ["batch", "name", "group", "state", "tasks", "ended", "failed", "given out"];
        let mut table = Table::new(heading);
        for batch in &self.batches {
            table.row([
                batch.batch.clone(),
                batch.name.clone(),
                batch.group.clone().unwrap_or_default(),
                batch.state.into(),
                // More may come while it is not sealed.
                format!("{}{}", batch.tasks, if batch.sealed { "" } else { "+" }),
                batch.ended.to_string(),
                batch.failed.to_string(),
                batch.running.to_string(),
            ]);
        }
        write!(f, "{table}")?;
        if self.more_batches > 0 {
            let JobSummaryView { batches_total, tasks, ended, failed, running, .. } = &self.summary;
            writeln!(
                f,
                "\nand {} more batches; those that are not over are shown first",
                self.more_batches
            )?;
            writeln!(
                f,
                "all {batches_total}: tasks {tasks}  ended {ended}  failed {failed}  given out {running}"
            )?;
        }
        if !self.progress.is_empty() {
            let mut table = Table::new(["task", "done", "of"]);
            for ProgressView { task, done, total } in &self.progress {
                table.row([task.clone(), done.to_string(), total.to_string()]);
            }
            write!(f, "\n{table}")?;
        }
        match self.batches.first() {
            Some(first) => writeln!(f, "\none task: allhands explain {}:0", first.batch),
            None => Ok(()),
        }
    }
}

/// `allhands explain`.
#[derive(Debug, Serialize)]
pub(crate) struct ExplanationView {
    task: String,
    explanation: Vec<String>,
}

impl ExplanationView {
    pub(crate) fn new(task: TaskId, explanation: Vec<String>) -> Self {
        Self { task: task.to_string(), explanation }
    }
}

impl Display for ExplanationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explanation.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// `allhands cancel`.
#[derive(Debug, Serialize)]
pub(crate) struct CancelView {
    pub(crate) done: String,
}

impl Display for CancelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.done)
    }
}
