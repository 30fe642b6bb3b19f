//! Why a call of `Parallel` did not end well, and what had finished until then.

use std::fmt;

use allhands_common::execution::TASK_ID_BYTES;
use allhands_common::segment::{DONE, FAILED, FORWARDED, STORED};
use serde::de::DeserializeOwned;

use super::{Error, TaskError};
use crate::entry::NotInExecutable;
use crate::parallel::IndexRun;
use crate::payload::{ArgumentError, Codec, EncodeError, decode_received};
use crate::session::outcomes::Outcomes;

/// A call of [`Parallel`](crate::Parallel) failed. What had finished is still here: see
/// [`partial`](Self::partial).
///
/// `Debug` prints what `Display` prints, for a `main` that returns it.
pub struct RunError(Box<Inner>);

struct Inner {
    reason: Reason,
    finished: Finished,
}

/// Why a call failed.
pub(crate) enum Reason {
    /// A task has no value.
    Task(TaskError),
    /// Too many tasks have no value.
    TooMany { failures: u64, first: TaskError },
    /// The cluster is not there, or does not take it.
    Cluster(Error),
    /// An argument cannot be encoded.
    Argument { index: usize, source: ArgumentError },
    /// The context of `map_with` cannot be encoded.
    Context { source: EncodeError },
    /// The function cannot be found by other processes.
    Function { index: usize, source: NotInExecutable },
    /// The arguments of one task, or the context, do not fit a segment.
    TooLarge { what: String, bytes: usize, limit: usize },
    /// What is said of all tasks does not fit.
    SpecTooLarge { bytes: usize, limit: usize },
    /// An option has a value that makes no sense.
    Option(&'static str),
}

/// Outcomes that came before a call failed, still encoded.
#[derive(Default)]
pub(crate) struct Finished {
    /// Tasks that the call had taken from its iterator.
    pub(crate) tasks: usize,
    pub(crate) segments: Vec<(Vec<IndexRun>, Outcomes)>,
}

impl RunError {
    pub(crate) fn new(reason: Reason, finished: Finished) -> Self {
        Self(Box::new(Inner { reason, finished }))
    }

    /// What every task returned that had finished, by its place in the call; `None` for the others.
    /// `R` is what the calls return. As long as the tasks that were taken from the iterator.
    ///
    /// ```no_run
    /// # use allhands::{Parallel, delayed};
    /// # fn heavy(n: u64) -> u64 { n }
    /// let error = Parallel::new().run((0..9).map(delayed(heavy))).unwrap_err();
    /// let done = error.partial::<u64>().into_iter().flatten().count();
    /// println!("{error}; {done} of 9 had finished");
    /// ```
    pub fn partial<R: DeserializeOwned>(&self) -> Vec<Option<R>> {
        let Finished { tasks, segments } = &self.0.finished;
        let mut results: Vec<Option<R>> = Vec::new();
        results.resize_with(*tasks, || None);
        for (runs, segment) in segments {
            let Some(codec) = Codec::from_byte(segment.codec()) else {
                continue;
            };
            for (row, index) in runs.iter().flat_map(|run| run.rows()) {
                let Some(place) = results.get_mut(index) else { continue };
                *place = segment.reading(|| match segment.value(row) {
                    Some((DONE | FAILED, bytes)) => decode_received(codec, bytes).ok(),
                    Some((FORWARDED, bytes)) => bytes
                        .get(TASK_ID_BYTES..)
                        .and_then(|bytes| decode_received(codec, bytes).ok()),
                    Some((STORED, reference)) => segment
                        .stored(reference)
                        .ok()
                        .and_then(|bytes| decode_received(codec, &bytes).ok()),
                    _ => None,
                });
            }
        }
        results
    }

    /// The error of the task, if one task made the call fail; the first, if several did.
    pub fn task(&self) -> Option<&TaskError> {
        match &self.0.reason {
            Reason::Task(error) | Reason::TooMany { first: error, .. } => Some(error),
            Reason::Cluster(_)
            | Reason::Argument { .. }
            | Reason::Context { .. }
            | Reason::Function { .. }
            | Reason::TooLarge { .. }
            | Reason::SpecTooLarge { .. }
            | Reason::Option(_) => None,
        }
    }

