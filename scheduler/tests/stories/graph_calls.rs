//! Tasks that call others and wait for them: slots, claims, and what becomes of the callees.

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, TaskId, Term};
use allhands_common::policy::Policy;
use allhands_common::resources::Resources;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};
use allhands_common::wire::worker::{FromWorker, How, Order};

use crate::support::*;

/// A leader whose one worker, of one slot, runs the only task of kept batch 0.
fn with_parent() -> (Leader, TaskId) {
    let mut leader = Leader::with_workers(1, 1);
    assert_eq!(runs(&leader.kept(0, 1, &[])), [(1, attempt(0), range(0, 1))]);
    (leader, task(0, 0))
}

fn single() -> Policy {
    Policy { batch_size: Some(1), ..Policy::default() }
}

#[test]
fn a_call_is_committed_answered_and_opened_once() {
    let (mut leader, parent) = with_parent();
    leader.slow = true;
    let calls = || vec![call(parent, attempt(0), 0)];
    assert_eq!((answered(&leader.call(1, calls())), leader.proposed.len()), (vec![], 1));
    let first = leader.commit();
    let id = child(parent, 0).batch;
    assert_eq!(answered(&first), [(1, id, attempt(0))]);
    assert_eq!(given_out(&first), [(id, range(0, 1), attempt(1))], "as the next of its worker");
    leader.call(1, calls());
    let again = leader.commit();
    assert_eq!(answered(&again), [(1, id, attempt(0))], "the answer may have been lost");
    assert_eq!((runs(&again), leader.state.batches.len()), (vec![], 2));
}

#[test]
fn a_blocked_task_leaves_its_slot_to_what_it_has_called() {
    let (mut leader, parent) = with_parent();
    leader.submit(1, 3, single());
    let on = child(parent, 0);
    assert_eq!(runs(&leader.call(1, vec![call(parent, attempt(0), 0)])), [], "two are enough");
    let given = given_out(&leader.tell(1, attempt(0), parent, blocked(&[on])));
    assert_eq!(given, [(on.batch, range(0, 1), attempt(2))], "before what is older and less deep");
    let deeper = child(on, 0);
    leader.call(1, vec![call(on, attempt(2), 0)]);
    let given = given_out(&leader.tell(1, attempt(2), on, blocked(&[deeper])));
    assert_eq!(given, [(deeper.batch, range(0, 1), attempt(3))]);
    assert_eq!(gives(&leader.done(1, attempt(3), deeper)), [(1, deeper)]);
    leader.tell(1, attempt(2), on, How::Resumed);
    assert_eq!(gives(&leader.done(1, attempt(2), on)), [(1, on)]);
}

#[test]
fn what_was_not_started_of_a_blocked_range_comes_back_and_its_batch_is_not_sent_again() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { batch_size: Some(4), ..Policy::default() };
    leader.keep(0, 4, true, &[], policy);
    let parent = task(0, 1);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    let rest = ended(attempt(0), batch(0), range(2, 4), How::Returned);
    let waits = ended(attempt(0), batch(0), range(1, 2), blocked(&[child(parent, 0)]));
    let first = ended(attempt(0), batch(0), range(0, 1), ran(values(range(0, 1)), range(0, 1)));
    let actions = leader.report(1, vec![first, waits, rest]);
    let again: Vec<_> = given_out(&actions);
    assert!(again.iter().any(|(id, ..)| *id == batch(0)), "{again:?}");
    let shared = orders(&actions);
    let shared = shared.iter().filter(|(_, order)| matches!(order, Order::Batch(_)));
    assert_eq!(shared.count(), 0, "its worker knows both batches");
}

#[test]
fn a_lost_worker_with_a_blocked_parent() {
    let mut leader = Leader::with_workers(2, 1);
    leader.kept(0, 1, &[]);
    let parent = task(0, 0);
    let (kept, dropped) = (child(parent, 0), child(parent, 1));
    leader.call(1, (0..2).map(|number| call(parent, attempt(0), number)).collect());
    leader.tell(1, attempt(0), parent, blocked(&[kept]));
    let rerun = leader.live(&[2], 2100);
    assert_eq!(leader.state.batches[&batch(0)].exception(0).losses, 0, "it did not run");
    let theirs = given_out(&rerun).into_iter().find(|(id, ..)| *id == batch(0));
    let (.., again) = theirs.expect("the parent is run again");
    let opened = leader.state.batches.len();
    leader.call(2, vec![call(parent, again, 0)]);
    assert_eq!(leader.state.batches.len(), opened, "what it calls is there");
    leader.done(2, again, parent);
    let stopped = |leader: &Leader, task: TaskId| {
        leader.state.batches.get(&task.batch).is_none_or(|known| known.stopped().is_some())
    };
    assert!(!stopped(&leader, kept), "the attempt that has ended has called it too");
    assert!(stopped(&leader, dropped), "only the lost one has");
}

#[test]
fn a_late_outcome_keeps_what_its_attempt_has_called() {
    let mut leader = Leader::with_workers(2, 1);
    leader.kept(0, 1, &[]);
    let parent = task(0, 0);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    let rerun = given_out(&leader.live(&[2], 2100));
    assert!(rerun.iter().any(|(id, ..)| *id == batch(0)));
    leader.done(1, attempt(0), parent);
    let known = leader.state.batches.get(&child(parent, 0).batch);
    assert!(known.is_some_and(|known| known.stopped().is_none()));
}

