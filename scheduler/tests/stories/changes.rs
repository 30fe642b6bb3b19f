//! Workers, leaders and clients that come and go.

use allhands_common::id::{BatchId, CoordinatorId, JobId, RequestId, SessionId, TaskId, Term};
use allhands_common::policy::Policy;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::client::{Appended, DONE_WITH_BATCH, FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, How, Order};
use allhands_scheduler::{Action, Command, Config, Event, Explanation};
use bytes::Bytes;

use crate::support::*;

fn single() -> Policy {
    Policy { batch_size: Some(1), ..Policy::default() }
}

#[test]
fn a_lost_workers_ranges_go_to_another() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 2, single());
    leader.wait(1500);
    leader.heartbeat(2, 1, 1, vec![held(attempt(1), batch(0), &[range(1, 2)], &[])]);
    let actions = leader.wait(600);
    assert_eq!(runs(&actions), [(2, attempt(2), range(0, 1))]);
    assert_eq!(leader.state.batches[&batch(0)].exception(0).losses, 1);
    assert_eq!(leader.state.workers.len(), 1);
}

#[test]
fn a_task_that_loses_four_workers_is_lost() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    for _ in 0..3 {
        leader.wait(2001);
        assert!(!leader.state.batches[&batch(0)].over());
        leader.register(1, Resources::cpus(1), Vec::new());
    }
    assert_eq!(delivered(&leader.wait(2001)), [(0, range(0, 1))]);
}

#[test]
fn a_value_of_a_lost_worker_counts_once() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 1, single());
    leader.wait(1500);
    leader.heartbeat(2, 1, 0, Vec::new());
    assert_eq!(runs(&leader.wait(600)), [(2, attempt(1), range(0, 1))]);
    let actions = leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(delivered(&actions), [(0, range(0, 1))], "late, and yet the first");
    let actions = leader.finish(2, attempt(1), 0, range(0, 1));
    assert_eq!(delivered(&actions), []);
    let committed = Order::Committed { attempt: attempt(1), range: range(0, 1) };
    assert_eq!(orders(&leader.wait(5)), [(2, committed)], "nobody waits for that word");
}

#[test]
fn a_failure_of_an_attempt_that_was_given_up_does_not_count() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 1, single());
    leader.wait(1500);
    leader.heartbeat(2, 1, 0, Vec::new());
    leader.wait(600);
    let how = ran(outcomes(range(0, 1), &[0]), range(0, 1));
    let actions = leader.end(1, attempt(0), 0, range(0, 1), how);
    assert_eq!(delivered(&actions), []);
    assert!(!leader.state.batches[&batch(0)].has_ended(0));
}

#[test]
fn a_worker_that_was_given_up_is_taken_back_when_it_is_heard() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    assert_eq!(runs(&leader.wait(2001)), []);
    assert!(leader.state.workers.is_empty());
    let mine = || vec![held(attempt(0), batch(0), &[range(0, 1)], &[])];
    assert_eq!(runs(&leader.heartbeat(1, 1, 1, mine())), [], "it goes on with what it has");
    assert_eq!(leader.state.workers.len(), 1);
    assert_eq!(delivered(&leader.finish(1, attempt(0), 0, range(0, 1))), [(0, range(0, 1))]);
}

#[test]
fn nothing_is_awaited_of_a_worker_taken_back_that_it_has_reported() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, Policy { retries: 1, ..single() });
    let how = ran(outcomes(range(0, 1), &[0]), range(0, 1));
    leader.end(1, attempt(0), 0, range(0, 1), how);
    leader.wait(2001);
    // It never heard that its outcome is decided, and says so.
    let owing = vec![held(attempt(0), batch(0), &[], &[range(0, 1)])];
    assert_eq!(runs(&leader.heartbeat(1, 1, 9, owing)), [(1, attempt(2), range(0, 1))]);
}

