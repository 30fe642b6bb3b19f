//! Handles on what lies with workers: what travels, how long it stays, and what becomes of it when its holder ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its cluster fails")]

use std::time::{Duration, Instant};

use allhands_common::blob::BlobRef;
use allhands_common::failure::Cause;
use allhands_common::id::{BatchId, WorkerId};
use allhands_common::wire::client::Keep;
use allhands_store::blobs::{BlobInfo, PutError};

use super::*;
use crate::Shared;
use crate::cluster::Cluster;
use crate::shared::left::{Left, Maker};
use crate::shared::whole::Whole;

/// Has a worker keep it, as for a task's result; the bytes.
fn made(worker: &TestWorker, bytes: usize) -> (BlobRef, Vec<u8>) {
    let content = content(bytes);
    let blob = worker.store.put_bytes(&content).unwrap();
    (BlobRef { id: blob.id(), bytes: bytes as u64 }, content)
}

/// A handle on it, as an outcome that names it gives one.
fn handle(client: &Cluster, blob: BlobRef, replicas: u8) -> Shared<[u8]> {
    let giving = client.data().giving().unwrap();
    assert!(giving.session().keep(Keep { blob, replicas, at: None }));
    let maker = Maker { worker: WorkerId(7), batch: BatchId([1; 16]), task: 3 };
    let whole = Whole::left(Left::new(blob, maker, Arc::clone(giving)));
    Shared::new(whole, 0, &[blob.bytes]).unwrap()
}

fn until_whole(worker: &TestWorker, blob: BlobRef) {
    let whole = |id| worker.store.hold(id).is_some_and(|blob| blob.is_complete());
    eventually(async || whole(&blob.id).then_some(()));
}

#[test]
fn nothing_travels_before_it_is_read_and_then_only_what_is_read() {
    let cluster = TestCluster::start(1);
    let worker = cluster.worker("one");
    let client = cluster.client();
    let (blob, content) = made(&worker, 20 * MIB + 7);
    let array = handle(&client, blob, 1);
    let slices: Vec<_> = (0..8).map(|at| array.slice(at * MIB + 1..at * MIB + 9)).collect();
    let sent = || worker.fetcher.traffic().sent_bytes;
    assert_eq!(sent(), 0);
    let part = array.slice(3 * MIB + 1..5 * MIB);
    assert!(part[..] == content[3 * MIB + 1..5 * MIB]);
    assert!((2 * MIB as u64..3 * MIB as u64).contains(&sent()), "{}", sent());
    // Several at a time, of one blob; some of their chunks are here.
    std::thread::scope(|scope| {
        for (at, slice) in slices.iter().enumerate() {
            let content = &content;
            scope.spawn(move || assert_eq!(slice[..], content[at * MIB + 1..at * MIB + 9]));
        }
    });
    assert!((8 * MIB as u64..9 * MIB as u64).contains(&sent()), "{}", sent());
    assert!(*array == content[..]);
    assert!((20 * MIB as u64..22 * MIB as u64).contains(&sent()), "{}", sent());
    // All of it is here now.
    worker.kill();
    assert!(array.clone().slice(0..blob.bytes as usize)[..] == content[..]);
    let mut own = array.slice(5..7).to_mut().unwrap();
    own[0] ^= 1;
    assert_eq!(own[0], content[5] ^ 1);
}

#[test]
fn what_there_is_a_handle_on_is_kept_and_what_there_is_none_on_makes_room() {
    let cluster = TestCluster::start(1);
    let worker = cluster.worker_with("one", Vec::new(), 30 << 20);
    let client = cluster.client();
    let (blob, _) = made(&worker, 16 * MIB);
    let (array, other) = (handle(&client, blob, 1), handle(&client, blob, 1));
    let is_kept = |kept: bool| {
        let pinned = |info: &BlobInfo| info.id == blob.id && !info.owners.is_empty();
        eventually(async || (worker.store.list().iter().any(pinned) == kept).then_some(()));
    };
    is_kept(true);
    drop(array);
    let put = || worker.store.put_bytes(&content(20 * MIB));
    assert!(matches!(put(), Err(PutError::Full(_))));
    drop(other);
    is_kept(false);
    put().unwrap();
    assert!(worker.store.get(&blob.id).is_none());
}

