//! What stores on real disks do to a transfer: damage, no room, a process that is killed, chunks under other names.
#![expect(clippy::unwrap_used, reason = "a test that cannot start its processes fails")]

use std::error::Error as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use allhands_common::net::access::Role;
use allhands_common::net::authority::Authority;
use allhands_common::wire::data::{Holder, Node};
use allhands_store::blobs::{OpenStoreError, Store};
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, FetchError, Options, Report, Transfer};
use bytes::Bytes;

use crate::support::*;

const MIB: usize = 1 << 20;

/// Waits for something that another task is about to do.
async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it never happens");
}

/// One of two holders has a flipped bit. Nobody gets it, everybody gets the right chunk from the other, and
/// the holder has it again at the end, without anybody's doing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_served_and_is_healed() {
    let cluster = Cluster::new();
    let (damaged, whole) = (TestStore::new(), TestStore::new());
    let mut bad = cluster.worker("damaged", &damaged);
    let good = cluster.worker("whole", &whole);
    let content = content(16 * MIB);
    let put = damaged.put(&content);
    whole.put(&content);
    damaged.flip(put.blob, 5 * MIB as u64 + 77);
    let stores: Vec<_> = (0..3).map(|_| TestStore::new()).collect();
    let names = ["one", "two", "three"];
    let mut nodes: Vec<_> =
        names.iter().zip(&stores).map(|(name, store)| cluster.worker(name, store)).collect();
    // They ask the damaged holder for every chunk first; the other one comes later.
    let fetches: Vec<_> = nodes.iter().map(|node| node.spawn_fetch(put, &[&bad])).collect();
    let report = bad.reports.recv().await.unwrap();
    assert_eq!(report, Report::Damaged { blob: put.blob, chunk: 5 });
    assert!(!damaged.chunks(put.blob).contains(&5), "it counts as absent");
    for node in &nodes {
        node.transfer.holders(put.blob, vec![(good.holder.clone(), true)]).await;
    }
    for fetch in fetches {
        fetch.await.unwrap().unwrap();
    }
    for (store, node) in stores.iter().zip(&mut nodes) {
        assert!(*store.bytes(put.blob) == *content);
        assert!(node.reports.try_recv().is_err(), "nothing wrong has come");
    }
    until(|| damaged.chunks(put.blob).len() == 16).await;
    assert!(*damaged.bytes(put.blob) == *content, "healed");
}

/// The damaged chunk is one of a node that is itself still fetching the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_still_fetching_fetches_its_damaged_chunk_again() {
    let cluster = Cluster::new();
    let slow = TestStore::with(Fault { hangs_after: Some(4), ..Fault::default() });
    let (half, sink) = (TestStore::new(), TestStore::new());
    let source = cluster.worker("source", &slow);
    let middle = cluster.worker("middle", &half);
    let end = cluster.worker("end", &sink);
    let content = content(12 * MIB);
    let put = slow.put(&content);
    let fetching = middle.spawn_fetch(put, &[&source]);
    until(|| half.chunks(put.blob).len() >= 4).await;
    let chunk = half.chunks(put.blob)[0];
    half.flip(put.blob, u64::from(chunk) * MIB as u64);
    let bytes = u64::from(chunk) * MIB as u64..u64::from(chunk + 1) * MIB as u64;
    let fetch = Fetch { bytes: Some(bytes), ..put.fetch(&[&middle]) };
    let asking = end.transfer.clone();
    let asked = tokio::spawn(async move { asking.fetch(fetch).await });
    until(|| !half.chunks(put.blob).contains(&chunk)).await;
    slow.release();
    fetching.await.unwrap().unwrap();
    asked.await.unwrap().unwrap();
    assert!(*half.bytes(put.blob) == *content);
    assert_eq!(sink.chunks(put.blob), [chunk]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_said_to_everybody_who_waits() {
    let cluster = Cluster::new();
    let (source, full) = (TestStore::new(), TestStore::small(8 * MIB as u64));
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &full));
    let put = source.put(&content(16 * MIB));
    let holders = [&from];
    let (one, two) = tokio::join!(to.fetch(put, &holders), to.fetch(put, &holders));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(matches!(error, FetchError::Store { .. }), "{error}");
        assert!(error.retry_can_help());
        let cause = error.source().unwrap();
        let blob = put.blob;
        assert_eq!(cause.to_string(), format!("no room for blob {blob} of 16777216 bytes"));
        let cause = cause.source().unwrap().to_string();
        assert!(cause.starts_with("the chunk store is full: "), "{cause}");
    }
    assert_eq!(full.writes.load(Ordering::SeqCst), 0);
    // What fits still comes.
    let small = source.put(&content(MIB));
    to.fetch(small, &holders).await.unwrap();
}

