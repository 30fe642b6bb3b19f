//! What `delayed` accepts: functions, their arguments, their results.
//!
//! The bounds are split over three traits so that an error names the culprit: [`Function`] is bound
//! by nothing but `Fn`, [`Args`] and [`Arg`] judge each argument, [`Ret`] the result, and
//! [`NoCapture`] what a closure holds. `A` and `K` are markers that inference finds.

pub(crate) mod local;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::delayed::Delayed;
use crate::entry::{self, NotATask};
use crate::failure::{Failure, OpaqueError};
use crate::payload::{ArgWriter, Codec, EncodeError, read_argument};

/// A function of arguments `A`: a safe `fn` item, or a closure that captures nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be delayed",
    label = "not a safe function of at most eight owned arguments",
    note = "`delayed` takes safe `fn` items and closures that capture nothing, of up to eight owned \
            arguments",
    note = "for `unsafe fn` and `extern \"C\" fn` wrap the call in a closure; for parameters such \
            as `&str` write `delayed(|s: String| f(&s))`, or put `#[allhands::task]` on the function"
)]
pub trait Function<A> {
    /// What it returns.
    type Ret;

    /// The type of a function with its arguments that returns a `Delayed<V>`: a plain `fn`.
    type Call<V>;

    /// Calls it.
    #[doc(hidden)]
    fn invoke(&self, args: A) -> Self::Ret;

    /// The function with its arguments that makes a call instead of calling.
    #[doc(hidden)]
    fn into_call<K>(self) -> Self::Call<<Self::Ret as Ret<K>>::Value>
    where
        Self: NoCapture,
        A: Args,
        Self::Ret: Ret<K>;
}

/// What a function must be to be re-created in another process: it holds nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` captures its environment: a task runs in another process and cannot",
    label = "captures a variable",
    note = "pass what it needs as an argument, or share it with `map_with(context, items, f)`"
)]
pub trait NoCapture: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> NoCapture for F {}

/// One argument: owned, and a serde type both ways. A long array behind an [`Arc`](std::sync::Arc) (of numbers,
/// or a text) is written, stored and sent once for all calls of a batch that carry it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a task",
    label = "not a serde type",
    note = "an argument is owned and derives `serde::Serialize` and `serde::Deserialize`"
)]
pub trait Arg: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Arg for T {}

/// All arguments of a function, as a tuple.
pub trait Args: Sized {
    /// How many they are.
    #[doc(hidden)]
    const ARITY: u8;

    /// Writes them, one byte string each.
    #[doc(hidden)]
    fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError>;

    /// Whether they can be read back, those aside for which something stands in, a bit each.
    #[doc(hidden)]
    fn check(codec: Codec, args: &[&[u8]], stand_ins: u8) -> Result<(), BadArgument>;

    /// Reads them back.
    #[doc(hidden)]
    fn take(codec: Codec, args: &[&[u8]]) -> Result<Self, BadArgument>;
}

/// An argument that could not be read in the executor.
#[doc(hidden)]
#[derive(Debug)]
pub struct BadArgument {
    /// Which one, from 0.
    pub position: u8,
    /// Why not.
    pub message: String,
}

/// What a function may return: a serde value ([`Value`]), a `Result` with an error that is not serde
/// ([`Opaque`]), or a future of such ([`Async`]). `K` says which, and is inferred.
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    label = "not a serde type",
    note = "a result derives `serde::Serialize` and `serde::Deserialize`, and borrows nothing",
    note = "for an error type without serde return `Result<T, allhands::Failure>` (`?` converts) or \
            implement `allhands::OpaqueError` for it"
)]
pub trait Ret<K> {
    /// What the client gets.
    type Value: Serialize + DeserializeOwned;

    /// Waits for it if it is a future, and makes it a serde type.
    #[doc(hidden)]
    fn into_value(self) -> Self::Value;
}

/// Marks a result that is a serde type.
#[derive(Debug)]
pub enum Value {}

/// Marks a `Result` whose error is an [`OpaqueError`].
#[derive(Debug)]
pub enum Opaque {}

/// Marks a future of a result of kind `K`.
#[derive(Debug)]
pub struct Async<K>(std::marker::PhantomData<K>);

#[diagnostic::do_not_recommend]
impl<R: Serialize + DeserializeOwned> Ret<Value> for R {
    type Value = R;

    #[inline]
    fn into_value(self) -> R {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned, E: OpaqueError> Ret<Opaque> for Result<T, E> {
    type Value = Result<T, Failure>;

    fn into_value(self) -> Result<T, Failure> {
        self.map_err(OpaqueError::into_failure)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Future<Output: Ret<K>>, K> Ret<Async<K>> for F {
    type Value = <F::Output as Ret<K>>::Value;

    fn into_value(self) -> Self::Value {
        local::block_on(self).into_value()
    }
}

#[inline]
fn take_one<T: Arg>(codec: Codec, args: &[&[u8]], position: usize) -> Result<T, BadArgument> {
    match read_argument(codec, args[position]) {
        Ok(value) => Ok(value),
        Err(error) => Err(BadArgument { position: position as u8, message: error.to_string() }),
    }
}

#[cold]
fn wrong_count(wanted: u8, got: usize) -> BadArgument {
    let position = u8::try_from(got).unwrap_or(u8::MAX).min(wanted);
    BadArgument { position, message: format!("the function takes {wanted} arguments, not {got}") }
}

macro_rules! arities {
    ($($arity:literal: $($T:ident $t:ident $place:tt),*;)*) => {$(
        impl<$($T: Arg),*> Args for ($($T,)*) {
            const ARITY: u8 = $arity;

            #[inline]
            fn put(&self, _writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                $(_writer.put_owned(&self.$place)?;)*
                Ok(())
            }

            fn check(_codec: Codec, args: &[&[u8]], _stand_ins: u8) -> Result<(), BadArgument> {
                if args.len() != $arity {
                    return Err(wrong_count($arity, args.len()));
                }
                $(if _stand_ins & 1 << $place == 0 {
                    take_one::<$T>(_codec, args, $place)?;
                })*
                Ok(())
            }

            #[inline]
            fn take(_codec: Codec, args: &[&[u8]]) -> Result<Self, BadArgument> {
                if args.len() != $arity {
                    return Err(wrong_count($arity, args.len()));
                }
                Ok(($(take_one(_codec, args, $place)?,)*))
            }
        }

        #[diagnostic::do_not_recommend]
        impl<Fun, Out, $($T),*> Function<($($T,)*)> for Fun
        where
            Fun: Fn($($T),*) -> Out,
        {
            type Ret = Out;
            type Call<V> = fn($($T),*) -> Delayed<V>;

            #[inline]
            fn invoke(&self, ($($t,)*): ($($T,)*)) -> Out {
                self($($t),*)
            }

            #[inline]
            fn into_call<K>(self) -> fn($($T),*) -> Delayed<Out::Value>
            where
                Self: NoCapture,
                ($($T,)*): Args,
                Out: Ret<K>,
            {
                |$($t),*| {
                    let args = ($($t,)*);
                    let entry = entry::of_type::<Fun, ($($T,)*), K, NotATask>();
                    Delayed::new(entry, |writer| args.put(writer))
                }
            }
        }
    )*};
}

arities! {
    0: ;
    1: A a 0;
    2: A a 0, B b 1;
    3: A a 0, B b 1, C c 2;
    4: A a 0, B b 1, C c 2, D d 3;
    5: A a 0, B b 1, C c 2, D d 3, E e 4;
    6: A a 0, B b 1, C c 2, D d 3, E e 4, G g 5;
    7: A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6;
    8: A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6, I i 7;
}
