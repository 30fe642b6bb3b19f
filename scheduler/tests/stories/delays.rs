//! When tasks may start, and from when they have waited too long.

use allhands_common::failure::Cause;
use allhands_common::id::JobId;
use allhands_common::policy::Policy;
use allhands_common::resources::Resources;

use crate::support::*;

fn impatient() -> Policy {
    Policy { queue_timeout_ms: Some(500), ..Policy::default() }
}

/// A leader with one slot, which has enough to do for it; task 0 of batch 0 runs, and that of batch 1, which is
/// impatient, takes its value.
fn busy() -> Leader {
    let mut leader = Leader::with_workers(1, 1);
    assert_eq!(runs(&leader.kept(0, 1, &[])), [(1, attempt(0), range(0, 1))]);
    let first = Policy { priority: 5, batch_size: Some(1), ..Policy::default() };
    leader.submit(2, 5, first);
    leader.keep(1, 1, true, &[value(0, task(0, 0))], impatient());
    leader
}

fn timed_out(leader: &Leader) -> bool {
    matches!(leader.cause(task(1, 0)), Some(Cause::QueueTimedOut { limit_ms: 500 }))
}

fn is_over(leader: &Leader, sequence: u32) -> bool {
    leader.state.batches[&batch(sequence)].over()
}

#[test]
fn queue_timeout_counts_from_when_dependencies_are_there() {
    let mut leader = busy();
    leader.live(&[1], 2000);
    leader.done(1, attempt(0), task(0, 0));
    assert!(!is_over(&leader, 1), "it has waited for the other, and for no slot");
    leader.live(&[1], 490);
    assert!(!is_over(&leader, 1));
    leader.live(&[1], 20);
    assert!(timed_out(&leader));
}

#[test]
fn a_new_leader_which_does_not_know_since_when_they_are_there_counts_from_its_first_moment() {
    let mut leader = busy();
    leader.live(&[1], 2000);
    leader.done(1, attempt(0), task(0, 0));
    leader.live(&[1], 400);
    // The log's time is that of its last entry.
    leader.open_job(1);
    let mut leader = leader.succeed();
    leader.register(1, Resources::cpus(1), vec![held(attempt(1), batch(2), &[range(0, 1)], &[])]);
    leader.live(&[1], 490);
    assert!(!is_over(&leader, 1));
    leader.live(&[1], 100);
    assert!(timed_out(&leader));
}

#[test]
fn queue_timeout_counts_from_the_end_of_the_delay() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 2, Policy { delay_ms: Some(1000), ..impatient() });
    assert_eq!(delivered(&leader.wait(1490)), []);
    assert_eq!(delivered(&leader.wait(20)), [(0, range(0, 2))]);
}

#[test]
fn a_dependant_that_is_delayed_has_its_queue_timeout_after_both() {
    let mut leader = Leader::with_workers(1, 1);
    leader.kept(0, 1, &[]);
    let first = Policy { priority: 5, batch_size: Some(1), ..Policy::default() };
    leader.submit(2, 5, first);
    let policy = Policy { delay_ms: Some(3000), ..impatient() };
    leader.keep(1, 1, true, &[value(0, task(0, 0))], policy);
    leader.live(&[1], 1000);
    leader.done(1, attempt(0), task(0, 0));
    leader.live(&[1], 2490);
    assert!(!is_over(&leader, 1));
    leader.live(&[1], 100);
    assert!(timed_out(&leader));
}

#[test]
fn what_is_stopped_in_the_entry_that_opens_it_has_nothing_to_put_off() {
    let mut leader = Leader::with_workers(1, 1);
    leader.slow = true;
    leader.open(JobId(0), 0, Policy { delay_ms: Some(500), n_jobs: 2, ..Policy::default() });
    leader.append(0, range(0, 2));
    leader.cancel(0);
    leader.commit();
    assert!(is_over(&leader, 0));
}
