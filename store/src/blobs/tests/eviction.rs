//! Quota, the order of evictions, and what a full store says.

use allhands_common::id::JobId;

use super::support::*;
use crate::blobs::*;

/// Blobs of this size in these tests.
const SIZE: usize = 3 * 4096;

fn small(dir: &Path, blobs: u64) -> Store {
    Store::open(dir, CLUSTER, blobs * taken(SIZE)).unwrap()
}

fn here(store: &Store, seeds: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let all = store.list();
    let is_here = |seed: &u8| all.iter().any(|info| info.id == id(&content(*seed, SIZE)));
    seeds.into_iter().filter(is_here).collect()
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), 3);
    for seed in 0..3 {
        stored(&store, &content(seed, SIZE));
    }
    store.get(&id(&content(0, SIZE))).unwrap();
    stored(&store, &content(3, SIZE));
    assert_eq!(here(&store, 0..4), [0, 2, 3]);
    // A partial one goes like any other.
    store.reserve(&manifest(&content(4, SIZE))).unwrap();
    assert_eq!(here(&store, 0..5), [0, 3, 4]);
    for seed in 5..7 {
        store.put_bytes(&content(seed, SIZE)).unwrap();
    }
    assert_eq!(here(&store, 0..7), [4, 5, 6]);
    assert_eq!(names(dir.path(), "blobs").len(), 6);
}

#[test]
fn the_order_of_uses_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = small(dir.path(), 4);
        for seed in 0..4 {
            stored(&store, &content(seed, SIZE));
        }
        for seed in [2, 0] {
            store.get(&id(&content(seed, SIZE))).unwrap();
        }
    }
    // A smaller quota evicts at the start.
    let store = small(dir.path(), 3);
    assert_eq!(here(&store, 0..4), [0, 2, 3]);
    stored(&store, &content(4, SIZE));
    assert_eq!(here(&store, 0..5), [0, 2, 4]);
    drop(store);
    let store = small(dir.path(), 1);
    assert_eq!(here(&store, 0..5), [4]);
}

#[test]
fn what_is_pinned_or_held_stays_and_a_full_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), 3);
    stored(&store, &content(0, SIZE));
    store.pin(&id(&content(0, SIZE)), Owner::Job(JobId(1))).unwrap();
    let held = stored(&store, &content(1, SIZE));
    stored(&store, &content(2, SIZE));

    let big = content(9, 2 * SIZE);
    let full = StoreFull {
        needed_bytes: taken(2 * SIZE),
        quota_bytes: 3 * taken(SIZE),
        held_bytes: 3 * taken(SIZE),
        pinned_bytes: 2 * taken(SIZE),
    };
    let refused = store.reserve(&manifest(&big));
    assert!(matches!(refused, Err(ReserveError::Full(said)) if said == full), "{refused:?}");
    let refused = store.put_bytes(&big);
    assert!(matches!(refused, Err(PutError::Full(said)) if said == full), "{refused:?}");
    assert!(matches!(store.put(&big[..]), Err(PutError::Full(_))));
    assert_eq!(here(&store, 0..3), [0, 1, 2], "nothing goes in vain");
    assert_eq!(store.usage().held_bytes, 3 * taken(SIZE));

    drop(held);
    stored(&store, &big);
    assert_eq!(here(&store, 0..3), [0]);
    assert_eq!(store.release_all(Owner::Job(JobId(1))), 1);
    stored(&store, &content(3, SIZE));
    assert_eq!(here(&store, 0..4), [3]);
}

#[test]
fn pins_beyond_the_quota_stay_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = small(dir.path(), 2);
        for seed in 0..2 {
            stored(&store, &content(seed, SIZE));
            store.pin(&id(&content(seed, SIZE)), Owner::Job(JobId(1))).unwrap();
        }
    }
    let store = small(dir.path(), 1);
    assert_eq!(here(&store, 0..2), [0, 1]);
    assert!(matches!(store.put_bytes(b"one more"), Err(PutError::Full(_))));
}

#[test]
fn a_map_of_what_was_evicted_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), 1);
    let bytes = content(0, SIZE);
    let map = stored(&store, &bytes).map(0..SIZE as u64).unwrap();
    stored(&store, &content(1, SIZE));
    assert_eq!(here(&store, 0..2), [1]);
    assert_eq!(*map, bytes);
}

#[test]
fn bytes_are_counted_in_whole_blocks_with_their_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.put_bytes(b"a").unwrap();
    assert_eq!(store.usage().held_bytes, 2 * 4096);
    store.put_bytes(&content(1, CHUNK)).unwrap();
    let usage = store.usage();
    assert_eq!(usage.held_bytes, 3 * 4096 + CHUNK as u64);
    assert_eq!((usage.pinned_bytes, usage.blobs), (0, 2));
}
