//! Many threads at one blob: each chunk is written once, and what is mapped is right.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::support::*;
use crate::blobs::*;

#[test]
fn threads_write_and_map_one_blob() {
    const THREADS: u32 = 6;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 12 * CHUNK + 99);
    let chunks = 13;
    let written = AtomicU32::new(0);
    thread::scope(|scope| {
        for start in 0..THREADS {
            let (store, content, written) = (store.clone(), &content, &written);
            scope.spawn(move || {
                let blob = store.reserve(&manifest(content)).unwrap();
                for step in 0..chunks {
                    // Neighbours begin at the same place, so that they meet.
                    let index = (start / 2 * 4 + step) % chunks;
                    if blob.write_chunk(index, chunk(content, index)).unwrap() == Written::Now {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    let range = blob.manifest().range_of(index).unwrap();
                    let map = blob.map(range.clone()).unwrap();
                    assert!(*map == content[range.start as usize..range.end as usize]);
                    assert!(blob.read_chunk(index).unwrap() == *map);
                }
                assert!(blob.is_complete());
            });
        }
    });
    assert_eq!(written.into_inner(), chunks, "each chunk is written once");
    whole(&store.get(&id(&content)).unwrap(), &content);
    assert_eq!(store.usage().pinned_bytes, 0, "all handles are gone");
}

#[test]
fn threads_put_read_and_evict_without_a_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [5, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 7];
    let contents: Vec<_> = (0..).zip(sizes).map(|(seed, bytes)| content(seed, bytes)).collect();
    let quota = taken(3 * CHUNK) + 2 * taken(2 * CHUNK) + taken(CHUNK);
    let store = Store::open(dir.path(), CLUSTER, quota).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (store, contents) = (store.clone(), &contents);
            scope.spawn(move || {
                for step in 0..25 {
                    let content = &contents[(thread + step * (thread + 1)) % contents.len()];
                    // Others may hold so much that there is no room: that is said, and all that may happen.
                    let put = match step % 2 {
                        0 => store.put_bytes(content),
                        _ => store.put(&content[..]),
                    };
                    match put {
                        Ok(blob) => whole(&blob, content),
                        Err(error) => assert!(matches!(error, PutError::Full(_)), "{error:?}"),
                    }
                    if let Some(blob) = store.get(&id(content)) {
                        match blob.map(0..content.len() as u64) {
                            Ok(map) => assert!(*map == *content),
                            // Another thread is just writing it.
                            Err(error) => assert!(matches!(error, ReadError::Missing { .. })),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.usage().pinned_bytes, 0);
    let held: u64 = store.list().iter().map(|info| taken(info.bytes as usize)).sum();
    assert_eq!(store.usage().held_bytes, held);
    assert_eq!(names(dir.path(), "blobs").len(), 2 * store.usage().blobs);
}

#[test]
fn a_store_crosses_threads() {
    fn crosses<T: Send + Sync + Clone>() {}
    crosses::<Store>();
    crosses::<Blob>();
}
