//! What a parameter of a `#[task]` function may be made of.
//!
//! One rule keeps inference alive: conversions start from references and arrays, never from a second
//! *owned* type of the same constructor, and never go between numbers. (One owned conversion into
//! `Vec<T>` breaks `vec![]` for every `Vec` parameter; `u32` into `u64` breaks every literal.)

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::function::{Arg, Args};
use crate::payload::{ArgWriter, EncodeError};
use crate::task_ref::Slice;

/// Something that can be the argument of a parameter of type `T`.
///
/// The argument is written where it is, from the borrow: a slice is not copied into a `Vec` first. It
/// is taken by reference because a call that turns out to need another codec is written a second time.
#[diagnostic::on_unimplemented(
    message = "a task argument of type `{T}` cannot be made of `{Self}`",
    label = "expected `{T}`, or an `&Execution<{T}>`",
    note = "an argument is owned and derives `serde::Serialize` and `serde::Deserialize`; numbers \
            are not converted"
)]
pub trait IntoArg<T> {
    /// Writes it as the next argument.
    ///
    /// # Errors
    ///
    /// It cannot be encoded.
    fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError>;
}

#[diagnostic::do_not_recommend]
impl<T: Arg> IntoArg<T> for T {
    #[inline]
    fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
        writer.put_owned(self)
    }
}

macro_rules! written_alike {
    ($([$($generics:tt)*] $from:ty => $to:ty;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> IntoArg<$to> for $from {
            #[inline]
            fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                writer.put(&self[..])
            }
        }
    )*};
}

written_alike! {
    [] &str => String;
    [] &String => String;
    [T: Serialize] &[T] => Vec<T>;
    [T: Serialize] &Vec<T> => Vec<T>;
    [T: Serialize, const N: usize] &[T; N] => Vec<T>;
    [T: Serialize, const N: usize] [T; N] => Vec<T>;
    [T: Serialize] &[T] => Slice<T>;
    [T: Serialize] &Vec<T> => Slice<T>;
    [T: Serialize] Vec<T> => Slice<T>;
    [T: Serialize, const N: usize] &[T; N] => Slice<T>;
    [T: Serialize, const N: usize] [T; N] => Slice<T>;
}

macro_rules! paths {
    ($($from:ty,)*) => {$(
        #[diagnostic::do_not_recommend]
        impl IntoArg<PathBuf> for $from {
            fn put(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                writer.put::<Path>(self.as_ref())
            }
        }
    )*};
}

paths! { &str, &Path, &PathBuf, }

/// A tuple of arguments for a function of arguments `A`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not arguments for a function of `{A}`",
    label = "expected a tuple for `{A}`",
    note = "one argument is written `(x,)`, none `()`"
)]
pub trait IntoArgs<A> {
    /// Writes them in order.
    ///
    /// # Errors
    ///
    /// One of them cannot be encoded: the one after those that the writer has.
    fn put_all(&self, writer: &mut ArgWriter<'_>) -> Result<(), EncodeError>;
}

macro_rules! arities {
    ($($($X:ident $T:ident $place:tt),*;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($X, $T),*> IntoArgs<($($T,)*)> for ($($X,)*)
        where
            ($($T,)*): Args,
            $($X: IntoArg<$T>,)*
        {
            #[inline]
            fn put_all(&self, _writer: &mut ArgWriter<'_>) -> Result<(), EncodeError> {
                $(self.$place.put(_writer)?;)*
                Ok(())
            }
        }
    )*};
}

arities! {
    ;
    X0 A 0;
    X0 A 0, X1 B 1;
    X0 A 0, X1 B 1, X2 C 2;
    X0 A 0, X1 B 1, X2 C 2, X3 D 3;
    X0 A 0, X1 B 1, X2 C 2, X3 D 3, X4 E 4;
    X0 A 0, X1 B 1, X2 C 2, X3 D 3, X4 E 4, X5 G 5;
    X0 A 0, X1 B 1, X2 C 2, X3 D 3, X4 E 4, X5 G 5, X6 H 6;
    X0 A 0, X1 B 1, X2 C 2, X3 D 3, X4 E 4, X5 G 5, X6 H 6, X7 I 7;
}
