//! What a program holds, offers and receives, and when it goes.

use std::fs;

use allhands_common::blob::CHUNK_BYTES;

use super::*;

const CLUSTER: ClusterId = ClusterId([7; 16]);

const MIB: usize = CHUNK_BYTES as usize;

/// Holdings, and the offers that its session was told of and has not looked at.
fn holdings() -> (Holdings, Arc<Session>) {
    let session = Arc::<Session>::default();
    (Holdings::open(CLUSTER, Arc::clone(&session)).unwrap(), session)
}

fn told(session: &Session) -> Vec<(BlobId, bool)> {
    std::mem::take(&mut session.state().offers)
}

/// All of a blob, as a worker reads it.
fn read(holdings: &Holdings, blob: BlobId) -> Option<Vec<u8>> {
    let manifest = ChunkStore::manifest(holdings, blob).unwrap()?;
    let mut all = Vec::new();
    for chunk in 0..u32::try_from(manifest.chunks().len()).unwrap() {
        match ChunkStore::read(holdings, blob, chunk).unwrap() {
            Found::Whole(bytes) => all.extend_from_slice(&bytes),
            Found::Absent => return None,
            Found::Damaged => panic!("chunk {chunk} is damaged"),
        }
    }
    Some(all)
}

#[test]
fn what_is_put_is_offered_until_the_last_guard_is_dropped() {
    let (holdings, session) = holdings();
    let bytes = vec![3; MIB + 5];
    let one = holdings.put_bytes(&bytes).unwrap();
    let two = holdings.put_reader(bytes.as_slice()).unwrap();
    let blob = Manifest::of(&bytes).unwrap().id();
    assert_eq!((one.blob(), two.blob()), (blob, blob));
    assert!(one.stored().is_some());
    assert_eq!(told(&session), [(blob, true)]);
    assert_eq!(read(&holdings, blob), Some(bytes.clone()));

    drop(one);
    assert_eq!(told(&session), []);
    assert_eq!(read(&holdings, blob), Some(bytes.clone()));
    drop(two);
    assert_eq!(told(&session), [(blob, false)]);
    assert_eq!(read(&holdings, blob), None, "it takes no room any more");

    let again = holdings.put_bytes(&bytes).unwrap();
    assert_eq!(told(&session), [(blob, true)]);
    assert_eq!(read(&holdings, again.blob()), Some(bytes));
}

/// A put that has begun finds its bytes there already, and then the last guard of those is dropped.
#[test]
fn what_somebody_is_putting_is_not_removed() {
    let (holdings, session) = holdings();
    let bytes = vec![4; 2 * MIB];
    let mut guard = Some(holdings.put_bytes(&bytes).unwrap());
    let blob = guard.as_ref().unwrap().blob();
    let dropping = DropsAtEnd { bytes: &bytes, at_end: || drop(guard.take()) };
    let again = holdings.put_reader(dropping).unwrap();
    assert_eq!(told(&session), [(blob, true), (blob, false), (blob, true)]);
    assert_eq!(read(&holdings, again.blob()), Some(bytes.clone()));
}

struct DropsAtEnd<'a, F> {
    bytes: &'a [u8],
    at_end: F,
}

impl<F: FnMut()> Read for DropsAtEnd<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        if read == 0 {
            (self.at_end)();
        }
        Ok(read)
    }
}

