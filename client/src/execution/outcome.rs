//! From what came of a task to its value, or its error.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use allhands_common::blob::BlobRef;
use allhands_common::codec;
use allhands_common::execution::TASK_ID_BYTES;
use allhands_common::failure::{Cause, Failed};
use allhands_common::segment::{ARITY_MAX, DONE, ERROR, FAILED, FORWARDED, STORED, Segment};
use allhands_store::map::Map;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::home;
use super::signal::Signal;
use super::slot::{Long, Outcome, Settled, Slot};
use super::{Execution, handle, layers, within};
use crate::error::{TaskError, TaskErrorKind, error_of_end};
use crate::executor::tasks::NotHere;
use crate::payload::{Codec, decode_received};
use crate::session::core::End;
use crate::shared::whole::{self, Whole};

/// The bytes of an outcome.
#[derive(Debug)]
pub(super) enum Value {
    Short(Bytes),
    Long(Map),
    Lent(Arc<Whole>),
}

impl Value {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(map) => map,
            Self::Lent(whole) => whole.all(),
        }
    }
}

/// Its tag, its codec and its bytes.
pub(super) type Read = (u16, u8, Value);

fn undecodable(message: impl std::fmt::Display) -> TaskErrorKind {
    TaskErrorKind::Undecodable { message: message.to_string() }
}

/// The outcome with all its bytes; a long one is fetched for that, and is then [`DONE`]. `waker` is left if it is
/// not here.
fn poll(slot: &Arc<Slot>, waker: &Waker) -> Option<Result<Read, TaskErrorKind>> {
    // What an outer execution returns in an `Err` leads nowhere, and is of another type.
    if let Some(outer) = slot.outer()
        && let Settled::Outcome(Outcome { tag: FAILED, codec, bytes, .. }) = outer.poll(waker)?
    {
        return Some(Err(own_error(*codec, bytes)));
    }
    let outcome = match slot.poll(waker)? {
        Settled::Outcome(outcome) => outcome,
        Settled::Ended(end) => return Some(Err(kind_of(end))),
        Settled::Homeless(error) => return Some(Err(TaskErrorKind::Cluster(Arc::clone(error)))),
    };
    let Outcome { tag, codec, bytes, .. } = outcome;
    if *tag != STORED {
        return Some(Ok((*tag, *codec, Value::Short(bytes.clone()))));
    }
    let Some(reference) = BlobRef::from_bytes(bytes) else {
        return Some(Err(undecodable("its outcome was damaged")));
    };
    let long = match slot.poll_long(reference, waker)? {
        Ok(Long::Here(blob)) => blob.map(0..reference.bytes).map_err(|error| error.to_string()),
        Ok(Long::Received(received)) => match received.blob() {
            Some(blob) => blob.map(0..reference.bytes).map_err(|error| error.to_string()),
            None => Err("it came and is gone again".into()),
        },
        Ok(Long::Lent(whole)) => return Some(Ok((DONE, *codec, Value::Lent(Arc::clone(whole))))),
        Err(why) => Err(why.clone()),
    };
    let lost = |why| undecodable(format!("its {} bytes: {why}", reference.bytes));
    Some(long.map(|map| (DONE, *codec, Value::Long(map))).map_err(lost))
}

/// The function's own error.
pub(super) fn own_error(codec: u8, bytes: &[u8]) -> TaskErrorKind {
    match Codec::from_byte(codec) {
        Some(codec) => TaskErrorKind::failed(Bytes::copy_from_slice(bytes), codec),
        None => undecodable("its error is in a codec that this program lacks"),
    }
}

/// Why a task cannot wait for another.
pub(super) fn kind_of_task(error: NotHere) -> TaskErrorKind {
    match error {
        NotHere::Cancelled => {
            let reason = "the task that waits for it was cancelled".into();
            TaskErrorKind::Ended(Cause::Cancelled { reason })
        }
        NotHere::AnotherThread | NotHere::NoThread => {
            TaskErrorKind::Cluster(Arc::new(within::not_here(error)))
        }
    }
}

/// What happened to a task whose batch has ended so.
fn kind_of(end: &End) -> TaskErrorKind {
    match (end, error_of_end(end)) {
        (_, Some(error)) => TaskErrorKind::Cluster(Arc::new(error)),
        (End::Complete { rest: Some(failed) }, None) => TaskErrorKind::Ended(failed.cause.clone()),
        (_, None) => undecodable("its batch ended without it"),
    }
}

/// Calls `poll` until it answers, in this thread; `None` when `deadline` has passed before. What it waits for are
/// outcomes of `slots`.
///
/// # Errors
/// The task of this thread cannot wait, or was cancelled.
pub(super) fn block<'a, T>(
    slots: impl Iterator<Item = &'a Arc<Slot>> + Clone,
    deadline: Option<Instant>,
    mut poll: impl FnMut(&Waker) -> Option<T>,
) -> Result<Option<T>, NotHere> {
    Signal::with_own(|signal, waker| {
        loop {
            if let Some(answer) = poll(waker) {
                return Ok(Some(answer));
            }
            let open = slots.clone().filter(|slot| slot.settled().is_none());
            let on: Vec<_> = open.map(|slot| slot.of()).collect();
            if !home::park(signal, on, deadline)? {
                return Ok(poll(waker));
            }
        }
    })
}

/// Whether two types are certainly different ones. Of types that are not the standard library's only the names are
/// known, and the program that reads may have its own for what another one returns.
fn differ(one: &str, other: &str) -> bool {
    let is_std = |name: &str| {
        let mut paths = name.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        paths.all(|path| {
            let root = path.split_once("::").map(|(root, _)| root);
            root.is_none_or(|root| ["alloc", "core", "std"].contains(&root))
        })
    };
    one != other && is_std(one) && is_std(other)
}

