//! Jobs that outlive their program: opening one, and attaching to one from another process.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allhands_common::execution::Awaited;
use allhands_common::id::{BatchId, JobId, TaskId};
use allhands_common::segment::{FORWARDED, SAME};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, PATIENCE};
use crate::error::{Error, ErrorKind, Result, error_of_end};
use crate::execution::Execution;
use crate::execution::home::{Home, Ties};
use crate::execution::layers::{self, Layers};
use crate::execution::slot::{Beginning, Outcome, Settled, Slot};
use crate::notice::notice;
use crate::progress::Progress;
use crate::session::core::{Purpose, Visited};
use crate::session::visiting::Unknown;

/// How long [`Detached`] waits when it is dropped.
const LEAVE: Duration = Duration::from_secs(10);

/// The cluster, as the opener of a job that goes on without this process: [`Cluster::detached`]. It is a [`Cluster`]
/// of its own: what is submitted to it runs whether or not this process is there.
///
/// ```no_run
/// # use allhands::prelude::*;
/// # use std::time::Duration;
/// # fn simulate(seed: u64) -> f64 { seed as f64 }
/// let cluster = Cluster::from_env()?;
/// let nightly = cluster.detached("nightly", Duration::from_secs(24 * 3600))?;
/// for seed in 0..10_000 {
///     nightly.submit(delayed(simulate)(seed))?;
/// }
/// println!("attach to job {}", nightly.leave()?);
/// # Ok::<(), allhands::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "submit calls to it, and `leave` it"]
pub struct Detached {
    cluster: Cluster,
    job: JobId,
    left: bool,
}

impl Detached {
    /// The job, for [`Cluster::job`] and `allhands job`.
    pub const fn id(&self) -> JobId {
        self.job
    }

    /// Waits until the cluster has everything that was submitted, and a majority of the coordinators this program, and
    /// leaves the job to it; which one it is.
    ///
    /// # Errors
    /// They have not within 30 s, or the session had ended.
    pub fn leave(mut self) -> Result<JobId> {
        self.left = true;
        self.settle(PATIENCE)?;
        Ok(self.job)
    }

    fn settle(&self, patience: Duration) -> Result<()> {
        let job = self.job;
        let committed = self.cluster.session().wait_committed(patience);
        committed.map_err(|calls| Error::new(ErrorKind::Uncommitted { job, calls }))?;
        self.cluster.session().wait_program(patience).map_err(unknown)
    }
}

impl Deref for Detached {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = self.settle(LEAVE)
        {
            notice(error.to_string());
        }
    }
}

/// A job that another process has opened, to which this one is attached: [`Cluster::job`]. One process at a time is.
/// It goes on when this is dropped.
///
/// ```no_run
/// # use allhands::prelude::*;
/// # let id = allhands::JobId(7);
/// let cluster = Cluster::from_env()?;
/// let mut job = cluster.job(id)?;
/// println!("{}: {:?}", job.name(), job.progress()?);
/// for ended in job.results::<f64>() {
///     println!("{}: {:?}", ended.id(), ended.result());
/// }
/// # Ok::<(), allhands::Error>(())
/// ```
#[derive(Debug)]
pub struct Job {
    cluster: Cluster,
    visited: Visited,
    /// What the functions of its batches return.
    returns: HashMap<BatchId, Arc<str>>,
    attached: Instant,
}

/// A batch of a [`Job`]: calls of one function that were submitted alike.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobBatch {
    /// Which.
    pub id: BatchId,
    /// What it is called: after its function, if nobody has said.
    pub name: String,
    /// The type that its function returns, as its program names it ([`type_name`](std::any::type_name)).
    pub returns: String,
    /// How many tasks it has.
    pub tasks: u32,
}

impl Job {
    /// Which.
    pub const fn id(&self) -> JobId {
        self.visited.job
    }

    /// What its opener has called it.
    pub fn name(&self) -> &str {
        &self.visited.name
    }