#[test]
fn only_what_was_processed_and_is_in_no_list_is_lost() {
    let mut leader = Leader::with_workers(1, 2);
    leader.submit(0, 2, single());
    assert_eq!(runs(&leader.heartbeat(1, 1, 0, Vec::new())), [], "it has processed nothing yet");
    let first = || vec![held(attempt(0), batch(0), &[range(0, 1)], &[])];
    let actions = leader.heartbeat(1, 2, 9, first());
    assert_eq!(runs(&actions), [(1, attempt(2), range(1, 2))]);
    assert!(matches!(orders(&actions)[0].1, Order::Batch(_)), "what it shares may be lost as well");
    assert_eq!(runs(&leader.heartbeat(1, 1, 9, Vec::new())), [], "an old heartbeat says nothing");
}

#[test]
fn a_lost_last_message_is_noticed() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    leader.heartbeat(1, 1, 0, Vec::new());
    let actions = leader.heartbeat(1, 2, 0, Vec::new());
    let empty =
        |a: &Action| matches!(a, Action::Order { number: 2, orders, .. } if orders.is_empty());
    assert!(actions.iter().any(empty), "{actions:?}");
    assert_eq!(runs(&leader.heartbeat(1, 3, 2, Vec::new())), [(1, attempt(1), range(0, 1))]);
}

#[test]
fn a_new_leader_waits_for_the_roster_and_adopts_what_it_brings() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 3, single());
    let mut leader = leader.succeed();
    let brought = vec![held(attempt(0), batch(0), &[range(0, 1)], &[])];
    assert_eq!(runs(&leader.register(1, Resources::cpus(1), brought)), []);
    let brought = vec![held(attempt(1), batch(0), &[], &[range(1, 2)])];
    let actions = leader.register(2, Resources::cpus(1), brought);
    let given: Vec<_> = runs(&actions).into_iter().map(|(_, id, range)| (id.term, range)).collect();
    assert_eq!(given, [(Term(2), range(2, 3))]);
    leader.attach(&[(batch(0), 0)]);
    let actions = leader.finish(2, attempt(1), 0, range(1, 2));
    assert_eq!(delivered(&actions), [(0, range(1, 2))]);
}

#[test]
fn a_new_leader_gives_the_roster_two_seconds() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 4, single());
    let mut leader = leader.succeed();
    assert_eq!(runs(&leader.register(1, Resources::cpus(1), Vec::new())), []);
    leader.wait(1000);
    leader.heartbeat(1, 1, 0, Vec::new());
    assert_eq!(runs(&leader.wait(1001)).len(), 2);
}

#[test]
fn a_client_gets_each_outcome_once_per_cursor() {
    let mut leader = Leader::with_workers(1, 2);
    leader.submit(0, 2, single());
    assert_eq!(delivered(&leader.finish(1, attempt(0), 0, range(0, 1))), [(0, range(0, 1))]);
    leader.step(Event::ClientGone { session: SESSION });
    leader.wait(5);
    assert_eq!(leader.finish(1, attempt(1), 0, range(1, 2)), [], "nobody is told at once");
    let actions = leader.attach(&[(batch(0), 1)]);
    assert_eq!(delivered(&actions), [(1, range(1, 2))]);
    let attached = ToClient::Attached { term: Term(1), batches: vec![(batch(0), 2)], slots: 2 };
    assert_eq!(told(&actions)[0], attached);
}

#[test]
fn a_batch_is_forgotten_when_its_client_has_its_end() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    leader.finish(1, attempt(0), 0, range(0, 1));
    leader.acknowledge(0, 1);
    assert!(leader.segments.is_empty() && leader.state.batches.contains_key(&batch(0)));
    leader.wait(5);
    leader.acknowledge(0, DONE_WITH_BATCH);
    assert_eq!(orders(&leader.wait(5)), [(1, Order::Forget { batch: batch(0) })]);
    assert!(leader.state.batches.is_empty());
}

#[test]
fn submitting_again_changes_nothing() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 3, single());
    let before = leader.state.batches.clone();
    leader.submit(0, 3, single());
    leader.append(0, range(7, 9));
    assert_eq!(leader.state.batches, before);
    leader.append(0, range(0, 3));
    let known = Appended { batch: batch(0), tasks: 3, sealed: true };
    assert_eq!(told(&leader.wait(5)), [ToClient::Appended(vec![known])]);
}

