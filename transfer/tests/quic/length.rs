//! The handle says how long a blob is: nobody else may say otherwise, and a handle that is wrong is told so.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its manifest fails")]

use std::sync::Arc;
use std::time::Duration;

use allhands_common::blob::{ChunkId, Manifest};
use allhands_common::net::access::Role;
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{FetchError, Report};

use crate::support::*;

const MIB: usize = 1 << 20;

/// It would have us collect 512 MiB of ids.
fn endless() -> Arc<Manifest> {
    let bytes = 64 << 30;
    Arc::new(Manifest::new(bytes, vec![ChunkId([7; 32]); (bytes >> 20) as usize]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_length_is_refused_at_its_first_page() {
    let cluster = Cluster::new();
    let liar = TestStore::with(Fault { other_manifest: Some(endless()), ..Fault::default() });
    let (honest, sink) = (TestStore::new(), TestStore::new());
    let (bad, good) = (cluster.worker("bad", &liar), cluster.worker("good", &honest));
    let config = Config { grace: Duration::from_millis(50), ..Config::default() };
    let mut to = cluster.node(Role::Worker, "sink", &sink, config);
    let content = content(3 * MIB + 1);
    let put = honest.put(&content);

    let error = to.fetch(put, &[&bad]).await.unwrap_err();
    let FetchError::OtherLength { node, expected, bytes, .. } = &error else { panic!("{error}") };
    assert_eq!((node, *expected, *bytes), (&bad.holder.node, put.length, 64 << 30));
    assert!(!error.retry_can_help());
    let (page, asked) = (32 << 15, 1 + u64::from(Config::default().rounds_max));
    let received = to.transfer.traffic().received_bytes;
    assert!(received <= asked * page, "{received} bytes: only first pages, once a round");
    let (node, blob) = (bad.holder.node.clone(), put.blob);
    let report = Report::OtherLength { node, blob, bytes: 64 << 30 };
    assert_eq!(to.reports.recv().await.unwrap(), report);

    to.fetch(put, &[&bad, &good]).await.unwrap();
    assert!(*sink.bytes(put.blob) == *content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_of_another_length_is_told_so() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &sink));
    let put = source.put(&content(2 * MIB));
    to.fetch(put, &[&from]).await.unwrap();
    let wrong = Put { length: put.length - 1, ..put };
    let error = to.fetch(wrong, &[&from]).await.unwrap_err();
    let FetchError::Length { expected, bytes, .. } = error else { panic!("{error}") };
    assert_eq!((expected, bytes), (put.length - 1, put.length));
}

/// Two wait for one blob and disagree about its length: the manifest decides between them.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_lengths_the_right_one_is_served() {
    let cluster = Cluster::new();
    let (source, sink) = (TestStore::new(), TestStore::new());
    let (from, to) = (cluster.worker("source", &source), cluster.worker("sink", &sink));
    let content = content(2 * MIB);
    let put = source.put(&content);
    let wrong = Put { length: put.length + 1, ..put };
    let holders = [&from];
    let (one, two) = tokio::join!(to.fetch(wrong, &holders), to.fetch(put, &holders));
    assert!(matches!(one, Err(FetchError::Length { .. })), "{one:?}");
    assert_eq!(two.unwrap().manifest.bytes(), put.length);
    assert!(*sink.bytes(put.blob) == *content);
}
