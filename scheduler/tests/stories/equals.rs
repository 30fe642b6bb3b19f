//! Equal calls of a job: the first of a memo and the newest of those that are deferred are what all of them are.

use allhands_common::execution::{Awaited, Need};
use allhands_common::failure::Cause;
use allhands_common::id::TaskId;
use allhands_common::policy::{EqualCalls, Policy};
use allhands_common::resources::Resources;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};
use allhands_common::wire::worker::{ChildCall, How, Order};
use allhands_scheduler::{Action, Fate, Located, State};

use crate::support::*;

fn memo() -> Policy {
    Policy { equal_calls: Some(EqualCalls::Memo), ..Policy::default() }
}

fn deferred() -> Policy {
    let equal_calls = Some(EqualCalls::Defer { key: Some([7; 16]) });
    Policy { equal_calls, delay_ms: Some(1000), ..Policy::default() }
}

/// A call of a task, as a memo.
fn memo_call(parent: TaskId, number: u64) -> ChildCall {
    ChildCall { spec: spec(memo()).into(), ..call(parent, attempt(number), 0) }
}

fn cancel(leader: &mut Leader, task: TaskId) -> Vec<Action> {
    let range = range(task.index, task.index + 1);
    leader.client(FromClient::CancelTasks { batch: task.batch, range })
}

fn is_cancelled(leader: &Leader, task: TaskId) -> bool {
    matches!(leader.cause(task), Some(Cause::Cancelled { .. }))
}

fn ends_as(leader: &Leader, task: TaskId) -> TaskId {
    leader.state.follow(task).0
}

#[test]
fn equal_calls_of_a_memo_run_once() {
    let mut leader = Leader::with_workers(1, 4);
    let both = Policy { batch_size: Some(2), ..memo() };
    let first = given_out(&leader.keep(0, 2, false, &[], both));
    assert_eq!(first, [(batch(0), range(0, 2), attempt(0))], "their arguments differ");
    assert_eq!(runs(&leader.keep(1, 1, true, &[], memo())), [], "it is one of them");
    assert_eq!(ends_as(&leader, task(1, 0)), task(0, 0));
    leader.client(FromClient::Await(vec![of(task(1, 0))]));
    let follow = false;
    leader.client(FromClient::Await(vec![Awaited { task: task(1, 0), follow }]));
    let actions = leader.done(1, attempt(0), task(0, 0));
    assert_eq!(given_to_client(&actions), [task(1, 0), task(1, 0)], "whoever waits has that");
    let here = leader.state.locate(Awaited { task: task(1, 0), follow }, None);
    assert_eq!(here, leader.state.locate(of(task(0, 0)), None), "and no handle on it");
    assert_eq!(runs(&leader.keep(2, 1, true, &[], memo())), [], "also when it is there");
    leader.kept(3, 1, &[value(0, task(2, 0))]);
    assert!(matches!(leader.state.fate(task(3, 0)), Fate::Unfinished));
}

#[test]
fn a_call_that_failed_is_no_memo() {
    let mut leader = Leader::with_workers(1, 1);
    leader.keep(0, 1, true, &[], memo());
    leader.tell(1, attempt(0), task(0, 0), returned_err());
    let again = leader.keep(1, 1, true, &[], memo());
    assert_eq!(given_out(&again), [(batch(1), range(0, 1), attempt(1))]);
    assert_eq!(runs(&leader.keep(2, 1, true, &[], memo())), [], "but this one is");
}

#[test]
fn a_memo_is_of_one_job_and_goes_with_its_batch() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, true, &[], memo());
    leader.done(1, attempt(0), task(0, 0));
    leader.keep(1, 1, true, &[], memo());
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert!(leader.state.batches.contains_key(&batch(0)), "another is the same");
    leader.acknowledge(1, DONE_WITH_BATCH);
    assert!(leader.state.batches.is_empty());
    assert_eq!(given_out(&leader.keep(2, 1, true, &[], memo())).len(), 1);
}