#[test]
fn callees_of_a_cancelled_task_are_cancelled_and_theirs_too() {
    let (mut leader, parent) = with_parent();
    let (on, deeper) = (child(parent, 0), child(child(parent, 0), 0));
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.call(1, vec![call(on, attempt(1), 0)]);
    assert_eq!(leader.state.batches[&deeper.batch].depth(), 2);
    let actions = leader.client(FromClient::CancelTasks { batch: batch(0), range: range(0, 1) });
    assert_eq!(leader.state.batches.len(), 1, "nobody names them");
    let cancelled = |order: &(u64, Order)| matches!(order.1, Order::Cancel { .. });
    assert_eq!(orders(&actions).iter().filter(|order| cancelled(order)).count(), 2);
}

#[test]
fn callees_of_a_task_that_fails_go_on() {
    let (mut leader, parent) = with_parent();
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), parent, ran(error(panic()), range(0, 1)));
    let on = child(parent, 0);
    assert!(
        !leader.state.batches[&on.batch].over(),
        "an execution nobody awaits runs all the same"
    );
    leader.done(1, attempt(1), on);
    assert!(!leader.state.batches.contains_key(&on.batch), "and nobody could ask for it");
}

#[test]
fn a_returned_execution_stays_for_who_has_it() {
    let (mut leader, parent) = with_parent();
    let on = child(parent, 0);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), parent, forwarded(0, on));
    leader.done(1, attempt(1), on);
    assert!(leader.state.batches.contains_key(&on.batch));
    let given = leader.client(FromClient::Await(vec![of(parent)]));
    assert_eq!(given_to_client(&given), [parent]);
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn who_has_ended_calls_nobody() {
    let (mut leader, parent) = with_parent();
    leader.done(1, attempt(0), parent);
    let actions = leader.call(1, vec![call(parent, attempt(0), 0)]);
    assert_eq!(answered(&actions).len(), 1, "its worker need not say it again");
    assert_eq!(leader.state.batches.len(), 1);
}

#[test]
fn a_lost_answer_is_given_again() {
    let (mut leader, parent) = with_parent();
    let on = child(parent, 0);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), parent, blocked(&[on]));
    assert_eq!(gives(&leader.done(1, attempt(1), on)), [(1, on)]);
    let waits = || vec![held_blocked(attempt(0), parent, &[on])];
    assert_eq!(gives(&leader.heartbeat(1, 1, 0, waits())), [], "it is on its way");
    assert_eq!(gives(&leader.heartbeat(1, 2, 99, waits())), [(1, on)]);
    assert_eq!(gives(&leader.heartbeat(1, 3, 100, Vec::new())), []);
}

#[test]
fn who_blocks_after_the_answer_has_come_is_given_it_at_once() {
    let mut leader = Leader::with_workers(1, 4);
    leader.kept(0, 3, &[]);
    let on = task(0, 2);
    leader.tell(1, attempt(0), task(0, 0), blocked(&[on]));
    assert_eq!(gives(&leader.done(1, attempt(2), on)), [(1, on)]);
    let waits = vec![ended(attempt(1), batch(0), range(1, 2), blocked(&[on]))];
    let late = leader.worker(1, FromWorker::Report { processed: 99, ended: waits });
    assert_eq!(gives(&late), [(1, on)]);
}

#[test]
fn a_new_leader_hears_of_blocked_tasks_from_their_worker() {
    let (mut leader, parent) = with_parent();
    let on = child(parent, 0);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), parent, blocked(&[on]));
    let mut leader = leader.succeed();
    let waits = vec![held_blocked(attempt(0), parent, &[on])];
    let actions = leader.register(1, Resources::cpus(1), waits);
    let next = AttemptId { term: Term(2), number: 0 };
    assert_eq!(given_out(&actions), [(on.batch, range(0, 1), next)], "its slot is free");
    assert_eq!(gives(&leader.done(1, next, on)), [(1, on)]);
    assert_eq!(answered(&leader.call(1, vec![call(parent, attempt(0), 0)])).len(), 1);
    leader.done(1, attempt(0), parent);
    leader.attach(&[(batch(0), 0)]);
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn a_call_with_a_dependency_waits_for_it() {
    let (mut leader, parent) = with_parent();
    let (first, second) = (child(parent, 0), child(parent, 1));
    let mut other = call(parent, attempt(0), 1);
    other.mentions = vec![value(0, first)];
    // It is said before the one that it names.
    leader.call(1, vec![other]);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    let given = given_out(&leader.tell(1, attempt(0), parent, blocked(&[second])));
    assert!(!given.iter().any(|(id, ..)| *id == second.batch));
    let failed = ran(error(panic()), range(0, 1));
    let actions = leader.tell(1, attempt(1), first, failed);
    assert_eq!(gives(&actions), [(1, second)]);
    assert!(matches!(
        leader.cause(second),
        Some(Cause::DependencyFailed { root, .. }) if root == first
    ));
}
