//! What a call asked for besides its tasks: caps, sizes, priorities, deadlines, resources.

use std::collections::{BTreeMap, VecDeque};

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, ExecutorId, JobId, Term, WorkerId};
use allhands_common::policy::{Policy, Prefer};
use allhands_common::resources::Resources;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{ALL_TASKS, FromWorker, How, Order};
use allhands_scheduler::{Action, AgentAction, AgentEvent, Event, ExecutorEvent, Share};

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

fn threaded(n_jobs: i32) -> Policy {
    Policy { prefer: Prefer::Threads, n_jobs, ..Policy::default() }
}

/// The threads that take the ranges given out, by worker.
fn threads(actions: &[Action]) -> BTreeMap<u64, u16> {
    full_runs(actions).into_iter().map(|(worker, run)| (worker, run.threads)).collect()
}

#[test]
fn n_jobs_is_shared_out_exactly_among_workers_with_threads() {
    let given = |workers, n_jobs| {
        let mut leader = Leader::with_workers(workers, 2);
        let given = threads(&leader.submit(0, 100_000, threaded(n_jobs)));
        given.into_values().collect::<Vec<_>>()
    };
    assert_eq!(given(3, 4), [2, 1, 1]);
    assert_eq!(given(3, 2), [1, 1], "the third has nothing to do");
    assert_eq!(given(3, -2), [2, 2, 1]);
    assert_eq!(given(3, -1), [2, 2, 2]);
    assert_eq!(given(2, 20), [10, 10]);
}

#[test]
fn threads_are_shared_out_among_those_who_can_be_given_work() {
    let mut leader = Leader::with_workers(3, 2);
    leader.worker(2, FromWorker::Draining);
    leader.step(Event::WorkerGone { worker: WorkerId(3) });
    assert_eq!(threads(&leader.submit(0, 100_000, threaded(4))), [(1, 4)].into());
}

#[test]
fn a_worker_that_joins_gets_threads_when_others_have_left_some() {
    let mut leader = Leader::with_workers(2, 2);
    let given = runs(&leader.submit(0, 1_000_000, threaded(4)));
    assert_eq!(given.len(), 4, "two each: one that runs and the next");
    assert_eq!(threads(&leader.register(3, Resources::cpus(2), Vec::new())), [].into());
    let theirs: Vec<_> = given.into_iter().filter(|(worker, _, _)| *worker == 1).collect();
    leader.worker(1, FromWorker::Draining);
    let (_, id, tasks) = theirs[1];
    leader.end(1, id, 0, tasks, How::Returned);
    let (_, id, tasks) = theirs[0];
    let actions = leader.finish(1, id, 0, tasks);
    assert_eq!(threads(&actions), [(3, 2)].into());
}

#[test]
fn a_new_leader_which_nobody_tells_of_threads_gives_no_more_of_them() {
    let mut leader = Leader::with_workers(3, 2);
    let given = runs(&leader.submit(0, 1_000_000, threaded(4)));
    let mut leader = leader.succeed();
    let of = |worker| given.iter().filter(move |given| given.0 == worker);
    let mut actions = Vec::new();
    for worker in 1..=3 {
        let brought =
            of(worker).map(|(_, id, range)| held(*id, batch(0), &[*range], &[])).collect();
        actions.extend(leader.register(worker, Resources::cpus(2), brought));
    }
    for worker in 1..=2 {
        for (_, id, tasks) in of(worker) {
            actions.extend(leader.finish(worker, *id, 0, *tasks));
        }
    }
    let given: u16 = threads(&actions).into_values().sum();
    assert_eq!(given, 2, "the third may have two");
}

#[test]
fn a_call_that_has_its_threads_holds_up_no_other() {
    let mut leader = Leader::with_workers(2, 2);
    leader.submit(0, 100_000, threaded(1));
    let given = runs(&leader.submit(1, 4, Policy { batch_size: Some(1), ..Policy::default() }));
    assert!(given.iter().any(|(worker, _, _)| *worker == 2), "{given:?}");
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
fn a_free_gpu_is_found_behind_any_number_of_less_loaded_workers() {
    let mut leader = Leader::with_workers(0, 0);
    let machine = || Resources::cpus(8).with("gpu", 1);
    let policy = |resources| Policy { resources, batch_size: Some(1), ..Policy::default() };
    leader.register(10, machine(), Vec::new());
    leader.submit(0, 1, policy(Resources::cpus(8)));
    for worker in 1..10 {
        leader.register(worker, machine(), Vec::new());
    }
    let given = runs(&leader.submit(1, 20, policy(Resources::cpus(1).with("gpu", 1))));
    assert_eq!(given.len(), 20, "one that runs and the next, at each");
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

fn impatient() -> Policy {
    Policy { queue_timeout_ms: Some(500), batch_size: Some(1), ..Policy::default() }
}

/// What is asked back whole.
fn asked_back(actions: &[Action]) -> Vec<AttemptId> {
    let asked = orders(actions).into_iter().filter_map(|(_, order)| match order {
        Order::Retract { attempt, tasks: ALL_TASKS } => Some(attempt),
        _ => None,
    });
    asked.collect()
}

#[test]
fn queue_timeout_ends_what_waits_here_or_at_a_worker_and_not_what_runs() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 5, impatient());
    let actions = leader.wait(501);
    assert_eq!(delivered(&actions), [(0, range(2, 5))]);
    assert_eq!(asked_back(&actions), [attempt(0), attempt(1)], "one runs; the worker knows which");
    let actions = leader.end(1, attempt(1), 0, range(1, 2), How::Returned);
    assert_eq!((delivered(&actions), runs(&actions)), (vec![(1, range(1, 2))], vec![]));
    assert_eq!(asked_back(&leader.live(&[1], 2000)), [attempt(0); 2], "the question may be lost");
    assert!(!leader.state.batches[&batch(0)].over());
    assert_eq!(delivered(&leader.finish(1, attempt(0), 0, range(0, 1))), [(2, range(0, 1))]);
}

