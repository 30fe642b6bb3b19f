//! `Parallel`: runs calls on every slot of a cluster.
//!
//! * `options` is what may be said about a call, `on_error` what failures mean.
//! * `call` gives tasks out, one part for each policy; `outcome` reads what comes back.
//! * `gather` is `run`, `iter` is `run_iter` and `run_unordered` on top of `stream`, `inline` is
//!   `n_jobs(1)`, `map` lends a context.
//!
//! The iterator of calls is always pulled on the caller's thread, so it need be neither `Send` nor
//! `'static`. No method enters a runtime, so all of them work inside of one.

pub(crate) mod call;
mod gather;
mod indices;
mod inline;
mod iter;
mod keeping;
pub(crate) mod lift;
mod map;
mod on_error;
mod options;
pub(crate) mod outcome;
pub(crate) mod stream;

pub(crate) use indices::IndexRun;
pub use on_error::{Collect, FailAfter, FailFast, OnError};
pub use options::BatchSize;
pub(crate) use options::{Callback, Options};

use allhands_common::failure::Cause;
use call::{Call, Common, TASK_BYTES_MAX};
pub(crate) use gather::conclude;
use gather::{Failure, Window, end, gathered, give_all, give_all_async, total_of, wait};
use inline::{Done, Inline};
use iter::Results;
use stream::Outcomes;

use crate::batch::Batch;
use crate::delayed::Delayed;
use crate::error::{Finished, Reason, RunError, TaskError, TaskErrorKind, TryError};
use crate::function::{Arg, NoCapture, Ret};
use crate::progress::Display;
use crate::session::inbox::Wanted;
use crate::shared::mention;

/// Runs calls on every slot of a cluster. Reusable: say once how, call it as often as you like, from
/// several threads at once.
///
/// ```no_run
/// use allhands::prelude::*;
///
/// fn heavy(n: u64) -> u64 {
///     (1..=n).product()
/// }
///
/// #[allhands::main]
/// fn main() -> allhands::Result<()> {
///     let results = Parallel::new().n_jobs(-1).verbose(10).run((0..20).map(delayed(heavy)))?;
///     println!("{results:?}");
///     Ok(())
/// }
/// ```
///
/// With no cluster configured (see [`Cluster::from_env`](crate::Cluster::from_env)) this starts one
/// inside the process.
#[derive(Debug, Clone)]
#[must_use = "it does nothing until `run` or another method is called"]
pub struct Parallel<M = FailFast> {
    pub(crate) options: Options,
    pub(crate) mode: M,
}

impl Default for Parallel {
    fn default() -> Self {
        Self::new()
    }
}

impl Parallel {
    /// All slots of the cluster, and the first failure ends the call.
    pub fn new() -> Self {
        Self { options: Options::new(), mode: FailFast }
    }
}

impl<M: OnError> Parallel<M> {
    /// Runs all calls; their results, in order.
    ///
    /// ```no_run
    /// # use allhands::prelude::*;
    /// # fn square(n: u64) -> u64 { n * n }
    /// let squares = Parallel::new().run((0..1000).map(delayed(square)))?;
    /// # Ok::<(), allhands::Error>(())
    /// ```
    ///
    /// If a function returns a `Result`, its `Err` is a result like any other (and is retried where
    /// [`retries`](Self::retries) says so); [`try_run`](Self::try_run) stops at it.
    ///
    /// # Errors
    /// A task has no value (it panicked, its executor died, it took too long, ...), or the cluster
    /// cannot be had. What had finished is in the error: [`RunError::partial`].
    pub fn run<R>(
        &self,
        calls: impl IntoIterator<Item = Delayed<R>>,
    ) -> Result<M::Out<R>, RunError> {
        self.gather(calls.into_iter(), false, Common::default()).map_err(|(error, _)| error)
    }

