//! What a call asked for besides its tasks: caps, sizes, priorities, deadlines, resources.

use std::collections::VecDeque;

use allhands_common::failure::Cause;
use allhands_common::id::JobId;
use allhands_common::policy::Policy;
use allhands_common::resources::Resources;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{How, Order};

use crate::support::*;

#[test]
fn n_jobs_caps_the_ranges_that_are_out() {
    let mut leader = Leader::with_workers(2, 4);
    let actions = leader.submit(0, 100, Policy { n_jobs: 3, ..Policy::default() });
    let given = runs(&actions);
    assert_eq!(given.len(), 3);
    let (worker, first, tasks) = given[0];
    assert_eq!(runs(&leader.finish(worker, first, 0, tasks)).len(), 1);
}

#[test]
fn a_fixed_batch_size_is_honoured_to_the_last_range() {
    let mut leader = Leader::with_workers(1, 8);
    let mut given =
        runs(&leader.submit(0, 10, Policy { batch_size: Some(4), ..Policy::default() }));
    given.sort_by_key(|(_, attempt, _)| *attempt);
    let ranges: Vec<_> = given.into_iter().map(|(_, _, range)| range).collect();
    assert_eq!(ranges, [range(0, 4), range(4, 8), range(8, 10)]);
}

#[test]
fn a_fixed_batch_size_waits_for_a_whole_range() {
    let mut leader = Leader::with_workers(1, 8);
    leader.open(JobId(0), 0, Policy { batch_size: Some(4), ..Policy::default() });
    assert_eq!(runs(&leader.append(0, range(0, 3))), []);
    assert_eq!(runs(&leader.append(0, range(3, 6))), [(1, attempt(0), range(0, 4))]);
    let actions = leader.client(FromClient::Seal { batch: batch(0), tasks: 6 });
    assert_eq!(runs(&actions), [(1, attempt(1), range(4, 6))]);
}

#[test]
fn higher_priority_goes_first() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = |priority| Policy { priority, batch_size: Some(1), ..Policy::default() };
    leader.submit(0, 4, policy(0));
    leader.submit(1, 1, policy(5));
    let actions = leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(full_runs(&actions)[0].1.batch, batch(1));
}

#[test]
fn jobs_share_evenly_and_so_do_batches_of_a_job() {
    let mut leader = Leader::with_workers(1, 4);
    leader.open_job(1);
    let policy = || Policy { batch_size: Some(1), ..Policy::default() };
    let mut out = VecDeque::from(full_runs(&leader.submit(0, 100, policy())));
    out.extend(full_runs(&leader.submit_in(JobId(1), 1, 100, policy())));
    out.extend(full_runs(&leader.submit(2, 100, policy())));
    let mut count = [0, 0, 0];
    for step in 0..80 {
        let (worker, run) = out.pop_front().unwrap();
        let sequence = (0..3).find(|sequence| batch(*sequence) == run.batch).unwrap();
        // The first ones were given out before there was anybody else.
        count[sequence as usize] += u32::from(step >= 16);
        out.extend(full_runs(&leader.finish(worker, run.attempt, sequence, run.range)));
    }
    assert_eq!(count[1], 32, "job 1 has one batch, job 0 two: {count:?}");
    assert!(count[0].abs_diff(count[2]) <= 1, "{count:?}");
}

#[test]
fn a_task_goes_where_its_resources_are() {
    let mut leader = Leader::with_workers(1, 8);
    leader.register(2, Resources::cpus(2).with("gpu", 1), Vec::new());
    let resources = Resources::cpus(1).with("gpu", 1);
    let policy = Policy { resources, batch_size: Some(1), ..Policy::default() };
    let given = runs(&leader.submit(0, 5, policy));
    assert!(given.iter().all(|(worker, _, _)| *worker == 2), "{given:?}");
    assert_eq!(given.len(), 2, "one runs, one is the next");
}

#[test]
fn a_deadline_stops_what_is_left_not_a_moment_early() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(
        0,
        5,
        Policy { deadline_ms: Some(1000), batch_size: Some(1), ..Policy::default() },
    );
    leader.wait(1000);
    assert!(leader.state.batches[&batch(0)].stopped().is_none());
    let actions = leader.wait(1);
    let cancels = orders(&actions).into_iter().filter(|(_, o)| matches!(o, Order::Cancel { .. }));
    assert_eq!(cancels.count(), 2);
    let end = told(&actions).pop().unwrap();
    let ToClient::Ended { rest: Some(rest), .. } = end else { panic!("{end:?}") };
    assert_eq!(rest.cause, Cause::DeadlinePassed { limit_ms: 1000 });
}

#[test]
fn queue_timeout_ends_what_waits_and_not_what_runs() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { queue_timeout_ms: Some(500), batch_size: Some(1), ..Policy::default() };
    leader.submit(0, 5, policy);
    let actions = leader.wait(501);
    assert_eq!(delivered(&actions), [(0, range(2, 5))]);
    assert!(!leader.state.batches[&batch(0)].over());
}

#[test]
fn cancel_is_committed_then_called_back_and_told() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 5, Policy { batch_size: Some(1), ..Policy::default() });
    let actions = leader.cancel(0);
    let called: Vec<_> = orders(&actions).into_iter().map(|(_, order)| order).collect();
    let cancel = |number| Order::Cancel { attempt: attempt(number) };
    assert_eq!(called, [cancel(0), cancel(1)]);
    assert!(matches!(told(&actions)[0], ToClient::Ended { rest: Some(_), .. }));
    // Its outcome is not wanted any more; the worker need not keep it.
    leader.finish(1, attempt(0), 0, range(0, 1));
    let committed = Order::Committed { attempt: attempt(0), range: range(0, 1) };
    assert_eq!(orders(&leader.wait(5)), [(1, committed)]);
    leader.end(1, attempt(1), 0, range(1, 2), How::Cancelled);
    assert_eq!(leader.dispatcher.status(&leader.state).running, 0);
}

#[test]
fn a_program_that_one_worker_refuses_runs_on_another() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 1, Policy::default());
    let refused = || How::Refused { cause: Cause::Program { message: "no".into() } };
    let actions = leader.end(1, attempt(0), 0, range(0, 1), refused());
    assert_eq!(runs(&actions), [(2, attempt(1), range(0, 1))]);
    let actions = leader.end(2, attempt(1), 0, range(0, 1), refused());
    assert_eq!(delivered(&actions), [(0, range(0, 1))], "nobody is left who could");
}
