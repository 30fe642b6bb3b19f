//! allhands: joblib's idea for a cluster. Ordinary functions, called through `delayed`, run on every
//! core of every machine that has joined.

mod delayed;
mod entry;
mod failure;
mod function;
mod into_arg;
mod payload;
mod registry;
mod source;
mod task_ref;

pub use allhands_common::resources::Resources;
//pub use allhands_macros::{main, task, test};
pub use delayed::{Delayed, call, delayed};
pub use entry::{NotInExecutable, UnknownFunction};
pub use failure::{Failure, OpaqueError};
pub use function::{Arg, Args, Async, Function, NoCapture, Opaque, Ret, Value};
pub use into_arg::{IntoArg, IntoArgs};
pub use payload::{ArgWriter, ArgumentError, DecodeError, EncodeError};
pub use task_ref::{Slice, TaskRef};

/// What the macros' output names. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::delayed::task_call;
    pub use crate::entry::{CallFn, CallStatus, DebugFn, Entry, Marker};
    pub use crate::payload::{ArgText, BytesText, Codec, DebugText};
    pub use crate::registry::{TASKS, Task, TaskPolicy, TaskResources};
    pub use crate::source::Digest;
    pub use allhands_common::policy::Backoff;
    pub use linkme;
}