/// What is being fetched is not evicted by what is fetched beside it, and what was fetched not before its
/// handle is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_fetched_stays() {
    let cluster = Cluster::new();
    let (source, small) = (TestStore::new(), TestStore::small(20 * MIB as u64));
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &small));
    let (one, two) = (source.put(&content(12 * MIB)), source.put(&content(12 * MIB + 1)));
    let held = to.fetch(one, &[&from]).await.unwrap();
    let error = to.fetch(two, &[&from]).await.unwrap_err();
    assert!(matches!(error, FetchError::Store { .. }), "{error}");
    drop(held);
    to.fetch(two, &[&from]).await.unwrap();
    assert!(small.disk.get(&one.blob).is_none(), "it made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_under_another_name_do_not_travel() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &sink));
    let old = content(20 * MIB);
    let mut new = old.to_vec();
    new[7 * MIB + 3] ^= 1;
    let new = Bytes::from(new);
    let (before, after) = (source.put(&old), source.put(&new));
    to.fetch(before, &[&from]).await.unwrap();
    let so_far = to.transfer.traffic().received_bytes;
    to.fetch(after, &[&from]).await.unwrap();
    assert!(*sink.bytes(after.blob) == *new);
    let travelled = to.transfer.traffic().received_bytes - so_far;
    assert_eq!(travelled, (MIB + 20 * 32) as u64, "one chunk and the manifest");
    assert_eq!(from.transfer.traffic().sent_bytes, to.transfer.traffic().received_bytes);
}

/// Where the tests that run this program again put what it is to do.
const RECEIVE: &str = "ALLHANDS_TEST_RECEIVE";

/// The receiver as a process: `directory address blob length`, of the cluster whose authority is in the directory.
/// Says `open` when it has the store, and `done` at the end; goes on until its input ends.
#[test]
fn be_a_receiver() {
    let Ok(words) = std::env::var(RECEIVE) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [dir, address, blob, length] = words[..] else { panic!("{words:?}") };
    let (dir, address): (&Path, SocketAddr) = (Path::new(dir), address.parse().unwrap());
    let say = |what: &str| {
        let mut out = std::io::stdout();
        writeln!(out, "says {what}").and_then(|()| out.flush()).unwrap();
    };
    let store = match Store::open(&dir.join("store"), CLUSTER, AMPLE) {
        Ok(store) => store,
        Err(OpenStoreError::InUse { .. }) => return say("in use"),
        Err(error) => panic!("{error}"),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let authority = Authority::load(&dir.join("authority")).unwrap();
        let endpoint = endpoint_of(&authority, Role::Worker, "receiver");
        // One chunk at a time, so that it can be killed between two.
        let config = Config { peer_chunks_max: 1, ..Config::default() };
        let options = Options { addresses: Vec::new(), config };
        let (transfer, _) = Transfer::start(endpoint, std::sync::Arc::new(store), options);
        say("open");
        let node = Node { role: Role::Worker, name: "source".to_owned() };
        let holders = vec![(Holder { node, addresses: vec![address] }, true)];
        let (blob, length) = (blob.parse().unwrap(), length.parse().unwrap());
        let fetch = Fetch { blob, length, bytes: None, holders, within: DEADLINE };
        transfer.fetch(fetch).await.unwrap();
        say("done");
    });
    std::io::stdin().lock().lines().for_each(drop);
}

struct Receiver {
    child: std::process::Child,
    said: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Receiver {
    fn start(dir: &Path, address: SocketAddr, put: Put) -> Self {
        let words = format!("{} {address} {} {}", dir.display(), put.blob, put.length);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stores::be_a_receiver", "--nocapture", "--test-threads=1"])
            .env(RECEIVE, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// The next thing that it says; the test harness around it says other things.
    fn says(&mut self) -> String {
        loop {
            let line = self.said.next().expect("it ended without a word").unwrap();
            if let Some((_, what)) = line.split_once("says ") {
                return what.to_owned();
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_receiver_resumes_with_what_it_has() {
    const CHUNKS: usize = 24;
    let (cluster, dir) = (Cluster::new(), tempfile::tempdir().unwrap());
    cluster.save(&dir.path().join("authority"));
    // After ten chunks it gives none, so that the receiver is surely killed in the middle.
    let source = TestStore::with(Fault { hangs_after: Some(10), ..Fault::default() });
    let from = cluster.worker("source", &source);
    let content = content(CHUNKS * MIB);
    let put = source.put(&content);
    let path = dir.path().to_owned();
    let start = move |path: &PathBuf| Receiver::start(path, from.holder.addresses[0], put);

    let mut first = start(&path);
    assert_eq!(first.says(), "open");
    let mut beside = start(&path);
    assert_eq!(beside.says(), "in use", "a second process cannot have the directory");
    // The eleventh is asked for when the tenth is in the store.
    until(|| source.reads.load(Ordering::SeqCst) > 10).await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    source.release();

    let mut second = start(&path);
    let says = tokio::task::spawn_blocking(move || {
        (second.says(), second.says(), second.child.kill(), second.child.wait())
    });
    let (open, done, _, _) = says.await.unwrap();
    assert_eq!((open.as_str(), done.as_str()), ("open", "done"));
    // Ten came before, the eleventh was read in vain, and the others came once.
    assert_eq!(source.reads.load(Ordering::SeqCst), CHUNKS + 1);
    let store = Store::open(&path.join("store"), CLUSTER, AMPLE).unwrap();
    let blob = store.get(&put.blob).unwrap();
    assert!(*blob.map(0..put.length).unwrap() == *content);
}