impl<R> Execution<R> {
    /// Waits for the outcome; `None` when `deadline` has passed before.
    pub(super) fn wait_read(
        &self,
        deadline: Option<Instant>,
    ) -> Option<Result<Read, TaskErrorKind>> {
        let read = block(std::iter::once(&self.slot), deadline, |waker| poll(&self.slot, waker));
        read.unwrap_or_else(|error| Some(Err(kind_of_task(error))))
    }

    /// Waits until it has ended, in whatever way; `false` when `deadline` has passed before.
    pub(super) fn wait_end(&self, deadline: Option<Instant>) -> bool {
        let ended = |waker: &Waker| self.slot.poll(waker).map(|_| ());
        block(std::iter::once(&self.slot), deadline, ended).is_ok_and(|ended| ended.is_some())
    }

    /// What it returned, or why it did not. `waker` is left if that is not known.
    pub(super) fn poll_result(&self, waker: &Waker) -> Option<Result<R, TaskError>>
    where
        R: DeserializeOwned,
    {
        poll(&self.slot, waker).map(|read| self.read(read))
    }

    /// Reads an outcome.
    pub(super) fn read(&self, read: Result<Read, TaskErrorKind>) -> Result<R, TaskError>
    where
        R: DeserializeOwned,
    {
        let (tag, codec, value) = read.map_err(|kind| self.error_of(kind))?;
        // One that is followed may have met an `Err` on the way.
        if tag == FAILED && self.slot.of().follow && !layers::is_result::<R>() {
            return Err(self.error_of(own_error(codec, value.bytes())));
        }
        let bytes = match tag {
            DONE | FAILED => Some(value.bytes()),
            FORWARDED => value.bytes().get(TASK_ID_BYTES..),
            _ => return Err(self.failure(tag, value.bytes())),
        };
        let (wanted, returns) = (std::any::type_name::<R>(), self.slot.returned_elsewhere());
        if tag == DONE
            && let Some(returns) = returns.filter(|returns| differ(returns, wanted))
        {
            let message = format!("it returns `{returns}`, and is read as `{wanted}`");
            return Err(self.error_of(undecodable(message)));
        }
        let read = match (bytes, Codec::from_byte(codec)) {
            (Some(bytes), Some(codec)) => {
                let arrays = self.slot.arrays();
                let decode = || whole::near(arrays, || decode_received::<R>(codec, bytes));
                handle::reading(&self.slot, &self.ties, decode).map_err(|error| self.unlike(&error))
            }
            _ => Err("its outcome was damaged, or comes from another release of allhands".into()),
        };
        read.map_err(|message| self.error_of(undecodable(message)))
    }

    /// That the result is not of the type that this execution has, with the one that it should have.
    fn unlike(&self, error: &dyn std::fmt::Display) -> String {
        let wanted = std::any::type_name::<R>();
        match self.slot.returns() {
            Some(returns) if returns != wanted => {
                format!("it returns `{returns}`, and is read as `{wanted}`: {error}")
            }
            Some(_) => error.to_string(),
            None => format!(
                "the handle was read as one of `{wanted}`, and its task returned something else, or this \
                 program has changed that type since: {error}"
            ),
        }
    }

    /// The error of an outcome without a value, or of the function's own `Err`.
    pub(super) fn failure(&self, tag: u16, bytes: &[u8]) -> TaskError {
        match tag {
            ERROR => match codec::decode::<Failed>(bytes) {
                Ok(Failed { cause, worker, attempt, tries }) => {
                    let name = self
                        .ties
                        .cluster()
                        .zip(worker)
                        .and_then(|(cluster, worker)| cluster.session().workers().name(worker));
                    self.error_of(TaskErrorKind::Ended(cause)).at(worker, attempt, tries).on(name)
                }
                Err(error) => self.error_of(undecodable(error)),
            },
            _ => self.error_of(undecodable("its outcome comes from another release of allhands")),
        }
    }

    /// That it has not ended in time.
    pub(super) fn overdue(&self, waited: Duration) -> TaskError {
        self.error_of(TaskErrorKind::Overdue { waited })
    }

    pub(super) fn error_of(&self, kind: TaskErrorKind) -> TaskError {
        let label = self.slot.function().map(|entry| entry.label()).unwrap_or_default();
        let arguments = self.arguments_text().unwrap_or_default();
        TaskError::new(0, label, arguments, kind).of_execution(self.id())
    }

    /// The arguments of one without a value, for people.
    fn arguments_text(&self) -> Option<String> {
        let Some(Settled::Outcome(Outcome { arguments: Some((segment, row)), .. })) =
            self.slot.settled()
        else {
            return None;
        };
        let segment = Segment::parse(segment.clone()).ok()?;
        let codec = Codec::from_byte(segment.codec())?;
        let mut strings = [&[][..]; ARITY_MAX];
        let (tag, arity) = segment.row(*row, &mut strings)?;
        let (_, stand_ins) = allhands_common::segment::split_argument_tag(tag);
        Some(self.slot.function()?.text(codec, &strings[..arity], stand_ins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_differ_only_where_their_names_say_all() {
        let vec = "alloc::vec::Vec<u64>";
        assert!(differ("u64", "f64") && differ(vec, "alloc::vec::Vec<(u32, i8)>"));
        assert!(!differ(vec, vec));
        assert!(!differ("theirs::Point", "ours::Point"), "they may be the same");
        assert!(!differ("u64", "ours::Number") && !differ("alloc::vec::Vec<theirs::P>", vec));
    }
}
