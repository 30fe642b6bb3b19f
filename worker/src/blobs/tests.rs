//! What is lent to executors.

use std::fs::File;
use std::io::Write as _;

use super::*;

fn blobs(dir: &tempfile::TempDir) -> Blobs {
    let place = StorePlace {
        dir: dir.path().join("blobs"),
        cluster: ClusterId([7; 16]),
        quota_bytes: 64 << 20,
    };
    Blobs::embedded(place)
}

#[test]
fn the_store_is_there_once_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    assert!(!dir.path().join("blobs").exists());
    let blob = blobs.store().unwrap().put_bytes(b"abcdef").unwrap();
    let content = Content::Blob { id: blob.id(), bytes: 6 };
    let lent = blobs.lend(content, 2..5).unwrap();
    assert_eq!(lent.in_place, None);
    assert_eq!((lent.start, &*lent.file.map().unwrap()), (0, &b"abcdef"[..]), "what is around it");
}

#[test]
fn of_a_blob_that_is_here_in_part_just_what_is_wanted_is_lent() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let bytes: Vec<u8> = (0..3u32 << 20).map(|at| (at >> 12) as u8).collect();
    let manifest = allhands_common::blob::Manifest::of(&bytes).unwrap();
    let blob = blobs.store().unwrap().reserve(&manifest).unwrap();
    let content = Content::Blob { id: blob.id(), bytes: bytes.len() as u64 };
    blob.write_chunk(1, &bytes[1 << 20..2 << 20]).unwrap();
    let wanted = (1 << 20) + 5..(1 << 20) + 9;
    let lent = blobs.lend(content, wanted.clone()).unwrap();
    assert_eq!((lent.start, lent.file.bytes), (wanted.start, 4));
    assert!(matches!(blobs.lend(content, 0..9), Err(Cause::BlobLost { .. })));
    blob.write_chunk(0, &bytes[..1 << 20]).unwrap();
    blob.write_chunk(2, &bytes[2 << 20..]).unwrap();
    let lent = blobs.lend(content, wanted).unwrap();
    assert_eq!((lent.start, &*lent.file.map().unwrap()), (0, &bytes[..]));
}

#[test]
fn what_is_nowhere_is_lost_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let id = allhands_common::blob::Manifest::of(b"elsewhere").unwrap().id();
    let cause = blobs.lend(Content::Blob { id, bytes: 9 }, 0..9).unwrap_err();
    let Cause::BlobLost { message } = cause else { panic!("{cause:?}") };
    assert!(message.contains(&id.to_string()), "{message}");
}

#[test]
fn a_file_is_lent_while_its_client_has_it_and_it_is_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let path = dir.path().join("array");
    std::fs::write(&path, b"abcdef").unwrap();
    let file = Arc::new(FileInPlace::open(&path).unwrap());
    let content = Content::File(file.identity());
    assert!(matches!(blobs.lend(content, 0..6), Err(Cause::BlobLost { .. })));
    blobs.register(&file, None);
    assert_eq!(&*blobs.lend(content, 1..5).unwrap().file.map().unwrap(), b"abcdef");

    File::options().append(true).open(&path).unwrap().write_all(b"!").unwrap();
    let cause = blobs.lend(content, 0..6).unwrap_err();
    assert_eq!(cause, Cause::SourceChanged { path: path.display().to_string() });

    drop(file);
    assert!(matches!(blobs.lend(content, 0..6), Err(Cause::BlobLost { .. })));
    assert!(!dir.path().join("blobs").exists(), "no store was needed");
}

#[test]
fn a_file_goes_by_the_name_of_its_blob_and_stays_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let path = dir.path().join("array");
    std::fs::write(&path, b"abcdef").unwrap();
    let file = Arc::new(FileInPlace::open(&path).unwrap());
    let id = allhands_common::blob::Manifest::of(b"abcdef").unwrap().id();
    blobs.register(&file, Some(id));
    let lent = blobs.lend(Content::Blob { id, bytes: 6 }, 1..3).unwrap();
    assert_eq!((lent.start, lent.in_place), (0, Some(file.identity())));
    assert_eq!(&*lent.file.map().unwrap(), b"abcdef");
}
