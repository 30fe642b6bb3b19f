//! What is written is read, mapped and given away, before and after a restart.

use std::fs;

use allhands_common::id::JobId;

use super::support::*;
use crate::blobs::*;

#[test]
fn chunks_come_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 3 * CHUNK + 5);
    let blob = store.reserve(&manifest(&content)).unwrap();
    assert_eq!(blob.missing(), run(0, 4));
    write(&blob, &content, [3, 1]);
    assert_eq!((blob.present(), blob.missing()), (vec![1..2, 3..4], vec![0..1, 2..3]));
    assert!(!blob.is_complete());
    write(&blob, &content, [0, 2]);
    whole(&blob, &content);
    assert_eq!(blob.write_chunk(2, chunk(&content, 2)).unwrap(), Written::Before);
}

#[test]
fn an_empty_blob_is_complete_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let blob = open(dir.path()).reserve(&manifest(b"")).unwrap();
    assert!(blob.is_complete());
    assert_eq!(&*blob.map(0..0).unwrap(), b"");
    drop(blob);
    whole(&open(dir.path()).get(&id(b"")).unwrap(), b"");
}

#[test]
fn other_bytes_are_refused_and_nothing_of_them_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (right, wrong) = (content(1, CHUNK + 9), content(2, CHUNK));
    let blob = store.reserve(&manifest(&right)).unwrap();
    for bytes in [&wrong[..], &right[..CHUNK - 1], &[]] {
        let refused = blob.write_chunk(0, bytes);
        assert!(matches!(refused, Err(WriteError::Mismatch { index: 0, .. })), "{refused:?}");
    }
    let beyond = blob.write_chunk(2, &[]);
    assert!(matches!(beyond, Err(WriteError::Beyond { index: 2, chunks: 2, .. })));
    assert_eq!(blob.missing(), run(0, 2));
    stored(&store, &right);
    whole(&blob, &right);
}

#[test]
fn what_is_not_here_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 3 * CHUNK);
    let blob = store.reserve(&manifest(&content)).unwrap();
    write(&blob, &content, [1]);
    let (chunk, end) = (CHUNK as u64, 3 * CHUNK as u64);
    assert_eq!(*blob.map(chunk..2 * chunk).unwrap(), content[CHUNK..2 * CHUNK]);
    assert_eq!(*blob.map(chunk + 3..chunk + 5).unwrap(), content[CHUNK + 3..CHUNK + 5]);
    for (range, missing) in [(chunk - 1..2 * chunk, 0), (chunk..2 * chunk + 1, 2), (0..end, 0)] {
        let refused = blob.map(range.clone());
        assert!(matches!(&refused, Err(ReadError::Missing { index, .. }) if *index == missing));
        let refused = blob.file_range(range);
        assert!(matches!(&refused, Err(ReadError::Missing { index, .. }) if *index == missing));
    }
    assert!(matches!(blob.read_chunk(0), Err(ReadError::Missing { index: 0, .. })));
    assert!(matches!(blob.read_chunk(3), Err(ReadError::Beyond { .. })));
    assert!(matches!(blob.map(0..end + 1), Err(ReadError::Beyond { .. })));
    assert!(matches!(blob.map(end + 1..end + 1), Err(ReadError::Beyond { .. })));
    assert_eq!(*blob.map(7..7).unwrap(), []);
}

#[test]
fn what_is_given_away_can_only_be_read() {
    use std::os::fd::AsFd as _;
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, CHUNK);
    let blob = stored(&open(dir.path()), &content);
    let given = blob.file_range(0..10).unwrap();
    assert!(rustix::io::write(given.file.as_fd(), b"x").is_err());
    assert!(rustix::fs::ftruncate(given.file.as_fd(), 0).is_err());
}