    /// Runs all calls of a function that returns a `Result`; what is in their `Ok`s, in order. The
    /// first `Err` ends the call, whatever [`on_error`](Self::on_error) says.
    ///
    /// # Errors
    /// The function's own error, or what makes [`run`](Self::run) fail.
    pub fn try_run<T, E>(
        &self,
        calls: impl IntoIterator<Item = Delayed<Result<T, E>>>,
    ) -> Result<Vec<T>, TryError<E>> {
        let fast = self.clone().on_error(FailFast);
        match fast.gather(calls.into_iter(), true, Common::default()) {
            Ok(results) => {
                let mut values = Vec::with_capacity(results.len());
                for (index, result) in results.into_iter().enumerate() {
                    match result {
                        Ok(value) => values.push(value),
                        // An `Err` that the executor did not take for one: the type's own serde.
                        Err(error) => {
                            return Err(TryError::Failed { error, run: unnoticed(index) });
                        }
                    }
                }
                Ok(values)
            }
            Err((run, Some(Err(error)))) => Err(TryError::Failed { error, run }),
            Err((run, _)) => Err(TryError::Run(run)),
        }
    }

    /// Runs all calls, whatever happens to some of them; every task's own outcome, in order.
    ///
    /// # Errors
    /// The cluster cannot be had, or a call cannot be sent.
    pub fn run_collect<R>(
        &self,
        calls: impl IntoIterator<Item = Delayed<R>>,
    ) -> Result<Vec<Result<R, TaskError>>, RunError> {
        self.collecting().run(calls)
    }

