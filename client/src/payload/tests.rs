//! Every row of the table of types that users have in their values, in both codecs.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    New(u32),
    Tuple(u8, String),
    Struct { a: i64, b: Option<Option<char>> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Opt {
    id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
    size: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Defaulted {
    #[serde(default)]
    a: u8,
    #[serde(skip)]
    b: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Halved {
    #[serde(skip_serializing, default)]
    a: u32,
    b: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Tagged {
    A { x: u8 },
    B,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    A(u8),
    B,
}

fn round<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> Result<T, String> {
    let mut bytes = Vec::new();
    encode(codec, value, &mut bytes).map_err(|error| error.to_string())?;
    check_round_trip::<T>(codec, &bytes).map_err(|error| error.to_string())?;
    decode_received(codec, &bytes).map_err(|error| error.to_string())
}

#[track_caller]
fn fits_both<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    assert!(!needs_names::<T>());
    assert_eq!(round(Codec::Bincode, &value).as_ref(), Ok(&value));
    assert_eq!(round(Codec::Cbor, &value).as_ref(), Ok(&value));
}

#[track_caller]
fn fits_cbor_only<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, says: &str) {
    let refused = round(Codec::Bincode, &value).unwrap_err();
    assert!(refused.contains(says), "{refused}");
    assert!(refused.contains("#[task(codec = \"cbor\")]"), "{refused}");
    assert_eq!(round(Codec::Cbor, &value).as_ref(), Ok(&value));
}

#[test]
fn ordinary_types() {
    fits_both((1u8, -2i16, 3u32, -4i64, u128::MAX, i128::MIN, 1.5f32, -2.5f64, true, 'ß'));
    fits_both(vec![
        Shape::Unit,
        Shape::New(7),
        Shape::Tuple(1, "x".into()),
        Shape::Struct { a: -1, b: Some(Some('y')) },
    ]);
    fits_both(HashMap::from([("a".to_owned(), vec![1u16, 2]), ("b".to_owned(), vec![])]));
    fits_both((Duration::new(3, 4), PathBuf::from("/tmp/x"), "::1".parse::<IpAddr>().unwrap()));
    fits_both([Ok::<u8, String>(1), Err("no".to_owned())]);
    fits_both((vec![(); 1000], Box::new([1u64, 2, 3]), ()));
    fits_both(num_bigint::BigUint::from(7u8).pow(500));
}

#[test]
fn a_big_list_and_a_deep_one() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Link(u8, Option<Box<Self>>);
    fits_both((0..100_000u32).collect::<Vec<_>>());
    fits_both((0..60).fold(Link(0, None), |rest, n| Link(n, Some(Box::new(rest)))));
}

#[test]
fn an_option_inside_an_option_needs_bincode() {
    // CBOR has one null: `Some(None)` is read back as `None`. A function gets CBOR only if it must.
    fits_both(vec![None, Some(Some(5u8))]);
    assert_eq!(round(Codec::Bincode, &Some(None::<u8>)), Ok(Some(None)));
}

#[test]
fn defaults_and_skipped_fields() {
    fits_both(Defaulted { a: 3, b: 0 });
}

#[test]
fn a_field_left_out_is_refused_while_it_is_encoded() {
    let missing = Opt { id: 9, note: None, size: 0 };
    let there = Opt { id: 7, note: Some(0), size: 5 };
    fits_cbor_only((missing.clone(), there.clone()), "field `note` of `Opt` is left out");
    fits_cbor_only(Some(vec![missing]), "field `note` of `Opt`");
    assert_eq!(round(Codec::Bincode, &there).as_ref(), Ok(&there), "this value has all its fields");
}

#[test]
fn a_field_that_only_one_side_knows_is_found_by_reading_back() {
    round(Codec::Bincode, &Halved { a: 1, b: 2 }).unwrap_err();
    assert_eq!(round(Codec::Cbor, &Halved { a: 1, b: 2 }), Ok(Halved { a: 0, b: 2 }));
}

#[test]
fn flatten_is_refused_while_it_is_encoded() {
    let rest = BTreeMap::from([("b".to_owned(), 2)]);
    assert!(needs_names::<Vec<Flat>>());
    fits_cbor_only(Flat { a: 1, rest }, "map of unknown length");
}

#[test]
fn types_that_ask_what_comes_next_are_found_by_reading_back() {
    assert!(needs_names::<Untagged>() && needs_names::<Vec<Tagged>>());
    fits_cbor_only(Untagged::Text("x".into()), "asks what comes next");
    fits_cbor_only(vec![Untagged::Number(4)], "asks what comes next");
    fits_cbor_only(Tagged::A { x: 1 }, "asks what comes next");
    fits_cbor_only(Tagged::B, "asks what comes next");
    fits_cbor_only(serde_json::json!({ "a": [1, null, "x"] }), "asks what comes next");
}

#[test]
fn the_shape_of_an_adjacent_tag_agrees_with_reading_back() {
    for value in [Adjacent::A(1), Adjacent::B] {
        let readable = round(Codec::Bincode, &value).is_ok();
        assert_eq!(readable, !needs_names::<Adjacent>(), "{value:?}");
        assert_eq!(round(Codec::Cbor, &value).as_ref(), Ok(&value));
    }
}

#[test]
fn bytes_left_over_are_an_error() {
    for codec in [Codec::Bincode, Codec::Cbor] {
        let mut bytes = Vec::new();
        encode(codec, &7u32, &mut bytes).unwrap();
        bytes.push(0);
        let error = decode::<u32>(codec, &bytes).unwrap_err().to_string();
        assert!(error.starts_with("cannot decode `u32`: 1 bytes are left over"), "{error}");
    }
}

#[test]
fn the_guard_changes_no_byte() {
    let value = (vec![1u32, 2, 3], Shape::Struct { a: 1, b: None }, "text");
    let mut guarded = Vec::new();
    encode(Codec::Bincode, &value, &mut guarded).unwrap();
    assert_eq!(guarded, bincode::serde::encode_to_vec(&value, config()).unwrap());
}

#[test]
fn a_codec_is_one_byte() {
    for codec in [Codec::Bincode, Codec::Cbor] {
        assert_eq!(Codec::from_byte(codec.byte()), Some(codec));
    }
    assert_eq!([0, 3, 255].map(Codec::from_byte), [None; 3]);
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unit),
        any::<u32>().prop_map(Shape::New),
        (any::<u8>(), any::<String>()).prop_map(|(a, b)| Shape::Tuple(a, b)),
        (any::<i64>(), any::<Option<char>>())
            .prop_map(|(a, b)| Shape::Struct { a, b: b.map(Some) }),
    ]
}

proptest! {
    #[test]
    fn any_value_comes_back(value in prop::collection::vec((shapes(), any::<f64>()), 0..20)) {
        let bits = |values: &[(Shape, f64)]| -> Vec<(Shape, u64)> {
            values.iter().map(|(shape, number)| (shape.clone(), number.to_bits())).collect()
        };
        for codec in [Codec::Bincode, Codec::Cbor] {
            prop_assert_eq!(bits(&round(codec, &value).unwrap()), bits(&value));
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for codec in [Codec::Bincode, Codec::Cbor] {
            let _ = decode_received::<Vec<Shape>>(codec, &bytes);
            let _ = decode_received::<HashMap<String, Opt>>(codec, &bytes);
        }
    }
}
