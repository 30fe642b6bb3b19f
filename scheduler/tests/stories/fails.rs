//! Tasks that fail: retries, deaths of executors, suspects, and what must not run twice.

use allhands_common::failure::Cause;
use allhands_common::id::TaskId;
use allhands_common::policy::{Backoff, Policy};
use allhands_common::wire::worker::How;
use allhands_scheduler::Explanation;

use crate::support::*;

fn one_slot() -> Leader {
    Leader::with_workers(1, 1)
}

fn retrying(retries: u32) -> Policy {
    let backoff = Backoff { first_ms: 100, max_ms: 1000 };
    Policy { retries, backoff, batch_size: Some(3), ..Policy::default() }
}

#[test]
fn a_panic_is_retried_after_its_backoff_and_its_neighbours_are_not() {
    let mut leader = one_slot();
    leader.submit(0, 3, retrying(1));
    let how = ran(outcomes(range(0, 3), &[1]), range(0, 3));
    let actions = leader.end(1, attempt(0), 0, range(0, 3), how);
    assert_eq!(delivered(&actions), [(0, range(0, 1)), (1, range(2, 3))]);
    assert_eq!(runs(&actions), []);
    assert_eq!(runs(&leader.wait(99)), []);
    // Up to a quarter later, each task by another time.
    assert_eq!(runs(&leader.wait(26)), [(1, attempt(1), range(1, 2))]);
    let how = ran(outcomes(range(1, 2), &[1]), range(1, 2));
    let actions = leader.end(1, attempt(1), 0, range(1, 2), how);
    assert_eq!(delivered(&actions), [(2, range(1, 2))], "the second failure is its outcome");
}

#[test]
fn a_task_whose_worker_has_not_its_data_is_tried_elsewhere_later() {
    let mut leader = one_slot();
    leader.submit(0, 1, Policy::default());
    let unlent = || {
        let cause = Cause::Unlent { message: "the store is full".into() };
        ran(error(cause), range(0, 1))
    };
    for number in 0..3 {
        assert_eq!(delivered(&leader.end(1, attempt(number), 0, range(0, 1), unlent())), []);
        let wait = 500 * (number + 1);
        assert_eq!(runs(&leader.wait(wait - 1)), [], "after {number}");
        assert_eq!(runs(&leader.wait(2)), [(1, attempt(number + 1), range(0, 1))]);
    }
    let actions = leader.end(1, attempt(3), 0, range(0, 1), unlent());
    assert_eq!(delivered(&actions), [(0, range(0, 1))], "not for ever");
}

#[test]
fn an_error_says_at_which_try_it_happened() {
    let mut leader = one_slot();
    leader.submit(0, 3, retrying(2));
    let mut tasks = range(0, 3);
    for number in 0..3 {
        let how = ran(outcomes(tasks, &[1]), tasks);
        leader.end(1, attempt(number), 0, tasks, how);
        tasks = range(1, 2);
        leader.wait(301);
    }
    assert_eq!(leader.failure(0, 1).tries, 3);
}

#[test]
fn the_same_failure_reported_twice_counts_once() {
    let mut leader = one_slot();
    leader.submit(0, 3, retrying(2));
    leader.slow = true;
    let how = || ran(outcomes(range(0, 3), &[1]), range(0, 3));
    leader.end(1, attempt(0), 0, range(0, 3), how());
    leader.end(1, attempt(0), 0, range(0, 3), how());
    leader.commit();
    assert_eq!(leader.state.batches[&batch(0)].exception(1).failures, 1);
    // A new leader hears of it once more: the worker has not heard that it is settled.
    let mut leader = leader.succeed();
    leader.register(
        1,
        allhands_common::resources::Resources::cpus(1),
        vec![held(attempt(0), batch(0), &[], &[range(0, 3)])],
    );
    leader.end(1, attempt(0), 0, range(0, 3), how());
    assert_eq!(leader.state.batches[&batch(0)].exception(1).failures, 1);
}