#[test]
fn a_second_holder_outlives_the_first_and_a_third_takes_its_place() {
    let cluster = TestCluster::start(1);
    let (one, two) = (cluster.worker("one"), cluster.worker("two"));
    let client = cluster.client();
    let (blob, content) = made(&one, 5 * MIB + 1);
    let array = handle(&client, blob, 2);
    until_whole(&two, blob);
    let three = cluster.worker("three");
    one.kill();
    until_whole(&three, blob);
    two.kill();
    assert!(*array == content[..]);
}

#[test]
fn what_was_put_is_kept_by_as_many_workers_as_are_wanted() {
    let cluster = TestCluster::start(1);
    let workers = [cluster.worker("one"), cluster.worker("two"), cluster.worker("three")];
    let client = cluster.client();
    cluster.until_workers(3);
    let content = content(3 * MIB + 1);
    let array = client.put(&content).unwrap();
    array.replicate(2).unwrap();
    let Some(id) = array.whole().known_blob() else { panic!("it was put") };
    let blob = BlobRef { id, bytes: content.len() as u64 };
    cluster.until_held(id, 2);
    array.clone().replicate(3).unwrap();
    workers.iter().for_each(|worker| until_whole(worker, blob));
    let pinned = |worker: &TestWorker| {
        worker.store.list().iter().any(|info| info.id == id && !info.owners.is_empty())
    };
    eventually(async || workers.iter().all(pinned).then_some(()));
    drop(array);
    eventually(async || (!workers.iter().any(pinned)).then_some(()));
}

#[test]
fn a_new_leader_goes_on_to_keep_it() {
    let mut cluster = TestCluster::start(3);
    let one = cluster.worker("one");
    let client = cluster.client();
    let (blob, content) = made(&one, 5 * MIB + 1);
    let array = handle(&client, blob, 2);
    cluster.until_held(blob.id, 1);
    cluster.kill_leader();
    let two = cluster.worker("two");
    until_whole(&two, blob);
    one.kill();
    assert!(*array == content[..]);
}

#[test]
fn a_worker_that_leaves_hands_on_what_only_it_has() {
    let cluster = TestCluster::start(1);
    let mut one = cluster.worker("one");
    let client = cluster.client();
    let (blob, content) = made(&one, 9 * MIB + 1);
    let array = handle(&client, blob, 1);
    cluster.until_held(blob.id, 1);
    let two = cluster.worker("two");
    cluster.until_workers(2);
    one.drain();
    one.ended();
    until_whole(&two, blob);
    assert!(*array == content[..]);
}

#[test]
fn a_worker_that_nobody_can_take_over_from_leaves_at_once() {
    let cluster = TestCluster::start(1);
    let mut one = cluster.worker("one");
    let client = cluster.client();
    let (blob, _) = made(&one, MIB);
    let _array = handle(&client, blob, 1);
    cluster.until_held(blob.id, 1);
    let begun = Instant::now();
    one.drain();
    one.ended();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn what_is_nowhere_any_more_is_an_error_that_names_it() {
    let cluster = TestCluster::start(1);
    let one = cluster.worker("one");
    let client = cluster.client();
    let (blob, content) = made(&one, 3 * MIB);
    let array = handle(&client, blob, 1);
    let slice = array.slice(2 * MIB..2 * MIB + 4);
    assert_eq!(slice[..], content[2 * MIB..2 * MIB + 4]);
    one.kill();
    let error = array.load().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::BlobLost { .. })), "{error}");
    let text = error.to_string();
    let id = blob.id.to_string();
    for part in
        ["task 3 of batch 0101", &id, "of 3145728 bytes with worker 7", "call the task again"]
    {
        assert!(text.contains(part), "{text}");
    }
    // What was fetched is still here; the rest is not, and reading it says so.
    assert_eq!(slice[..], content[2 * MIB..2 * MIB + 4]);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| array[0])).unwrap_err();
    let words = panic.downcast::<String>().unwrap();
    assert!(words.starts_with("a shared array cannot be read") && words.contains(&id), "{words}");
}

#[test]
fn a_handle_without_its_session_is_an_error() {
    let cluster = TestCluster::start(1);
    let one = cluster.worker("one");
    let client = cluster.client();
    let (blob, _) = made(&one, MIB);
    let array = handle(&client, blob, 1);
    drop(client);
    let error = array.load().unwrap_err();
    assert!(error.to_string().contains("session has ended"), "{error}");
}
