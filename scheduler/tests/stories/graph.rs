//! Tasks that name others: when they start, and what of.

use allhands_common::execution::Need;
use allhands_common::failure::Cause;
use allhands_common::id::{JobId, RequestId, SessionId};
use allhands_common::policy::{Backoff, Policy};
use allhands_common::resources::Resources;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient, ToClient};
use allhands_common::wire::worker::How;
use allhands_scheduler::{Action, Event, Located, State};
use bytes::Bytes;

use crate::support::*;

/// A leader with one worker that runs task 0 of batch 0, which those of batch 1 name for what they need.
fn waiting(needs: &[Need]) -> Leader {
    let mut leader = Leader::with_workers(1, 1);
    assert_eq!(runs(&leader.kept(0, 1, &[])), [(1, attempt(0), range(0, 1))]);
    let named = (0..).zip(needs).map(|(index, need)| names(index, task(0, 0), *need));
    let named: Vec<_> = named.collect();
    let given = leader.kept(1, needs.len() as u32, &named);
    assert_eq!(runs(&given), [], "what it names has not ended");
    leader
}

#[test]
fn a_dependant_starts_after_the_outcome_is_applied_and_has_it() {
    let mut leader = waiting(&[Need::Value]);
    leader.slow = true;
    assert_eq!(runs(&leader.done(1, attempt(0), task(0, 0))), [], "it is not committed");
    let actions = leader.commit();
    let given = full_runs(&actions);
    let [(1, run)] = given.as_slice() else { panic!("{actions:?}") };
    assert_eq!((run.batch, run.given.len(), run.given[0].of), (batch(1), 1, of(task(0, 0))));
    let Located::Row { row: 0, .. } = leader.state.locate(run.given[0].of, None) else { panic!() };
}

#[test]
fn what_waits_for_a_failure_does_not_run_and_says_whose_it_was() {
    let fails: [fn(&mut Leader) -> Vec<Action>; 4] = [
        |leader| leader.tell(1, attempt(0), task(0, 0), ran(error(panic()), range(0, 1))),
        |leader| leader.tell(1, attempt(0), task(0, 0), returned_err()),
        |leader| leader.client(FromClient::CancelTasks { batch: batch(0), range: range(0, 1) }),
        |leader| leader.cancel(0),
    ];
    for (number, fail) in fails.iter().enumerate() {
        let mut leader = waiting(&[Need::Value]);
        leader.kept(2, 1, &[value(0, task(1, 0))]);
        assert_eq!(runs(&fail(&mut leader)), [], "the {number}-th");
        assert_eq!(leader.root(task(1, 0)), Some(task(0, 0)), "the {number}-th");
        assert_eq!(leader.root(task(2, 0)), Some(task(0, 0)), "at the root, not the next");
    }
}

#[test]
fn needs_differ_in_what_they_wait_for() {
    let mut leader = Leader::with_workers(1, 8);
    leader.kept(0, 1, &[]);
    let all = [Need::Value, Need::Returned, Need::End, Need::Handle];
    for (sequence, need) in (1..).zip(all) {
        let given = leader.kept(sequence, 1, &[names(0, task(0, 0), need)]);
        assert_eq!(runs(&given).len(), usize::from(need == Need::Handle), "{need:?}");
    }
    let started = given_out(&leader.tell(1, attempt(0), task(0, 0), returned_err()));
    let started: Vec<_> = started.into_iter().map(|(batch, ..)| batch).collect();
    assert_eq!(
        started,
        [batch(2), batch(3)],
        "an Err is no value, but something that was returned"
    );
    let mut leader = waiting(&[Need::End]);
    let failed = ran(error(panic()), range(0, 1));
    let actions = leader.tell(1, attempt(0), task(0, 0), failed);
    assert!(full_runs(&actions)[0].1.given.is_empty(), "it wants to know that, not what");
}

#[test]
fn a_task_may_be_named_before_it_is_there() {
    let mut leader = Leader::with_workers(1, 4);
    leader.kept(1, 1, &[value(0, task(0, 1))]);
    leader.keep(0, 1, false, &[], Policy::default());
    leader.live(&[1], 6000);
    assert!(!leader.state.batches[&batch(1)].over(), "somebody has heard of its batch");
    leader.done(1, attempt(0), task(0, 0));
    leader.append(0, range(1, 2));
    let actions = leader.done(1, attempt(1), task(0, 1));
    assert_eq!(given_out(&actions), [(batch(1), range(0, 1), attempt(2))]);
}

#[test]
fn what_nobody_has_heard_of_is_waited_for_a_while() {
    let mut leader = Leader::with_workers(1, 4);
    leader.kept(1, 1, &[value(0, task(0, 0))]);
    leader.live(&[1], 4900);
    assert!(!leader.state.batches[&batch(1)].over());
    leader.live(&[1], 200);
    assert!(matches!(leader.cause(task(1, 0)), Some(Cause::Expired { .. })));
}