#[test]
fn a_file_is_served_from_where_it_is() {
    let (holdings, session) = holdings();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array");
    let bytes: Vec<u8> = (0..3 * MIB + 9).map(|at| (at / 1000) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let file = Arc::new(FileInPlace::open(&path).unwrap());
    let offered = holdings.add_file(Arc::clone(&file)).unwrap();
    let blob = Manifest::of(&bytes).unwrap().id();
    assert_eq!((offered.blob(), offered.stored().is_none()), (blob, true));
    assert_eq!(read(&holdings, blob), Some(bytes.clone()));
    assert_eq!(ChunkStore::present(&holdings, blob).unwrap().len(), 4);
    assert!(holdings.0.store.list().is_empty(), "nothing was copied");

    let twice = holdings.add_file(file).unwrap();
    drop(offered);
    assert_eq!(read(&holdings, blob), Some(bytes));
    drop(twice);
    assert_eq!(told(&session), [(blob, true), (blob, false)]);
    assert_eq!(read(&holdings, blob), None);
}

#[test]
fn a_file_that_was_changed_is_not_served() {
    let (holdings, _session) = holdings();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array");
    fs::write(&path, vec![1; 2 * MIB]).unwrap();
    let file = Arc::new(FileInPlace::open(&path).unwrap());
    let offered = holdings.add_file(file).unwrap();
    fs::write(&path, vec![2; 2 * MIB + 1]).unwrap();
    assert!(matches!(ChunkStore::read(&holdings, offered.blob(), 0).unwrap(), Found::Absent));
    assert!(ChunkStore::present(&holdings, offered.blob()).unwrap().is_empty());
    assert_eq!(read(&holdings, offered.blob()), None);
}

#[test]
fn the_folder_goes_with_the_last_clone() {
    let (holdings, _session) = holdings();
    let offered = holdings.put_bytes(&[5; 100]).unwrap();
    let folder = holdings.0._folder.path().to_owned();
    drop(holdings);
    assert!(folder.exists());
    drop(offered);
    assert!(!folder.exists());
}

#[test]
fn there_is_a_bound() {
    let (holdings, _session) = holdings();
    let many = (0..SESSION_OFFERS_MAX).map(|number| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        (BlobId(id), 1)
    });
    holdings.0.books().offers = many.collect();
    let error = holdings.put_bytes(b"one more").unwrap_err();
    assert!(matches!(error, HoldError::TooMany), "{error}");
    assert!(holdings.0.store.list().is_empty(), "what is not offered takes no room");
}

/// Holds on to a result as if it had been fetched.
fn received(holdings: &Holdings, blob: BlobId, bytes: &[u8]) -> Received {
    let mut received = holdings.receive(blob);
    let stored = holdings.0.store.put_bytes(bytes).unwrap();
    assert_eq!(stored.id(), blob);
    assert!(received.complete().unwrap().is_some());
    received
}

#[test]
fn a_result_takes_no_room_once_nobody_has_it() {
    let (holdings, session) = holdings();
    let bytes = vec![6; MIB + 9];
    let blob = Manifest::of(&bytes).unwrap().id();
    let one = received(&holdings, blob, &bytes);
    let two = received(&holdings, blob, &bytes);
    drop(one);
    let map = two.blob().unwrap().map(0..bytes.len() as u64).unwrap();
    drop(two);
    assert!(*map == bytes, "what is mapped stays");
    assert_eq!(read(&holdings, blob), None);
    assert_eq!(told(&session), [], "nobody is offered a result");

    let mut waits = holdings.receive(blob);
    assert!(waits.complete().unwrap().is_none());
}

/// A task may return just what it was given.
#[test]
fn a_result_that_is_offered_too_stays_until_both_have_gone() {
    let (holdings, _session) = holdings();
    let bytes = vec![7; MIB];
    for result_first in [true, false] {
        let offered = holdings.put_bytes(&bytes).unwrap();
        let blob = offered.blob();
        let result = received(&holdings, blob, &bytes);
        let mut both: [Box<dyn std::any::Any>; 2] = [Box::new(offered), Box::new(result)];
        if result_first {
            both.reverse();
        }
        let [first, last] = both;
        drop(first);
        assert_eq!(read(&holdings, blob), Some(bytes.clone()));
        drop(last);
        assert_eq!(read(&holdings, blob), None);
    }
}

#[test]
fn a_result_that_is_a_file_in_place_is_copied_from_it() {
    let (holdings, _session) = holdings();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("array");
    let bytes = vec![8; 2 * MIB + 1];
    fs::write(&path, &bytes).unwrap();
    let offered = holdings.add_file(Arc::new(FileInPlace::open(&path).unwrap())).unwrap();
    let mut result = holdings.receive(offered.blob());
    assert!(result.complete().unwrap().is_some());
    drop(offered);
    fs::write(&path, "something else").unwrap();
    assert!(*result.blob().unwrap().map(0..bytes.len() as u64).unwrap() == bytes);
}
