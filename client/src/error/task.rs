//! Why one task has no value.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, TaskId, WorkerId};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Error, RunError, chain};
use crate::payload::{Codec, decode_received};

/// Longest text of a task's arguments that a message shows, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 300;

/// One task has no value: which, where, at which try, and what happened.
///
/// `Debug` prints what `Display` prints, and a panic's backtrace.
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    index: usize,
    function: String,
    arguments: String,
    kind: TaskErrorKind,
    worker: Option<WorkerId>,
    worker_name: Option<String>,
    attempt: Option<AttemptId>,
    tries: u32,
    execution: Option<TaskId>,
}

/// What happened to a task that has no value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// The function returned `Err`, and that counts as a failure (`try_run`).
    Failed(FunctionError),
    /// Something happened to the task: a panic, the death of its executor, a timeout, ...
    Ended(Cause),
    /// The call as a whole went wrong before it.
    Call(Arc<RunError>),
    /// Of an execution: its outcome cannot be had from the cluster.
    Cluster(Arc<Error>),
    /// Of an execution: it has not ended in the time that its caller was ready to wait. It goes on.
    Overdue {
        /// How long that was.
        waited: Duration,
    },
    /// It has a value, which does not decode as the type that the caller expects.
    Undecodable {
        /// Both types, and what the codec said.
        message: String,
    },
}

/// A function's own `Err`, still encoded.
#[derive(Debug, Clone)]
pub struct FunctionError {
    /// The whole `Result`.
    bytes: Bytes,
    codec: Codec,
    text: Option<String>,
}

impl TaskError {
    pub(crate) fn new(
        index: usize,
        function: String,
        arguments: String,
        kind: TaskErrorKind,
    ) -> Self {
        let arguments = shortened(arguments);
        let (worker, worker_name, attempt, tries, execution) = (None, None, None, 0, None);
        Self(Box::new(Inner {
            index,
            function,
            arguments,
            kind,
            worker,
            worker_name,
            attempt,
            tries,
            execution,
        }))
    }

    pub(crate) fn at(
        mut self,
        worker: Option<WorkerId>,
        attempt: Option<AttemptId>,
        tries: u32,
    ) -> Self {
        (self.0.worker, self.0.attempt, self.0.tries) = (worker, attempt, tries);
        self
    }

    /// Says that it is an execution's, not one of many tasks of a call.
    pub(crate) fn of_execution(mut self, execution: TaskId) -> Self {
        self.0.execution = Some(execution);
        self
    }

    /// Says what people call the worker, where somebody knows.
    pub(crate) fn on(mut self, worker_name: Option<String>) -> Self {
        self.0.worker_name = worker_name;
        self
    }

    /// Says what the function's own error is, where somebody knows.
    pub(crate) fn describe(&mut self, text: String) {
        if let TaskErrorKind::Failed(error) = &mut self.0.kind {
            error.text = Some(text);
        }
    }

    /// Of which execution it is, if it is one's.
    pub fn execution(&self) -> Option<TaskId> {
        self.0.execution
    }

    /// Which task of the call, from 0; of an execution 0.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// The function's name.
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// The arguments as text, shortened: what `Debug` says where the function has `#[task]`, else the
    /// length and first bytes of each.
    pub fn arguments(&self) -> &str {
        &self.0.arguments
    }

    /// What happened.
    pub fn kind(&self) -> &TaskErrorKind {
        &self.0.kind
    }

    /// What happened, where it was not the function's own error.
    pub fn cause(&self) -> Option<&Cause> {
        match &self.0.kind {
            TaskErrorKind::Ended(cause) => Some(cause),
            TaskErrorKind::Failed(_)
            | TaskErrorKind::Call(_)
            | TaskErrorKind::Cluster(_)
            | TaskErrorKind::Overdue { .. }
            | TaskErrorKind::Undecodable { .. } => None,
        }
    }

    /// The worker where it happened, if the task had come to one.
    pub fn worker(&self) -> Option<WorkerId> {
        self.0.worker
    }

