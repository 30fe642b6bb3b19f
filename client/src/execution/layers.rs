//! Asks a type, without a value of it, whether it is an execution, or a `Result` of one.
//!
//! The cluster follows executions that were returned to where they lead, so that an argument of these types cannot be
//! made of an outcome: it is made of a handle.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess,
    Visitor, value::U32Deserializer,
};
use serde::forward_to_deserialize_any;

use super::handle;

/// What a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Neither.
    Value,
    /// An `Execution<_>`.
    Execution,
    /// A `Result<Execution<_>, _>`.
    ResultOfExecution,
}

pub(crate) fn of<T: DeserializeOwned>() -> Layers {
    match T::deserialize(Probe { in_result: false }) {
        Err(Answer(layers)) => layers,
        // It has no content.
        Ok(_) => Layers::Value,
    }
}

/// Whether a type is a `Result`.
pub(super) fn is_result<T: DeserializeOwned>() -> bool {
    let mut met = false;
    _ = T::deserialize(IsResult(&mut met));
    met
}

struct IsResult<'a>(&'a mut bool);

impl<'de> Deserializer<'de> for IsResult<'_> {
    type Error = Answer;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Answer> {
        Err(NEITHER)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Answer> {
        *self.0 = name == "Result" && variants == ["Ok", "Err"];
        Err(NEITHER)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Probe {
    in_result: bool,
}

#[derive(Debug)]
struct Answer(Layers);

const NEITHER: Answer = Answer(Layers::Value);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Answer {}

impl serde::de::Error for Answer {
    fn custom<T: fmt::Display>(_: T) -> Self {
        NEITHER
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Answer;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Answer> {
        Err(NEITHER)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Answer> {
        Err(match (name == handle::NAME, self.in_result) {
            (false, _) => NEITHER,
            (true, false) => Answer(Layers::Execution),
            (true, true) => Answer(Layers::ResultOfExecution),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Answer> {
        if name != "Result" || self.in_result {
            return Err(NEITHER);
        }
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Probe {
    type Error = Answer;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Answer> {
        let first: U32Deserializer<Answer> = 0u32.into_deserializer();
        Ok((seed.deserialize(first)?, self))
    }
}

impl<'de> VariantAccess<'de> for Probe {
    type Error = Answer;

    fn unit_variant(self) -> Result<(), Answer> {
        Err(NEITHER)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Answer> {
        seed.deserialize(Self { in_result: true })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Answer> {
        Err(NEITHER)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Answer> {
        Err(NEITHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Execution;

    #[test]
    fn results_are_told() {
        assert!(is_result::<Result<u8, String>>() && is_result::<Result<Result<u8, u8>, u8>>());
        assert!(
            !is_result::<Option<u8>>() && !is_result::<()>() && !is_result::<Vec<Result<u8, u8>>>()
        );
    }

    #[test]
    fn only_executions_and_results_of_them_are_told() {
        assert_eq!(of::<Execution<u8>>(), Layers::Execution);
        assert_eq!(of::<Execution<Execution<u8>>>(), Layers::Execution);
        assert_eq!(of::<Result<Execution<u8>, String>>(), Layers::ResultOfExecution);
        for value in [
            of::<u8>(),
            of::<()>(),
            of::<Option<Execution<u8>>>(),
            of::<Vec<Execution<u8>>>(),
            of::<Result<u8, Execution<u8>>>(),
            of::<Result<Result<Execution<u8>, u8>, u8>>(),
            of::<(Execution<u8>,)>(),
        ] {
            assert_eq!(value, Layers::Value);
        }
    }
}