#[test]
fn a_task_that_can_never_come_is_not_waited_for() {
    let mut leader = Leader::with_workers(1, 4);
    leader.keep(0, 1, false, &[], Policy::default());
    leader.kept(1, 1, &[value(0, task(0, 5))]);
    leader.kept(2, 1, &[value(0, task(0, 1))]);
    leader.client(FromClient::Seal { batch: batch(0), tasks: 1 });
    assert!(matches!(leader.cause(task(1, 0)), Some(Cause::Expired { .. })));
    leader.kept(3, 1, &[value(0, task(0, 1))]);
    assert!(matches!(leader.cause(task(3, 0)), Some(Cause::Expired { .. })));
    leader.keep(4, 0, false, &[], Policy::default());
    leader.kept(5, 1, &[value(0, task(4, 0))]);
    leader.cancel(4);
    assert_eq!(leader.root(task(5, 0)), Some(task(4, 0)), "it was cancelled before it came");
}

#[test]
fn another_identitys_outcomes_are_nobodys() {
    let mut leader = waiting(&[]);
    let bob = |leader: &mut Leader, message| {
        let (session, owner) = (SessionId([4; 16]), "bob".into());
        leader.step(Event::Client { session, owner, message })
    };
    let (session, low) = (SessionId([4; 16]), RequestId(0));
    bob(&mut leader, FromClient::Attach { session, low, batches: Vec::new() });
    let (request, name, detached) = (RequestId(0), "job".into(), None);
    bob(&mut leader, FromClient::OpenJob { request, program: program(), name, detached });
    let open = FromClient::OpenBatch {
        batch: batch(77),
        sequence: 0,
        call: 0,
        job: JobId(1),
        spec: spec(Policy::default()).into(),
        context: Bytes::new().into(),
        tasks: 1,
        segment: arguments(range(0, 1)).into(),
        sealed: true,
        kept: true,
        mentions: vec![value(0, task(0, 0))],
    };
    bob(&mut leader, open);
    leader.done(1, attempt(0), task(0, 0));
    assert!(matches!(leader.cause(task(77, 0)), Some(Cause::Expired { .. })));
    let given = bob(&mut leader, FromClient::Await(vec![of(task(0, 0))]));
    assert_eq!(given_to_client(&given), [task(0, 0)], "the shell is to say that it may not");
    let Located::Failed(failed) = leader.state.locate(of(task(0, 0)), Some("bob")) else {
        panic!()
    };
    assert!(failed.cause.to_string().contains("another identity"), "{}", failed.cause);
}

#[test]
fn forwarded_outcomes_are_followed_to_their_end() {
    let mut leader = Leader::with_workers(1, 8);
    leader.kept(0, 3, &[]);
    leader.kept(1, 1, &[value(0, task(0, 0))]);
    leader.tell(1, attempt(0), task(0, 0), forwarded(0, task(0, 1)));
    assert_eq!(runs(&leader.tell(1, attempt(1), task(0, 1), forwarded(1, task(0, 2)))), []);
    let actions = leader.done(1, attempt(2), task(0, 2));
    assert_eq!(given_out(&actions), [(batch(1), range(0, 1), attempt(3))]);
    assert_eq!(
        full_runs(&actions)[0].1.given[0].of,
        of(task(0, 0)),
        "by the name that it has there"
    );
    let located = leader.state.locate(of(task(0, 0)), None);
    assert_eq!(located, leader.state.locate(of(task(0, 2)), None));
}

#[test]
fn a_dependant_that_is_tried_again_finds_its_values() {
    let mut leader = Leader::with_workers(1, 4);
    leader.kept(0, 1, &[]);
    let backoff = Backoff { first_ms: 0, max_ms: 0 };
    let policy = Policy { retries: 1, backoff, ..Policy::default() };
    leader.keep(1, 1, true, &[value(0, task(0, 0))], policy);
    leader.acknowledge(0, 1);
    leader.done(1, attempt(0), task(0, 0));
    leader.acknowledge(0, DONE_WITH_BATCH);
    let again = leader.tell(1, attempt(1), task(1, 0), ran(error(panic()), range(0, 1)));
    let given = full_runs(&again);
    let [(1, run)] = given.as_slice() else { panic!("{again:?}") };
    assert_eq!((run.attempt, run.given[0].of), (attempt(2), of(task(0, 0))));
    assert!(leader.state.batches.contains_key(&batch(0)), "who may be tried again names it");
}

