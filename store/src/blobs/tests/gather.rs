//! Chunks that need not be fetched: verified before, here already, or in another blob.

use bytes::Bytes;

use super::support::*;
use crate::blobs::*;

fn verified(bytes: &[u8]) -> Verified {
    let bytes = Bytes::copy_from_slice(bytes);
    let id = ChunkId::of(&bytes);
    Verified::check(bytes, &id).unwrap()
}

#[test]
fn a_proof_is_of_one_chunk() {
    let bytes = content(1, 100);
    assert_eq!(Verified::check(bytes.clone().into(), &ChunkId::of(b"other")), None);
    let pieces = [Bytes::copy_from_slice(&bytes[..40]), Bytes::copy_from_slice(&bytes[40..])];
    let joined = Verified::join(&pieces, &ChunkId::of(&bytes)).unwrap();
    assert_eq!((joined.id(), &joined.bytes()[..]), (ChunkId::of(&bytes), &bytes[..]));
}

#[test]
fn verified_chunks_are_written_where_they_belong() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 2 * CHUNK + 9);
    let blob = store.reserve(&manifest(&content)).unwrap();
    for (index, bytes) in (0..).zip(content.chunks(CHUNK)) {
        let misplaced = blob.write_verified((index + 1) % 3, &verified(bytes));
        assert!(matches!(misplaced, Err(WriteError::Mismatch { .. })), "{misplaced:?}");
        assert_eq!(blob.write_verified(index, &verified(bytes)).unwrap(), Written::Now);
        assert_eq!(blob.write_verified(index, &verified(bytes)).unwrap(), Written::Before);
    }
    whole(&blob, &content);
    let beyond = blob.write_verified(3, &verified(b""));
    assert!(matches!(beyond, Err(WriteError::Beyond { index: 3, chunks: 3, .. })), "{beyond:?}");
}

/// A manifest may name a chunk that is longer than its place: it would reach into the next one.
#[test]
fn a_chunk_of_another_length_is_refused_with_its_proof() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let long = content(1, CHUNK + 1);
    let forged = Manifest::new(2 * CHUNK as u64, vec![ChunkId::of(&long); 2]).unwrap();
    let blob = store.reserve(&forged).unwrap();
    let refused = blob.write_verified(0, &verified(&long));
    assert!(matches!(refused, Err(WriteError::Mismatch { index: 0, .. })), "{refused:?}");
}

#[test]
fn chunks_of_other_blobs_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = content(1, 6 * CHUNK + 7);
    stored(&store, &old);
    let mut new = old.clone();
    new[3 * CHUNK + 5] ^= 1;
    // Somewhere else in the new blob, and twice.
    new.copy_within(0..CHUNK, 5 * CHUNK);
    let blob = store.reserve(&manifest(&new)).unwrap();
    assert_eq!(blob.present(), Vec::<Range<u32>>::new());
    blob.gather(CHUNK as u64..2 * CHUNK as u64).unwrap();
    assert_eq!(blob.present(), run(1, 2), "only what is asked for");
    blob.gather(0..new.len() as u64).unwrap();
    assert_eq!(blob.missing(), run(3, 4));
    write(&blob, &new, [3]);
    whole(&blob, &new);
}

#[test]
fn what_went_is_not_copied_and_what_is_damaged_neither() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = content(1, 3 * CHUNK);
    stored(&store, &old);
    flip(dir.path(), &id(&old), CHUNK as u64 + 3);
    let new = [&old[..], &content(2, 5)].concat();
    let blob = store.reserve(&manifest(&new)).unwrap();
    blob.gather(0..u64::MAX).unwrap();
    assert_eq!(blob.missing(), vec![1..2, 3..4]);
    drop(blob);
    assert!(store.remove(&id(&new)).unwrap() && store.remove(&id(&old)).unwrap());
    let blob = store.reserve(&manifest(&new)).unwrap();
    blob.gather(0..u64::MAX).unwrap();
    assert_eq!(blob.missing(), run(0, 4));
}

#[test]
fn what_was_found_at_the_start_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(1, 4 * CHUNK);
    let store = open(dir.path());
    let blob = store.reserve(&manifest(&content)).unwrap();
    write(&blob, &content, [0, 1, 2]);
    drop((blob, store));
    flip(dir.path(), &id(&content), 2 * CHUNK as u64);
    let blob = open(dir.path()).get(&id(&content)).unwrap();
    assert_eq!(blob.present(), run(0, 3), "believed until it is looked at");
    blob.gather(0..4 * CHUNK as u64).unwrap();
    assert_eq!(blob.present(), run(0, 2));
    write(&blob, &content, [2, 3]);
    whole(&blob, &content);
}
