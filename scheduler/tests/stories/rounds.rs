//! Tasks that are run until they have a result, failures that are not tried again, and deadlines of tasks.

use allhands_common::failure::Cause;
use allhands_common::function::FunctionName;
use allhands_common::policy::{Backoff, Policy};
use allhands_common::resources::Resources;
use allhands_common::segment::{AGAIN, ERROR_FOR_GOOD, FAILED_FOR_GOOD, SegmentBuilder};
use allhands_common::wire::worker::{How, Order};

use crate::support::*;

fn recurrent() -> Policy {
    let recurs = Some(FunctionName { module: 0, offset: 96 });
    Policy { recurs, delay_ms: Some(100), ..Policy::default() }
}

/// One task's outcome has this tag.
fn tagged(tag: u16, string: &[u8]) -> How {
    let mut segment = SegmentBuilder::new(0);
    segment.push(tag, [string].into_iter());
    ran(segment.finish(), range(0, 1))
}

fn again() -> How {
    tagged(AGAIN, &[])
}

/// A leader whose one worker runs the first round of the only task of kept batch 0.
fn in_its_first_round(policy: Policy) -> Leader {
    let mut leader = Leader::with_workers(1, 1);
    assert_eq!(runs(&leader.keep(0, 1, true, &[], policy)), [], "not before its delay is over");
    assert_eq!(runs(&leader.live(&[1], 110)), [(1, attempt(0), range(0, 1))]);
    leader
}

fn rounds(actions: &[allhands_scheduler::Action]) -> Vec<(u32, u32)> {
    full_runs(actions).into_iter().flat_map(|(_, run)| run.rounds).collect()
}

#[test]
fn a_task_without_a_result_is_run_again_after_its_delay_however_often() {
    let mut leader = in_its_first_round(recurrent());
    for number in 0..9 {
        let actions = leader.tell(1, attempt(number), task(0, 0), again());
        assert_eq!((runs(&actions), delivered(&actions)), (vec![], vec![]));
        let actions = leader.live(&[1], 99);
        let settled = Order::Committed { attempt: attempt(number), range: range(0, 1) };
        assert_eq!(orders(&actions), [(1, settled)], "its worker need not keep it");
        let actions = leader.live(&[1], 2);
        assert_eq!(runs(&actions), [(1, attempt(number + 1), range(0, 1))]);
        assert_eq!(rounds(&actions), [(0, number as u32 + 1)]);
    }
    let actions = leader.done(1, attempt(9), task(0, 0));
    assert_eq!(delivered(&actions), [(0, range(0, 1))]);
    assert!(leader.state.batches[&batch(0)].over());
}

#[test]
fn rounds_are_no_retries_and_begin_them_anew() {
    let backoff = Backoff { first_ms: 10, max_ms: 10 };
    let mut leader = in_its_first_round(Policy { retries: 1, backoff, ..recurrent() });
    let panics = || ran(error(panic()), range(0, 1));
    for round in 0..3 {
        leader.tell(1, attempt(3 * round), task(0, 0), panics());
        let actions = leader.live(&[1], 20);
        assert_eq!(runs(&actions), [(1, attempt(3 * round + 1), range(0, 1))]);
        leader.tell(1, attempt(3 * round + 1), task(0, 0), again());
        let actions = leader.live(&[1], 110);
        let number = attempt(3 * round + 2);
        assert_eq!(runs(&actions), [(1, number, range(0, 1))]);
        // Two tries each: the number is another one in each round, and the same in each try of one.
        assert_eq!(rounds(&actions), [(0, 3 * round as u32 + 2)]);
        leader.tell(1, number, task(0, 0), again());
        leader.live(&[1], 110);
    }
    leader.tell(1, attempt(9), task(0, 0), panics());
    leader.live(&[1], 20);
    let actions = leader.tell(1, attempt(10), task(0, 0), panics());
    assert_eq!(delivered(&actions), [(0, range(0, 1))], "the second in a row is its end");
    assert_eq!(leader.failure(0, 0).tries, 11);
}

#[test]
fn a_round_that_is_reported_twice_counts_once() {
    let mut leader = in_its_first_round(recurrent());
    leader.slow = true;
    leader.tell(1, attempt(0), task(0, 0), again());
    leader.tell(1, attempt(0), task(0, 0), again());
    leader.commit();
    assert_eq!(leader.state.batches[&batch(0)].exception(0).rounds, 1);
}

#[test]
fn a_new_leader_goes_on_with_the_rounds() {
    let mut leader = in_its_first_round(recurrent());
    leader.tell(1, attempt(0), task(0, 0), again());
    let mut leader = leader.succeed();
    leader.register(1, Resources::cpus(1), Vec::new());
    assert_eq!(rounds(&leader.live(&[1], 300)), [(0, 1)], "one was had");
}

