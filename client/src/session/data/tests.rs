//! Blobs between machines: real coordinators, workers and sessions over real QUIC, in one process.

mod cluster;
mod left;

use std::fs;
use std::sync::Arc;

use allhands_common::id::BlobId;
use allhands_store::in_place::FileInPlace;
use allhands_transfer::node::FetchError as Unfetched;
use allhands_worker::fetch::FetchError;

use cluster::*;

const MIB: usize = 1 << 20;

#[test]
fn a_blob_goes_to_one_worker_and_from_there_to_another() {
    let cluster = TestCluster::start(1);
    let (one, two) = (cluster.worker("one"), cluster.worker("two"));
    let client = cluster.client();
    let holdings = holdings(&client);
    for bytes in [0, 1, MIB, 20 * MIB + 7] {
        let content = content(bytes);
        let offered = holdings.put_bytes(&content).unwrap();
        let blob = offered.blob();
        one.fetch(blob, bytes).unwrap();
        assert!(one.bytes(blob) == content);
        // The program has it no more: its store removes what nobody offers.
        drop(offered);
        two.fetch(blob, bytes).unwrap();
        assert!(two.bytes(blob) == content);
    }
    assert!(one.fetcher.traffic().sent_bytes >= 20 * MIB as u64);
}

#[test]
fn of_a_file_in_place_only_what_is_wanted_leaves_the_machine() {
    let cluster = TestCluster::start(1);
    let worker = cluster.worker("one");
    let client = cluster.client();
    let path = cluster.dir.path().join("array");
    let content = content(10 * MIB + 3);
    fs::write(&path, &content).unwrap();
    let holdings = holdings(&client);
    let offered = holdings.add_file(Arc::new(FileInPlace::open(&path).unwrap())).unwrap();
    let range = 3 * MIB as u64 + 1..5 * MIB as u64;
    worker.fetch_range(offered.blob(), content.len(), range.clone()).unwrap();
    let blob = worker.store.get(&offered.blob()).unwrap();
    assert_eq!(blob.present().into_iter().flatten().collect::<Vec<_>>(), [3, 4]);
    let map = blob.map(range.clone()).unwrap();
    assert!(*map == content[range.start as usize..range.end as usize]);
    assert!(worker.fetcher.traffic().received_bytes < 3 * MIB as u64);

    // The rest comes from the program as well, over the connection that stands.
    worker.fetch(offered.blob(), content.len()).unwrap();
    assert!(worker.bytes(offered.blob()) == content);
}

#[test]
fn a_holder_that_is_killed_is_replaced() {
    let cluster = TestCluster::start(1);
    let (one, two, three) = (cluster.worker("one"), cluster.worker("two"), cluster.worker("three"));
    let client = cluster.client();
    let content = content(12 * MIB);
    let offered = holdings(&client).put_bytes(&content).unwrap();
    let blob = offered.blob();
    one.fetch(blob, content.len()).unwrap();
    two.fetch(blob, content.len()).unwrap();
    drop(offered);
    // The leader has not noticed when the third one asks.
    one.kill();
    three.fetch(blob, content.len()).unwrap();
    assert!(three.bytes(blob) == content);
}

#[test]
fn what_nobody_has_is_an_error_that_says_so() {
    let cluster = TestCluster::start(1);
    let (worker, _other) = (cluster.worker("one"), cluster.worker("two"));
    let error = worker.fetch(BlobId([9; 32]), MIB).unwrap_err();
    assert!(matches!(error, FetchError::NobodyHasIt { .. }), "{error}");
    assert!(error.to_string().contains("nobody has blob 0909"), "{error}");
    assert!(!error.retry_can_help());
}

#[test]
fn who_waits_for_a_holder_is_told_when_one_comes() {
    let cluster = TestCluster::start(1);
    let worker = cluster.worker("one");
    let client = cluster.client();
    let content = content(3 * MIB);
    let blob = allhands_common::blob::Manifest::of(&content).unwrap().id();
    let waiting = worker.spawn_fetch(blob, content.len());
    let holdings = holdings(&client);
    cluster.until_wanted(blob, 1);
    let _offered = holdings.put_bytes(&content).unwrap();
    waiting.join().unwrap().unwrap();
    assert!(worker.bytes(blob) == content);
}

#[test]
fn a_leader_that_is_killed_while_a_fetch_waits_is_succeeded() {
    let mut cluster = TestCluster::start(3);
    let (one, two) = (cluster.worker("one"), cluster.worker("two"));
    let client = cluster.client();
    let holdings = holdings(&client);
    let (held, offered_later) = (content(2 * MIB), content(4 * MIB + 1));
    // One worker has the first blob, of which the next leader learns by its registration.
    let guard = holdings.put_bytes(&held).unwrap();
    let first = guard.blob();
    one.fetch(first, held.len()).unwrap();
    drop(guard);
    let second = allhands_common::blob::Manifest::of(&offered_later).unwrap().id();
    let waiting = two.spawn_fetch(second, offered_later.len());
    cluster.until_wanted(second, 1);
    cluster.kill_leader();
    let _offered = holdings.put_bytes(&offered_later).unwrap();
    waiting.join().unwrap().unwrap();
    assert!(two.bytes(second) == offered_later);
    two.fetch(first, held.len()).unwrap();
    assert!(two.bytes(first) == held);
}

#[test]
fn a_worker_that_a_program_cannot_reach_names_the_program() {
    let cluster = TestCluster::start(1);
    let worker = cluster.worker_announced_at("one", vec![nobody_listens()]);
    let client = cluster.client();
    let offered = holdings(&client).put_bytes(&content(MIB)).unwrap();
    let error = worker.fetch(offered.blob(), MIB).unwrap_err();
    assert!(matches!(error, FetchError::Transfer(Unfetched::BlobLost { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("not connected to here: client client"), "{text}");
}

#[test]
fn workers_share_what_all_of_them_want() {
    let cluster = TestCluster::start(1);
    let workers: Vec<_> = ["a", "b", "c", "d"].map(|name| cluster.worker(name)).into();
    let client = cluster.client();
    let content = content(24 * MIB);
    let offered = holdings(&client).put_bytes(&content).unwrap();
    // Two in each worker want it: it comes once.
    let fetches: Vec<_> = workers
        .iter()
        .chain(&workers)
        .map(|worker| worker.spawn_fetch(offered.blob(), content.len()))
        .collect();
    for fetch in fetches {
        fetch.join().unwrap().unwrap();
    }
    let mut given = 0;
    for worker in &workers {
        assert!(worker.bytes(offered.blob()) == content);
        let traffic = worker.fetcher.traffic();
        assert!(traffic.received_bytes < 40 * MIB as u64, "{traffic:?}");
        given += traffic.sent_bytes;
    }
    assert!(given > 0, "the workers have passed nothing on");
}