#[test]
fn a_task_that_kills_three_executors_fails_alone() {
    let mut leader = one_slot();
    leader.submit(0, 3, Policy { batch_size: Some(3), ..Policy::default() });
    leader.finish(1, attempt(0), 0, range(0, 1));
    let killed = || How::Killed { cause: death() };
    let actions = leader.end(1, attempt(0), 0, range(1, 2), killed());
    assert_eq!(runs(&actions), [(1, attempt(1), range(1, 2))], "it is tried again, alone");
    leader.finish(1, attempt(0), 0, range(2, 3));
    leader.end(1, attempt(1), 0, range(1, 2), killed());
    let actions = leader.end(1, attempt(2), 0, range(1, 2), killed());
    assert_eq!(delivered(&actions), [(2, range(1, 2))]);
    let progress = leader.state.batches[&batch(0)].progress().unwrap();
    assert_eq!((progress.failed, progress.outcomes.len()), (1, 3));
}

#[test]
fn suspects_run_alone_one_at_a_time() {
    let mut leader = one_slot();
    leader.submit(0, 2, Policy { batch_size: Some(2), ..Policy::default() });
    let actions = leader.end(1, attempt(0), 0, range(0, 2), How::Bystander);
    let given = full_runs(&actions);
    assert!(given.iter().all(|(_, run)| run.alone && run.range.len() == 1), "{given:?}");
    assert_eq!(given.len(), 2);
    assert_eq!(leader.state.batches[&batch(0)].exception(0).deaths, 0, "nobody is charged");
}

#[test]
fn what_must_not_run_twice_is_written_down_before_it_is_sent() {
    let mut leader = one_slot();
    leader.slow = true;
    leader.submit(0, 1, Policy { idempotent: false, ..Policy::default() });
    leader.slow = false;
    // The batch is committed first, then the start; only then the range goes out.
    let actions = leader.commit();
    assert_eq!(runs(&actions), [(1, attempt(0), range(0, 1))]);
    let progress = leader.state.batches[&batch(0)].progress().unwrap();
    assert_eq!(progress.started.len(), 1);
}

#[test]
fn what_must_not_run_twice_ends_abandoned_with_its_worker() {
    let mut leader = one_slot();
    leader.submit(0, 1, Policy { idempotent: false, ..Policy::default() });
    let actions = leader.wait(2001);
    assert_eq!((delivered(&actions), runs(&actions)), (vec![(0, range(0, 1))], vec![]));
    assert!(leader.state.batches[&batch(0)].over());
}

#[test]
fn what_must_not_run_twice_is_abandoned_when_nobody_brings_it_to_a_new_leader() {
    let mut leader = one_slot();
    leader.submit(0, 2, Policy { idempotent: false, batch_size: Some(1), ..Policy::default() });
    let mut leader = leader.succeed();
    let resources = allhands_common::resources::Resources::cpus(1);
    let actions =
        leader.register(1, resources, vec![held(attempt(0), batch(0), &[range(0, 1)], &[])]);
    assert_eq!(runs(&actions), []);
    let known = &leader.state.batches[&batch(0)];
    assert!(known.has_ended(1) && !known.has_ended(0), "only the one that is with nobody");
}

#[test]
fn fail_after_stops_the_rest() {
    let mut leader = one_slot();
    let policy = Policy { fail_after: Some(1), batch_size: Some(1), ..Policy::default() };
    leader.submit(0, 5, policy);
    let how = ran(outcomes(range(0, 1), &[0]), range(0, 1));
    let actions = leader.end(1, attempt(0), 0, range(0, 1), how);
    assert_eq!(delivered(&actions), [(0, range(0, 1))]);
    let rest = leader.state.batches[&batch(0)].stopped().unwrap().rest.clone();
    assert!(matches!(rest.cause, Cause::Cancelled { reason } if reason.contains("1 tasks")));
    let task = TaskId { batch: batch(0), index: 3 };
    let why = leader.dispatcher.explain(leader.now, &leader.state, task);
    assert!(matches!(why, Explanation::Stopped { .. }));
}

#[test]
fn what_a_million_tasks_end_of_is_stored_once() {
    let mut leader = Leader::with_workers(0, 0);
    let policy = Policy { queue_timeout_ms: Some(10), ..Policy::default() };
    leader.submit(0, 1_000_000, policy);
    let actions = leader.wait(11);
    assert_eq!(delivered(&actions), [(0, range(0, 1_000_000))]);
    assert!(matches!(leader.failure(0, 999_999).cause, Cause::QueueTimedOut { .. }));
    let longest = leader.segments.values().map(bytes::Bytes::len).max();
    assert!(longest.is_some_and(|bytes| bytes < 1024), "{longest:?}");
}
