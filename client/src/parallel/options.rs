//! What a user may say about a call, besides the calls themselves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::policy::{Backoff, Policy, Prefer};
use allhands_common::resources::Resources;

use super::{Collect, FailAfter, OnError, Parallel};
use crate::cluster::Cluster;
use crate::delayed::{check_group, millis};
use crate::error::Reason;
use crate::progress::Progress;

/// Tasks of a range: how many an executor gets at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchSize {
    /// As many as run for about 50 ms, as measured.
    #[default]
    Auto,
    /// Exactly so many.
    Tasks(u32),
}

impl From<u32> for BatchSize {
    fn from(tasks: u32) -> Self {
        Self::Tasks(tasks)
    }
}

/// Arguments beyond this are stored and sent once, as in joblib.
const MAX_NBYTES: usize = 1 << 20;

/// A user's own display of progress.
pub(crate) type Callback = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Everything but what is done about errors.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) policy: Policy,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) name: Option<String>,
    pub(crate) pre_dispatch: Option<usize>,
    pub(crate) max_nbytes: Option<usize>,
    pub(crate) replicas: Option<u8>,
    pub(crate) verbose: u32,
    pub(crate) progress: Option<Callback>,
    pub(crate) cluster: Option<Cluster>,
}

impl Options {
    pub(super) fn new() -> Self {
        Self {
            policy: Policy::default(),
            env: Vec::new(),
            name: None,
            pre_dispatch: None,
            max_nbytes: Some(MAX_NBYTES),
            replicas: None,
            verbose: 0,
            progress: None,
            cluster: None,
        }
    }

    /// Whether tasks run in the caller's thread.
    pub(super) const fn inline(&self) -> bool {
        self.policy.n_jobs == 1
    }
}

impl<M: OnError> Parallel<M> {
    /// Options that make no sense are an error of the call, so that the builder never panics.
    pub(super) fn check(&self) -> Result<(), Reason> {
        let Options { policy, pre_dispatch, .. } = &self.options;
        if policy.n_jobs == 0 {
            return Err(Reason::Option(
                "n_jobs(0) makes no sense: say n_jobs(-1) for all slots of the cluster, n_jobs(1) to \
                 run in this thread, or the greatest number of tasks that may run at once",
            ));
        }
        if policy.batch_size == Some(0) {
            return Err(Reason::Option(
                "batch_size(0) makes no sense: say how many tasks an executor gets at a time, or \
                 BatchSize::Auto",
            ));
        }
        if *pre_dispatch == Some(0) {
            return Err(Reason::Option(
                "pre_dispatch(0) makes no sense: at least one task must be on its way",
            ));
        }
        if let (Some(ahead), Some(size)) = (*pre_dispatch, policy.batch_size)
            && ahead < size as usize
        {
            return Err(Reason::Option(
                "pre_dispatch is less than batch_size: no executor would ever get as many tasks as \
                 batch_size says; raise one or lower the other",
            ));
        }
        if let Some(group) = &policy.group {
            check_group(group).map_err(Reason::Option)?;
        }
        if self.mode.stop_after() == Some(0) {
            return Err(Reason::Option(
                "fail_after(0) makes no sense: say after how many failures the call ends, or \
                 on_error(Collect) if none ends it",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("policy", &self.policy)
            .field("env", &self.env)
            .field("name", &self.name)
            .field("pre_dispatch", &self.pre_dispatch)
            .field("verbose", &self.verbose)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl<M: OnError> Parallel<M> {
    /// How many tasks of this call may run at once: `-1` as many as the cluster has slots (the
    /// default), `-2` all but one, and so on, never fewer than one. `1` runs them in the caller's
    /// thread, for debugging; arguments and results are encoded and decoded there as well, but timeouts,
    /// [`env`](Self::env) and what concerns slots do nothing. `0` is an error when the call is made.
    pub fn n_jobs(mut self, n: i32) -> Self {
        self.options.policy.n_jobs = n;
        self
    }

    /// Executor processes (the default), or one executor with threads, for tasks that wait more than
    /// they compute.
    pub fn prefer(mut self, prefer: Prefer) -> Self {
        self.options.policy.prefer = prefer;
        self
    }

    /// How many tasks an executor gets at a time. The default measures; a number is kept to exactly, as
    /// long as their arguments together are not longer than 4 MiB, which one message holds.
    pub fn batch_size(mut self, size: impl Into<BatchSize>) -> Self {
        self.options.policy.batch_size = match size.into() {
            BatchSize::Auto => None,
            BatchSize::Tasks(tasks) => Some(tasks),
        };
        self
    }

    /// How far the iterator of calls is consumed ahead: at most so many tasks are on their way, or
    /// done and not yet taken from `run_iter` or `run_unordered`. The default follows the rate at
    /// which tasks end, up to 16 MiB of arguments. [`start`](Self::start) takes all calls at once.
    pub fn pre_dispatch(mut self, tasks: usize) -> Self {
        self.options.pre_dispatch = Some(tasks);
        self
    }

    /// Arguments that take more bytes than this, encoded, go into the chunk store, once for all calls that carry
    /// equal ones, and tasks read them from there; the default is 1 MiB. `None`: never, and then the arguments of a
    /// call are limited to 4 MiB.
    ///
    /// An array that many calls carry is best put behind an [`Arc`](std::sync::Arc), or
    /// [`put`](crate::Cluster::put): then it is also encoded and looked at only once.
    pub fn max_nbytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.options.max_nbytes = bytes.into();
        self
    }

    /// How many workers keep an array that a task has left for this program by returning a [`Shared`](crate::Shared)
    /// handle; at most eight, and as many as there are. The default is one, because the task can be called again if
    /// that worker is lost; and two where it cannot: with [`idempotent(false)`](Self::idempotent). Others fetch it
    /// once this program has the handle. A holder that is lost is replaced while there is another one. No effect on
    /// an embedded cluster, which is one machine.
    pub fn replicas(mut self, workers: u8) -> Self {
        self.options.replicas = Some(workers.max(1));
        self
    }

    /// How long each task may run, from its start on the executor. Not kept to with `n_jobs(1)`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.timeout_ms = Some(millis(timeout));
        self
    }

    /// How long the whole call may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.policy.deadline_ms = Some(millis(deadline));
        self
    }

    /// How long each task may wait for a slot, once those are there that it waits for and its delay is over.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.queue_timeout_ms = Some(millis(timeout));
        self
    }

    /// How often a task that panicked, ran too long or returned `Err` is run again. The default is 0.
    /// (Tasks of a lost worker are run again by themselves.)
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.policy.retries = retries;
        self
    }

