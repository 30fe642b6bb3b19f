//! A call that has not been made: a function's entry and its encoded arguments.
//!
//! Making one of `fn(u64) -> u64` costs about as much as writing eight bytes: the arguments are kept
//! in place, what is known of the function is one comparison away, and nothing is formatted.

mod first;
mod options;
mod patch;

pub(crate) use patch::{Patch, check_group, millis};

use std::fmt;
use std::panic::Location;

use allhands_common::execution::Need;
use allhands_common::function::FunctionName;
use allhands_common::policy::Policy;
use serde::de::DeserializeOwned;

use crate::entry::{self, Entry, Marker, NotATask, NotInExecutable};
use crate::execution::named::{self, Named};
use crate::function::{Args, Function, NoCapture, Ret};
use crate::into_arg::IntoArgs;
use crate::parallel::lift;
use crate::payload::{
    ArgWriter, ArgumentError, Arguments, Codec, DecodeError, EncodeError, bytes_text,
    decode_received,
};
use crate::registry::{Task, known};
use crate::shared::mention;

/// Makes of a function one that is not called but noted: `delayed(f)(a, b)` is the call `f(a, b)`, to
/// be run somewhere by [`Parallel`](crate::Parallel).
///
/// `f` is a safe `fn` item or a closure that captures nothing, of up to eight owned serde arguments.
/// What it returns may be a serde value, a `Result`, or a future of such. A `#[task]` function keeps
/// its policy.
///
/// ```
/// use allhands::{Delayed, delayed};
///
/// fn square(n: u64) -> u64 {
///     n * n
/// }
/// let calls: Vec<Delayed<u64>> = (0..10).map(delayed(square)).collect();
/// assert_eq!(calls.len(), 10);
/// ```
///
/// A closure that captures is an error: mostly at once, for a `move` of a `Copy` value only in
/// `cargo build` (the check needs code generation). A captured value of size zero cannot be told from
/// none: do not capture proof tokens (CPU features, "initialised" markers), for they would be
/// re-created in another process.
#[inline]
#[track_caller]
pub fn delayed<F, A, K>(f: F) -> F::Call<<F::Ret as Ret<K>>::Value>
where
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
{
    known(entry::of::<F, A, K, NotATask>(&f)).set_place(Location::caller());
    f.into_call::<K>()
}

/// The call of `f` with a tuple of arguments, each of which may be what
/// [`IntoArg`](crate::IntoArg) converts: a `&str` for a `String`, a slice for a `Vec`.
///
/// ```
/// use allhands::call;
///
/// fn repeat(text: String, times: usize) -> String {
///     text.repeat(times)
/// }
/// let call = call(repeat, ("ab", 3));
/// # let _: allhands::Delayed<String> = call;
/// ```
#[inline]
#[track_caller]
pub fn call<F, A, K, X>(f: F, args: X) -> Delayed<<F::Ret as Ret<K>>::Value>
where
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
    X: IntoArgs<A>,
{
    let entry = entry::of::<F, A, K, NotATask>(&f);
    known(entry).set_place(Location::caller());
    Delayed::new(entry, |writer| args.put_all(writer))
}

/// The call of a function with `#[task]` on it; `M` is the type that the attribute made beside it.
#[doc(hidden)]
#[inline]
pub fn task_call<M, F, A, K, X>(f: F, args: X) -> Delayed<<F::Ret as Ret<K>>::Value>
where
    M: Marker,
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
    X: IntoArgs<A>,
{
    Delayed::new(entry::of::<F, A, K, M>(&f), |writer| args.put_all(writer))
}

/// A call that has not been made, of a function that returns `R`.
///
/// Nothing runs until it is handed to [`Parallel`](crate::Parallel). Its policy is that of its batch,
/// then that of the function's `#[task]`, then what is said here:
///
/// ```
/// # use std::time::Duration;
/// # use allhands::delayed;
/// # fn fetch(id: u32) -> String { id.to_string() }
/// let call = delayed(fetch)(7).retries(3).timeout(Duration::from_secs(30));
/// # let _: allhands::Delayed<String> = call;
/// ```
#[must_use = "a delayed call does nothing until it is run, by `Parallel::run` for example"]
pub struct Delayed<R> {
    entry: &'static Entry,
    arguments: Arguments,
    decode: ResultDecoder<R>,
    extra: Option<Box<Extra>>,
}

