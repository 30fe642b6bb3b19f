//! What can go wrong, in the words that a user reads.
//!
//! Three layers: [`Error`] is about the cluster, [`TaskError`] about one task, [`RunError`] about one
//! call of [`Parallel`](crate::Parallel), which may be either and still carries what had finished.
//! Each message names the thing, the cause and what to do; each error says whether the same again
//! might end otherwise (`retry_can_help`).

mod message;
mod run;
mod task;

pub(crate) use self::Kind as ErrorKind;
pub(crate) use allhands_common::chain::chain;
pub(crate) use run::{Finished, Reason};
pub use run::{RunError, TryError};
pub use task::{FunctionError, TaskError, TaskErrorKind};

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use allhands_common::failure::Cause;
use allhands_common::id::{ClusterId, JobId, TaskId};

use crate::executor::tasks::NotHere;
use crate::session::NoLink;
use crate::session::core::End;

/// What most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something is wrong with the cluster, or between this process and it.
///
/// `Debug` prints what `Display` prints, for a `main` that returns it.
#[derive(thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: Box<Kind>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Debug)]
pub(crate) enum Kind {
    /// No coordinator answers, or none leads: causes by address.
    NoCluster { causes: Vec<(String, Option<NoLink>)> },
    /// The address list cannot be read.
    Address { text: String, cause: String },
    /// The identity's directory cannot be used.
    Identity { directory: String },
    /// `ALLHANDS_CLUSTER` is set and not what it should be.
    Environment { cause: String },
    /// `init()` was not called.
    NotInitialised,
    /// This process is an executor.
    InExecutor,
    /// The library was built without the embedded cluster.
    #[cfg(not(feature = "embedded"))]
    NoEmbedded,
    /// The embedded cluster does not start.
    #[cfg(feature = "embedded")]
    Embedded { cause: String },
    /// The embedded cluster has ended of itself.
    EmbeddedEnded { cause: String },
    /// The own thread, socket or executable cannot be had.
    Own { what: &'static str, cause: String },
    /// The cluster does not run this program.
    ProgramRefused { reason: String },
    /// The cluster does not take the call.
    Refused { reason: String },
    /// No coordinator has led for so long.
    Leaderless { waited: Duration },
    /// The session's lease had run out.
    Expired,
    /// The cluster forgot a call that it had taken.
    Forgotten,
    /// Results are stored and cannot be read.
    Unreadable { reason: String },
    /// The session has ended.
    Closed,
    /// An array of another shape, or at another place, than can be.
    Shape(String),
    /// An array cannot be stored, opened or mapped.
    Data,
    /// A handle on a file in place was written before this process spoke with the cluster.
    Early,
    /// An array was put into another cluster than the one that is to use it.
    OtherCluster,
    /// An execution's cluster is not known here; whether another is.
    Homeless { cluster: ClusterId, others: bool },
    /// A call names an execution of another cluster.
    OtherExecution { execution: TaskId, cluster: ClusterId },
    /// A call names more executions than one may.
    TooManyNamed { function: String, named: usize, limit: usize },
    /// A job that goes on without this process was asked of an embedded cluster.
    EmbeddedJob,
    /// A process leaves a job whose calls the cluster does not have.
    Uncommitted { job: JobId, calls: usize },
    /// A call of such a job names what this process would have to serve.
    HeldHere { function: String },
    /// A call was submitted to another's job.
    OthersJob { job: JobId },
    /// Why a task cannot call or wait for another.
    InTask(NotHere),
    /// An array that a task has left with a worker cannot be had, or one cannot be left there.
    Blob(Cause),
    /// An array was put on a thread of an executor on which no task runs.
    NoTask,
    /// A call failed.
    Run(RunError),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind: Box::new(kind), source: None }
    }

    pub(crate) fn caused(kind: Kind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind: Box::new(kind), source: Some(Box::new(source)) }
    }

    pub(crate) fn thread(error: std::io::Error) -> Self {
        Self::new(Kind::Own { what: "the thread of the session", cause: error.to_string() })
    }

    pub(crate) fn socket(cause: String) -> Self {
        Self::new(Kind::Own { what: "the UDP socket of the session", cause })
    }

    pub(crate) fn giving(cause: String) -> Self {
        Self::new(Kind::Own { what: "what gives this program's data to workers", cause })
    }

    pub(crate) fn executable(error: std::io::Error) -> Self {
        Self::new(Kind::Own {
            what: "the program's own file (/proc/self/exe)",
            cause: error.to_string(),
        })
    }

    #[cfg(not(feature = "embedded"))]
    pub(crate) fn no_embedded() -> Self {
        Self::new(Kind::NoEmbedded)
    }

    /// The embedded cluster does not start.
    #[cfg(feature = "embedded")]
    pub(crate) fn embedded(cause: String) -> Self {
        Self::new(Kind::Embedded { cause })
    }

    /// An array cannot be stored, opened or mapped, for this reason.
    pub(crate) fn data(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::caused(Kind::Data, source)
    }

    /// Data of tasks, for this cause.
    pub(crate) fn blob(cause: Cause) -> Self {
        Self::new(Kind::Blob(cause))
    }

    /// What happened to the data of a [`Shared`](crate::Shared) that lies with workers: [`Cause::BlobLost`] if it is
    /// nowhere any more, [`Cause::Unlent`] if it may be had later.
    pub fn cause(&self) -> Option<&Cause> {
        match &*self.kind {
            Kind::Blob(cause) => Some(cause),
            _ => None,
        }
    }

    /// Whether doing the same again, with nothing changed by hand, might succeed.
    pub fn retry_can_help(&self) -> bool {
        match &*self.kind {
            Kind::Blob(cause) => cause.retry_can_help(),
            Kind::NoCluster { causes } => can_come(causes),
            Kind::Leaderless { .. }
            | Kind::Expired
            | Kind::Forgotten
            | Kind::Uncommitted { .. }
            | Kind::Unreadable { .. }
            | Kind::EmbeddedEnded { .. }
            | Kind::Data
            | Kind::Own { .. } => true,
            #[cfg(feature = "embedded")]
            Kind::Embedded { .. } => true,
            Kind::Address { .. }
            | Kind::Identity { .. }
            | Kind::Environment { .. }
            | Kind::NotInitialised
            | Kind::InExecutor
            | Kind::ProgramRefused { .. }
            | Kind::Refused { .. }
            | Kind::Shape(_)
            | Kind::OtherCluster
            | Kind::Early
            | Kind::Homeless { .. }
            | Kind::OtherExecution { .. }
            | Kind::TooManyNamed { .. }
            | Kind::InTask(_)
            | Kind::EmbeddedJob
            | Kind::HeldHere { .. }
            | Kind::OthersJob { .. }
            | Kind::NoTask
            | Kind::Closed => false,
            #[cfg(not(feature = "embedded"))]
            Kind::NoEmbedded => false,
            Kind::Run(error) => error.retry_can_help(),
        }
    }

    /// The error of the call, if that is what it is.
    pub fn as_run(&self) -> Option<&RunError> {
        match &*self.kind {
            Kind::Run(error) => Some(error),
            _ => None,
        }
    }
}

/// Why what belongs to a batch that has ended so did not come, if that was about the cluster.
pub(crate) fn error_of_end(end: &End) -> Option<Error> {
    let kind = match end {
        End::Complete { .. } => return None,
        End::Refused(reason) => Kind::Refused { reason: reason.clone() },
        End::ProgramRefused(reason) => Kind::ProgramRefused { reason: reason.clone() },
        End::Expired => Kind::Expired,
        End::Forgotten => Kind::Forgotten,
        End::Unreadable(reason) => Kind::Unreadable { reason: reason.clone() },
        End::Leaderless(waited) => Kind::Leaderless { waited: *waited },
        End::Lost(cause) => Kind::EmbeddedEnded { cause: cause.clone() },
        End::Closed => Kind::Closed,
    };
    Some(Error::new(kind))
}

/// Whether one of these links may come to stand without anybody's doing.
fn can_come(causes: &[(String, Option<NoLink>)]) -> bool {
    causes.iter().any(|(_, cause)| cause.as_ref().is_none_or(|cause| cause.retry_can_help))
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", chain(self))
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        Self::new(Kind::Run(error))
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        RunError::from(error).into()
    }
}

#[cfg(test)]
mod tests;