#[test]
fn calls_of_tasks_and_of_the_client_are_of_one_memo_and_a_new_leader_knows_it() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 2, true, &[], Policy { batch_size: Some(1), ..Policy::default() });
    let [one, other] = [0, 1].map(|index| child(task(0, index), 0));
    leader.call(1, vec![memo_call(task(0, 0), 0)]);
    let snapshot = leader.state.to_snapshot();
    assert_eq!(State::from_snapshot(&snapshot).unwrap(), leader.state);
    let mut leader = leader.succeed();
    let running = |number, index| held(attempt(number), batch(0), &[range(index, index + 1)], &[]);
    let one_runs = held(attempt(2), one.batch, &[range(0, 1)], &[]);
    let brought = vec![running(0, 0), running(1, 1), one_runs];
    leader.register(1, Resources::cpus(4), brought);
    let actions = leader.call(1, vec![memo_call(task(0, 1), 1)]);
    assert_eq!((answered(&actions).len(), runs(&actions)), (1, vec![]));
    assert_eq!(ends_as(&leader, other), one);
    leader.tell(1, attempt(1), task(0, 1), blocked(&[other]));
    assert_eq!(gives(&leader.done(1, attempt(2), one)), [(1, other)]);
}

#[test]
fn a_shared_call_is_cancelled_when_nobody_wants_it() {
    let policy = || Policy { delay_ms: Some(1000), ..memo() };
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut leader = Leader::with_workers(1, 1);
        (0..3).for_each(|sequence| _ = leader.keep(sequence, 1, true, &[], policy()));
        for (number, sequence) in order.into_iter().enumerate() {
            assert!(!is_cancelled(&leader, task(0, 0)), "{number} of {order:?}");
            cancel(&mut leader, task(sequence, 0));
            cancel(&mut leader, task(sequence, 0));
        }
        assert!(is_cancelled(&leader, task(0, 0)) && is_cancelled(&leader, task(2, 0)));
    }
}

#[test]
fn a_parent_that_is_cancelled_leaves_what_another_has_called_too() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 2, true, &[], Policy { batch_size: Some(1), ..Policy::default() });
    let [one, other] = [0, 1].map(|index| child(task(0, index), 0));
    leader.call(1, vec![memo_call(task(0, 0), 0)]);
    leader.call(1, vec![memo_call(task(0, 1), 1)]);
    cancel(&mut leader, task(0, 0));
    assert!(matches!(leader.state.fate(one), Fate::Unfinished), "the other parent waits for it");
    cancel(&mut leader, task(0, 1));
    assert!(!leader.state.batches.contains_key(&other.batch));
    assert!(!leader.state.batches.contains_key(&one.batch), "nobody does");
}

#[test]
fn a_shared_call_has_its_own_deadline() {
    let mut leader = Leader::with_workers(0, 0);
    leader.keep(0, 1, true, &[], Policy { task_deadline_ms: Some(500), ..memo() });
    leader.keep(1, 1, true, &[], memo());
    leader.wait(510);
    assert!(matches!(leader.cause(task(1, 0)), Some(Cause::DeadlinePassed { .. })));
}

#[test]
fn of_deferred_calls_the_newest_runs_and_all_are_it() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, false, &[], deferred());
    leader.live(&[1], 600);
    // Other arguments, and the same key.
    leader.append(0, range(1, 2));
    leader.live(&[1], 600);
    leader.keep(1, 1, true, &[], deferred());
    for older in [task(0, 0), task(0, 1)] {
        assert_eq!(ends_as(&leader, older), task(1, 0));
    }
    assert_eq!(runs(&leader.live(&[1], 900)), []);
    assert_eq!(given_out(&leader.live(&[1], 200)), [(batch(1), range(0, 1), attempt(0))]);
    leader.client(FromClient::Await(vec![of(task(0, 0))]));
    assert_eq!(given_to_client(&leader.done(1, attempt(0), task(1, 0))), [task(0, 0)]);
}

#[test]
fn what_was_begun_is_not_deferred_any_more() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, true, &[], deferred());
    assert_eq!(runs(&leader.live(&[1], 1100)), [(1, attempt(0), range(0, 1))]);
    leader.keep(1, 1, true, &[], deferred());
    assert_eq!(ends_as(&leader, task(0, 0)), task(0, 0));
    assert_eq!(given_out(&leader.live(&[1], 1100)).len(), 1);
}