/// What most calls do not have.
#[derive(Debug, Clone, Default)]
struct Extra {
    patch: Patch,
    error: Option<ArgumentError>,
    /// What the handles among its arguments look at.
    named: Vec<mention::Named>,
    /// Executions that its arguments are made of, or hold.
    needs: Vec<Named>,
}

impl<R: DeserializeOwned> Delayed<R> {
    #[inline]
    pub(crate) fn new(
        entry: &'static Entry,
        put: impl Fn(&mut ArgWriter<'_>) -> Result<(), EncodeError>,
    ) -> Self {
        let known = known(entry);
        let codec = known.codec();
        // Written where it will stay: a copy of what was just written would wait for the writes.
        let mut call = Self {
            entry,
            arguments: Arguments::new(codec.unwrap_or(Codec::Bincode)),
            decode: ResultDecoder(decode_received::<R>),
            extra: None,
        };
        let ((), needs) = named::gather(|| {
            if codec.is_none() || put(&mut ArgWriter::new(&mut call.arguments)).is_err() {
                first::write(entry, known, &put, &mut call.arguments, &mut call.extra);
            }
        });
        if !needs.is_empty() {
            let waits = known.task().map_or(0, |task| task.wait);
            call.extra.get_or_insert_default().needs = waiting(needs, waits);
        }
        let named = mention::take();
        if !named.is_empty() {
            call.extra.get_or_insert_default().named = named;
        }
        call
    }
}

/// What a call needs, if its function wants the executions in some of its arguments, a bit each, to have ended.
fn waiting(mut needs: Vec<Named>, waits: u8) -> Vec<Named> {
    for named in &mut needs {
        if named.need == Need::Handle && waits & 1 << named.place != 0 {
            named.need = Need::End;
        }
    }
    needs
}

impl<R> Delayed<R> {
    #[cold]
    fn patched(mut self, change: impl FnOnce(&mut Patch)) -> Self {
        change(&mut self.extra.get_or_insert_default().patch);
        self
    }

    /// The function's record.
    #[inline]
    pub(crate) const fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// The codec of its arguments; the outcome comes back in the same.
    #[inline]
    pub(crate) const fn codec(&self) -> Codec {
        self.arguments.codec()
    }

    /// Its encoded arguments, one byte string each.
    #[inline]
    pub(crate) fn arguments(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.arguments.iter()
    }

    /// Its encoded arguments as one buffer with ends.
    #[inline]
    pub(crate) const fn encoded(&self) -> &Arguments {
        &self.arguments
    }

    /// The `#[task]` on the function.
    pub(crate) fn task(&self) -> Option<&'static Task> {
        known(self.entry).task()
    }

    /// Why it cannot be sent, if it cannot: an argument refused to be encoded. To be asked before it
    /// is sent; `run` and `submit` return it.
    #[inline]
    pub(crate) fn take_error(&mut self) -> Option<ArgumentError> {
        self.extra.as_mut().and_then(|extra| extra.error.take())
    }

    /// What the handles among its arguments look at: to be kept until it has ended.
    #[inline]
    pub(crate) fn named(&self) -> &[mention::Named] {
        self.extra.as_ref().map_or(&[], |extra| &extra.named)
    }

    /// Executions that its arguments are made of, or hold.
    #[inline]
    pub(crate) fn needs(&self) -> &[Named] {
        self.extra.as_ref().map_or(&[], |extra| &extra.needs)
    }

    /// What was said at the call.
    pub(crate) fn patch(&self) -> Option<&Patch> {
        self.extra.as_ref().map(|extra| &extra.patch).filter(|patch| !patch.is_empty())
    }

    /// Changes the policy of its batch into its own: what `#[task]` says, then what the call says.
    pub(crate) fn apply_policy(&self, policy: &mut Policy) {
        if let Some(task) = self.task() {
            task.policy.apply(policy);
        }
        if let Some(patch) = self.patch() {
            patch.apply(policy);
        }
    }

