//! Asks a value whether it is an `Err`, without knowing its type.
//!
//! Retries, fail-fast and the cache must see the `Err` of a function's `Result`, and stable Rust has
//! no specialisation. But serde writes it as the newtype variant `("Result", "Err")`: a serializer
//! that answers only that, and refuses everything else at the first call, costs a fraction of a
//! nanosecond whatever the size of the value.

use std::fmt;

use serde::Serialize;
use serde::ser::{Impossible, Serializer};

/// Whether `value` is a `Result::Err`.
#[inline]
pub(crate) fn is_failed<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(Probe).is_ok()
}

struct Probe;

/// The answer "no".
#[derive(Debug)]
struct No;

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an `Err`")
    }
}

impl std::error::Error for No {}

impl serde::ser::Error for No {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Answer = Result<(), No>;
type Never = Impossible<(), No>;

macro_rules! no {
    ($($method:ident($($type:ty),*) -> $answer:ty;)*) => {$(
        #[inline(always)]
        fn $method(self, $(_: $type),*) -> $answer {
            Err(No)
        }
    )*};
}

impl Serializer for Probe {
    type Ok = ();
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
        serialize_bytes(&[u8]) -> Answer;
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
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Answer {
        Err(No)
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Answer {
        if name == "Result" && variant == "Err" { Ok(()) } else { Err(No) }
    }

    #[inline(always)]
    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Answer {
        Err(No)
    }
}

#[cfg(test)]
mod tests {
    use super::is_failed;

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
    fn a_reference_is_looked_through() {
        assert!(is_failed(&&Err::<u8, u8>(1)));
        assert!(is_failed(&Box::new(Err::<u8, u8>(1))));
    }
}