#[test]
fn a_new_leader_sees_to_what_was_deferred_when_it_knows_what_runs() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, true, &[], deferred());
    leader.slow = true;
    leader.keep(1, 1, true, &[], deferred());
    // The entry with the newer call is committed; that the older one is it is not.
    let open = leader.proposed.remove(0);
    leader.apply(vec![open]);
    let mut leader = leader.succeed();
    assert_eq!(ends_as(&leader, task(0, 0)), task(0, 0));
    leader.register(1, Resources::cpus(4), Vec::new());
    leader.live(&[1], 100);
    assert_eq!(ends_as(&leader, task(0, 0)), task(1, 0));
}

#[test]
fn a_newest_that_is_cancelled_before_others_are_it_leaves_them_as_they_were() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, true, &[], deferred());
    leader.keep(1, 1, true, &[value(0, task(0, 0))], Policy::default());
    leader.slow = true;
    leader.keep(2, 1, true, &[], deferred());
    let open = leader.proposed.remove(0);
    let effects = leader.apply(vec![open]);
    let mut out = Vec::new();
    let applied = [allhands_scheduler::Event::Applied(effects)];
    leader.dispatcher.handle(leader.now, &leader.state, applied, &mut out);
    let forward = out.into_iter().find_map(|action| match action {
        Action::Propose(command) => Some(command),
        _ => None,
    });
    cancel(&mut leader, task(2, 0));
    leader.proposed.extend(forward);
    leader.commit();
    assert_eq!(ends_as(&leader, task(0, 0)), task(0, 0));
    leader.slow = false;
    assert_eq!(runs(&leader.live(&[1], 900)), [], "its delay is as it was");
    assert_eq!(given_out(&leader.live(&[1], 300)), [(batch(0), range(0, 1), attempt(0))]);
}

#[test]
fn a_newest_is_cancelled_when_those_who_are_it_want_it_no_more() {
    let mut leader = Leader::with_workers(1, 4);
    (0..3).for_each(|sequence| _ = leader.keep(sequence, 1, true, &[], deferred()));
    cancel(&mut leader, task(2, 0));
    cancel(&mut leader, task(0, 0));
    assert!(!is_cancelled(&leader, task(2, 0)));
    cancel(&mut leader, task(1, 0));
    assert!(is_cancelled(&leader, task(2, 0)));
}

#[test]
fn a_call_that_is_another_is_no_longer_than_that() {
    // A task returns what it has called, which is the same as itself.
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, true, &[], memo());
    let own = child(task(0, 0), 0);
    leader.call(1, vec![memo_call(task(0, 0), 0)]);
    assert_eq!(ends_as(&leader, own), task(0, 0));
    leader.tell(1, attempt(0), task(0, 0), forwarded(0, own));
    assert!(matches!(leader.cause(task(0, 0)), Some(Cause::Cycle { .. })));
    assert!(!leader.state.fate(own).is_final() || leader.cause(own).is_some());
    let waits = leader.kept(1, 1, &[names(0, own, Need::Value)]);
    assert_eq!(runs(&waits), []);
    assert_eq!(leader.root(task(1, 0)), Some(task(0, 0)));
}

#[test]
fn a_memo_that_is_not_kept_is_none() {
    let mut leader = Leader::with_workers(1, 4);
    leader.submit(0, 1, memo());
    leader.submit(1, 1, memo());
    let ran = leader.done(1, attempt(0), task(0, 0));
    assert_eq!(delivered(&ran), [(0, range(0, 1))]);
    assert!(!matches!(leader.state.locate(of(task(1, 0)), None), Located::Row { .. }));
}

#[test]
fn what_a_worker_has_and_has_not_begun_is_called_back() {
    let mut leader = Leader::with_workers(1, 1);
    leader.keep(0, 1, true, &[], deferred());
    assert_eq!(runs(&leader.live(&[1], 1100)), [(1, attempt(0), range(0, 1))]);
    // It waits there, behind something else that runs: the next call may still take its place.
    let asked = leader.keep(1, 1, true, &[], deferred());
    let retracted = |actions: &[Action]| {
        let orders = orders(actions).into_iter();
        orders.filter(|(_, order)| matches!(order, Order::Retract { .. })).count()
    };
    assert_eq!(retracted(&asked), 1);
    leader.end(1, attempt(0), 0, range(0, 1), How::Returned);
    assert_eq!(ends_as(&leader, task(0, 0)), task(1, 0));
    assert_eq!(given_out(&leader.live(&[1], 1100)).len(), 1);
}
