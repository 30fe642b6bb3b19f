//! What a call does when tasks fail: a type, because it decides what `run` returns.

use crate::error::TaskError;

mod sealed {
    pub trait Sealed {}
}

/// What [`Parallel`](crate::Parallel) does when a task has no value: [`FailFast`], [`Collect`] or
/// [`FailAfter`]. Chosen at run time? Use [`Collect`].
pub trait OnError: sealed::Sealed + Copy + Send + Sync + 'static {
    /// What `run` returns of tasks that return `R`.
    type Out<R>;

    /// After how many failures the call ends.
    #[doc(hidden)]
    fn stop_after(self) -> Option<u32>;

    /// Collects the outcomes of all tasks, in order.
    ///
    /// # Errors
    /// The first failure, if it fails fast.
    #[doc(hidden)]
    fn collect<R>(
        outcomes: impl Iterator<Item = Result<R, TaskError>>,
        tasks: usize,
    ) -> Result<Self::Out<R>, TaskError>;
}

/// The first failure ends the call; `run` returns `Vec<R>`. The default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FailFast;

/// Every task runs, whatever happens to others; `run` returns `Vec<Result<R, TaskError>>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collect;

/// As [`Collect`], but this many failures end the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailAfter(pub u32);

impl sealed::Sealed for FailFast {}
impl sealed::Sealed for Collect {}
impl sealed::Sealed for FailAfter {}

impl OnError for FailFast {
    type Out<R> = Vec<R>;

    fn stop_after(self) -> Option<u32> {
        Some(1)
    }

    #[inline]
    fn collect<R>(
        mut outcomes: impl Iterator<Item = Result<R, TaskError>>,
        tasks: usize,
    ) -> Result<Vec<R>, TaskError> {
        let mut values = Vec::with_capacity(tasks);
        // Inner iteration: `outcomes` is a chain of chains, and this is the loop over all tasks.
        outcomes.try_for_each(|outcome| outcome.map(|value| values.push(value)))?;
        Ok(values)
    }
}

impl OnError for Collect {
    type Out<R> = Vec<Result<R, TaskError>>;

    fn stop_after(self) -> Option<u32> {
        None
    }

    fn collect<R>(
        outcomes: impl Iterator<Item = Result<R, TaskError>>,
        tasks: usize,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError> {
        let mut all = Vec::with_capacity(tasks);
        outcomes.for_each(|outcome| all.push(outcome));
        Ok(all)
    }
}

impl OnError for FailAfter {
    type Out<R> = Vec<Result<R, TaskError>>;

    fn stop_after(self) -> Option<u32> {
        Some(self.0)
    }

    fn collect<R>(
        outcomes: impl Iterator<Item = Result<R, TaskError>>,
        tasks: usize,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError> {
        Collect::collect(outcomes, tasks)
    }
}
