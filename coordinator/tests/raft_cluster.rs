//! Members of the replicated log through lost leaders, restarts and lag. No assertion depends on time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "raft_support/bad_disk.rs"]
mod bad_disk;
#[path = "raft_support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use allhands_common::chain::chain;
use allhands_common::id::{ClusterId, SegmentId};
use allhands_coordinator::raft::config::Compaction;
use allhands_coordinator::raft::error::{ProposeError, ReadIndexError};
use allhands_coordinator::raft::message::{PeerCall, PeerReply, PeerRequest, Refusal};
use allhands_coordinator::raft::types::ENTRY_BYTES_MAX;
use bad_disk::BadDisk;
use bytes::Bytes;
use support::{CLUSTER, Cluster, hang, member, outcome};

/// Snapshots after few entries, no log kept behind them.
const SHORT_LOG: Compaction =
    Compaction { snapshot_log_bytes: 64 << 20, snapshot_log_entries: 20, kept_log_bytes_max: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_its_proposals_are_unknown_or_refused() {
    let cluster = Cluster::start(3).await;
    let first = cluster.write("one").await;
    let (old, fence) = cluster.leader().await;
    let others: Vec<_> = (1..=3).filter(|id| *id != old).collect();

    cluster.cut(old);
    // Appended by the old leader, never by a quorum.
    let pending = cluster.node(old).propose(Bytes::from_static(b"lost"), fence).await.unwrap();
    let second = cluster.write_to(&others, "two").await;
    assert!(second > first);
    let (new, newer) = cluster.leader_of(&others).await;
    assert!(newer > fence);
    // The new leader has no use for the old one's decisions, and says so before anything is appended.
    let stale = outcome(cluster.node(new), Bytes::from_static(b"stale"), fence).await;
    assert!(matches!(stale, Err(ProposeError::NotLeader { .. })), "{stale:?}");

    cluster.heal();
    assert_eq!(hang(pending).await, Err(ProposeError::Unknown { fence }));
    let refused = hang(outcome(cluster.node(old), Bytes::from_static(b"late"), fence)).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    let third = cluster.write("three").await;
    for id in 1..=3 {
        let lines: Vec<_> =
            cluster.applied(id, third).await.lines.into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["one", "two", "three"], "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_all_nodes_everything_is_applied_again() {
    let mut cluster = Cluster::start(3).await;
    let mut last = 0;
    for number in 0..50 {
        last = cluster.write(format!("+segment {number}")).await;
    }
    let before = cluster.applied(1, last).await;
    for id in 1..=3 {
        cluster.stop_node(id).await;
    }
    for id in 1..=3 {
        cluster.start_node(id).await;
    }
    let after = cluster.write("after").await;
    for id in 1..=3 {
        let mut book = cluster.applied(id, after).await;
        book.lines.pop();
        assert_eq!(book, before, "node {id}");
        let live: BTreeSet<_> = book.segments.iter().map(|id| SegmentId(*id)).collect();
        assert_eq!(cluster.running[&id].segments.retain(&live).unwrap(), [], "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_a_snapshot_brings_back_state_and_segments() {
    let mut cluster = Cluster::start_with(1, SHORT_LOG).await;
    let mut written = Vec::new();
    for number in 0..70 {
        written.push((cluster.write(format!("+segment {number}")).await, number));
        if number % 3 == 2 {
            let (gone, _) = written.remove(0);
            cluster.write(format!("-{gone}")).await;
        }
    }
    cluster.until(1, |node| node.progress().purged.is_some_and(|id| id.index > 50)).await;
    let last = cluster.write("last").await;
    let before = cluster.applied(1, last).await;

    cluster.stop_node(1).await;
    std::fs::remove_dir_all(cluster.node_dir(1).join("segments")).unwrap();
    cluster.start_node(1).await;
    let after = cluster.write("after").await;
    let mut book = cluster.applied(1, after).await;
    book.lines.pop();
    assert_eq!(book, before);
    assert_eq!(cluster.running[&1].installs.load(Ordering::Relaxed), 1);
    for (index, number) in written {
        let segment = cluster.running[&1].segments.read(SegmentId(index)).unwrap();
        assert_eq!(segment, format!("segment {number}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_a_snapshot_with_the_segments_it_misses() {
    let mut cluster = Cluster::start_with(3, SHORT_LOG).await;
    let early = cluster.write("+early").await;
    cluster.applied(3, early).await;
    cluster.stop_node(3).await;

    let big = "x".repeat(1 << 20);
    let mut written = vec![(early, "early".to_owned())];
    for number in 0..40 {
        let text = format!("{number} {}", if number % 4 == 0 { &big } else { "small" });
        written.push((cluster.write(format!("+{text}")).await, text));
        if number % 4 == 3 {
            let (gone, _) = written.remove(1);
            cluster.write(format!("-{gone}")).await;
        }
    }
    for id in 1..=2 {
        cluster.until(id, |node| node.progress().purged.is_some_and(|id| id.index > early)).await;
    }
    let last = cluster.write("last").await;
    cluster.start_node(3).await;
    let book = cluster.applied(3, last).await;
    assert_eq!(book, cluster.applied(1, last).await);
    assert!(cluster.running[&3].installs.load(Ordering::Relaxed) >= 1);
    for (index, text) in &written {
        assert_eq!(cluster.running[&3].segments.read(SegmentId(*index)).unwrap(), text.as_str());
    }

    // It has all of that on its own disk.
    cluster.stop_node(3).await;
    cluster.start_node(3).await;
    let after = cluster.write("after").await;
    assert_eq!(cluster.applied(3, after).await, cluster.applied(1, after).await);
    for (index, text) in &written {
        assert_eq!(cluster.running[&3].segments.read(SegmentId(*index)).unwrap(), text.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_log_cannot_be_written_stops_and_acknowledges_nothing() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.write("one").await;
    cluster.applied(1, first).await;
    cluster.stop_node(1).await;
    let disk = BadDisk::below(&cluster.node_dir(1).join("raft/log"));
    cluster.start_node(1).await;
    let mut leadership = cluster.node(1).leader();
    while !leadership.borrow().am_leader {
        let (leader, _) = cluster.leader().await;
        cluster.node(leader).transfer_leader(1).await.unwrap();
        // It may not have caught up yet: then nothing comes of it.
        let led = leadership.wait_for(|now| now.am_leader);
        _ = tokio::time::timeout(std::time::Duration::from_secs(2), led).await;
    }
    let second = cluster.write_to(&[1], "two").await;

    disk.fail();
    let fence = leadership.borrow().leader.unwrap();
    let lost = hang(outcome(cluster.node(1), Bytes::from_static(b"lost"), fence)).await;
    assert!(lost.is_err(), "{lost:?}");
    // The node says what happened, and the others go on.
    let stopped = hang(cluster.node(1).stopped()).await;
    assert!(chain(&stopped).contains("not permitted"), "{stopped:?}");
    let third = cluster.write_to(&[2, 3], "three").await;
    assert!(third > second);

    cluster.stop_node(1).await;
    disk.replace();
    cluster.start_node(1).await;
    let last = cluster.write("four").await;
    let expected = cluster.applied(2, last).await;
    let lines: Vec<_> = expected.lines.iter().map(|(_, line)| line.as_ref()).collect();
    // Others may have had it before its own disk failed: then its outcome was unknown, and it counts.
    assert!(
        lines.starts_with(&[b"one", b"two"]) && lines.ends_with(&[b"three", b"four"]),
        "{lines:?}"
    );
    assert_eq!(cluster.applied(1, last).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_overtake_each_other_are_put_in_order() {
    let cluster = Cluster::start(3).await;
    cluster.jitter(20);
    let (id, fence) = cluster.leader().await;
    let mut outcomes = Vec::new();
    for number in 0..200_u32 {
        let line = Bytes::from(format!("{number} {}", "x".repeat(100_000)));
        outcomes.push(cluster.node(id).propose(line, fence).await.unwrap());
    }
    let mut last = 0;
    for outcome in outcomes {
        let index = hang(outcome).await.unwrap();
        assert!(index > last);
        last = index;
    }
    for id in 1..=3 {
        let book = cluster.applied(id, last).await;
        let numbers: Vec<u32> = book
            .lines
            .iter()
            .map(|(_, line)| {
                std::str::from_utf8(line).unwrap().split(' ').next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_leads_at_once_and_again_after_a_restart() {
    let mut cluster = Cluster::start(1).await;
    let first = cluster.write("one").await;
    cluster.stop_node(1).await;
    cluster.start_node(1).await;
    let second = cluster.write("two").await;
    assert!(second > first);
    assert_eq!(cluster.applied(1, second).await.lines.len(), 2);
    // The first membership is made once; saying it again changes nothing.
    cluster.node(1).initialize([(1, member(1))].into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_when_asked() {
    let cluster = Cluster::start(3).await;
    let last = cluster.write("one").await;
    let (old, _) = cluster.leader().await;
    let heir = old % 3 + 1;
    cluster.applied(heir, last).await;
    let mut leader = cluster.node(heir).leader();
    cluster.node(old).transfer_leader(heir).await.unwrap();
    hang(leader.wait_for(|now| now.am_leader)).await.unwrap();
    // To itself is nothing.
    cluster.node(heir).transfer_leader(heir).await.unwrap();
    cluster.write_to(&[heir], "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_learns_votes_and_takes_over() {
    let mut cluster = Cluster::start(1).await;
    cluster.write("one").await;
    cluster.start_node(2).await;
    cluster.start_node(3).await;
    let leader = cluster.node(1).clone();
    for id in 2..=3 {
        hang(leader.add_learner(id, member(id))).await.unwrap();
    }
    hang(leader.change_membership(BTreeSet::from([1, 2, 3]), false)).await.unwrap();
    let two = cluster.write("two").await;
    for id in 2..=3 {
        cluster.applied(id, two).await;
    }
    cluster.stop_node(1).await;
    let three = cluster.write("three").await;
    assert_eq!(cluster.applied(2, three).await.lines.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_index_comes_from_a_leader_with_a_quorum_only() {
    let cluster = Cluster::start(3).await;
    let index = cluster.write("one").await;
    let (leader, _) = cluster.leader().await;
    assert!(cluster.node(leader).read_index().await.unwrap() >= index);
    let follower = leader % 3 + 1;
    let refused = cluster.node(follower).read_index().await;
    assert!(matches!(refused, Err(ReadIndexError::NotLeader { .. })), "{refused:?}");

    cluster.cut(leader);
    let mut leadership = cluster.node(leader).leader();
    hang(leadership.wait_for(|now| !now.am_leader)).await.unwrap();
    let alone = hang(cluster.node(leader).read_index()).await;
    assert!(alone.is_err(), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_another_node_or_is_malformed_is_refused() {
    let cluster = Cluster::start(1).await;
    let (_, fence) = cluster.leader().await;
    let node = cluster.node(1);
    let call = || PeerCall::SnapshotMissing { transfer: 1 };
    let ask =
        |cluster, to, call| node.serve(PeerRequest { cluster, from: 2, to, call }, Bytes::new());

    let other_node = ask(CLUSTER, 3, call()).await;
    assert!(matches!(other_node, PeerReply::Refused(Refusal::NotMe { node: 1, .. })));
    let other_cluster = ask(ClusterId([8; 16]), 1, call()).await;
    assert!(matches!(other_cluster, PeerReply::Refused(Refusal::NotMe { .. })));
    let unknown_transfer = ask(CLUSTER, 1, call()).await;
    assert!(matches!(unknown_transfer, PeerReply::Refused(Refusal::Overtaken { .. })));
    let huge = ask(CLUSTER, 1, PeerCall::SnapshotBegin { transfer: 1, file_bytes: u64::MAX }).await;
    assert!(matches!(huge, PeerReply::Refused(Refusal::Malformed { .. })));

    let long = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    let long = outcome(node, long, fence).await;
    assert!(matches!(long, Err(ProposeError::TooLarge { .. })));
}
