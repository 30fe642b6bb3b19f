//! What a task can learn of itself while it runs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task;
use std::time::Instant;

use allhands_common::id::{AttemptId, JobId, TaskId};
use allhands_common::wire::note::{Level, Line};

use crate::executor::tasks::{self, Token};
use crate::session::listeners;

/// What the task that runs on this thread can learn of itself. Outside of a task, and in one that runs inline
/// (`n_jobs(1)`), it says that there is none.
///
/// ```
/// fn render(frame: u32) -> Option<Vec<u8>> {
///     let cancelled = allhands::context().cancelled();
///     for _row in 0..1080 {
///         if cancelled.is_set() {
///             return None;
///         }
///         // ...
///     }
///     Some(vec![0; frame as usize])
/// }
/// # assert!(render(3).is_some());
/// ```
pub fn context() -> Context {
    Context { token: tasks::this() }
}

/// A task, as it sees itself: made by [`context`].
#[derive(Debug, Clone)]
pub struct Context {
    token: Option<Token>,
}

impl Context {
    /// Which task it is: the same in every try.
    pub fn task(&self) -> Option<TaskId> {
        self.token.as_ref().map(|token| token.task)
    }

    /// Which try this is part of. A later one is greater.
    pub fn attempt(&self) -> Option<AttemptId> {
        self.token.as_ref().map(|token| token.attempt)
    }

    /// Which job it is part of: `allhands job` tells more of it.
    pub fn job(&self) -> Option<JobId> {
        self.token.as_ref().map(|token| token.job)
    }

    /// When the task's [`timeout`](crate::Parallel::timeout) ends it, if it has one, as of when [`context`] was called:
    /// the time in which it waits for others does not count. The deadline of a whole call is not in it.
    pub fn deadline(&self) -> Option<Instant> {
        self.token.as_ref()?.deadline
    }

    /// Says a line to people, with values by name: to [`Cluster::listen`](crate::Cluster::listen) in the program that
    /// has called the task, and to `allhands job ID --logs`. Outside of a task of a cluster it is an event of
    /// `tracing` in this process.
    ///
    /// The task never waits for it. It comes if nothing is lost on the way: a process says at most 200 lines a second,
    /// of 4 KiB, and the cluster keeps the last 1,024 lines of a job. What was left out is counted.
    ///
    /// ```
    /// use allhands::{Level, context};
    ///
    /// fn read(path: String) -> usize {
    ///     let rows = path.len();
    ///     context().log(Level::Info, "read", &[("path", &path), ("rows", &rows)]);
    ///     rows
    /// }
    /// # read("here".into());
    /// ```
    pub fn log(&self, level: Level, text: impl AsRef<str>, fields: &[(&str, &dyn fmt::Display)]) {
        let line = Line::new(level, text.as_ref(), fields);
        match &self.token {
            Some(token) => token.log(line),
            None => listeners::event(&line, &format_args!("{line}")),
        }
    }

    /// Says how far the task is, in units of its own: to [`Cluster::listen`](crate::Cluster::listen) and to
    /// `allhands job ID`. It may be said as often as one likes: the last of each 100 ms travels. Outside of a task of
    /// a cluster it does nothing.
    pub fn progress(&self, done: u64, total: u64) {
        if let Some(token) = &self.token {
            token.progress(done, total);
        }
    }

    /// A text that is the same in every try (and every round) of this task, and in no other task of any cluster: for
    /// services that carry out a request once that comes twice.
    pub fn idempotency_key(&self) -> Option<String> {
        let task = self.task()?;
        Some(format!("{}-{}", task.batch, task.index))
    }

    /// Whether the task was cancelled, or will be. A task that is asked to end has a second to do so; then its
    /// executor is killed.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { token: self.token.clone() }
    }
}

/// Whether a task was cancelled: a flag, and a future that is ready once it was. Outside of a task it never is.
#[derive(Clone)]
#[must_use = "ask it with `is_set`, or await it"]
pub struct Cancelled {
    token: Option<Token>,
}

impl Cancelled {
    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.token.as_ref().is_some_and(Token::is_cancelled)
    }
}

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<()> {
        match &self.token {
            Some(token) if token.wake_when_cancelled(context.waker()) => task::Poll::Ready(()),
            Some(_) | None => task::Poll::Pending,
        }
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancelled({})", self.is_set())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_task_there_is_none() {
        let context = context();
        assert_eq!((context.task(), context.attempt(), context.job()), (None, None, None));
        assert_eq!(context.deadline(), None);
        // Nothing that could go wrong.
        context.progress(1, 2);
        context.log(Level::Info, "nobody listens", &[("n", &1)]);
        assert_eq!(context.idempotency_key(), None);
        let mut cancelled = context.cancelled();
        assert!(!cancelled.is_set());
        let mut nobody = task::Context::from_waker(task::Waker::noop());
        assert!(Pin::new(&mut cancelled).poll(&mut nobody).is_pending());
    }
}