#[test]
fn partial_and_complete_blobs_stay_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (full, part) = (content(1, 2 * CHUNK + 1), content(2, 20 * CHUNK));
    {
        let store = open(dir.path());
        stored(&store, &full);
        let blob = store.reserve(&manifest(&part)).unwrap();
        write(&blob, &part, [0, 7, 8, 19]);
    }
    let store = open(dir.path());
    whole(&store.get(&id(&full)).unwrap(), &full);
    let blob = store.get(&id(&part)).unwrap();
    assert_eq!(blob.present(), [0..1, 7..9, 19..20]);
    assert_eq!(blob.write_chunk(7, chunk(&part, 7)).unwrap(), Written::Before);
    write(&blob, &part, 0..20);
    whole(&blob, &part);
}

#[test]
fn a_store_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(dir.path(), CLUSTER, AMPLE);
    assert!(matches!(second, Err(OpenStoreError::InUse { .. })), "{second:?}");
    let blob = stored(&store, b"abc");
    drop(store);
    assert!(Store::open(dir.path(), CLUSTER, AMPLE).is_err(), "a handle keeps it");
    drop(blob);
    open(dir.path());
}

#[test]
fn a_store_belongs_to_a_cluster_and_a_version() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let other = Store::open(dir.path(), ClusterId([8; 16]), AMPLE);
    assert!(matches!(other, Err(OpenStoreError::OtherCluster { found: CLUSTER, .. })));
    assert_eq!(fs::read(dir.path().join("stamp")).unwrap(), [&b"AHSTORE1"[..], &[7; 16]].concat());
    fs::write(dir.path().join("stamp"), b"something else that is there").unwrap();
    let strange = Store::open(dir.path(), CLUSTER, AMPLE);
    assert!(matches!(strange, Err(OpenStoreError::Stamp { .. })));
}

#[test]
fn pins_last_and_leases_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let owners = [Owner::Job(JobId(1)), Owner::Cache([9; 32]), Owner::Lease(1)];
    {
        let store = open(dir.path());
        let blob = stored(&store, b"abc");
        for owner in owners {
            store.pin(&blob.id(), owner).unwrap();
            store.pin(&blob.id(), owner).unwrap();
        }
        assert_eq!(store.list()[0].owners, owners);
        let other = store.pin(&id(b"other"), owners[0]);
        assert!(matches!(other, Err(PinError::Unknown { .. })));
    }
    let store = open(dir.path());
    assert_eq!(store.list()[0].owners, owners[..2]);
    assert!(store.release(&id(b"abc"), owners[1]));
    assert!(!store.release(&id(b"abc"), owners[1]));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list()[0].owners, owners[..1]);
}

#[test]
fn an_owner_releases_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (one, two) = (Owner::Job(JobId(1)), Owner::Job(JobId(2)));
    for seed in 0..3 {
        let blob = stored(&store, &content(seed, 10));
        store.pin(&blob.id(), one).unwrap();
        store.pin(&blob.id(), two).unwrap();
    }
    assert_eq!(store.release_all(one), 3);
    assert_eq!(store.release_all(one), 0);
    assert!(store.list().iter().all(|info| info.owners == [two]));
    assert_eq!(names(dir.path(), "pins").len(), 3);
}

#[test]
fn what_is_pinned_is_not_removed_and_what_is_removed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, CHUNK + 1);
    let blob = stored(&store, &content);
    store.pin(&blob.id(), Owner::Lease(1)).unwrap();
    let refused = store.remove(&blob.id());
    assert!(matches!(refused, Err(PinError::Pinned { owner: Owner::Lease(1), others: 0, .. })));
    store.release(&blob.id(), Owner::Lease(1));

    let map = blob.map(0..content.len() as u64).unwrap();
    let given = blob.file_range(0..content.len() as u64).unwrap();
    assert!(store.remove(&blob.id()).unwrap());
    assert!(!store.remove(&blob.id()).unwrap());
    assert!(names(dir.path(), "blobs").is_empty());
    assert_eq!(store.usage().held_bytes, 0);
    assert!(matches!(blob.read_chunk(0), Err(ReadError::Gone { .. })));
    assert!(matches!(blob.map(0..1), Err(ReadError::Gone { .. })));
    let written = blob.write_chunk(0, chunk(&content, 0));
    assert!(matches!(written, Err(WriteError::Gone { .. })));
    // It comes back, and the old handle is none on the new blob.
    let again = store.reserve(&manifest(&content)).unwrap();
    assert!(!again.is_complete());
    drop(blob);
    assert_eq!(store.usage().pinned_bytes, taken(content.len()), "the new handle still counts");
    assert_eq!(*map, content);
    assert_eq!(*given.map().unwrap(), content);
}

