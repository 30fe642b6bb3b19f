//! Handles on files in place: parts, shapes, errors, how they travel and are found again.

use std::sync::Arc;

use bytemuck::Pod;
use serde::Serialize;

use super::*;
use crate::payload::{Codec, decode, encode};

fn file_of<T: Pod>(elements: &[T]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytemuck::cast_slice(elements)).unwrap();
    file
}

fn numbers(count: u64) -> (tempfile::NamedTempFile, Shared<[u64]>) {
    let file = file_of(&(0..count).collect::<Vec<u64>>());
    let shared = Shared::open(file.path()).unwrap();
    (file, shared)
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(Codec::Bincode, value, &mut bytes).unwrap();
    bytes
}

#[test]
fn slices_rows_and_shapes_are_parts_of_one_map() {
    let (_file, all) = numbers(24);
    assert_eq!((all.len(), all.shape()), (24, vec![24]));
    let part = all.slice(5..9);
    assert_eq!(&*part, &[5, 6, 7, 8]);
    assert_eq!(&*part.slice(1..3), &[6, 7]);
    assert!(all.slice(24..24).is_empty());

    let cube = all.reshape(&[2, 3, 4]).unwrap();
    let rows = cube.rows(1..2);
    assert_eq!(rows.shape(), [1, 3, 4]);
    assert_eq!(&*rows, &(12..24).collect::<Vec<u64>>()[..]);
    let plane = rows.reshape(&[3, 4]).unwrap();
    assert_eq!(&*plane.rows(1..3), &(16..24).collect::<Vec<u64>>()[..]);
    assert_eq!(&*plane.cast::<[u64; 4]>().unwrap().slice(2..3), &[[20, 21, 22, 23]]);
    assert!(Arc::ptr_eq(all.whole(), plane.whole()));
}

#[test]
#[should_panic(expected = "the elements 20..25 of a shared array of 24")]
fn a_slice_beyond_the_end_panics_as_slices_do() {
    _ = numbers(24).1.slice(20..25);
}

#[test]
#[should_panic(expected = "the rows 1..3 of a shared array of 2")]
fn rows_beyond_the_end_panic_alike() {
    _ = numbers(24).1.reshape(&[2, 12]).unwrap().rows(1..3);
}

#[test]
fn what_cannot_be_an_array_is_named() {
    let file = file_of(&[1u8, 2, 3, 4, 5, 6, 7, 8, 9]);
    let error = |result: Result<Shared<[u32]>>| format!("{:?}", result.unwrap_err());
    let odd = error(Shared::open(file.path()));
    assert!(
        odd.contains("has 9 bytes, which is no multiple of the 4") && odd.contains("u8"),
        "{odd}"
    );
    let short = error(Shared::open_part(file.path(), 4, &[2]));
    assert!(short.contains("no room for an array of the shape [2]"), "{short}");
    let unaligned = error(Shared::open_part(file.path(), 1, &[2]));
    assert!(unaligned.contains("a multiple of 4"), "{unaligned}");
    let vast = error(Shared::open_part(file.path(), 0, &[usize::MAX, 2]));
    assert!(vast.contains("no room"), "{vast}");
    assert_eq!(&*Shared::<[u32]>::open_part(file.path(), 4, &[1]).unwrap(), &[0x0807_0605]);

    let absent = error(Shared::open("/no/such/array"));
    assert!(absent.contains("/no/such/array") && absent.contains("No such file"), "{absent}");
    let directory = error(Shared::open("/"));
    assert!(directory.contains("not a regular file"), "{directory}");
}

#[test]
fn a_handle_is_small_and_finds_its_map_again() {
    let (_file, all) = numbers(4096);
    let part = all.slice(1024..2048).reshape(&[32, 32]).unwrap();
    for codec in [Codec::Bincode, Codec::Cbor] {
        let mut bytes = Vec::new();
        encode(codec, &part, &mut bytes).unwrap();
        assert!(bytes.len() < 200, "{} bytes", bytes.len());
        let again: Shared<[u64]> = decode(codec, &bytes).unwrap();
        assert_eq!((again.shape(), &*again), (vec![32, 32], &*part));
        assert!(Arc::ptr_eq(all.whole(), again.whole()));
    }
}

#[test]
fn a_handle_whose_array_is_gone_says_so() {
    let (_file, all) = numbers(16);
    let bytes = encoded(&all);
    drop(all);
    let error = decode::<Shared<[u64]>>(Codec::Bincode, &bytes).unwrap_err().to_string();
    assert!(error.contains("is not held by this process"), "{error}");
}

#[test]
fn a_handle_is_not_read_as_other_elements() {
    let (_file, all) = numbers(16);
    let error = decode::<Shared<[u16]>>(Codec::Bincode, &encoded(&all)).unwrap_err().to_string();
    assert!(error.contains("elements of 8 bytes"), "{error}");
}

#[test]
fn a_private_copy_is_written_alone() {
    let (file, all) = numbers(2048);
    let mut own = all.slice(100..200).to_mut().unwrap();
    own[0] = 7;
    own[99] += 1;
    assert_eq!((own[0], own[1], own[99]), (7, 101, 200));
    assert_eq!((all[100], all[199]), (100, 199));
    let again: Shared<[u64]> = Shared::open(file.path()).unwrap();
    assert_eq!(again[100], 100);
    assert!(all.slice(3..3).to_mut().unwrap().is_empty());
}

#[test]
fn a_call_keeps_what_its_arguments_name_wherever_they_name_it() {
    fn total(parts: Vec<Option<Shared<[u64]>>>, _: u64) -> u64 {
        parts.iter().flatten().map(|part| part.iter().sum::<u64>()).sum()
    }
    let ((_one, a), (_other, b)) = (numbers(8), numbers(9));
    let call =
        crate::delayed(total)(vec![Some(a.slice(0..2)), None, Some(b.clone()), Some(a.clone())], 1);
    let named: Vec<_> = call.named().iter().map(|named| Arc::as_ptr(&named.whole)).collect();
    assert_eq!(named, [Arc::as_ptr(a.whole()), Arc::as_ptr(b.whole())]);
    let bytes: Vec<_> = call.named().iter().map(|named| named.bytes.clone()).collect();
    assert_eq!(bytes, [0..64, 0..72], "of `a` what both handles look at");
    assert_eq!(crate::delayed(|n: u64| n)(1).named().len(), 0);
    // Written elsewhere, it is nobody's.
    encoded(&a);
    assert_eq!(crate::delayed(|text: String| text.len())("x".into()).named().len(), 0);
}

#[test]
fn handles_come_and_go_on_several_threads() {
    let (_file, all) = numbers(4096);
    let bytes = encoded(&all.slice(8..16));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    // Maps of the same content: each is dropped while another thread looks through them.
                    let other = Shared::<[u64]>::open(_file.path()).unwrap();
                    let found: Shared<[u64]> = decode(Codec::Bincode, &bytes).unwrap();
                    assert_eq!((found[0], other[9]), (8, 9));
                }
            });
        }
    });
}