    /// How long to wait before the first retry; twice as long before each further one, up to `max`.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.options.policy.backoff = Backoff { first_ms: millis(first), max_ms: millis(max) };
        self
    }

    /// Calls of higher priority go first. The default is 0.
    pub fn priority(mut self, priority: i16) -> Self {
        self.options.policy.priority = priority;
        self
    }

    /// What each task needs while it runs. The default is one slot.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.options.policy.resources = resources;
        self
    }

    /// Whether a task that was started may be started again after its worker was lost. The default is
    /// yes; a task for which it is not ends as abandoned. Nor is it run again after a failure of its own:
    /// `idempotent(false)` leaves [`retries`](Self::retries) without effect.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.policy.idempotent = idempotent;
        self
    }

    /// Whether the cluster records when what happened to the tasks, for `allhands job ID --timeline` and `--graph`. The
    /// default is yes: it costs something a range, nothing a task.
    pub fn record(mut self, record: bool) -> Self {
        self.options.policy.record = record;
        self
    }

    /// An environment variable that the executors get in addition. Not with `n_jobs(1)`: tasks see this
    /// process's own environment there.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.push((name.into(), value.into()));
        self
    }

    /// What people see the call named. The default is its first function.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// The group that its calls are of, unless they say another: for people, and for
    /// [`cancel_group`](Cluster::cancel_group).
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.options.policy.group = Some(name.into());
        self
    }

    /// Shows progress on the standard error: a bar with rate and remaining time on a terminal, lines
    /// otherwise, the more often the greater `n` (every `10 / n` seconds). `0` shows nothing, which is
    /// the default.
    pub fn verbose(mut self, n: u32) -> Self {
        self.options.verbose = n;
        self
    }

    /// Calls `show` while the call runs, a few times a second at most, and at its end; in the thread that
    /// waits for results, or takes them.
    pub fn progress(mut self, show: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.options.progress = Some(Arc::new(show));
        self
    }

    /// Runs on this cluster instead of the one that [`Cluster::from_env`] gives.
    pub fn on(mut self, cluster: &Cluster) -> Self {
        self.options.cluster = Some(cluster.clone());
        self
    }

    /// What is done about failures: [`FailFast`](super::FailFast), [`Collect`] or [`FailAfter`].
    pub fn on_error<N: OnError>(self, mode: N) -> Parallel<N> {
        Parallel { options: self.options, mode }
    }

    /// Collects every task's own outcome, and ends the call after so many failures.
    pub fn fail_after(self, failures: u32) -> Parallel<FailAfter> {
        self.on_error(FailAfter(failures))
    }

    /// [`on_error`](Self::on_error)`(Collect)`.
    pub(super) fn collecting(&self) -> Parallel<Collect> {
        self.clone().on_error(Collect)
    }
}
