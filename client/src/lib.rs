//! allhands: joblib's idea for a cluster. Ordinary functions, called through `delayed`, run on every
//! core of every machine that has joined.

mod batch;
mod cluster;
mod context;
mod data;
mod delayed;
#[cfg(feature = "embedded")]
mod embedded;
mod enter;
mod entry;
mod error;
mod execution;
#[doc(hidden)]
pub mod executor;
mod failure;
mod function;
mod into_arg;
mod job;
mod judge;
mod notice;
mod parallel;
mod payload;
mod progress;
mod registry;
mod session;
mod shared;
mod source;
mod task_ref;

pub use allhands_common::failure::Cause;
pub use allhands_common::id::{AttemptId, BatchId, JobId, TaskId, WorkerId};
pub use allhands_common::policy::Prefer;
pub use allhands_common::resources::Resources;
pub use allhands_common::wire::note::{Level, Line, Note, Said};
pub use allhands_macros::{main, task, test};
pub use batch::{Batch, Collected};
pub use cluster::{
    ADDRESSES_FILE, CLUSTER_VARIABLE, Cluster, EmbeddedBuilder, IDENTITY_FOLDER, IDENTITY_VARIABLE,
    shutdown,
};
pub use context::{Cancelled, Context, context};
pub use delayed::{Delayed, call, delayed};
pub use enter::init;
pub use entry::{NotInExecutable, UnknownFunction};
pub use error::{Error, FunctionError, Result, RunError, TaskError, TaskErrorKind, TryError};
pub use execution::{
    AsCompleted, Buffered, Execution, Outcome, Until, Waited, as_completed, select, wait,
    wait_timeout,
};
pub use failure::{Failure, OpaqueError};
pub use function::{Arg, Args, Async, Function, NoCapture, Opaque, Ret, Value};
pub use into_arg::{IntoArg, IntoArgs};
pub use job::{Detached, Job, JobBatch, Results};
pub use judge::{Recurs, RetryWhen};
pub use parallel::{BatchSize, Collect, FailAfter, FailFast, OnError, Parallel};
pub use payload::{ArgWriter, ArgumentError, DecodeError, EncodeError};
pub use progress::Progress;
pub use shared::{ArrayWriter, Shared, SharedMut, put};
pub use task_ref::{Slice, TaskRef};

/// What most programs need: `use allhands::prelude::*`.
pub mod prelude {
    pub use crate::{
        ArrayWriter, BatchSize, Cluster, Collect, Delayed, Execution, FailAfter, FailFast,
        Parallel, Prefer, Resources, Shared, TaskError, delayed,
    };
}

/// What the macros' output names. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::delayed::{Parts, parts, task_call};
    pub use crate::enter::{enter_main, enter_test};
    pub use crate::entry::{
        BeginFn, Begins, CallFn, CallFuture, CallStatus, DebugFn, Entry, Marker, Stays,
        judge_of_output,
    };
    pub use crate::payload::{ArgText, BytesText, Codec, DebugText};
    pub use crate::registry::{TASKS, Task, TaskPolicy, TaskResources, type_id_of};
    pub use crate::source::Digest;
    pub use allhands_common::policy::{Backoff, EqualCalls};
    pub use linkme;
}