    /// Its batches, in the order of their opening; what tasks have called is in none.
    pub fn batches(&self) -> impl Iterator<Item = JobBatch> + '_ {
        let batches = self.visited.batches.iter();
        batches.map(|named| JobBatch {
            id: named.batch,
            name: named.name.clone(),
            returns: named.returns.clone(),
            tasks: named.tasks,
        })
    }

    /// How far it is, with all that its tasks have called. `elapsed` counts from the attach.
    ///
    /// # Errors
    /// No leader has answered within 30 s, or the session has ended.
    pub fn progress(&self) -> Result<Progress> {
        let summary = self.cluster.session().look_at_job(PATIENCE).map_err(unknown)?;
        Ok(Progress {
            done: summary.ended,
            failed: summary.failed,
            total: Some(summary.tasks),
            elapsed: self.attached.elapsed(),
        })
    }

    /// A handle on one of its tasks, which returns `R`.
    pub fn execution<R>(&self, task: TaskId) -> Execution<R> {
        self.handle(task, true, None)
    }

    /// Takes the results of all its tasks, or of those of some batches, as they come: each task once, when it has
    /// ended, in whatever way; those that ended before the attach are among them. Tasks that return another's
    /// execution have its result, unless `R` is an execution.
    ///
    /// Each of these iterators is a cursor of its own: it begins at the first result.
    pub fn results<R: DeserializeOwned>(&mut self) -> Results<'_, R> {
        self.results_of(|_| true)
    }

    /// [`results`](Self::results) of those batches that `which` chooses.
    pub fn results_of<R: DeserializeOwned>(
        &mut self,
        mut which: impl FnMut(&JobBatch) -> bool,
    ) -> Results<'_, R> {
        let chosen = self.batches().filter(|batch| which(batch));
        self.cluster.session().read_batches(chosen.map(|batch| (batch.id, batch.tasks)));
        let follows = layers::of::<R>() == Layers::Value;
        Results { job: self, follows, result: PhantomData }
    }

    /// Ends what of it has not ended, as [`Cancelled`](crate::Cause::Cancelled). Does not wait.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.cluster.session().cancel_job(reason.into());
    }

    fn handle<R>(&self, task: TaskId, follow: bool, settled: Option<Settled>) -> Execution<R> {
        let slot = Slot::new(Beginning {
            of: Awaited { task, follow },
            cluster: self.cluster.data().cluster(),
            home: Home::Client(Arc::clone(self.cluster.session())),
            function: None,
            returns: self.returns.get(&task.batch).map(Arc::clone),
            origin: None,
            flattens: false,
            counted: false,
            comes: settled.is_some(),
        });
        if let Some(settled) = settled {
            slot.settle(settled);
        }
        Execution::new(slot, Ties::to(self.cluster.clone()))
    }
}

/// The tasks of a [`Job`] that have ended, as they do: [`Job::results`].
#[must_use = "it reads when it is asked for the next"]
pub struct Results<'a, R> {
    job: &'a Job,
    /// A task that returns another's execution has its result.
    follows: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> Results<'_, R> {
    /// Whose they are.
    pub const fn job(&self) -> &Job {
        self.job
    }
}

impl<R: DeserializeOwned> Iterator for Results<'_, R> {
    type Item = Execution<R>;

    /// Waits for the next that ends, however long that takes. If the cluster cannot be had any more, each that is left
    /// has ended with that error.
    fn next(&mut self) -> Option<Self::Item> {
        let (task, settled) = self.job.cluster.session().next_read()?;
        let tag = match &settled {
            Settled::Outcome(Outcome { tag, .. }) => Some(*tag),
            Settled::Ended(_) | Settled::Homeless(_) => None,
        };
        Some(match tag {
            Some(FORWARDED) if self.follows => self.job.handle(task, true, None),
            // Its outcome is that of an equal call.
            Some(SAME) => self.job.handle(task, self.follows, None),
            _ => self.job.handle(task, false, Some(settled)),
        })
    }
}

impl<R> Drop for Results<'_, R> {
    fn drop(&mut self) {
        self.job.cluster.session().stop_reading();
    }
}

impl<R> fmt::Debug for Results<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results(of job {})", self.job.id())
    }
}

impl Cluster {
    /// Opens a job that goes on without this process. What is [submitted](Cluster::submit) to it runs to its end, is
    /// retried by its policy, and its results stay for `retention` after all has ended and nobody is attached:
    /// [`Cluster::job`] takes them, in this process or in another one of the same identity.
    ///
    /// What calls name has to outlive this process as well: an argument that this process would have to serve (a
    /// [`Shared`](crate::Shared) that was put or opened here, or a value beyond 1 MiB) is an error of the submit. Let a
    /// task make it, and pass its execution.
    ///
    /// # Errors
    /// The cluster is an embedded one, which ends with this process; or no leader takes the job.
    pub fn detached(&self, name: impl Into<String>, retention: Duration) -> Result<Detached> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let purpose = Purpose::Detached { retention_ms };
        let (cluster, opened) = self.visit(Some(name.into()), purpose)?;
        Ok(Detached { cluster, job: opened.job, left: false })
    }

    /// Attaches to a job that was opened [detached](Self::detached): to see how far it is, to take its results, to end
    /// it. Its opener has to have left it, and nobody else may be attached to it.
    ///
    /// # Errors
    /// The cluster is an embedded one; there is no such job of this identity, or it is over and its retention has
    /// passed, or somebody is attached to it; or no leader has answered.
    pub fn job(&self, id: JobId) -> Result<Job> {
        let (cluster, visited) = self.visit(None, Purpose::Visit(id))?;
        let named = visited.batches.iter();
        let returns = named.map(|named| (named.batch, named.returns.as_str().into())).collect();
        Ok(Job { cluster, visited, returns, attached: Instant::now() })
    }

    /// Another session with this cluster, for a job.
    fn visit(&self, name: Option<String>, purpose: Purpose) -> Result<(Self, Visited)> {
        let cluster = self.again(name, purpose)?;
        let visited = cluster.session().wait_job(PATIENCE).map_err(unknown)?;
        Ok((cluster, visited))
    }
}

fn unknown(unknown: Unknown) -> Error {
    match unknown {
        Unknown::Refused(reason) => Error::new(ErrorKind::Refused { reason }),
        Unknown::Ended(end) => error_of_end(&end).unwrap_or_else(|| Error::new(ErrorKind::Closed)),
        Unknown::Late => Error::new(ErrorKind::Leaderless { waited: PATIENCE }),
    }
}
