//! Tasks that would wait for themselves.

use allhands_common::execution::Need;
use allhands_common::failure::Cause;
use allhands_common::id::TaskId;
use allhands_common::resources::Resources;
use allhands_scheduler::Located;

use crate::support::*;

fn is_circle(leader: &Leader, task: TaskId) -> bool {
    matches!(leader.cause(task), Some(Cause::Cycle { .. }))
}

/// A leader with a worker that runs both tasks of batch 0, each in an attempt of its own.
fn running(tasks: u32) -> Leader {
    let mut leader = Leader::with_workers(1, 8);
    assert_eq!(runs(&leader.kept(0, tasks, &[])).len(), tasks as usize);
    leader
}

#[test]
fn a_circle_of_forwarded_outcomes_leads_nowhere() {
    let mut leader = running(2);
    leader.kept(1, 1, &[value(0, task(0, 0))]);
    leader.kept(2, 1, &[names(0, task(0, 0), Need::End)]);
    leader.tell(1, attempt(0), task(0, 0), forwarded(0, task(0, 1)));
    let actions = leader.tell(1, attempt(1), task(0, 1), forwarded(1, task(0, 0)));
    assert!(is_circle(&leader, task(0, 0)) && is_circle(&leader, task(0, 1)));
    assert_eq!(leader.root(task(1, 0)), Some(task(0, 1)));
    assert_eq!(
        given_out(&actions),
        [(batch(2), range(0, 1), attempt(2))],
        "it has ended, all the same"
    );
}

#[test]
fn a_circle_of_arguments_ends_where_it_is_closed() {
    let mut leader = Leader::with_workers(1, 8);
    leader.kept(0, 3, &[value(0, task(0, 1)), value(1, task(0, 2)), value(2, task(0, 0))]);
    assert!(is_circle(&leader, task(0, 2)));
    assert_eq!(leader.root(task(0, 0)), Some(task(0, 2)));
    assert!(leader.state.batches[&batch(0)].over());
    leader.kept(1, 1, &[names(0, task(1, 0), Need::End)]);
    assert!(is_circle(&leader, task(1, 0)), "it names itself");
}

#[test]
fn what_a_dependant_waits_for_may_be_forwarded_to_itself() {
    let mut leader = running(1);
    leader.kept(1, 1, &[value(0, task(0, 0))]);
    leader.tell(1, attempt(0), task(0, 0), forwarded(0, task(1, 0)));
    assert!(is_circle(&leader, task(1, 0)));
}

#[test]
fn who_blocks_on_a_task_that_waits_for_it_is_told() {
    let mut leader = running(2);
    assert_eq!(gives(&leader.tell(1, attempt(0), task(0, 0), blocked(&[task(0, 1)]))), []);
    let actions = leader.tell(1, attempt(1), task(0, 1), blocked(&[task(0, 0)]));
    assert_eq!(gives(&actions), [(1, task(0, 0))]);
    let located = leader.state.locate(of(task(0, 0)), None);
    let Located::Failed(failed) = located else { panic!("{located:?}") };
    assert!(matches!(failed.cause, Cause::Cycle { .. }));
    // That opens the circle: the first gets what the second makes of it.
    leader.tell(1, attempt(1), task(0, 1), allhands_common::wire::worker::How::Resumed);
    assert_eq!(gives(&leader.done(1, attempt(1), task(0, 1))), [(1, task(0, 1))]);
}

#[test]
fn a_circle_is_told_again_until_its_task_goes_on() {
    let mut leader = running(2);
    leader.tell(1, attempt(0), task(0, 0), blocked(&[task(0, 1)]));
    leader.tell(1, attempt(1), task(0, 1), blocked(&[task(0, 0)]));
    let waits = || {
        let first = held_blocked(attempt(0), task(0, 0), &[task(0, 1)]);
        vec![first, held_blocked(attempt(1), task(0, 1), &[task(0, 0)])]
    };
    assert_eq!(gives(&leader.heartbeat(1, 1, 0, waits())), [], "it is on its way");
    assert_eq!(gives(&leader.heartbeat(1, 2, 99, waits())), [(1, task(0, 0))], "it was lost");
    let mut leader = leader.succeed();
    let actions = leader.register(1, Resources::cpus(8), waits());
    assert_eq!(gives(&actions).len(), 1, "{actions:?}");
}

#[test]
fn who_waits_for_several_is_stuck_when_all_of_them_are() {
    let mut leader = running(3);
    leader.tell(1, attempt(0), task(0, 0), blocked(&[task(0, 1), task(0, 2)]));
    leader.tell(1, attempt(1), task(0, 1), blocked(&[task(0, 0)]));
    let actions = leader.tell(1, attempt(2), task(0, 2), blocked(&[task(0, 0)]));
    assert_eq!(gives(&actions), [(1, task(0, 0))], "whoever closes the circle");
    let mut leader = running(3);
    leader.tell(1, attempt(0), task(0, 0), blocked(&[task(0, 1), task(0, 2)]));
    let actions = leader.tell(1, attempt(1), task(0, 1), blocked(&[task(0, 0)]));
    assert_eq!(gives(&actions), [], "the other one runs, and may do");
    leader.done(1, attempt(2), task(0, 2));
    let rest = vec![
        held_blocked(attempt(0), task(0, 0), &[task(0, 1)]),
        held_blocked(attempt(1), task(0, 1), &[task(0, 0)]),
    ];
    assert_eq!(gives(&leader.heartbeat(1, 1, 99, rest)), [(1, task(0, 1))], "all it waits for now");
}

#[test]
fn an_outcome_that_is_forwarded_to_who_waits_for_it_is_a_circle() {
    let mut leader = running(2);
    leader.tell(1, attempt(0), task(0, 0), blocked(&[task(0, 1)]));
    let actions = leader.tell(1, attempt(1), task(0, 1), forwarded(1, task(0, 0)));
    assert_eq!(gives(&actions), [(1, task(0, 1))]);
    let located = leader.state.locate(of(task(0, 1)), None);
    assert!(matches!(located, Located::Failed(_)), "{located:?}");
}

#[test]
fn a_child_that_takes_its_parents_value_is_a_circle_when_the_parent_waits() {
    let mut leader = running(1);
    let parent = task(0, 0);
    let named = allhands_common::wire::worker::ChildCall {
        mentions: vec![value(0, parent)],
        ..call(parent, attempt(0), 0)
    };
    assert_eq!(runs(&leader.call(1, vec![named])), []);
    let on = child(parent, 0);
    assert_eq!(gives(&leader.tell(1, attempt(0), parent, blocked(&[on]))), [(1, on)]);
    let actions = leader.done(1, attempt(0), parent);
    assert_eq!(given_out(&actions), [(on.batch, range(0, 1), attempt(1))], "it goes on without");
}