#[test]
fn nobody_opens_a_batch_under_the_id_of_another() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 3, single());
    let before = leader.state.batches.clone();
    let other = SessionId([8; 16]);
    let say = |message| Event::Client { session: other, owner: "eve".into(), message };
    let (low, batches) = (RequestId(0), Vec::new());
    leader.step(say(FromClient::Attach { session: other, low, batches }));
    let (request, name) = (RequestId(0), "job".into());
    leader.step(say(FromClient::OpenJob { request, program: program(), name, detached: None }));
    let actions = leader.step(say(FromClient::OpenBatch {
        batch: batch(0),
        sequence: 0,
        call: 0,
        job: JobId(1),
        spec: spec(single()).into(),
        context: Bytes::new().into(),
        tasks: 0,
        segment: Bytes::new().into(),
        sealed: false,
        kept: false,
        mentions: Vec::new(),
    }));
    let refused = |message: &ToClient| matches!(message, ToClient::Refused { batch: Some(id), .. } if *id == batch(0));
    assert!(told(&actions).iter().any(refused), "{actions:?}");
    assert_eq!(leader.state.batches, before);
    assert_eq!(leader.state.batches_of(JobId(1)).count(), 0);
    // Its own number is still free for a batch of its own.
    assert!(leader.state.sessions[&other].opened.is_empty());
}

#[test]
fn a_term_gives_more_attempts_than_32_bits_can_count() {
    let state = Leader::with_workers(0, 0).state;
    let config =
        Config { first_attempt: u32::MAX.into(), ..Config::new(CoordinatorId(1), Term(1)) };
    let mut leader = Leader::configured(config, state, Instant(0));
    leader.register(1, Resources::cpus(1), Vec::new());
    leader.attach(&[]);
    let given: Vec<u64> =
        runs(&leader.submit(0, 2, single())).iter().map(|(_, id, _)| id.number).collect();
    assert_eq!(given, [u32::MAX.into(), 1 << 32]);
}

#[test]
fn a_greeting_that_comes_late_takes_nothing_away() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 3, single());
    leader.attach(&[]);
    assert!(!leader.state.batches[&batch(0)].over());
}

#[test]
fn a_batch_that_was_never_given_out_leaves_the_queue_with_its_entry() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 1, single());
    leader.slow = true;
    leader.cancel(0);
    leader.acknowledge(0, DONE_WITH_BATCH);
    leader.commit();
    assert!(leader.state.batches.is_empty());
    assert_eq!(runs(&leader.register(1, Resources::cpus(1), Vec::new())), []);
}

#[test]
fn what_a_worker_owes_and_nobody_wants_is_settled() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    // The log has decided otherwise about attempt 9 of an earlier leader; the word of it was lost.
    let stray = vec![held(attempt(9), batch(0), &[], &[range(0, 1)])];
    let committed = Order::Committed { attempt: attempt(9), range: range(0, 1) };
    assert!(orders(&leader.heartbeat(1, 1, 1, stray)).contains(&(1, committed)));
}

#[test]
fn a_cap_counts_from_the_slots_there_are() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = Policy { n_jobs: 1, ..single() };
    assert_eq!(runs(&leader.submit(0, 9, policy)).len(), 2, "one slot: one runs, one is the next");
    assert_eq!(runs(&leader.register(2, Resources::cpus(4), Vec::new())), []);
}

#[test]
fn a_silent_clients_waiting_batches_are_gone_after_its_lease() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 3, single());
    let actions = leader.wait(15_001);
    assert_eq!(told(&actions).last(), Some(&ToClient::SessionExpired));
    assert!(leader.state.sessions.is_empty() && leader.state.jobs.is_empty());
    let actions = leader.register(1, Resources::cpus(1), Vec::new());
    assert_eq!(runs(&actions), []);
    let actions = leader.client(FromClient::Alive);
    assert_eq!(told(&actions), [ToClient::SessionExpired]);
    let batches: Vec<(BatchId, u32)> = Vec::new();
    let attach = FromClient::Attach { session: SESSION, low: RequestId(1), batches };
    assert_eq!(told(&leader.client(attach)), [ToClient::SessionExpired], "its jobs are gone");
}

