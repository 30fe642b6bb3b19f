//! Long results that lie with workers until their client has fetched them.

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::limit::UNFETCHED_BYTES_MAX;
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::segment::{STORED, SegmentBuilder};
use allhands_common::wire::client::FromClient;
use allhands_common::wire::worker::{How, Order};
use bytes::Bytes;

use crate::support::*;

/// Outcomes of as many tasks, each of which has left so many bytes.
fn stored(tasks: u32, bytes: u64) -> Bytes {
    let mut builder = SegmentBuilder::new(0);
    for task in 0..tasks {
        let reference = BlobRef { id: BlobId([task.to_le_bytes()[0]; 32]), bytes };
        builder.push(STORED, [&reference.to_bytes()[..]].into_iter());
    }
    builder.finish()
}

fn fetched(leader: &mut Leader, tasks: TaskRange) -> Vec<allhands_scheduler::Action> {
    leader.client(FromClient::Fetched { batch: batch(0), tasks: vec![tasks] })
}

/// Who is told that what was fetched.
fn told_fetched(actions: &[allhands_scheduler::Action]) -> Vec<(u64, Vec<TaskRange>)> {
    let told = orders(actions).into_iter().filter_map(|(worker, order)| match order {
        Order::Fetched { tasks, .. } => Some((worker, tasks)),
        _ => None,
    });
    told.collect()
}

#[test]
fn no_more_is_made_than_was_fetched_and_workers_are_told_what_was() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    let mut given = runs(&leader.submit(0, 20, policy));
    // The first is fetched at once: so will the others be.
    let (worker, attempt, first) = given.remove(0);
    let how = How::Ran { segment: stored(1, 1).into(), run_us: 1_000_000, mentions: Vec::new() };
    given.extend(runs(&leader.end(worker, attempt, 0, first, how)));
    given.extend(runs(&fetched(&mut leader, first)));
    let each = UNFETCHED_BYTES_MAX / 3;
    let mut made = 0;
    while let Some((worker, attempt, range)) = given.pop() {
        let how =
            How::Ran { segment: stored(1, each).into(), run_us: 1_000_000, mentions: Vec::new() };
        given.extend(runs(&leader.end(worker, attempt, 0, range, how)));
        made += 1;
    }
    // Those that were out when the fourth came go on.
    assert!((4..=8).contains(&made), "{made}");
    let actions = fetched(&mut leader, range(0, 5));
    assert_eq!(told_fetched(&actions), [(1, vec![range(0, 5)])]);
    assert!(!runs(&actions).is_empty(), "it goes on");
}

#[test]
fn results_that_their_client_leaves_where_they_are_hold_up_nothing() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    let mut given = runs(&leader.submit(0, 20, policy));
    let mut made = 0;
    while let Some((worker, attempt, range)) = given.pop() {
        let how = How::Ran {
            segment: stored(1, UNFETCHED_BYTES_MAX).into(),
            run_us: 1_000_000,
            mentions: Vec::new(),
        };
        given.extend(runs(&leader.end(worker, attempt, 0, range, how)));
        made += 1;
    }
    assert_eq!(made, 20);
}

#[test]
fn a_task_that_ran_twice_counts_once() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    let given = runs(&leader.submit(0, 2, policy));
    let (worker, attempt, tasks) = given[0];
    for _ in 0..9 {
        let how = How::Ran {
            segment: stored(1, UNFETCHED_BYTES_MAX / 3).into(),
            run_us: 1,
            mentions: Vec::new(),
        };
        leader.end(worker, attempt, 0, tasks, how);
    }
    assert_eq!(told_fetched(&fetched(&mut leader, tasks)), [(1, vec![tasks])]);
    leader.cancel(0);
    leader.acknowledge(0, allhands_common::wire::client::DONE_WITH_BATCH);
    assert_eq!(told_fetched(&fetched(&mut leader, tasks)), [], "the batch is gone");
}
