//! Functions of the program that judge what a task has come to: whether a failure is tried again
//! ([`RetryWhen`]), and whether a result is one ([`Recurs`]).
//!
//! They run in the executor, where the types are known, right after the task; the cluster learns the answer and nothing
//! else. Each has a record in the program like the tasks' functions, and travels by its name.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::ptr;

use allhands_common::failure::Cause;
use allhands_common::function::FunctionName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::{CallFn, CallStatus, Entry, NotInExecutable};
use crate::executor::panics;
use crate::function::NoCapture;
use crate::payload::{Codec, decode, encode, kind_status};
use crate::shared::mention;

/// Says of an `Err`, or of a panic, whether the task is to be tried again: what
/// [`retry_when`](crate::Delayed::retry_when) takes.
///
/// * A `fn(&E) -> bool` for a task that returns `Result<_, E>`. What is not an `Err` of the function, a panic, it cannot
///   judge: that is not tried again.
/// * A `fn(&str) -> bool`, where `E` is `Display`: it is given the error's text, or the panic's message.
///
/// `K` says which, and is inferred. A timeout is nothing that the function said, and is tried again as ever.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say when a task that returns `{R}` is tried again",
    label = "not a predicate on its error",
    note = "for a task that returns `Result<T, E>` it is a `fn(&E) -> bool`, or, where `E` is `Display`, a \
            `fn(&str) -> bool`; as a closure it captures nothing and says the type of its parameter"
)]
pub trait RetryWhen<R, K>: NoCapture {
    /// Whether it is to be tried again; `None`: that cannot be told.
    #[doc(hidden)]
    fn judge(&self, codec: Codec, judged: Judged<'_>) -> Option<bool>;
}

/// What a task has failed of, still encoded.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Judged<'a> {
    /// The whole `Result`.
    Returned(&'a [u8]),
    /// A panic's message.
    Panicked(&'a [u8]),
}

/// Marks a predicate on the error itself.
#[derive(Debug)]
pub enum OfError {}

/// Marks a predicate on its text.
#[derive(Debug)]
pub enum OfText {}

#[diagnostic::do_not_recommend]
impl<F, T, E> RetryWhen<Result<T, E>, OfError> for F
where
    F: Fn(&E) -> bool + NoCapture,
    Result<T, E>: DeserializeOwned,
{
    fn judge(&self, codec: Codec, judged: Judged<'_>) -> Option<bool> {
        let Judged::Returned(bytes) = judged else { return Some(false) };
        let error = decode::<Result<T, E>>(codec, bytes).ok()?.err()?;
        Some(self(&error))
    }
}

#[diagnostic::do_not_recommend]
impl<F, T, E> RetryWhen<Result<T, E>, OfText> for F
where
    F: Fn(&str) -> bool + NoCapture,
    E: Display,
    Result<T, E>: DeserializeOwned,
{
    fn judge(&self, codec: Codec, judged: Judged<'_>) -> Option<bool> {
        match judged {
            Judged::Returned(bytes) => {
                let error = decode::<Result<T, E>>(codec, bytes).ok()?.err()?;
                Some(self(&error.to_string()))
            }
            Judged::Panicked(message) => Some(self(&String::from_utf8_lossy(message))),
        }
    }
}

/// What a task returns that is run until it has a result: `Option<T>`, or `Result<Option<T>, E>`. `None` means
/// "not yet", an `Err` is an end like any other.
#[diagnostic::on_unimplemented(
    message = "a recurrent task cannot return `{Self}`",
    label = "neither an `Option` nor a `Result` of one",
    note = "it is run again for as long as it returns `None`: let it return `Option<T>`, or `Result<Option<T>, E>`"
)]
pub trait Recurs: Serialize + DeserializeOwned + 'static {
    /// What comes of it: `T`, or `Result<T, E>`.
    type Value: Serialize + DeserializeOwned + 'static;

    /// That, once it is there.
    #[doc(hidden)]
    fn value(self) -> Option<Self::Value>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Recurs for Option<T> {
    type Value = T;

    fn value(self) -> Self {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T, E> Recurs for Result<Option<T>, E>
where
    T: Serialize + DeserializeOwned + 'static,
    E: Serialize + DeserializeOwned + 'static,
{
    type Value = Result<T, E>;

    fn value(self) -> Option<Result<T, E>> {
        self.transpose()
    }
}

/// First string of what a predicate is called with.
const RETURNED: &[u8] = b"returned";
/// The same of a panic.
const PANICKED: &[u8] = b"panicked";

/// What the strings say that a predicate was called with.
pub(crate) fn judged<'a>(strings: &[&'a [u8]]) -> Option<Judged<'a>> {
    match strings {
        [first, bytes] if *first == RETURNED => Some(Judged::Returned(bytes)),
        [first, message] if *first == PANICKED => Some(Judged::Panicked(message)),
        _ => None,
    }
}

/// Whether the predicate `judge` does not want a failed task to be tried again. One that panics does not.
#[cold]
pub(crate) fn is_for_good(
    judge: CallFn,
    codec: Codec,
    answer: &Result<CallStatus, Cause>,
    out: &[u8],
) -> bool {
    let strings = match answer {
        Ok(CallStatus::Failed) => [RETURNED, out],
        Err(Cause::Panicked { message, .. }) => [PANICKED, message.as_bytes()],
        _ => return false,
    };
    let said = panics::catch(|| judge(codec, &strings, &mut Vec::new()));
    !matches!(said, Ok(CallStatus::Done))
}

/// Makes of the result in `out` what `recurs` makes of it, if it is one.
///
/// # Errors
/// A user's `Deserialize` panicked.
pub(crate) fn value_of(
    recurs: CallFn,
    codec: Codec,
    status: CallStatus,
    out: &mut Vec<u8>,
) -> Result<CallStatus, Cause> {
    match status {
        CallStatus::Done | CallStatus::Failed | CallStatus::Forwarded(_) => {
            let result = std::mem::take(out);
            panics::catch(|| recurs(codec, &[&result], out))
        }
        CallStatus::Again | CallStatus::BadArgument { .. } | CallStatus::BadResult { .. } => {
            Ok(status)
        }
    }
}

/// The trampoline of [`Recurs`].
pub(crate) fn call_recurs<R: Recurs>(
    codec: Codec,
    strings: &[&[u8]],
    out: &mut Vec<u8>,
) -> CallStatus {
    let bad = |message: String| CallStatus::BadResult { message };
    let [result] = strings else { return bad("it was damaged on the way".into()) };
    let value = match decode::<R>(codec, result) {
        Ok(result) => result.value(),
        Err(error) => return bad(error.to_string()),
    };
    let Some(value) = value else { return CallStatus::Again };
    let start = out.len();
    // What it holds handles on is noted, as by the task itself.
    let encoded =
        crate::execution::named::during(0, || mention::during(|| encode(codec, &value, out)));
    match encoded {
        Ok(()) => kind_status(&value),
        Err(error) => {
            out.truncate(start);
            bad(error.to_string())
        }
    }
}

/// The record of a function that judges.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Judge(pub(crate) &'static Entry);

impl Judge {
    /// What other processes call it.
    pub(crate) fn name(self) -> Result<FunctionName, NotInExecutable> {
        self.0.name()
    }
}

impl PartialEq for Judge {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Judge {}

impl Hash for Judge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&raw const *self.0).addr().hash(state);
    }
}