#[test]
fn orphans_are_collected_and_strangers_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, CHUNK + 1);
    let lost = id(b"lost");
    {
        let store = open(dir.path());
        stored(&store, &content);
        store.pin(&id(&content), Owner::Job(JobId(1))).unwrap();
        for content in ["bytes missing", "entry missing", "bytes cut here"] {
            stored(&store, content.as_bytes());
        }
    }
    let blobs = dir.path().join("blobs");
    fs::remove_file(blobs.join(format!("{}.bytes", id(b"bytes missing")))).unwrap();
    fs::remove_file(blobs.join(format!("{}.entry", id(b"entry missing")))).unwrap();
    let cut = blobs.join(format!("{}.bytes", id(b"bytes cut here")));
    fs::remove_file(&cut).unwrap();
    fs::write(cut, b"bytes cut").unwrap();
    fs::write(blobs.join(format!("{lost}.bytes")), b"lost").unwrap();
    fs::write(blobs.join(format!("{lost}.renewed")), b"lo").unwrap();
    fs::write(blobs.join("README"), b"not ours").unwrap();
    fs::write(dir.path().join("incoming/7"), b"half").unwrap();
    fs::write(dir.path().join(format!("pins/job-1.{lost}")), b"").unwrap();

    let store = open(dir.path());
    let (entry, bytes) = (format!("{}.entry", id(&content)), format!("{}.bytes", id(&content)));
    let mut left = vec![entry, bytes, "README".to_owned()];
    left.sort();
    assert_eq!(names(dir.path(), "blobs"), left);
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
    assert_eq!(names(dir.path(), "pins"), [format!("job-1.{}", id(&content))]);
    assert_eq!(store.usage().held_bytes, taken(content.len()));
    whole(&store.get(&id(&content)).unwrap(), &content);
}

#[test]
fn a_durable_blob_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 2 * CHUNK);
    let blob = store.reserve(&manifest(&content)).unwrap();
    write(&blob, &content, [0]);
    let refused = store.make_durable(&blob.id());
    assert!(matches!(refused, Err(SyncError::Incomplete { .. })), "{refused:?}");
    write(&blob, &content, [1]);
    store.make_durable(&blob.id()).unwrap();
    let unknown = store.make_durable(&id(b"unknown"));
    assert!(matches!(unknown, Err(SyncError::Incomplete { .. })));
}

#[test]
fn where_nothing_is_kept_a_blob_goes_with_its_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), ClusterId([1; 16]), 1 << 30).unwrap();
    store.collect_what_nobody_holds();
    let one = store.put_bytes(b"some bytes").unwrap();
    let (id, again) = (one.id(), store.put(&b"some bytes"[..]).unwrap());
    let map = one.map(0..10).unwrap();
    drop(one);
    assert!(store.get(&id).is_some(), "another handle is there");
    let owner = Owner::Lease(1);
    store.pin(&id, owner).unwrap();
    drop(again);
    assert!(store.get(&id).is_some(), "it is pinned");
    store.release(&id, owner);
    drop(store.get(&id).unwrap());
    assert!(store.get(&id).is_none() && store.list().is_empty());
    assert_eq!((&*map, store.usage().held_bytes), (&b"some bytes"[..], 0));
}
