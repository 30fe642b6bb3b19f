//! What a task can learn of itself while it runs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task;

use allhands_common::id::{AttemptId, TaskId};

use crate::executor::tasks::{self, Token};

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

    /// A text that is the same in every try (and every round) of this task, and in no other task of any cluster: for services that
    /// carry out a request once that comes twice.
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
        assert_eq!((context.task(), context.attempt()), (None, None));
        assert_eq!(context.idempotency_key(), None);
        let mut cancelled = context.cancelled();
        assert!(!cancelled.is_set());
        let mut nobody = task::Context::from_waker(task::Waker::noop());
        assert!(Pin::new(&mut cancelled).poll(&mut nobody).is_pending());
    }
}
