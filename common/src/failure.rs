//! Why a task has no value: what travels, and what a user's `TaskError` is made of.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, TaskId, WorkerId};

/// The end of a task without a value: what happened, where, and at which try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What happened.
    pub cause: Cause,
    /// The worker where it happened, if it had come to one.
    pub worker: Option<WorkerId>,
    /// The attempt that ended so, if there was one.
    pub attempt: Option<AttemptId>,
    /// Which try it was, from 1; 0 when it never started.
    pub tries: u32,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The function panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// `file:line:column`.
        location: String,
        /// The backtrace, shortened, where one was captured.
        backtrace: String,
    },
    /// The task killed its executor process, alone and repeatedly.
    ExecutorDied {
        /// The signal that ended the process.
        signal: Option<i32>,
        /// Its exit code, where no signal ended it.
        exit: Option<i32>,
        /// The last lines that it wrote to its standard error.
        stderr_tail: String,
        /// How many executors died of it.
        deaths: u8,
    },
    /// It ran longer than its `timeout`.
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// It waited for a slot longer than its `queue_timeout`.
    QueueTimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The whole call ran longer than its `deadline`.
    DeadlinePassed {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who or why.
        reason: String,
    },
    /// Every worker that it was given to was lost.
    Lost {
        /// How many.
        workers: u8,
    },
    /// It is not idempotent, it had been started, and its worker was lost: whether it ran is unknown.
    Abandoned,
    /// An argument does not decode as the function's parameter.
    BadArgument {
        /// Which, from 0.
        position: u8,
        /// Both types, and what the codec said.
        message: String,
    },
    /// The function's result cannot be encoded.
    BadResult {
        /// What the codec said.
        message: String,
    },
    /// The program cannot run there, or has no such function.
    Program {
        /// Why.
        message: String,
    },
    /// No worker can ever hold it.
    Unplaceable {
        /// What it needs and what there is.
        message: String,
    },
    /// Data that it uses is nowhere any more.
    BlobLost {
        /// Which, and who was asked.
        message: String,
    },
    /// A file that it used in place was changed.
    SourceChanged {
        /// The file's path, where it was opened.
        path: String,
    },
    /// Its worker could not provide data that it uses: the chunk store is full, say.
    Unlent {
        /// What, and why not.
        message: String,
    },
    /// It returned, and the worker that kept its result does not give it (any more).
    ResultLost {
        /// Which, and why not.
        message: String,
    },
    /// It was to take the value of an execution that ended without one; it did not run.
    DependencyFailed {
        /// The task at the root of that, which may lie several executions away.
        root: TaskId,
        /// What the root ended of.
        message: String,
    },
    /// The outcome is not there any more: of an execution that was forgotten, or of another cluster.
    Expired {
        /// Which, and what to do.
        message: String,
    },
    /// It would wait for itself.
    Cycle {
        /// Along which executions.
        message: String,
    },
}

impl Cause {
    /// Whether the same call, submitted again, might end otherwise.
    pub const fn retry_can_help(&self) -> bool {
        match self {
            Self::Panicked { .. }
            | Self::TimedOut { .. }
            | Self::QueueTimedOut { .. }
            | Self::DeadlinePassed { .. }
            | Self::Cancelled { .. }
            | Self::Lost { .. }
            | Self::Unplaceable { .. }
            | Self::Unlent { .. }
            | Self::ResultLost { .. }
            | Self::DependencyFailed { .. }
            | Self::Abandoned => true,
            Self::ExecutorDied { .. }
            | Self::BadArgument { .. }
            | Self::BadResult { .. }
            | Self::BlobLost { .. }
            | Self::SourceChanged { .. }
            | Self::Expired { .. }
            | Self::Cycle { .. }
            | Self::Program { .. } => false,
        }
    }

    /// Whether the user's `retries` apply: what the function itself did, not what was done to it.
    pub const fn is_users(&self) -> bool {
        match self {
            Self::Panicked { .. } | Self::TimedOut { .. } => true,
            Self::ExecutorDied { .. }
            | Self::QueueTimedOut { .. }
            | Self::DeadlinePassed { .. }
            | Self::Cancelled { .. }
            | Self::Lost { .. }
            | Self::Abandoned
            | Self::BadArgument { .. }
            | Self::BadResult { .. }
            | Self::Program { .. }
            | Self::BlobLost { .. }
            | Self::SourceChanged { .. }
            | Self::Unlent { .. }
            | Self::ResultLost { .. }
            | Self::DependencyFailed { .. }
            | Self::Expired { .. }
            | Self::Cycle { .. }
            | Self::Unplaceable { .. } => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { message, location, .. } => {
                write!(f, "panicked at {location}: {message}")
            }
            Self::ExecutorDied { signal, exit, stderr_tail, deaths } => {
                match (signal, exit) {
                    (Some(signal), _) => write!(f, "its executor died of signal {signal}")?,
                    (None, Some(code)) => write!(f, "its executor exited with code {code}")?,
                    (None, None) => f.write_str("its executor vanished")?,
                }
                write!(f, " ({deaths} times)")?;
                if !stderr_tail.is_empty() {
                    write!(f, "; its last words: {stderr_tail}")?;
                }
                Ok(())
            }
            Self::TimedOut { limit_ms } => {
                write!(f, "ran longer than its timeout of {limit_ms} ms")
            }
            Self::QueueTimedOut { limit_ms } => {
                write!(f, "waited for a slot longer than its queue_timeout of {limit_ms} ms")
            }
            Self::DeadlinePassed { limit_ms } => {
                write!(f, "the call's deadline of {limit_ms} ms passed")
            }
            Self::Cancelled { reason } => write!(f, "cancelled: {reason}"),
            Self::Lost { workers } => {
                write!(f, "lost: {workers} workers died while they held it, none because of it")
            }
            Self::Abandoned => f.write_str(
                "abandoned: it had been started, its worker was lost, and it is not idempotent",
            ),
            Self::BadArgument { position, message } => {
                write!(f, "argument {position} does not decode: {message}")
            }
            Self::BadResult { message } => write!(f, "its result cannot be encoded: {message}"),
            Self::Program { message } => write!(f, "the program cannot run: {message}"),
            Self::Unplaceable { message } => write!(f, "no worker can hold it: {message}"),
            Self::BlobLost { message } => write!(f, "its data is lost: {message}"),
            Self::SourceChanged { path } => write!(
                f,
                "{path} was changed while it was in use: open it again, and write files that are in use \
                 under another name"
            ),
            Self::Unlent { message } => write!(f, "its worker cannot provide its data: {message}"),
            Self::ResultLost { message } => write!(f, "its result is lost: {message}"),
            Self::DependencyFailed { root, message } => {
                write!(f, "it did not run: execution {root}, on which it depends, {message}")
            }
            Self::Expired { message } => write!(f, "the outcome is gone: {message}"),
            Self::Cycle { message } => write!(f, "it would wait for itself: {message}"),
        }
    }
}
