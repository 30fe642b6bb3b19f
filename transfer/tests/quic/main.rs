//! Nodes over real QUIC on loopback, in one process.

mod length;
mod stores;
mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use allhands_common::blob::BlobId;
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::endpoint::Expected;
use allhands_common::net::handshake::{OpenError, Refusal, open_link};
use allhands_common::net::link::Link;
use allhands_common::wire::data::{Answer, Ask, Holder, Node};
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, FetchError, Options, Report, Transfer};

use support::*;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_from_one_to_another() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &sink));
    for bytes in [0, 1, MIB, 20 * MIB + 7] {
        let content = content(bytes);
        let blob = source.put(&content);
        let fetched = to.fetch(blob, &[&from]).await.unwrap();
        let manifest = fetched.manifest;
        assert_eq!((manifest.id(), manifest.bytes()), (blob.blob, bytes as u64));
        assert!(*sink.bytes(blob.blob) == *content, "{bytes} bytes differ");
    }
    // The first chunk of the last is that of the one before.
    assert_eq!(source.reads.load(Ordering::SeqCst), 1 + 1 + 20, "each chunk once");
    assert_eq!(sink.writes.load(Ordering::SeqCst), 1 + 1 + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chunks_under_a_range_travel() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &sink));
    let blob = source.put(&content(10 * MIB));
    let fetch = |bytes| Fetch { bytes: Some(bytes), ..blob.fetch(&[&from]) };
    to.transfer.fetch(fetch(3 * MIB as u64 + 1..5 * MIB as u64)).await.unwrap();
    assert_eq!(sink.chunks(blob.blob), [3, 4]);
    to.transfer.fetch(fetch(4 * MIB as u64..6 * MIB as u64)).await.unwrap();
    assert_eq!(sink.chunks(blob.blob), [3, 4, 5]);
    assert_eq!(source.reads.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_passed_on() {
    let cluster = Cluster::new();
    let source = TestStore::new();
    let from = cluster.worker("source", &source);
    let content = content(32 * MIB);
    let blob = source.put(&content);
    let stores: Vec<_> = (0..4).map(|_| TestStore::new()).collect();
    let names = ["one", "two", "three", "four"];
    let nodes: Vec<_> =
        names.iter().zip(&stores).map(|(name, store)| cluster.worker(name, store)).collect();
    let fetches: Vec<_> = nodes.iter().map(|node| node.spawn_fetch(blob, &[&from])).collect();
    for fetch in fetches {
        fetch.await.unwrap().unwrap();
    }
    for store in &stores {
        assert!(*store.bytes(blob.blob) == *content);
        assert_eq!(store.writes.load(Ordering::SeqCst), 32, "each chunk came once");
    }
    // The simulator says how few; here the machine may stall for longer than a redirect is remembered.
    let passed_on: usize = stores.iter().map(|store| store.reads.load(Ordering::SeqCst)).sum();
    assert!(passed_on > 0, "nobody passed anything on");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_reported() {
    let cluster = Cluster::new();
    let (honest, sink) = (TestStore::new(), TestStore::new());
    let liar = TestStore::with(Fault { lies: true, ..Fault::default() });
    let (good, bad) = (cluster.worker("good", &honest), cluster.worker("bad", &liar));
    let mut to = cluster.worker("sink", &sink);
    let content = content(24 * MIB);
    let blob = honest.put(&content);
    liar.put(&content);
    to.fetch(blob, &[&bad, &good]).await.unwrap();
    assert!(*sink.bytes(blob.blob) == *content);
    let report = to.reports.recv().await.unwrap();
    assert_eq!(report, Report::Wrong { node: bad.holder.node.clone(), blob: blob.blob });
    assert!(to.reports.try_recv().is_err(), "reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_alone_are_no_blob() {
    let cluster = Cluster::new();
    let liar = TestStore::with(Fault { lies: true, ..Fault::default() });
    let sink = TestStore::new();
    let bad = cluster.worker("bad", &liar);
    let config = Config { grace: Duration::from_millis(50), ..Config::default() };
    let to = cluster.node(Role::Worker, "sink", &sink, config);
    let blob = liar.put(&content(3 * MIB));
    let error = to.fetch(blob, &[&bad]).await.unwrap_err();
    let FetchError::BlobLost { holders, .. } = &error else { panic!("{error}") };
    assert_eq!(holders.as_slice(), std::slice::from_ref(&bad.holder.node));
    assert!(error.to_string().contains("worker bad"), "{error}");
    assert!(sink.chunks(blob.blob).is_empty());
}

/// Its process vanishes: no close, no reset, nothing more on its socket.
#[test]
fn a_holder_killed_in_mid_transfer_is_replaced() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (victim_runtime, runtime) = (runtime(), runtime());
    let cluster = Cluster::new();
    let dying = TestStore::with(Fault { hangs_after: Some(5), ..Fault::default() });
    let (living, sink) = (TestStore::new(), TestStore::new());
    let content = content(32 * MIB);
    let blob = living.put(&content);
    dying.put(&content);
    let victim = victim_runtime.block_on(async { cluster.worker("victim", &dying) });
    let (from, to) = runtime
        .block_on(async { (cluster.worker("source", &living), cluster.worker("sink", &sink)) });
    let (transfer, fetch) = (to.transfer.clone(), blob.fetch(&[&victim, &from]));
    let fetching = runtime.spawn(async move { transfer.fetch(fetch).await });
    runtime.block_on(async {
        // The sixth read hangs, so the victim owes something when it dies.
        while dying.reads.load(Ordering::SeqCst) < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    victim_runtime.shutdown_background();
    runtime.block_on(async {
        fetching.await.unwrap().unwrap();
        assert!(*sink.bytes(blob.blob) == *content);
        assert_eq!(sink.writes.load(Ordering::SeqCst), 32, "no chunk came twice");
    });
    dying.release();
    drop(victim);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lives_and_does_not_answer_is_replaced() {
    let cluster = Cluster::new();
    let stalled = TestStore::with(Fault { hangs_after: Some(2), ..Fault::default() });
    let (living, sink) = (TestStore::new(), TestStore::new());
    let content = content(16 * MIB);
    let blob = living.put(&content);
    stalled.put(&content);
    let (bad, good) = (cluster.worker("stalled", &stalled), cluster.worker("good", &living));
    let config = Config { silence: Duration::from_millis(300), ..Config::default() };
    let to = cluster.node(Role::Worker, "sink", &sink, config);
    to.fetch(blob, &[&bad, &good]).await.unwrap();
    assert!(*sink.bytes(blob.blob) == *content);
    stalled.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_not_ask_a_client() {
    let cluster = Cluster::new();
    let store = TestStore::new();
    let serving = cluster.node(Role::Client, "bob", &store, Config::default());
    let asking = cluster.endpoint(Role::Client, "alice");
    let expected = Expected { role: Role::Client, name: Some("bob") };
    let (address, shortly) = (serving.holder.addresses[0], Duration::from_millis(300));
    let refused = asking.connect(address, expected, shortly).await;
    assert!(refused.is_err(), "nobody is let in by who is nowhere");

    // Not even by one that can be dialled.
    let open = cluster.endpoint(Role::Client, "bob");
    let addresses = vec![open.local_address().unwrap()];
    let address = addresses[0];
    let options = Options { addresses, config: Config::default() };
    let (_transfer, _reports) = Transfer::start(open, store, options);
    let connection = asking.connect(address, expected, DEADLINE).await.unwrap();
    let opened: Result<(Link<Ask, Answer>, _), _> =
        open_link(&connection, Purpose::Chunks, "test").await;
    let Err(OpenError::Refused { source, .. }) = opened else { panic!("{opened:?}") };
    assert!(matches!(source, Refusal::Role { opener: Role::Client, .. }), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_lost_blob() {
    let cluster = Cluster::new();
    let store = TestStore::new();
    let config = Config {
        grace: Duration::from_millis(50),
        backoff: Duration::from_millis(10),
        ..Config::default()
    };
    let to = cluster.node(Role::Worker, "sink", &store, config);
    let empty = TestStore::new();
    let from = cluster.worker("empty", &empty);
    let blob = Put { blob: BlobId([9; 32]), length: MIB as u64 };
    let error = to.fetch(blob, &[&from]).await.unwrap_err();
    assert!(matches!(error, FetchError::BlobLost { .. }), "{error}");
    assert!(!error.retry_can_help());
    let error = to.fetch(blob, &[]).await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");

    // Nothing listens there, and the certificate would not fit if something did.
    let node = Node { role: Role::Worker, name: "ghost".to_owned() };
    let ghost = (Holder { node, addresses: vec![from.holder.addresses[0]] }, true);
    let fetch = Fetch { holders: vec![ghost], ..blob.fetch(&[]) };
    let error = to.transfer.fetch(fetch).await.unwrap_err();
    assert!(error.to_string().contains("worker ghost"), "{error}");
}

/// A client serves on the connection that it opened; nobody dials it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_serves_on_its_own_connection() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let client = cluster.node(Role::Client, "alice", &source, Config::default());
    let to = cluster.worker("sink", &sink);
    let content = content(5 * MIB);
    let blob = source.put(&content);
    let expected = Expected { role: Role::Worker, name: Some("sink") };
    let address = to.holder.addresses[0];
    let connection = client.endpoint.connect(address, expected, DEADLINE).await.unwrap();
    client.transfer.adopt(connection).await;
    // The client asks for something too, so that the worker surely knows it by now.
    let other = sink.put(&support::content(2 * MIB + 1));
    client.fetch(other, &[&to]).await.unwrap();
    let holder = Holder { node: client.holder.node.clone(), addresses: Vec::new() };
    let fetch = Fetch { holders: vec![(holder, true)], ..blob.fetch(&[]) };
    to.transfer.fetch(fetch).await.unwrap();
    assert!(*sink.bytes(blob.blob) == *content);
}

/// The worker is told of the client before that has dialled, and the client's connection breaks and comes
/// again: the fetch goes on each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_named_may_come_later() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let content = content(40 * MIB);
    let blob = source.put(&content);
    // So that nothing but its coming can start the fetch, and that nothing gives it up before.
    let config = Config { grace: DEADLINE, ..Config::default() };
    let to = cluster.node(Role::Worker, "sink", &sink, config);
    let node = Node { role: Role::Client, name: "alice".to_owned() };
    let holder = Holder { node, addresses: Vec::new() };
    let (transfer, fetch) = (to.transfer.clone(), blob.fetch(&[]));
    let fetch = Fetch { holders: vec![(holder, true)], ..fetch };
    let fetching = tokio::spawn(async move { transfer.fetch(fetch).await });
    let expected = Expected { role: Role::Worker, name: Some("sink") };
    for stop_at in [4, 40] {
        assert!(!fetching.is_finished());
        let client = cluster.node(Role::Client, "alice", &source, Config::default());
        let address = to.holder.addresses[0];
        let connection = client.endpoint.connect(address, expected, DEADLINE).await.unwrap();
        client.transfer.adopt(connection).await;
        while sink.writes.load(Ordering::SeqCst) < stop_at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if stop_at < 40 {
            client.endpoint.close("it comes again").await;
        }
    }
    fetching.await.unwrap().unwrap();
    assert!(*sink.bytes(blob.blob) == *content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_comes_is_named() {
    let cluster = Cluster::new();
    let sink = TestStore::new();
    let config = Config { grace: Duration::from_millis(50), ..Config::default() };
    let to = cluster.node(Role::Worker, "sink", &sink, config);
    let node = Node { role: Role::Client, name: "alice".to_owned() };
    let holder = (Holder { node: node.clone(), addresses: Vec::new() }, true);
    let blob = Put { blob: BlobId([9; 32]), length: MIB as u64 };
    let fetch = Fetch { holders: vec![holder], ..blob.fetch(&[]) };
    let error = to.transfer.fetch(fetch).await.unwrap_err();
    let FetchError::BlobLost { holders, unreached, .. } = &error else { panic!("{error}") };
    assert_eq!((holders.len(), unreached.as_slice()), (0, std::slice::from_ref(&node)));
    assert!(error.to_string().contains("not connected to here: client alice"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_dropped_is_not_made() {
    let cluster = Cluster::new();
    let slow = TestStore::with(Fault { hangs_after: Some(1), ..Fault::default() });
    let sink = TestStore::new();
    let (from, to) = (cluster.worker("source", &slow), cluster.worker("sink", &sink));
    let blob = slow.put(&content(40 * MIB));
    let fetching = to.spawn_fetch(blob, &[&from]);
    while sink.writes.load(Ordering::SeqCst) < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    // Another blob goes through, and of the first no more than was asked for before.
    let other = slow.put(&Default::default());
    to.fetch(other, &[&from]).await.unwrap();
    slow.release();
    let last = slow.put(&content(MIB + 1));
    to.fetch(last, &[&from]).await.unwrap();
    let asked = Config::default().peer_chunks_max as usize;
    assert!(sink.chunks(blob.blob).len() <= 1 + asked, "{:?}", sink.chunks(blob.blob));
}