    /// What that worker is called (`allhands worker --name`, or its host's name), and its number beside it
    /// where several are called so. `None` where the cluster did not say.
    pub fn worker_name(&self) -> Option<&str> {
        self.0.worker_name.as_deref()
    }

    /// The attempt that ended so, if there was one.
    pub fn attempt(&self) -> Option<AttemptId> {
        self.0.attempt
    }

    /// Which try it was, from 1; 0 when the task never started.
    pub fn tries(&self) -> u32 {
        self.0.tries
    }

    /// The function's own error, if that is what happened and `E` is its type.
    pub fn downcast<E: DeserializeOwned>(&self) -> Option<E> {
        match &self.0.kind {
            TaskErrorKind::Failed(error) => error.decode(),
            TaskErrorKind::Ended(_)
            | TaskErrorKind::Call(_)
            | TaskErrorKind::Cluster(_)
            | TaskErrorKind::Overdue { .. }
            | TaskErrorKind::Undecodable { .. } => None,
        }
    }

    /// Whether the same call, submitted again, might end otherwise.
    pub fn retry_can_help(&self) -> bool {
        match &self.0.kind {
            TaskErrorKind::Ended(cause) => cause.retry_can_help(),
            TaskErrorKind::Failed(_) => true,
            TaskErrorKind::Call(error) => error.retry_can_help(),
            TaskErrorKind::Cluster(error) => error.retry_can_help(),
            TaskErrorKind::Overdue { .. } => true,
            TaskErrorKind::Undecodable { .. } => false,
        }
    }
}

impl TaskErrorKind {
    pub(crate) const fn failed(bytes: Bytes, codec: Codec) -> Self {
        Self::Failed(FunctionError { bytes, codec, text: None })
    }
}

impl FunctionError {
    /// The error, if `E` is its type.
    pub fn decode<E: DeserializeOwned>(&self) -> Option<E> {
        // The bytes are those of an `Err`, so what the `Ok` would be does not matter.
        decode_received::<Result<(), E>>(self.codec, &self.bytes).ok()?.err()
    }
}

impl fmt::Display for TaskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(FunctionError { text: Some(text), .. }) => {
                write!(f, "returned Err({text})")
            }
            Self::Failed(_) => f.write_str("returned an error"),
            Self::Ended(cause) => cause.fmt(f),
            Self::Call(error) => write!(f, "the call ended before it: {error}"),
            Self::Cluster(error) => write!(f, "its outcome cannot be had: {}", chain(&**error)),
            Self::Overdue { waited } => write!(f, "it has not ended within {waited:?}"),
            Self::Undecodable { message } => write!(f, "its result does not decode: {message}"),
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.execution {
            Some(execution) => write!(f, "execution {execution}")?,
            None => write!(f, "task {}", self.index)?,
        }
        let gap = if self.function.is_empty() { "" } else { ", " };
        write!(f, "{gap}{}{}: {}", self.function, self.arguments, self.kind)?;
        let mut open = " (";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            f.write_str(open)?;
            open = ", ";
            f.write_fmt(text)
        };
        match (&self.worker_name, self.worker) {
            (Some(name), _) => part(f, format_args!("on worker {name}"))?,
            (None, Some(worker)) => part(f, format_args!("on worker {worker}"))?,
            (None, None) => {}
        }
        if let Some(attempt) = self.attempt {
            part(f, format_args!("attempt {attempt}"))?;
        }
        if self.tries > 0 {
            part(f, format_args!("try {}", self.tries))?;
        }
        if open == ", " { f.write_str(")") } else { Ok(()) }
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match self.cause() {
            Some(Cause::Panicked { backtrace, .. }) if !backtrace.is_empty() => {
                write!(f, "\n{backtrace}")
            }
            _ => Ok(()),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > ARGUMENTS_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ARGUMENTS_BYTES_MAX));
        text.push('…');
    }
    text
}