#[test]
fn more_jobs_than_a_session_remembers_replies() {
    let mut leader = Leader::with_workers(0, 0);
    for job in 1..1200 {
        let actions = leader.open_job(job);
        let opened = ToClient::JobOpened { request: RequestId(job), job: JobId(job) };
        assert_eq!(told(&actions)[0], opened);
        leader.open(JobId(job), job as u32, single());
    }
}

#[test]
fn what_a_draining_worker_returns_goes_elsewhere() {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 4, single());
    leader.worker(1, FromWorker::Draining);
    let actions = leader.end(1, attempt(2), 0, range(2, 3), How::Returned);
    assert_eq!(runs(&actions), []);
    let actions = leader.finish(2, attempt(1), 0, range(1, 2));
    assert_eq!(runs(&actions), [(2, attempt(4), range(2, 3))]);
}

#[test]
fn a_worker_that_returns_while_its_leave_is_on_its_way_stays_on_the_roster() {
    let mut leader = Leader::with_workers(1, 1);
    leader.slow = true;
    leader.wait(2001);
    assert!(matches!(leader.proposed[..], [Command::LeaveWorker { .. }]));
    leader.register(1, Resources::cpus(1), Vec::new());
    leader.commit();
    assert_eq!(leader.state.workers.len(), 1);
}

#[test]
fn an_open_that_is_said_again_with_more_than_the_first_time_is_heard() {
    let mut leader = Leader::with_workers(1, 1);
    leader.open(JobId(0), 0, Policy::default());
    let again = |tasks: u32, sealed| FromClient::OpenBatch {
        batch: batch(0),
        sequence: 0,
        call: 0,
        job: JobId(0),
        spec: spec(Policy::default()).into(),
        context: Bytes::new().into(),
        tasks,
        segment: arguments(range(0, tasks)).into(),
        sealed,
        kept: false,
        mentions: Vec::new(),
    };
    leader.client(again(2, false));
    assert_eq!(leader.state.batches[&batch(0)].tasks, 2);
    leader.client(again(2, true));
    assert_eq!(leader.state.batches[&batch(0)].tasks, 2);
    assert!(leader.state.batches[&batch(0)].sealed);
    // Nor does it matter how often.
    let before = leader.state.clone();
    leader.client(again(2, true));
    assert_eq!(leader.state.batches[&batch(0)], before.batches[&batch(0)]);
}

/// The names of workers that `actions` tell a client.
fn names(actions: &[Action]) -> Vec<(u64, String)> {
    let names = told(actions).into_iter().filter_map(|message| match message {
        ToClient::Workers(names) => Some(names),
        _ => None,
    });
    names.flatten().map(|(worker, name)| (worker.0, name)).collect()
}

#[test]
fn a_client_knows_the_names_of_those_who_work_for_it() {
    let mut leader = Leader::new();
    leader.register(1, Resources::cpus(1), Vec::new());
    assert_eq!(names(&leader.attach(&[])), [(1, "host1".into())]);
    let mut other = registration(2, Resources::cpus(1), Vec::new());
    other.name = "é".repeat(40);
    let joined = leader.worker(2, FromWorker::Register(other));
    assert_eq!(names(&joined), [(2, "é".repeat(32))], "as much as is shown");
    // Also by the next leader, whom they have not told.
    let mut leader = leader.succeed();
    let all = [(1, "host1".into()), (2, "é".repeat(32))];
    assert_eq!(names(&leader.attach(&[])), all);
}

#[test]
fn a_worker_is_explained_by_name_and_by_number_where_that_helps() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, single());
    let task = TaskId { batch: batch(0), index: 0 };
    let holder = |leader: &Leader| match leader.dispatcher.explain(leader.now, &leader.state, task)
    {
        Explanation::WithWorker { worker, name, .. } => (worker.0, name),
        other => panic!("{other:?}"),
    };
    assert_eq!(holder(&leader), (1, "host1".into()));
    let mut namesake = registration(2, Resources::cpus(1), Vec::new());
    namesake.name = "host1".into();
    leader.worker(2, FromWorker::Register(namesake));
    assert_eq!(holder(&leader), (1, "host1 (1)".into()));
}
