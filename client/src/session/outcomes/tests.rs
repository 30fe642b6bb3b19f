//! Outcomes that name long results.

use allhands_common::segment::DONE;

use super::*;

const fn named(number: u8) -> BlobRef {
    BlobRef { id: BlobId([number; 32]), bytes: 5 << 20 }
}

/// A value, a result that is named, one more, and a value.
fn segment() -> Segment {
    let mut builder = SegmentBuilder::new(1);
    builder.push(DONE, std::iter::once(&b"first"[..]));
    for number in [1, 2] {
        builder.push(STORED, std::iter::once(&named(number).to_bytes()[..]));
    }
    builder.push(DONE, std::iter::once(&b"last"[..]));
    Segment::parse(builder.finish()).unwrap()
}

#[test]
fn a_result_that_is_lost_is_an_error_of_its_task_alone() {
    assert_eq!(Outcomes::names(&segment()), [named(1), named(2)]);
    let lost = vec![(named(2).id, Err("nobody has it".into()))];
    let outcomes = Outcomes::received(segment(), lost).unwrap();
    assert_eq!((outcomes.tasks(), outcomes.codec()), (4, 1));
    assert_eq!(outcomes.value(0), Some((DONE, &b"first"[..])));
    assert_eq!(outcomes.value(1), Some((STORED, &named(1).to_bytes()[..])));
    assert_eq!(outcomes.value(3), Some((DONE, &b"last"[..])));
    let Some((ERROR, string)) = outcomes.value(2) else { panic!("{outcomes:?}") };
    let Failed { cause, tries, .. } = codec::decode(string).unwrap();
    assert!(cause.retry_can_help() && tries == 1);
    let text = cause.to_string();
    for part in ["its result is lost", "5242880 bytes", "nobody has it", "call it again"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_result_that_did_not_come_is_no_value() {
    let outcomes = Outcomes::received(segment(), Vec::new()).unwrap();
    let Some((STORED, reference)) = outcomes.value(1) else { panic!("{outcomes:?}") };
    assert!(matches!(outcomes.stored(reference), Err(StoredError::Gone)));
}
