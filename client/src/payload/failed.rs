//! Asks a value whether it is an `Err`, or an execution, without knowing its type.
//!
//! Retries, fail-fast and the cache must see the `Err` of a function's `Result`, and the cluster follows an
//! execution that was returned; stable Rust has no specialisation. But serde writes the one as the newtype variant
//! `("Result", "Err")`, and the other as a newtype of its own name, alone or in an `Ok`: a serializer
//! that answers only these, and refuses everything else at the first call, costs a fraction of a
//! nanosecond whatever the size of the value.

use std::fmt;

use allhands_common::id::TaskId;
use serde::Serialize;
use serde::ser::{Impossible, Serializer};

use crate::entry::CallStatus;
use crate::execution::handle;

/// What a result is, as far as the cluster has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value.
    Value,
    /// A `Result::Err`.
    Failed,
    /// An execution, or an `Ok` of one: what comes of this task is the result.
    Forwarded(TaskId),
}

/// What `value` is.
#[inline]
pub(crate) fn kind<T: Serialize + ?Sized>(value: &T) -> Kind {
    value.serialize(Probe::Result).unwrap_or(Kind::Value)
}

/// How a call ended that returned `value`, which could be encoded.
#[inline]
pub(crate) fn kind_status<T: Serialize + ?Sized>(value: &T) -> CallStatus {
    match kind(value) {
        Kind::Value => CallStatus::Done,
        Kind::Failed => CallStatus::Failed,
        Kind::Forwarded(task) => CallStatus::Forwarded(task),
    }
}

/// The task whose outcome is that of one that returned `value`, if that is an execution or an `Ok` of one.
#[cfg(test)]
pub(crate) fn forwarded<T: Serialize + ?Sized>(value: &T) -> Option<TaskId> {
    match kind(value) {
        Kind::Forwarded(task) => Some(task),
        Kind::Value | Kind::Failed => None,
    }
}

/// What is being asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// The whole result.
    Result,
    /// What is in its `Ok`.
    Ok,
    /// What is in an execution: the bytes of its handle.
    Handle,
}

/// The answer "neither".
#[derive(Debug)]
struct No;

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an `Err` nor an execution")
    }
}

impl std::error::Error for No {}

impl serde::ser::Error for No {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Answer = Result<Kind, No>;
type Never = Impossible<Kind, No>;

macro_rules! no {
    ($($method:ident($($type:ty),*) -> $answer:ty;)*) => {$(
        #[inline(always)]
        fn $method(self, $(_: $type),*) -> $answer {
            Err(No)
        }
    )*};
}

impl Serializer for Probe {
    type Ok = Kind;
    type Error = No;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    no! {
        serialize_bool(bool) -> Answer;
        serialize_i8(i8) -> Answer;
        serialize_i16(i16) -> Answer;
        serialize_i32(i32) -> Answer;
        serialize_i64(i64) -> Answer;
        serialize_i128(i128) -> Answer;
        serialize_u8(u8) -> Answer;
        serialize_u16(u16) -> Answer;
        serialize_u32(u32) -> Answer;
        serialize_u64(u64) -> Answer;
        serialize_u128(u128) -> Answer;
        serialize_f32(f32) -> Answer;
        serialize_f64(f64) -> Answer;
        serialize_char(char) -> Answer;
        serialize_str(&str) -> Answer;
        serialize_none() -> Answer;
        serialize_unit() -> Answer;
        serialize_unit_struct(&'static str) -> Answer;
        serialize_unit_variant(&'static str, u32, &'static str) -> Answer;
        serialize_seq(Option<usize>) -> Result<Never, No>;
        serialize_tuple(usize) -> Result<Never, No>;
        serialize_tuple_struct(&'static str, usize) -> Result<Never, No>;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Result<Never, No>;
        serialize_map(Option<usize>) -> Result<Never, No>;
        serialize_struct(&'static str, usize) -> Result<Never, No>;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Result<Never, No>;
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Answer {
        Err(No)
    }

    #[inline(always)]
    fn serialize_bytes(self, bytes: &[u8]) -> Answer {
        match self {
            Self::Handle => handle::task_of(bytes).map(Kind::Forwarded).ok_or(No),
            Self::Result | Self::Ok => Err(No),
        }
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Answer {
        match self {
            Self::Result | Self::Ok if name == handle::NAME => value.serialize(Self::Handle),
            Self::Result | Self::Ok | Self::Handle => Err(No),
        }
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Answer {
        match (self, name, variant) {
            (Self::Result, "Result", "Err") => Ok(Kind::Failed),
            (Self::Result, "Result", "Ok") => value.serialize(Self::Ok),
            _ => Err(No),
        }
    }

    #[inline(always)]
    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Answer {
        Err(No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_failed<T: Serialize>(value: &T) -> bool {
        kind(value) == Kind::Failed
    }

    #[test]
    fn only_an_err_is_failed() {
        assert!(is_failed(&Err::<u8, String>("no".into())));
        assert!(!is_failed(&Ok::<u8, String>(1)));
        assert!(!is_failed(&7u64));
        assert!(!is_failed(&()));
        assert!(!is_failed(&vec![Err::<u8, u8>(1)]));
        assert!(!is_failed(&Some(Err::<u8, u8>(1))), "an `Err` inside a value is data");
    }

    #[test]
    fn an_execution_is_forwarded_alone_or_in_an_ok() {
        let task = TaskId { batch: allhands_common::id::BatchId([7; 16]), index: 3 };
        let execution = || crate::execution::tests::unknown::<u8>(task);
        assert_eq!(forwarded(&execution()), Some(task));
        assert_eq!(forwarded(&Ok::<_, u8>(execution())), Some(task));
        assert_eq!(forwarded(&Ok::<Result<_, u8>, u8>(Ok(execution()))), None);
        assert_eq!(forwarded(&Err::<u8, _>(execution())), None);
        assert_eq!(forwarded(&Some(execution())), None);
        assert_eq!(forwarded(&vec![execution()]), None);
    }

    #[test]
    fn a_reference_is_looked_through() {
        assert!(is_failed(&&Err::<u8, u8>(1)));
        assert!(is_failed(&Box::new(Err::<u8, u8>(1))));
    }
}