    /// What other processes call its function, if they can find that and all that belongs to it.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn function_name(&self) -> Result<FunctionName, NotInExecutable> {
        function_name(self.entry, self.patch())
    }

    /// What people call its function.
    pub(crate) fn label(&self) -> String {
        self.entry.label()
    }

    /// Its arguments as text, for an error: what `Debug` says where `#[task]` is on the function,
    /// else the length and first bytes of each.
    pub(crate) fn debug_text(&self) -> String {
        let stand_ins = self.arguments.stand_ins();
        self.arguments.with_slices(|args| self.entry.text(self.codec(), args, stand_ins))
    }

    /// What reads its result, for as long as the call itself is not kept.
    #[inline]
    pub(crate) const fn result_decoder(&self) -> ResultDecoder<R> {
        self.decode
    }

    /// Reads its result. A `Failed` outcome holds the whole `Result`, so it is read alike.
    pub(crate) fn decode_result(&self, codec: Codec, bytes: &[u8]) -> Result<R, DecodeError> {
        self.decode.decode(codec, bytes)
    }
}

impl<R> fmt::Debug for Delayed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delayed({} {})", self.label(), self.debug_text())
    }
}

/// What other processes call a function, if they can find it and what is said at its call.
///
/// # Errors
/// They cannot.
pub(crate) fn function_name(
    entry: &'static Entry,
    patch: Option<&Patch>,
) -> Result<FunctionName, NotInExecutable> {
    let judges = patch.into_iter().flat_map(|patch| [patch.retry_when, patch.recurs]).flatten();
    judges.into_iter().try_for_each(|judge| judge.name().map(drop))?;
    entry.name()
}

/// What a call is made of, for tests and benchmarks that run one by hand.
#[derive(Debug)]
pub struct Parts<'a, R> {
    /// The function.
    pub entry: &'static Entry,
    /// Codec of the arguments and of the result.
    pub codec: Codec,
    /// The arguments.
    pub args: Vec<&'a [u8]>,
    /// Reads the result.
    pub decode: fn(Codec, &[u8]) -> Result<R, DecodeError>,
    /// The policy, on top of the default one.
    pub policy: Policy,
    /// What people call it.
    pub label: String,
    /// The arguments for people.
    pub text: String,
}

/// The parts of a call.
pub fn parts<R>(call: &Delayed<R>) -> Parts<'_, R> {
    let mut policy = Policy::default();
    call.apply_policy(&mut policy);
    Parts {
        entry: call.entry,
        codec: call.codec(),
        args: call.arguments().collect(),
        decode: call.decode.0,
        policy,
        label: call.label(),
        text: call.debug_text(),
    }
}

/// Reads results of type `R`.
pub(crate) struct ResultDecoder<R>(fn(Codec, &[u8]) -> Result<R, DecodeError>);

impl<R> ResultDecoder<R> {
    /// Reads one result that came over the network.
    pub(crate) fn decode(self, codec: Codec, bytes: &[u8]) -> Result<R, DecodeError> {
        (self.0)(codec, bytes)
    }
}

impl<R> Clone for ResultDecoder<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for ResultDecoder<R> {}

impl<R> fmt::Debug for ResultDecoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResultDecoder({})", std::any::type_name::<R>())
    }
}

impl Entry {
    /// What people call the function: the task's name, else its path, for a closure with its place.
    pub(crate) fn label(&'static self) -> String {
        let known = known(self);
        if let Some(task) = known.task() {
            return task.name.to_owned();
        }
        let path = self.type_name();
        match known.place() {
            Some(place) if path.contains("{{closure}}") => {
                format!("{path} ({}:{})", place.file(), place.line())
            }
            _ => path.to_owned(),
        }
    }

    /// Encoded arguments as text, in parentheses; for some of them something stands in.
    pub(crate) fn text(&self, codec: Codec, args: &[&[u8]], stand_ins: u8) -> String {
        match stand_ins {
            0 => self.debug_text(codec, args),
            _ => lift::text(args, stand_ins),
        }
    }

    /// The `#[task]` on the function.
    pub(crate) fn task(&'static self) -> Option<&'static Task> {
        known(self).task()
    }

    /// Encoded arguments as text, in parentheses.
    pub(crate) fn debug_text(&self, codec: Codec, args: &[&[u8]]) -> String {
        if let Some(debug) = self.debug() {
            return debug(codec, args);
        }
        let texts: Vec<String> = args.iter().map(|bytes| bytes_text(bytes)).collect();
        format!("({})", texts.join(", "))
    }
}

#[cfg(test)]
mod tests;
