//! Whole streams: any length, from anywhere, with whatever is there already.

use std::io::{self, Read};

use super::support::*;
use crate::blobs::*;

/// Gives its bytes in pieces of odd lengths, with interruptions.
struct Odd<'b>(&'b [u8], usize);

impl Read for Odd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes = (self.1 * 7919 % 300_007).min(buffer.len()).min(self.0.len());
        buffer[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0 = &self.0[bytes..];
        Ok(bytes)
    }
}

#[test]
fn streams_of_any_length_are_the_blob_of_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 12_345] {
        let content = content(3, bytes);
        for blob in [store.put(Odd(&content, 0)).unwrap(), store.put_bytes(&content).unwrap()] {
            assert_eq!(blob.id(), id(&content), "{bytes} bytes");
            whole(&blob, &content);
        }
    }
    assert_eq!(store.usage().blobs, 6);
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
    let held: u64 = store.list().iter().map(|info| taken(info.bytes as usize)).sum();
    assert_eq!(store.usage().held_bytes, held);
    drop(store);
    let store = open(dir.path());
    whole(&store.get(&id(&content(3, CHUNK + 1))).unwrap(), &content(3, CHUNK + 1));
}

#[test]
fn what_is_here_in_part_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = content(1, 3 * CHUNK + 1);
    let blob = store.reserve(&manifest(&content)).unwrap();
    write(&blob, &content, [1]);
    let map = blob.map(CHUNK as u64..2 * CHUNK as u64).unwrap();
    let put = store.put_bytes(&content).unwrap();
    whole(&put, &content);
    whole(&blob, &content);
    assert_eq!(*map, content[CHUNK..2 * CHUNK]);
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::ConnectionReset)?;
            buffer.fill(1);
            Ok(buffer.len())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put = store.put(Broken(5));
    assert!(
        matches!(&put, Err(PutError::Source(error)) if error.kind() == io::ErrorKind::ConnectionReset)
    );
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
    assert_eq!(store.usage().held_bytes, 0);
}

#[test]
fn a_stream_takes_no_more_than_fits() {
    let dir = tempfile::tempdir().unwrap();
    // Room for all of it and little more: taking space ahead must not refuse what fits.
    let content = content(1, 5 * CHUNK);
    let store = Store::open(dir.path(), CLUSTER, taken(content.len())).unwrap();
    whole(&store.put(&content[..]).unwrap(), &content);
    assert_eq!(store.usage().held_bytes, taken(content.len()));
    let endless = store.put(io::repeat(7));
    assert!(matches!(endless, Err(PutError::Full(_))));
    assert_eq!(store.usage().held_bytes, 0, "it has evicted what it could");
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
}