#[test]
fn queue_timeout_ends_what_a_lost_worker_had_not_started() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(
        0,
        3,
        Policy { queue_timeout_ms: Some(2000), batch_size: Some(3), ..impatient() },
    );
    let actions = leader.wait(2100);
    assert_eq!(delivered(&actions), [(0, range(1, 3))], "the first may have run");
}

#[test]
fn queue_timeout_spares_what_was_tried() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 3, Policy { retries: 1, ..impatient() });
    let how = ran(outcomes(range(0, 1), &[0]), range(0, 1));
    leader.end(1, attempt(0), 0, range(0, 1), how);
    let actions = leader.wait(501);
    assert_eq!(delivered(&actions), [], "it had its slot in time");
    assert_eq!(asked_back(&actions), [attempt(1), attempt(2)]);
}

#[test]
fn queue_timeout_does_not_end_what_a_new_leader_has_not_heard_of() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 2, impatient());
    leader.live(&[1], 400);
    leader.open_job(1);
    let mut leader = leader.succeed();
    assert_eq!(delivered(&leader.wait(300)), []);
    let brought = || {
        let held = |number, range| held(attempt(number), batch(0), &[range], &[]);
        vec![held(0, range(0, 1)), held(1, range(1, 2))]
    };
    leader.attach(&[(batch(0), 0)]);
    leader.register(1, Resources::cpus(1), brought());
    let mut actions = leader.wait(1000);
    leader.heartbeat(1, 1, 0, brought());
    actions.extend(leader.wait(1000));
    assert_eq!(delivered(&actions), []);
    assert_eq!(asked_back(&actions), [attempt(0), attempt(1)]);
}

#[test]
fn a_worker_gives_back_all_that_it_has_not_started() {
    let mut leader = Leader::with_workers(0, 0);
    let mut worker = TestWorker::new(1);
    worker.step(leader.now, AgentEvent::Connected { term: Term(1) });
    worker.settle(&mut leader, Vec::new());
    let given = leader.submit(0, 8, Policy { batch_size: Some(4), ..impatient() });
    worker.take(&leader, given);
    let given = leader.wait(501);
    worker.take(&leader, given);
    let takes: Vec<_> = worker.other.drain(..).collect();
    let take = |number| AgentAction::Take {
        executor: ExecutorId(0),
        attempt: attempt(number),
        share: Share::All,
    };
    assert_eq!(takes, [take(0), take(1)], "a fixed length counts no more");
    let taken = |number, range| {
        let taken = ExecutorEvent::Taken { attempt: attempt(number), range };
        AgentEvent::Executor(ExecutorId(0), taken)
    };
    worker.loads.clear();
    worker.step(leader.now, taken(0, range(1, 4)));
    worker.step(leader.now, taken(1, range(4, 8)));
    let actions = worker.settle(&mut leader, Vec::new());
    assert_eq!(delivered(&actions), [(0, range(1, 4)), (1, range(4, 8))]);
    assert!(!leader.state.batches[&batch(0)].over(), "the one that runs survives");
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

#[test]
fn n_jobs_caps_all_batches_of_a_call_together() {
    let mut leader = Leader::with_workers(2, 4);
    let capped = || Policy { n_jobs: 3, batch_size: Some(1), ..Policy::default() };
    let job = JobId(0);
    let mut given = leader.open_part(job, 0, 0, capped());
    given.extend(leader.append(0, range(0, 2)));
    given.extend(leader.open_part(job, 1, 0, Policy { retries: 1, ..capped() }));
    given.extend(leader.append(1, range(0, 5)));
    given.extend(leader.append(0, range(2, 9)));
    let given = runs(&given);
    assert_eq!(given.len(), 3, "two of the first, one of the second: {given:?}");
    // Whichever ends, another begins; a call of its own is not held up by it.
    let (worker, first, tasks) = given[0];
    let next = runs(&leader.finish(worker, first, 0, tasks));
    assert_eq!(next.len(), 1, "{next:?}");
    assert_eq!(runs(&leader.submit(2, 2, capped())).len(), 2);
}