    /// The results in order, each as soon as it and all before it are there. The calls are consumed
    /// as the results are taken, so both may be endless. Dropping the iterator cancels the rest; with
    /// [`FailFast`] it ends after the first error.
    ///
    /// ```no_run
    /// # use allhands::prelude::*;
    /// # fn square(n: u64) -> u64 { n * n }
    /// for result in Parallel::new().run_iter((0..).map(delayed(square))) {
    ///     if result? > 1_000_000 {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), allhands::Error>(())
    /// ```
    pub fn run_iter<'a, R, I>(
        &self,
        calls: I,
    ) -> impl Iterator<Item = Result<R, TaskError>> + use<'a, R, I, M>
    where
        R: 'a,
        I: IntoIterator<Item = Delayed<R>> + 'a,
    {
        Results::new(self, calls.into_iter(), true).map(|(_, result)| result)
    }

    /// The results as they come, each with its place in the order of the calls. Otherwise as
    /// [`run_iter`](Self::run_iter).
    pub fn run_unordered<'a, R, I>(
        &self,
        calls: I,
    ) -> impl Iterator<Item = (usize, Result<R, TaskError>)> + use<'a, R, I, M>
    where
        R: 'a,
        I: IntoIterator<Item = Delayed<R>> + 'a,
    {
        Results::new(self, calls.into_iter(), false)
    }

    /// Runs `f` on each item; the results, in order.
    ///
    /// ```no_run
    /// # use allhands::prelude::*;
    /// let words = vec!["all".to_string(), "hands".to_string()];
    /// let lengths = Parallel::new().map(words, |word| word.len())?;
    /// # Ok::<(), allhands::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn map<I, F, R, K>(&self, items: I, f: F) -> Result<M::Out<R::Value>, RunError>
    where
        I: IntoIterator<Item: Arg>,
        F: Fn(I::Item) -> R + NoCapture,
        R: Ret<K>,
    {
        self.run(items.into_iter().map(crate::delayed::delayed::<F, (I::Item,), K>(f)))
    }

    /// Runs `f` on each item and a context that travels once, however many items there are; the
    /// results, in order.
    ///
    /// `f` gets `&C`. (rayon's `map_with` gives each thread a clone to change; here each process has
    /// its own copy, and nothing that a task did to it would come back.)
    ///
    /// ```no_run
    /// # use allhands::prelude::*;
    /// let table: Vec<u64> = (0..1_000).map(|n| n * n).collect();
    /// let looked_up = Parallel::new().map_with(table, 0..10usize, |table, place| table[place])?;
    /// # Ok::<(), allhands::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run); also if the context cannot be encoded.
    pub fn map_with<C, I, F, R, K>(
        &self,
        context: C,
        items: I,
        f: F,
    ) -> Result<M::Out<R::Value>, RunError>
    where
        C: Arg + 'static,
        I: IntoIterator<Item: Arg>,
        F: Fn(&C, I::Item) -> R + NoCapture,
        R: Ret<K>,
    {
        let bytes =
            map::encode_context(&context).map_err(|source| fail(Reason::Context { source }))?;
        if bytes.len() > TASK_BYTES_MAX {
            let (what, bytes) = ("the context of `map_with`".into(), bytes.len());
            return Err(fail(Reason::TooLarge { what, bytes, limit: TASK_BYTES_MAX }));
        }
        let label = Some(std::any::type_name::<F>());
        let shared = Common { context: bytes, named: mention::take(), label };
        let calls = map::calls::<C, I, F, R, K>(items, f);
        self.gather(calls, false, shared).map_err(|(error, _)| error)
    }

    /// Sends all calls, and returns before they have run; what comes of them is in the [`Batch`]:
    /// `.await` it, take outcomes from it as a stream, or [`wait`](Batch::wait). Dropping it cancels the
    /// rest.
    ///
    /// The iterator is read to its end first, in this thread, which waits while more than 16 MiB of
    /// arguments are not yet taken by the cluster: in async code prefer [`run_async`](Self::run_async)
    /// for calls that are many or large.
    ///
    /// ```no_run
    /// # use allhands::prelude::*;
    /// # fn square(n: u64) -> u64 { n * n }
    /// # async fn in_async_code() -> allhands::Result<()> {
    /// let squares = Parallel::new().start((0..1000).map(delayed(square)))?.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The cluster cannot be had, or a call cannot be sent. `n_jobs(1)` runs all of them before it
    /// returns.
    pub fn start<R>(
        &self,
        calls: impl IntoIterator<Item = Delayed<R>>,
    ) -> Result<Batch<R, M>, RunError> {
        self.check().map_err(fail)?;
        let calls = calls.into_iter();
        let mut display = Display::of(&self.options, total_of(&calls));
        if self.options.inline() {
            return Ok(Batch::ran(self.start_inline(calls, display).map_err(fail)?, self.mode));
        }
        let mut call = Call::new(self, false, false, Common::default())?;
        let window = Window { tasks: None, until_committed: true };
        match give_all(&mut call, calls, window, &mut display) {
            Ok(()) => Ok(Batch::sent(Outcomes::new(call, false), self.mode, display)),
            Err(reason) => Err(RunError::new(reason, call.finished([]))),
        }
    }

    /// [`run`](Self::run) for async code: calls are pulled, and results waited for, without holding up
    /// the thread. Dropping the future cancels the rest.
    ///
    /// Two things do hold it up: the first call of a program, while it starts its cluster (some
    /// milliseconds) or joins it (some seconds, where nobody answers); and `n_jobs(1)`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async<R>(
        &self,
        calls: impl IntoIterator<Item = Delayed<R>>,
    ) -> Result<M::Out<R>, RunError> {
        self.check().map_err(fail)?;
        let calls = calls.into_iter();
        let mut display = Display::of(&self.options, total_of(&calls));
        if self.options.inline() {
            let ran = self.gather_inline(calls, false, Common::default(), display);
            return ran.map_err(|(error, _)| error);
        }
        let mut call = Call::new(self, true, false, Common::default())?;
        let given = give_all_async(&mut call, calls, self.window(), &mut display).await;
        if given.is_ok() {
            end(&call, &mut display).await;
        }
        gathered::<M, R>(&call, given, display).map_err(|(error, _)| error)
    }

    /// `run` and its like.
    fn gather<R>(
        &self,
        calls: impl Iterator<Item = Delayed<R>>,
        errors_count: bool,
        shared: Common,
    ) -> Result<M::Out<R>, Failure<R>> {
        self.check().map_err(|reason| (fail(reason), None))?;
        let mut display = Display::of(&self.options, total_of(&calls));
        let mut calls = calls.peekable();
        if self.options.inline() {
            return self.gather_inline(calls, errors_count, shared, display);
        }
        if calls.peek().is_none() {
            return M::collect(std::iter::empty(), 0).map_err(|error| (error.into(), None));
        }
        let mut call =
            Call::new(self, true, errors_count, shared).map_err(|error| (error, None))?;
        let given = give_all(&mut call, calls, self.window(), &mut display);
        if given.is_ok() {
            wait(&call, Wanted::End, &mut display);
        }
        gathered::<M, R>(&call, given, display)
    }

    const fn window(&self) -> Window {
        Window { tasks: self.options.pre_dispatch, until_committed: false }
    }

    /// `start` in the caller's thread.
    fn start_inline<R>(
        &self,
        calls: impl Iterator<Item = Delayed<R>>,
        mut display: Option<Display>,
    ) -> Result<Vec<Result<R, TaskError>>, Reason> {
        let mut inline = Inline::new(self, false, Common::default());
        let (mut outcomes, mut failures) = (Vec::new(), 0);
        for call in calls {
            let outcome = inline.run(call)?.map_err(|(error, _)| error);
            failures += u64::from(outcome.is_err());
            outcomes.push(outcome);
            if let Some(display) = &mut display {
                display.show(outcomes.len() as u64, failures);
            }
        }
        if let Some(display) = display {
            display.finish(outcomes.len() as u64, failures);
        }
        Ok(outcomes)
    }

    fn gather_inline<R>(
        &self,
        calls: impl Iterator<Item = Delayed<R>>,
        errors_count: bool,
        shared: Common,
        mut display: Option<Display>,
    ) -> Result<M::Out<R>, Failure<R>> {
        let mut inline = Inline::new(self, errors_count, shared);
        let (mut done, mut outcomes, mut failures) = (Done::new(), Vec::new(), 0u32);
        for call in calls {
            let codec = call.codec();
            let ran = match inline.run(call) {
                Ok(ran) => ran,
                Err(reason) => return Err((RunError::new(reason, done.finish()), None)),
            };
            match ran {
                Ok(value) => {
                    done.push(codec, inline.encoded());
                    outcomes.push(Ok(value));
                }
                Err((error, value)) => {
                    done.skip();
                    failures += 1;
                    if self.mode.stop_after().is_some_and(|most| failures >= most) {
                        let reason = match failures {
                            1 => Reason::Task(error),
                            _ => {
                                let first = first_of(outcomes, error);
                                Reason::TooMany { failures: failures.into(), first }
                            }
                        };
                        return Err((RunError::new(reason, done.finish()), value));
                    }
                    outcomes.push(Err(error));
                }
            }
            if let Some(display) = &mut display {
                display.show(outcomes.len() as u64, failures.into());
            }
        }
        if let Some(display) = display {
            display.finish(outcomes.len() as u64, failures.into());
        }
        let tasks = outcomes.len();
        M::collect(outcomes.into_iter(), tasks).map_err(|error| (error.into(), None))
    }
}

/// A call that failed before anything ran.
fn fail(reason: Reason) -> RunError {
    RunError::new(reason, Finished::default())
}

/// The failure of a call by an `Err` of which nothing but its place is known.
fn unnoticed(index: usize) -> RunError {
    let cause = Cause::BadResult { message: "it is an `Err` that was not written as one".into() };
    TaskError::new(index, "the function".into(), String::new(), TaskErrorKind::Ended(cause)).into()
}

fn first_of<R>(outcomes: Vec<Result<R, TaskError>>, last: TaskError) -> TaskError {
    outcomes.into_iter().find_map(Result::err).unwrap_or(last)
}

#[cfg(test)]
pub(crate) mod tests;