#[test]
fn a_new_leader_knows_who_waits() {
    let mut leader = waiting(&[Need::Value, Need::End]).succeed();
    leader.register(1, Resources::cpus(1), vec![held(attempt(0), batch(0), &[range(0, 1)], &[])]);
    assert_eq!(runs(&leader.live(&[1], 100)), []);
    let started = given_out(&leader.done(1, attempt(0), task(0, 0)));
    assert_eq!(started.len(), 2);
    let mut leader = waiting(&[Need::Value]);
    leader.tell(1, attempt(0), task(0, 0), ran(error(panic()), range(0, 1)));
    assert_eq!(leader.succeed().root(task(1, 0)), Some(task(0, 0)));
}

#[test]
fn kept_outcomes_stay_while_they_are_named_and_go_then() {
    let mut leader = waiting(&[Need::Value]);
    leader.done(1, attempt(0), task(0, 0));
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert!(leader.state.batches.contains_key(&batch(0)));
    leader.done(1, attempt(1), task(1, 0));
    assert!(
        !leader.state.batches.contains_key(&batch(0)),
        "its client had it, its dependant ended"
    );
    leader.acknowledge(1, DONE_WITH_BATCH);
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn outcomes_that_name_one_another_go_together() {
    let mut leader = Leader::with_workers(1, 8);
    leader.kept(0, 2, &[]);
    leader.kept(1, 1, &[]);
    leader.tell(1, attempt(0), task(0, 0), forwarded(0, task(0, 1)));
    leader.tell(1, attempt(1), task(0, 1), forwarded(1, task(1, 0)));
    let How::Ran { segment, run_us, .. } = ran(values(range(0, 1)), range(0, 1)) else { panic!() };
    let mentions = vec![names(0, task(0, 0), Need::Handle)];
    leader.tell(1, attempt(2), task(1, 0), How::Ran { segment, run_us, mentions });
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert_eq!(leader.state.batches.len(), 2);
    leader.acknowledge(1, DONE_WITH_BATCH);
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn a_closed_session_leaves_no_pins() {
    let mut leader = waiting(&[Need::Value]);
    leader.kept(2, 1, &[value(0, task(9, 0)), value(0, task(1, 0))]);
    leader.client(FromClient::Detach);
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
    // That nobody's pins are left is what the check of an empty state says.
    leader.state.check().unwrap();
}

#[test]
fn a_snapshot_has_the_links_in_it() {
    let mut leader = waiting(&[Need::Value]);
    leader.kept(2, 1, &[value(0, task(9, 0))]);
    leader.call(1, vec![call(task(0, 0), attempt(0), 0)]);
    let again = State::from_snapshot(&leader.state.to_snapshot()).unwrap();
    assert_eq!(again, leader.state);
    again.check().unwrap();
    leader.state = again;
    assert_eq!(given_out(&leader.done(1, attempt(0), task(0, 0))).len(), 1);
}

#[test]
fn a_client_awaits_what_is_not_its_own() {
    let mut leader = waiting(&[]);
    let awaited = vec![of(task(0, 0)), of(task(9, 0))];
    assert_eq!(given_to_client(&leader.client(FromClient::Await(awaited.clone()))), []);
    leader.client(FromClient::Unawait(vec![of(task(9, 0))]));
    let given = given_to_client(&leader.done(1, attempt(0), task(0, 0)));
    assert_eq!(given, [task(0, 0)]);
    leader.attach(&[]);
    let given = given_to_client(&leader.client(FromClient::Await(awaited)));
    assert_eq!(given, [task(0, 0)], "it is there");
    assert_eq!(given_to_client(&leader.live(&[1], 5100)), [task(9, 0)], "nobody tells of it");
}

#[test]
fn who_is_done_with_a_batch_that_others_name_hears_no_more_of_it() {
    let mut leader = waiting(&[Need::Value]);
    leader.done(1, attempt(0), task(0, 0));
    let mut leader = leader.succeed();
    leader.attach(&[]);
    let actions = leader.acknowledge(0, DONE_WITH_BATCH);
    let ends = told(&actions);
    let ends = ends.iter().filter(|message| matches!(message, ToClient::Ended { .. }));
    assert_eq!(ends.count(), 0, "an earlier leader has said so");
    assert!(leader.state.batches.contains_key(&batch(0)));
}

#[test]
fn a_fixed_length_is_not_waited_for_where_tasks_wait_for_others() {
    let mut leader = Leader::with_workers(1, 4);
    leader.kept(0, 1, &[]);
    let policy = Policy { batch_size: Some(4), ..Policy::default() };
    let given = leader.keep(1, 4, false, &[value(2, task(0, 0))], policy);
    let given: Vec<_> = given_out(&given).into_iter().map(|(_, range, _)| range).collect();
    assert_eq!(given, [range(0, 2), range(3, 4)]);
}
