//! A bit that flipped on disk is noticed before it is served; the chunk is written again, into a new file.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use super::spy::{Spy, SpyDisk, Step, Verdict};
use super::support::*;
use crate::blobs::*;
use crate::disk::Access;

/// Fetches whatever is missing until the blob is whole.
fn heal(blob: &Blob, content: &[u8]) {
    while let Err(ReadError::Missing { index, .. } | ReadError::Damaged { index, .. }) =
        blob.verify()
    {
        blob.write_chunk(index, chunk(content, index)).unwrap();
    }
}

#[test]
fn a_flipped_bit_is_noticed_when_the_chunk_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 3 * CHUNK);
    let blob = stored(&store, &content);
    let before = blob.map(0..CHUNK as u64).unwrap();
    flip(dir.path(), &blob.id(), CHUNK as u64 + 77);

    let read = blob.read_chunk(1);
    assert!(matches!(read, Err(ReadError::Damaged { index: 1, .. })), "{read:?}");
    assert!(matches!(blob.read_chunk(1), Err(ReadError::Missing { index: 1, .. })));
    assert_eq!(blob.missing(), run(1, 2));
    assert!(matches!(blob.map(0..content.len() as u64), Err(ReadError::Missing { index: 1, .. })));
    assert!(matches!(store.make_durable(&blob.id()), Err(SyncError::Incomplete { .. })));
    assert_eq!(*blob.map(0..CHUNK as u64).unwrap(), content[..CHUNK], "the others are");

    assert_eq!(blob.write_chunk(1, chunk(&content, 1)).unwrap(), Written::Now);
    whole(&blob, &content);
    assert_eq!(*before, content[..CHUNK], "a map is of the file that it was made of");
    assert_eq!(names(dir.path(), "blobs").len(), 2);
    drop((blob, store));
    whole(&open(dir.path()).get(&id(&content)).unwrap(), &content);
}

#[test]
fn what_somebody_has_mapped_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 2 * CHUNK);
    let blob = stored(&store, &content);
    let map = blob.map(0..content.len() as u64).unwrap();
    flip(dir.path(), &blob.id(), 5);
    assert!(blob.read_chunk(0).is_err());
    let spoilt = map[..].to_vec();
    heal(&blob, &content);
    whole(&blob, &content);
    assert!(map[..] == spoilt, "the repair is not seen through the old map");
}

#[test]
fn what_a_restart_finds_is_checked_before_it_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, 9 * CHUNK + 3);
    let id = stored(&open(dir.path()), &content).id();
    flip(dir.path(), &id, 9 * CHUNK as u64);
    let store = open(dir.path());
    let blob = store.get(&id).unwrap();
    assert!(blob.is_complete(), "nobody has looked yet");
    let mapped = blob.map(0..content.len() as u64);
    assert!(matches!(mapped, Err(ReadError::Damaged { index: 9, .. })), "{mapped:?}");
    assert_eq!(blob.missing(), run(9, 10));
    assert_eq!(*blob.map(0..10).unwrap(), content[..10]);
    heal(&blob, &content);
    whole(&blob, &content);
    drop((blob, store));
    whole(&open(dir.path()).get(&id).unwrap(), &content);
}

#[test]
fn several_damaged_chunks_are_healed_in_one_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 4 * CHUNK);
    let blob = stored(&store, &content);
    for index in [0, 2, 3] {
        flip(dir.path(), &blob.id(), index * CHUNK as u64);
    }
    // Two are noticed when they are read, the third by the copy.
    assert!(blob.read_chunk(0).is_err());
    assert!(blob.read_chunk(2).is_err());
    blob.write_chunk(0, chunk(&content, 0)).unwrap();
    assert_eq!(blob.missing(), run(2, 4));
    heal(&blob, &content);
    whole(&blob, &content);
}

#[test]
fn a_put_heals_what_it_finds_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, 2 * CHUNK + 7);
    let id = stored(&open(dir.path()), &content).id();
    flip(dir.path(), &id, 2 * CHUNK as u64 + 1);
    let store = open(dir.path());
    whole(&store.put_bytes(&content).unwrap(), &content);
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
}

#[test]
fn a_flipped_bit_in_an_entry_loses_no_other_blob_and_serves_no_wrong_byte() {
    let content = content(1, 3000);
    let other = b"another blob";
    let (id, other_id) = (id(&content), id(other));
    let entry_bytes = entry::entry_bytes(content.len() as u64);
    for at in 0..entry_bytes {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path());
            store.put_bytes(&content).unwrap();
            store.put_bytes(other).unwrap();
        }
        let path = Layout::new(dir.path()).blob(&id).entry;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at as usize] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let store = open(dir.path());
        whole(&store.get(&other_id).unwrap(), other);
        if let Some(blob) = store.get(&id) {
            heal(&blob, &content);
            whole(&blob, &content);
        }
        whole(&store.put_bytes(&content).unwrap(), &content);
    }
}

/// A file system that keeps to the seal, also where the tests run as root: until the file is another.
#[derive(Debug, Default)]
struct Sealed {
    renewed: AtomicBool,
}

impl Spy for Sealed {
    fn see(&self, step: Step) -> Verdict {
        match step {
            Step::Rename { .. } => self.renewed.store(true, Ordering::Relaxed),
            Step::Open { path, access: Access::Write }
                if path.extension().is_some_and(|kind| kind == "bytes")
                    && !self.renewed.load(Ordering::Relaxed) =>
            {
                return Verdict::Fail(ErrorKind::PermissionDenied.into());
            }
            _ => {}
        }
        Verdict::Go
    }
}

#[test]
fn a_sealed_file_whose_claims_were_lost_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, 2 * CHUNK + 5);
    let id = stored(&open(dir.path()), &content).id();
    // The machine stopped when the seal was on the disk, and the claims of two chunks were not.
    let path = Layout::new(dir.path()).blob(&id).entry;
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = 0b010;
    std::fs::write(&path, bytes).unwrap();

    let spy = Arc::new(Sealed::default());
    let disk = Arc::new(SpyDisk::new(spy.clone()));
    let store = Store::open_on(disk, dir.path(), CLUSTER, AMPLE).unwrap();
    let blob = store.get(&id).unwrap();
    assert_eq!(blob.present(), run(1, 2));
    let map = blob.map(CHUNK as u64..2 * CHUNK as u64).unwrap();
    write(&blob, &content, [0, 2]);
    assert!(spy.renewed.load(Ordering::Relaxed));
    whole(&blob, &content);
    assert_eq!(*map, content[CHUNK..2 * CHUNK]);
}