    /// The cluster's error, if that made the call fail.
    pub fn cluster(&self) -> Option<&Error> {
        match &self.0.reason {
            Reason::Cluster(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the same call might succeed.
    pub fn retry_can_help(&self) -> bool {
        match &self.0.reason {
            Reason::Task(error) | Reason::TooMany { first: error, .. } => error.retry_can_help(),
            Reason::Cluster(error) => error.retry_can_help(),
            Reason::Argument { .. }
            | Reason::Context { .. }
            | Reason::Function { .. }
            | Reason::TooLarge { .. }
            | Reason::SpecTooLarge { .. }
            | Reason::Option(_) => false,
        }
    }

    pub(crate) fn describe(&mut self, text: String) {
        if let Reason::Task(error) = &mut self.0.reason {
            error.describe(text);
        }
    }
}

impl From<TaskError> for RunError {
    fn from(error: TaskError) -> Self {
        Self::new(Reason::Task(error), Finished::default())
    }
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::new(Reason::Cluster(error), Finished::default())
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.reason {
            Reason::Task(error) => error.fmt(f),
            Reason::TooMany { failures, first } => {
                write!(
                    f,
                    "{failures} tasks have no value, which is as many as may fail; the first: {first}"
                )
            }
            Reason::Cluster(error) => error.fmt(f),
            Reason::Argument { index, source } => {
                write!(f, "task {index} cannot be sent: {source}")
            }
            Reason::Context { source } => write!(f, "the context cannot be sent: {source}"),
            Reason::Function { index, source } => {
                write!(f, "task {index} cannot be sent: {source}")
            }
            Reason::TooLarge { what, bytes, limit } => write!(
                f,
                "{what}: {bytes} bytes, the limit is {limit}; cut it into more and smaller tasks, \
                 put what all tasks share into the context of `map_with`, or pass the path of a file \
                 that every worker can read"
            ),
            Reason::SpecTooLarge { bytes, limit } => write!(
                f,
                "the call's name, environment and functions: {bytes} bytes, the limit is {limit}; \
                 make a long value of the environment the context of `map_with`, or a file that \
                 every worker can read"
            ),
            Reason::Option(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.reason {
            Reason::Task(error) => fmt::Debug::fmt(error, f),
            Reason::Cluster(error) => fmt::Debug::fmt(error, f),
            _ => fmt::Display::fmt(self, f),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.reason {
            Reason::Cluster(error) => error.source(),
            _ => None,
        }
    }
}

/// A call of [`Parallel::try_run`](crate::Parallel::try_run) failed.
pub enum TryError<E> {
    /// A function returned this error; the call stopped at it.
    Failed {
        /// The error.
        error: E,
        /// Which task, and what had finished.
        run: RunError,
    },
    /// Something else.
    Run(RunError),
}

impl<E> TryError<E> {
    /// Which task it was, and what had finished. `partial` there is of `Result<T, E>`.
    pub fn run(&self) -> &RunError {
        match self {
            Self::Failed { run, .. } | Self::Run(run) => run,
        }
    }

    /// The function's error, if that made the call fail.
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::Run(_) => None,
        }
    }
}

impl<E> From<RunError> for TryError<E> {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl<E: fmt::Debug> From<TryError<E>> for Error {
    fn from(error: TryError<E>) -> Self {
        match error {
            TryError::Failed { error, mut run } => {
                run.describe(format!("{error:?}"));
                run.into()
            }
            TryError::Run(run) => run.into(),
        }
    }
}

impl<E: fmt::Debug> fmt::Display for TryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { error, run } => write!(f, "{run}: {error:?}"),
            Self::Run(run) => run.fmt(f),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for TryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: fmt::Debug> std::error::Error for TryError<E> {}
