//! How long what tasks leave is kept.

use std::io::Write as _;

use allhands_common::id::ClusterId;
use allhands_store::pieces::PiecesWriter;
use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

use super::*;
use crate::blobs::StorePlace;

const BATCH: BatchId = BatchId([1; 16]);

const fn of(task: u32) -> Maker {
    Maker { batch: BATCH, task }
}

fn blobs(dir: &tempfile::TempDir) -> Blobs {
    let place = StorePlace {
        dir: dir.path().join("blobs"),
        cluster: ClusterId([7; 16]),
        quota_bytes: 64 << 20,
    };
    Blobs::embedded(place)
}

/// Bytes as an executor hands them over, sealed or not.
fn memory(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let mut file =
        File::from(memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

fn sealed(bytes: &[u8]) -> OwnedFd {
    memory(bytes, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
}

/// The store of an embedded cluster lets go of what nobody holds at once.
fn is_there(blobs: &Blobs, id: &BlobId) -> bool {
    blobs.store().unwrap().get(id).is_some()
}

#[test]
fn a_result_stays_until_its_batch_is_forgotten_and_none_comes_after_that() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let kept = blobs.keep(of(0), sealed(b"a result"), 8).unwrap();
    let other = BatchId([2; 16]);
    blobs.keep(Maker { batch: other, task: 0 }, sealed(b"another"), 7).unwrap();
    assert_eq!(blobs.batches(), [BATCH, other]);
    assert!(is_there(&blobs, &kept.id));

    blobs.forget(BATCH);
    assert_eq!(blobs.batches(), [other]);
    assert!(!is_there(&blobs, &kept.id));
    assert!(blobs.claim(BATCH, 0, &kept.id).is_none());
    // A task that was cancelled comes to its end.
    let late = blobs.keep(of(0), sealed(b"late"), 4).unwrap();
    assert_eq!(blobs.batches(), [other], "nobody will ask for it");
    assert!(!is_there(&blobs, &late.id));
}

#[test]
fn what_was_fetched_goes_before_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let [a, b, c] = [b"a", b"b", b"c"].map(|text| sealed(text));
    let a = blobs.keep(of(3), a, 1).unwrap();
    let b = blobs.keep(of(4), b, 1).unwrap();
    let c = blobs.keep(of(9), c, 1).unwrap();
    // The same again, of another task.
    blobs.keep(of(5), sealed(b"b"), 1).unwrap();
    let there = |blobs: &Blobs| [a.id, b.id, c.id].map(|id| is_there(blobs, &id));
    blobs.fetched(BATCH, &[TaskRange::new(0, 5), TaskRange::new(9, 10)]);
    assert_eq!(there(&blobs), [false, true, false]);
    blobs.fetched(BATCH, &[TaskRange::new(5, 6)]);
    assert_eq!(there(&blobs), [false; 3]);
    assert!(blobs.batches().is_empty() && !blobs.is_awaited());
}

#[test]
fn what_is_claimed_stays_with_whoever_has_claimed_it() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let kept = blobs.keep(of(0), sealed(b"a result"), 8).unwrap();
    let claimed = blobs.claim(BATCH, 0, &kept.id).unwrap();
    assert!(!blobs.is_awaited());
    blobs.forget(BATCH);
    assert!(is_there(&blobs, &kept.id));
    drop(claimed);
    assert!(!is_there(&blobs, &kept.id));
}

#[test]
fn equal_results_are_claimed_by_task() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let kept = [0, 1, 2].map(|task| blobs.keep(of(task), sealed(b"the same"), 8).unwrap())[0];
    let first = blobs.claim(BATCH, 0, &kept.id).unwrap();
    // That the client has it is said later, and takes nothing from the others.
    drop(first);
    blobs.fetched(BATCH, &[TaskRange::new(0, 1)]);
    assert!(blobs.claim(BATCH, 0, &kept.id).is_none());
    let others = [2, 1].map(|task| blobs.claim(BATCH, task, &kept.id));
    assert!(others.iter().all(Option::is_some) && !blobs.is_awaited());
}

#[test]
fn what_can_still_be_written_is_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    for seals in [SealFlags::empty(), SealFlags::WRITE, SealFlags::SHRINK] {
        let cause = blobs.keep(of(0), memory(b"a result", seals), 8).unwrap_err();
        assert!(matches!(cause, Cause::BadResult { .. }), "{cause:?}");
    }
    assert_eq!(blobs.batches(), []);
}

#[test]
fn what_is_poured_is_kept_when_it_is_finished_and_leaves_nothing_before() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at / 7) as u8).collect();
    let poured = |finish: bool| {
        let (reader, writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            let poured = scope.spawn(|| blobs.pour(of(1), reader.into()));
            let mut writer = PiecesWriter::new(writer);
            bytes.chunks(777_777).for_each(|some| writer.push(some).unwrap());
            if finish {
                writer.finish().unwrap();
            } else {
                drop(writer);
            }
            poured.join().unwrap()
        })
    };
    let kept = poured(true).unwrap();
    let map = blobs.store().unwrap().get(&kept.id).unwrap().map(0..kept.bytes).unwrap();
    assert!(*map == bytes[..]);
    blobs.forget(BATCH);

    let cause = poured(false).unwrap_err();
    assert!(cause.to_string().contains("has not finished it"), "{cause}");
    assert_eq!(blobs.store().unwrap().list(), []);
    let files = std::fs::read_dir(dir.path().join("blobs/incoming"));
    assert!(files.is_ok_and(|files| files.count() == 0), "no file stays");
}

#[test]
fn an_array_that_finds_no_room_is_refused_while_it_is_poured() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let (reader, writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let poured = scope.spawn(|| blobs.pour(of(1), reader.into()));
        let mut writer = PiecesWriter::new(writer);
        let some = vec![7; 1 << 20];
        let refused = (0..200).find_map(|_| writer.push(&some).err());
        assert_eq!(refused.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
        let cause = poured.join().unwrap().unwrap_err();
        assert!(matches!(cause, Cause::Unlent { .. }), "{cause:?}");
    });
    assert_eq!(blobs.store().unwrap().list(), []);
}
