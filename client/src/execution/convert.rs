//! Executions as arguments: what a parameter is made of when it is given an execution of its type, of a `Result` of
//! it, of an execution of it, or several.
//!
//! The parameter's type decides. Where it is a value, the argument is a stand-in: the cluster starts the task when
//! the outcome is there, and the executor makes the argument of it, with the [`Conversion`] that the stand-in names.
//! Where it is itself an `Execution`, the handle is the argument, and nothing is waited for.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;

use allhands_common::execution::{Filling, Need};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::layers::{self, Layers};
use super::slot::Slot;
use super::{Execution, named};
use crate::entry;
use crate::function::Arg;
use crate::into_arg::IntoArg;
use crate::payload::{ArgWriter, Codec, EncodeError, needs_names};
use crate::registry::known;
use crate::task_ref::Slice;

/// How an argument is made of outcomes. Each has an entry in the program, by which executors find it.
pub(crate) trait Conversion: 'static {
    /// What each outcome is.
    type Reads: DeserializeOwned + 'static;
    /// What the parameter is.
    type Writes: Serialize + DeserializeOwned + 'static;
    /// Whether the bytes of the one outcome are those of the argument.
    const PLAIN: bool;

    /// Makes it.
    ///
    /// # Errors
    /// The outcomes are not those that there should be.
    fn convert(read: Vec<Self::Reads>) -> Result<Self::Writes, String>;
}

/// The value of one outcome.
struct Same<T>(PhantomData<T>);
/// What is in its `Ok`.
struct OkOf<T, E>(PhantomData<(T, E)>);
/// A `Vec` to be lent as a slice.
struct Lent<T>(PhantomData<T>);
/// What is in its `Ok`, to be lent as a slice.
struct OkLent<T, E>(PhantomData<(T, E)>);
/// The values of several.
struct Many<T>(PhantomData<T>);
/// The values of several, to be lent as a slice.
struct ManyLent<T>(PhantomData<T>);

fn one<T>(read: Vec<T>) -> Result<T, String> {
    let outcomes = read.len();
    let mut read = read.into_iter();
    match (read.next(), outcomes) {
        (Some(one), 1) => Ok(one),
        _ => Err(format!("it is made of one outcome, and {outcomes} came")),
    }
}

fn ok<T, E>(read: Vec<Result<T, E>>) -> Result<T, String> {
    one(read)?.map_err(|_| "the execution that it is made of returned an error".to_owned())
}

macro_rules! conversions {
    ($([$($generic:ident),*] $name:ty: $reads:ty => $writes:ty, $plain:literal, $make:expr;)*) => {$(
        impl<$($generic: Arg),*> Conversion for $name {
            type Reads = $reads;
            type Writes = $writes;
            const PLAIN: bool = $plain;

            fn convert(read: Vec<$reads>) -> Result<$writes, String> {
                $make(read)
            }
        }
    )*};
}

conversions! {
    [T] Same<T>: T => T, true, one;
    [T, E] OkOf<T, E>: Result<T, E> => T, false, ok;
    [T] Lent<T>: Vec<T> => Slice<T>, true, |read| one(read).map(Slice::from);
    [T, E] OkLent<T, E>: Result<Vec<T>, E> => Slice<T>, false, |read| ok(read).map(Slice::from);
    [T] Many<T>: T => Vec<T>, false, Ok;
    [T] ManyLent<T>: T => Slice<T>, false, |read| Ok(Slice::from(read));
}

/// Whether what a conversion reads and writes needs a codec with field names; asked of the types once.
fn needs_cbor<C: Conversion>() -> bool {
    let entry = entry::of_conversion::<C>();
    let known = known(entry);
    let codec = known.codec().unwrap_or_else(|| {
        let codec = match needs_names::<C::Reads>() || needs_names::<C::Writes>() {
            true => Codec::Cbor,
            false => Codec::Bincode,
        };
        known.set_codec(codec);
        codec
    });
    codec == Codec::Cbor
}

/// Takes what `C` makes of the outcomes of `slots` as the next argument.
fn put<'a, C: Conversion>(
    writer: &mut ArgWriter<'_>,
    slots: impl Iterator<Item = &'a Arc<Slot>>,
    need: Need,
) -> Result<(), EncodeError> {
    let refused = |cause: &str| EncodeError::new(type_name::<C::Writes>(), cause);
    match layers::of::<C::Reads>() {
        Layers::Value => {}
        // Of an execution of executions the handle on what they lead to; nobody waits for that.
        Layers::Execution => {
            let handle = |slot| Execution::<()>::leading_to(slot);
            let handles: Vec<Execution<()>> = slots.map(handle).collect();
            return match &handles[..] {
                [only] if C::PLAIN => writer.put(only),
                all => writer.put(all),
            };
        }
        Layers::ResultOfExecution => {
            return Err(refused(
                "an execution that returns a `Result` of an execution was given where that is wanted: give \
                 its value, `execution.result()?`, or let the parameter be of what it leads to",
            ));
        }
    }
    if writer.codec() == Codec::Bincode && needs_cbor::<C>() {
        return Err(refused("the value of the execution needs a codec with field names"));
    }
    let made_by =
        entry::of_conversion::<C>().name().map_err(|error| refused(&error.to_string()))?;
    let place = writer.position();
    let of = slots.map(|slot| {
        named::add(slot, need, place);
        slot.of().task
    });
    let of = of.collect();
    writer.put_filling(Filling { made_by, plain: C::PLAIN, of })
}

macro_rules! of_one {
    ($([$($generic:ident),*] $from:ty => $to:ty: $conversion:ty, $need:ident;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generic: Arg),*> IntoArg<$to> for &Execution<$from> {
            fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                put::<$conversion>(writer, std::iter::once(&self.slot), Need::$need)
            }
        }

        #[diagnostic::do_not_recommend]
        impl<$($generic: Arg),*> IntoArg<$to> for Execution<$from> {
            fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                put::<$conversion>(writer, std::iter::once(&self.slot), Need::$need)
            }
        }
    )*};
}

of_one! {
    // If `T` is a `Result`, its `Err` is passed on as it is; if not, there is none.
    [T] T => T: Same<T>, Returned;
    [T, E] Result<T, E> => T: OkOf<T, E>, Value;
    [T] Execution<T> => T: Same<T>, Returned;
    [T, E] Result<Execution<T>, E> => T: Same<T>, Value;
    [T, E] Execution<Result<T, E>> => T: OkOf<T, E>, Value;
    [T, E, E2] Result<Execution<Result<T, E>>, E2> => T: OkOf<T, E>, Value;
    [T] Vec<T> => Slice<T>: Lent<T>, Returned;
    [T, E] Result<Vec<T>, E> => Slice<T>: OkLent<T, E>, Value;
}

macro_rules! of_many {
    ($($from:ty => $to:ty: $conversion:ty;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<T: Arg> IntoArg<$to> for $from {
            fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                put::<$conversion>(writer, self.iter().map(|one| &one.slot), Need::Returned)
            }
        }
    )*};
}

of_many! {
    &[Execution<T>] => Vec<T>: Many<T>;
    &Vec<Execution<T>> => Vec<T>: Many<T>;
    &[Execution<T>] => Slice<T>: ManyLent<T>;
    &Vec<Execution<T>> => Slice<T>: ManyLent<T>;
}

/// By reference: the task has the handle, and asks itself.
#[diagnostic::do_not_recommend]
impl<T> IntoArg<Execution<T>> for &Execution<T>
where
    Execution<T>: Serialize + for<'de> Deserialize<'de>,
{
    fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
        writer.put(*self)
    }
}

#[cfg(test)]
mod tests;
