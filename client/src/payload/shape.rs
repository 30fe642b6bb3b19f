//! Asks a type, without a value of it, whether it can be read from bincode.
//!
//! A client can read back the arguments that it has just encoded, but a result exists only in the
//! executor. So the result type's `Deserialize` is run here against a deserializer that has an answer
//! for everything (zero, "", one element, each variant in turn) and notes whether the type ever asks
//! a question that bincode cannot answer: "what comes next?". A type that refuses the made-up values,
//! or is too deep to walk, counts as fine; the executor reads its first result back.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// Levels of nesting that are walked: a recursive type has no end.
const DEPTH_MAX: u8 = 12;
/// Questions that are answered in one walk, before a wide recursive type is given up.
const STEPS_MAX: u32 = 4096;
/// Walks, each with the next variant of every enum.
const WALKS_MAX: u32 = 64;

/// Whether values of `T` need a codec with field names.
#[cold]
pub(crate) fn needs_names<T: DeserializeOwned>() -> bool {
    let mut walks = 1;
    let mut walk = 0;
    while walk < walks {
        let mut state = Walk { variant: walk, steps: 0, variants: 1 };
        let end = catch_unwind(AssertUnwindSafe(|| {
            T::deserialize(Probe { walk: &mut state, depth: 0 }).err()
        }));
        if matches!(end, Ok(Some(Stop::NeedsNames))) {
            return true;
        }
        walks = walks.max(state.variants).min(WALKS_MAX);
        walk += 1;
    }
    false
}

struct Walk {
    /// Which variant enums take in this walk.
    variant: u32,
    steps: u32,
    /// Most variants of an enum that was met.
    variants: u32,
}

/// Why a walk ended early.
#[derive(Debug, PartialEq)]
enum Stop {
    NeedsNames,
    /// Too deep, too long, or the type refuses the made-up values.
    GivenUp,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("made-up value refused")
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::GivenUp
    }
}

struct Probe<'a> {
    walk: &'a mut Walk,
    depth: u8,
}

impl Probe<'_> {
    fn step(&mut self) -> Result<(), Stop> {
        self.walk.steps += 1;
        if self.walk.steps > STEPS_MAX || self.depth > DEPTH_MAX {
            return Err(Stop::GivenUp);
        }
        Ok(())
    }

    /// Whether something optional may be left out here to end a recursion.
    fn is_deep(&self) -> bool {
        self.depth + 4 > DEPTH_MAX
    }
}

macro_rules! answers {
    ($($method:ident => $visit:ident($value:expr);)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            self.step()?;
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    answers! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_i8(0);
        deserialize_i16 => visit_i16(0);
        deserialize_i32 => visit_i32(0);
        deserialize_i64 => visit_i64(0);
        deserialize_i128 => visit_i128(0);
        deserialize_u8 => visit_u8(0);
        deserialize_u16 => visit_u16(0);
        deserialize_u32 => visit_u32(0);
        deserialize_u64 => visit_u64(0);
        deserialize_u128 => visit_u128(0);
        deserialize_f32 => visit_f32(0.0);
        deserialize_f64 => visit_f64(0.0);
        deserialize_char => visit_char('0');
        deserialize_str => visit_str("");
        deserialize_string => visit_string(String::new());
        deserialize_bytes => visit_bytes(&[]);
        deserialize_byte_buf => visit_byte_buf(Vec::new());
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::NeedsNames)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::NeedsNames)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::NeedsNames)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.step()?;
        if self.is_deep() {
            return visitor.visit_none();
        }
        self.depth += 1;
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.step()?;
        self.depth += 1;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let left = usize::from(!self.is_deep());
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.step()?;
        visitor.visit_seq(Parts { walk: self.walk, depth: self.depth + 1, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.step()?;
        let left = usize::from(!self.is_deep());
        visitor.visit_map(Parts { walk: self.walk, depth: self.depth + 1, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.step()?;
        let count = u32::try_from(variants.len()).unwrap_or(u32::MAX);
        self.walk.variants = self.walk.variants.max(count);
        // All enums take the same turn: what nests them is walked once for each variant.
        let variant = self.walk.variant % count.max(1);
        self.depth += 1;
        visitor.visit_enum(Choice { probe: self, variant })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Elements of a sequence, fields of a struct, entries of a map.
struct Parts<'a> {
    walk: &'a mut Walk,
    depth: u8,
    left: usize,
}

impl Parts<'_> {
    fn next(&mut self) -> Option<Probe<'_>> {
        self.left = self.left.checked_sub(1)?;
        Some(Probe { walk: self.walk, depth: self.depth })
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        self.next().map(|probe| seed.deserialize(probe)).transpose()
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        self.next().map(|probe| seed.deserialize(probe)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Probe { walk: self.walk, depth: self.depth })
    }
}

struct Choice<'a> {
    probe: Probe<'a>,
    variant: u32,
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = Stop;
    type Variant = Probe<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Probe<'a>), Stop> {
        let index: U32Deserializer<Stop> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, self.probe))
    }
}

impl<'de> VariantAccess<'de> for Probe<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::IpAddr;
    use std::path::PathBuf;
    use std::time::Duration;

    use serde::Deserialize;

    use super::needs_names;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only the type is looked at")]
    enum Tree {
        Branch(Box<Self>, Box<Self>),
        Leaf { label: String, extra: Option<serde_json::Value> },
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only the type is looked at")]
    struct List {
        value: u8,
        next: Option<Box<Self>>,
        many: Vec<Self>,
    }

    #[test]
    fn ordinary_types_do_not() {
        assert!(!needs_names::<u64>());
        assert!(!needs_names::<()>());
        assert!(!needs_names::<Result<Vec<(String, f64)>, String>>());
        assert!(!needs_names::<HashMap<String, Option<Option<char>>>>());
        assert!(!needs_names::<(Duration, PathBuf, IpAddr, u128)>());
        assert!(!needs_names::<std::num::NonZeroU8>(), "refuses 0: given up, and so fine");
    }

    #[test]
    fn recursive_types_end() {
        assert!(!needs_names::<List>());
    }

    #[test]
    fn a_value_of_any_kind_is_found_wherever_it_is() {
        assert!(needs_names::<serde_json::Value>());
        assert!(needs_names::<Result<u8, serde_json::Value>>(), "in the second variant");
        assert!(needs_names::<BTreeMap<u8, Vec<Option<serde_json::Value>>>>());
        assert!(needs_names::<Tree>(), "in the second variant of a recursive type");
    }
}
