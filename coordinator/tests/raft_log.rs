//! The log on disk through crashes and damage: what was acknowledged is there, a torn tail goes, nothing else is
//! forgotten silently.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "raft_support/bad_disk.rs"]
mod bad_disk;

use std::fs;
use std::path::Path;

use allhands_coordinator::raft::config::Durability;
use allhands_coordinator::raft::log::{LogStore, OpenLogError};
use allhands_coordinator::raft::types::{LeaderId, LogId, Proposal, TypeConfig, Vote};
use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};

use bad_disk::{BadDisk, chunks};

type Entry = openraft::alias::EntryOf<TypeConfig>;

const LEADER: LeaderId = LeaderId { term: 1, node_id: 1 };

fn entry(index: u64, bytes: usize) -> Entry {
    let content = Bytes::from(vec![index as u8; bytes]);
    Entry {
        log_id: LogId { leader_id: LEADER, index },
        payload: EntryPayload::Normal(Proposal(content)),
    }
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) {
    let (sent, flushed) = TypeConfig::oneshot();
    let entries: Vec<_> = entries.into_iter().collect();
    log.append(entries, IOFlushed::signal(sent)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

async fn entries(log: &mut LogStore) -> Vec<Entry> {
    log.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, Durability::Disk).unwrap()
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let vote = Vote { leader_id: LEADER, committed: true };
    log.save_vote(&vote).await.unwrap();
    append(&mut log, (0..100).map(|index| entry(index, 1000))).await;
    log.save_committed(Some(entry(50, 0).log_id)).await.unwrap();
    log.purge(entry(9, 0).log_id).await.unwrap();
    log.truncate_after(Some(entry(80, 0).log_id)).await.unwrap();
    drop(log);

    let mut log = open(dir.path());
    assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(entry(50, 0).log_id));
    let expected: Vec<_> = (10..=80).map(|index| entry(index, 1000)).collect();
    assert_eq!(entries(&mut log).await, expected);
    assert_eq!(log.bytes_between(Some(9), 80).unwrap(), 71 * 1064);
}

#[tokio::test]
async fn reads_are_bounded_by_bytes_but_give_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(dir.path(), Durability::Process).unwrap();
    append(&mut log, (0..20).map(|index| entry(index, 1 << 20))).await;
    append(&mut log, (20..22).map(|index| entry(index, 4 << 20))).await;
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(0, 22).await.unwrap().len(), 4);
    assert_eq!(reader.limited_get_log_entries(20, 22).await.unwrap().len(), 1);
    assert_eq!(reader.try_get_log_entries(0..22).await.unwrap().len(), 22);
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    append(&mut log, (0..3).map(|index| entry(index, 50))).await;
    drop(log);
    let newest = chunks(dir.path()).pop().unwrap();
    let written = fs::read(&newest).unwrap();
    for length in (written.len() - 60..written.len()).rev() {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join(newest.file_name().unwrap());
        fs::write(&path, &written[..length]).unwrap();
        let mut log = open(copy.path());
        assert_eq!(
            entries(&mut log).await,
            (0..2).map(|index| entry(index, 50)).collect::<Vec<_>>()
        );
        append(&mut log, [entry(2, 50)]).await;
        assert_eq!(entries(&mut log).await.len(), 3);
    }
}

/// A write to the log fails, once. Whether it is a write or a sync that fails, the writer of `raft-log` does the
/// same: it says so to everybody who waits, and ends.
#[tokio::test]
async fn after_a_write_that_failed_nothing_is_acknowledged_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    append(&mut log, (0..3).map(|index| entry(index, 50))).await;
    drop(log);
    let disk = BadDisk::below(dir.path());
    let mut log = open(dir.path());
    append(&mut log, [entry(3, 50)]).await;

    disk.fail();
    // Two that come together, and one that comes late.
    let (first, one) = TypeConfig::oneshot();
    let (second, two) = TypeConfig::oneshot();
    log.append([entry(4, 50)], IOFlushed::signal(first)).await.unwrap();
    let taken = log.append([entry(5, 50)], IOFlushed::signal(second)).await;
    for (appended, flushed) in [(Ok(()), one), (taken, two)] {
        let acknowledged = appended.is_ok() && matches!(flushed.await, Ok(Ok(())));
        assert!(!acknowledged, "what was not written is acknowledged");
    }
    let (late, flushed) = TypeConfig::oneshot();
    let taken = log.append([entry(6, 50)], IOFlushed::signal(late)).await;
    assert!(taken.is_err() || !matches!(flushed.await, Ok(Ok(()))));
    let vote = Vote { leader_id: LeaderId { term: 2, node_id: 2 }, committed: false };
    assert!(log.save_vote(&vote).await.is_err(), "a vote that is forgotten may be given twice");
    assert!(log.purge(entry(2, 50).log_id).await.is_err() || chunks(dir.path()).len() == 1);
    drop(log);

    // The disk is well again.
    disk.replace();
    let mut log = open(dir.path());
    let kept: Vec<_> = (0..4).map(|index| entry(index, 50)).collect();
    assert_eq!(entries(&mut log).await, kept);
    append(&mut log, [entry(4, 60)]).await;
    assert_eq!(entries(&mut log).await.len(), 5);
}

#[tokio::test]
async fn any_flipped_bit_refuses_to_open_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.save_vote(&Vote { leader_id: LEADER, committed: true }).await.unwrap();
    append(&mut log, (0..3).map(|index| entry(index, 50))).await;
    let expected = entries(&mut log).await;
    drop(log);
    let newest = chunks(dir.path()).pop().unwrap();
    let written = fs::read(&newest).unwrap();
    let mut refused = 0;
    for at in 0..written.len() {
        let copy = tempfile::tempdir().unwrap();
        let mut damaged = written.clone();
        damaged[at] ^= 0x10;
        fs::write(copy.path().join(newest.file_name().unwrap()), damaged).unwrap();
        match LogStore::open(copy.path(), Durability::Disk) {
            Err(OpenLogError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other:?}"),
            Ok(mut log) => assert_eq!(entries(&mut log).await, expected, "byte {at}"),
        }
    }
    assert!(refused > written.len() * 9 / 10, "{refused} of {}", written.len());
}