#[test]
fn what_a_round_has_called_is_not_called_off_by_the_next() {
    let mut leader = in_its_first_round(recurrent());
    let parent = task(0, 0);
    let [early, late] = [0, 1].map(|number| child(parent, number));
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), parent, again());
    assert_eq!(leader.state.batches[&early.batch].links().unwrap().pins, 0, "it is on its own");
    leader.live(&[1], 110);
    leader.call(1, vec![call(parent, attempt(2), 1)]);
    leader.done(1, attempt(2), parent);
    let stopped = |id| leader.state.batches[&id].stopped().is_some();
    assert!(!stopped(early.batch) && !stopped(late.batch));
}

#[test]
fn what_an_attempt_has_called_that_was_lost_in_a_round_is_called_off() {
    let mut leader = in_its_first_round(recurrent());
    let parent = task(0, 0);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    let cause = death();
    let given = given_out(&leader.tell(1, attempt(0), parent, How::Killed { cause }));
    let (_, _, second) = *given.iter().find(|(id, ..)| *id == batch(0)).unwrap();
    leader.tell(1, second, parent, again());
    assert!(!leader.state.batches.contains_key(&child(parent, 0).batch));
}

#[test]
fn a_failure_that_is_one_for_good_is_not_tried_again() {
    let policy = || Policy { retries: 3, batch_size: Some(1), ..Policy::default() };
    let mut leader = Leader::with_workers(1, 1);
    leader.keep(0, 2, true, &[], policy());
    let actions = leader.tell(1, attempt(0), task(0, 0), tagged(FAILED_FOR_GOOD, b"err"));
    assert_eq!(delivered(&actions), [(0, range(0, 1))]);
    assert_eq!(leader.cause(task(0, 0)), None, "it is a plain `Err` from now on");
    let mut text = Vec::new();
    allhands_common::codec::encode(&failed(panic()), &mut text).unwrap();
    let actions = leader.tell(1, attempt(1), task(0, 1), tagged(ERROR_FOR_GOOD, &text));
    assert_eq!(delivered(&actions), [(1, range(1, 2))]);
    assert!(matches!(leader.failure(0, 1).cause, Cause::Panicked { .. }));
}

#[test]
fn only_those_of_a_range_are_tried_again_that_may() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { retries: 1, batch_size: Some(4), ..Policy::default() };
    leader.keep(0, 4, true, &[], policy);
    let mut segment = SegmentBuilder::new(0);
    for tag in [FAILED_FOR_GOOD, AGAIN, allhands_common::segment::FAILED, 0] {
        segment.push(tag, [&b"it"[..]].into_iter());
    }
    let how = ran(segment.finish(), range(0, 4));
    let actions = leader.end(1, attempt(0), 0, range(0, 4), how);
    assert_eq!(delivered(&actions), [(0, range(0, 1)), (1, range(3, 4))]);
    let exception = |index| leader.state.batches[&batch(0)].exception(index);
    assert_eq!((exception(1).rounds, exception(1).failures), (1, 0));
    assert_eq!((exception(2).rounds, exception(2).failures), (0, 1));
}

#[test]
fn a_tasks_deadline_counts_from_its_own_submit_and_ends_it_wherever_it_is() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { task_deadline_ms: Some(500), batch_size: Some(1), ..Policy::default() };
    leader.keep(0, 1, false, &[], policy);
    leader.live(&[1], 300);
    leader.append(0, range(1, 2));
    let actions = leader.live(&[1], 210);
    assert_eq!(delivered(&actions), [(0, range(0, 1))]);
    let cancels = |actions: &[_], number| {
        orders(actions).contains(&(1, Order::Cancel { attempt: attempt(number) }))
    };
    assert!(cancels(&actions, 0), "it runs, and is to end");
    assert_eq!(leader.failure(0, 0).cause, Cause::DeadlinePassed { limit_ms: 500 });
    assert!(cancels(&leader.live(&[1], 300), 1));
    let mut leader = in_its_first_round(Policy { task_deadline_ms: Some(350), ..recurrent() });
    leader.tell(1, attempt(0), task(0, 0), again());
    leader.live(&[1], 110);
    leader.tell(1, attempt(1), task(0, 0), again());
    leader.live(&[1], 200);
    assert!(matches!(leader.cause(task(0, 0)), Some(Cause::DeadlinePassed { .. })), "or waits");
}

#[test]
fn a_new_leader_keeps_a_tasks_deadline() {
    let mut leader = Leader::with_workers(0, 0);
    leader.keep(0, 1, true, &[], Policy { task_deadline_ms: Some(500), ..Policy::default() });
    leader.wait(400);
    leader.open_job(1);
    let mut leader = leader.succeed();
    leader.wait(110);
    assert_eq!(leader.failure(0, 0).cause, Cause::DeadlinePassed { limit_ms: 500 });
}
