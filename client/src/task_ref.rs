//! Parameters of `#[task]` functions that are references: what the executor owns and lends.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A type behind a `&` in the parameters of a `#[task]` function.
///
/// `&str` travels as a `String`, `&Path` as a `PathBuf`, `&[T]` as a [`Slice<T>`], any other `&T` as
/// the `T`; the executor keeps the value while the function runs.
pub trait TaskRef {
    /// What travels.
    type Owned;

    /// What the function gets.
    fn lend(owned: &Self::Owned) -> &Self;
}

impl<T> TaskRef for T {
    type Owned = T;

    #[inline]
    fn lend(owned: &T) -> &T {
        owned
    }
}

impl TaskRef for str {
    type Owned = String;

    fn lend(owned: &String) -> &Self {
        owned
    }
}

impl TaskRef for Path {
    type Owned = PathBuf;

    fn lend(owned: &PathBuf) -> &Self {
        owned
    }
}

impl<T> TaskRef for [T] {
    type Owned = Slice<T>;

    fn lend(owned: &Slice<T>) -> &Self {
        owned
    }
}

/// The argument of a `&[T]` parameter, made of a `Vec`, an array or a slice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slice<T> {
    owned: Vec<T>,
}

impl<T: fmt::Debug> fmt::Debug for Slice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owned.fmt(f)
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.owned
    }
}

impl<T> From<Vec<T>> for Slice<T> {
    fn from(owned: Vec<T>) -> Self {
        Self { owned }
    }
}
