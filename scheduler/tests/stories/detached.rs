//! Jobs that go on without their client: who attaches to one, what is read of it, and how long it is kept.

use allhands_common::id::{JobId, RequestId, SessionId};
use allhands_common::limit::UNREAD_BYTES_MAX;
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::segment::{DONE, SegmentBuilder};
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient, ToClient};
use allhands_common::wire::worker::How;
use allhands_scheduler::{Action, Command, Event};
use bytes::Bytes;

use crate::support::*;

const RETENTION_MS: u64 = 60_000;
const JOB: JobId = JobId(1);

/// A leader with a worker of four slots, and a job of ann's that goes on without her, of two batches: one of four
/// tasks, and one of one.
fn detached() -> Leader {
    let mut leader = Leader::with_workers(1, 4);
    let (request, name, detached) = (RequestId(1), "nightly".into(), Some(RETENTION_MS));
    leader.client(FromClient::OpenJob { request, program: program(), name, detached });
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    assert_eq!(runs(&leader.submit_in(JOB, 0, 4, policy.clone())).len(), 4);
    leader.submit_in(JOB, 1, 1, policy);
    leader
}

/// What another process of `owner` says, whose session has this number.
fn says(leader: &mut Leader, number: u8, owner: &str, message: FromClient) -> Vec<Action> {
    let (session, owner) = (SessionId([number; 16]), owner.into());
    leader.step(Event::Client { session, owner, message })
}

fn comes(leader: &mut Leader, number: u8, owner: &str) {
    let (session, low, batches) = (SessionId([number; 16]), RequestId(0), Vec::new());
    says(leader, number, owner, FromClient::Attach { session, low, batches });
}

fn attaches(leader: &mut Leader, number: u8, owner: &str, job: JobId) -> Vec<ToClient> {
    let request = RequestId(0);
    told(&says(leader, number, owner, FromClient::AttachJob { request, job }))
}

/// Ann leaves, in order.
fn leaves(leader: &mut Leader) {
    leader.client(FromClient::Detach);
}

/// The same value for each task.
fn value_of(range: TaskRange, value: &[u8]) -> Bytes {
    let mut builder = SegmentBuilder::new(0);
    (0..range.len()).for_each(|_| builder.push(DONE, std::iter::once(value)));
    builder.finish()
}

fn refusal(said: &[ToClient]) -> &str {
    let [ToClient::Refused { batch: None, request: Some(_), reason }] = said else {
        panic!("{said:?}")
    };
    reason
}

#[test]
fn it_goes_on_and_is_read_by_whoever_attaches() {
    let mut leader = detached();
    leader.done(1, attempt(0), task(0, 0));
    leaves(&mut leader);
    assert!(!leader.state.batches.is_empty(), "it goes on");
    let more = leader.done(1, attempt(1), task(0, 1));
    assert_eq!(delivered(&more), [], "nobody is there");
    comes(&mut leader, 7, "ann");
    let said = attaches(&mut leader, 7, "ann", JOB);
    let [ToClient::JobAttached { job: JOB, name, batches, more: false, .. }] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    let tasks: Vec<_> = batches.iter().map(|named| (named.batch, named.tasks)).collect();
    assert_eq!((name.as_str(), tasks), ("nightly", vec![(batch(0), 4), (batch(1), 1)]));
    assert_eq!(delivered(&leader.done(1, attempt(2), task(0, 2))), [], "it has not said so");
    let read = says(&mut leader, 7, "ann", FromClient::Read(vec![(batch(0), 0)]));
    let all = [(0, range(0, 1)), (1, range(1, 2)), (2, range(2, 3))];
    assert_eq!(delivered(&read), all);
    // The same question may come twice; the second answer changes nothing.
    assert!(matches!(attaches(&mut leader, 7, "ann", JOB)[..], [ToClient::JobAttached { .. }]));
    let last = leader.done(1, attempt(3), task(0, 3));
    assert_eq!(delivered(&last), [(3, range(3, 4))], "and what comes");
    // It is all there for the next one, also after the batch is done with, and for another leader.
    says(&mut leader, 7, "ann", FromClient::Acknowledge(vec![(batch(0), DONE_WITH_BATCH)]));
    says(&mut leader, 7, "ann", FromClient::Detach);
    let mut leader = leader.succeed();
    comes(&mut leader, 8, "ann");
    attaches(&mut leader, 8, "ann", JOB);
    let read = says(&mut leader, 8, "ann", FromClient::Read(vec![(batch(0), 2), (batch(1), 0)]));
    assert_eq!(delivered(&read), [(2, range(2, 3)), (3, range(3, 4))], "from there on");
}

#[test]
fn only_the_same_identity_attaches_and_only_when_nobody_is() {
    let mut leader = detached();
    for (number, owner) in [(7, "ann"), (8, "bob")] {
        comes(&mut leader, number, owner);
    }
    let attached = attaches(&mut leader, 7, "ann", JOB);
    assert!(refusal(&attached).contains("attached to another client"));
    leaves(&mut leader);
    for (job, says) in
        [(JOB, "another identity"), (JobId(9), "does not exist"), (JobId(0), "forgotten")]
    {
        let refused = attaches(&mut leader, 8, "bob", job);
        assert!(refusal(&refused).contains(says), "{job}: {refused:?}");
    }
    let read = says(&mut leader, 8, "bob", FromClient::Read(vec![(batch(0), 0)]));
    assert_eq!((delivered(&read), told(&read)), (vec![], vec![]));
    assert_eq!(told(&says(&mut leader, 8, "bob", FromClient::LookAtJob(JOB))), []);
    assert!(matches!(attaches(&mut leader, 7, "ann", JOB)[..], [ToClient::JobAttached { .. }]));
    let seen = told(&says(&mut leader, 7, "ann", FromClient::LookAtJob(JOB)));
    let [ToClient::JobSeen(summary)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((summary.tasks, summary.ended, summary.batches), (5, 0, 2));
}

#[test]
fn one_that_is_cancelled_ends_for_its_reader() {
    let mut leader = detached();
    leader.done(1, attempt(0), task(0, 0));
    leaves(&mut leader);
    comes(&mut leader, 7, "ann");
    attaches(&mut leader, 7, "ann", JOB);
    says(&mut leader, 7, "ann", FromClient::Read(vec![(batch(0), 0)]));
    let reason = "enough".to_owned();
    let ended = told(&says(&mut leader, 7, "ann", FromClient::CancelJob { job: JOB, reason }));
    let rest = ended.iter().find_map(|message| match message {
        ToClient::Ended { batch: id, segments: 1, rest } if *id == batch(0) => rest.clone(),
        _ => None,
    });
    assert!(rest.is_some_and(|rest| rest.cause.to_string().contains("enough")), "{ended:?}");
}

#[test]
fn one_that_is_over_is_kept_for_so_long_after_its_last_reader() {
    let mut leader = detached();
    leaves(&mut leader);
    leader.live(&[1], 2 * RETENTION_MS);
    assert_eq!(leader.state.batches.len(), 2, "it is not over");
    for number in 0..4 {
        leader.done(1, attempt(u64::from(number)), task(0, number));
    }
    leader.done(1, attempt(4), task(1, 0));
    leader.live(&[1], RETENTION_MS - 1000);
    comes(&mut leader, 7, "ann");
    attaches(&mut leader, 7, "ann", JOB);
    for _ in 0..12 {
        leader.live(&[1], 10_000);
        says(&mut leader, 7, "ann", FromClient::Alive);
    }
    assert_eq!(leader.state.batches.len(), 2, "somebody reads it");
    says(&mut leader, 7, "ann", FromClient::Detach);
    leader.live(&[1], RETENTION_MS - 1000);
    assert_eq!(leader.state.batches.len(), 2);
    leader.live(&[1], 2000);
    assert!(leader.state.batches.is_empty() && !leader.state.jobs.contains_key(&JOB));
    comes(&mut leader, 7, "ann");
    let refused = attaches(&mut leader, 7, "ann", JOB);
    assert!(refusal(&refused).contains("is over and forgotten"), "{refused:?}");
}

#[test]
fn results_that_nobody_reads_hold_up_nothing() {
    let mut leader = Leader::with_workers(1, 1);
    let (request, name, detached) = (RequestId(1), "nightly".into(), Some(RETENTION_MS));
    leader.client(FromClient::OpenJob { request, program: program(), name, detached });
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    let mut given = runs(&leader.submit_in(JOB, 0, 300, policy));
    leaves(&mut leader);
    let (mut made, long) = (0u64, vec![0; 1 << 20]);
    while let Some((worker, attempt, range)) = given.pop() {
        let how = How::Ran {
            segment: value_of(range, &long).into(),
            run_us: 1_000_000,
            mentions: Vec::new(),
        };
        given.extend(runs(&leader.end(worker, attempt, 0, range, how)));
        made += 1;
    }
    assert!(made == 300 && made << 20 > UNREAD_BYTES_MAX);
}

#[test]
fn one_whose_last_task_to_end_was_called_by_another_is_forgotten_too() {
    let mut leader = detached();
    let parent = task(1, 0);
    for number in 0..4 {
        leader.done(1, attempt(number), task(0, number as u32));
    }
    leader.call(1, vec![call(parent, attempt(4), 0)]);
    leader.done(1, attempt(4), parent);
    leaves(&mut leader);
    leader.live(&[1], 2 * RETENTION_MS);
    assert!(leader.state.jobs.contains_key(&JOB), "its call is not over");
    leader.done(1, attempt(5), child(parent, 0));
    leader.live(&[1], RETENTION_MS - 1000);
    assert!(leader.state.jobs.contains_key(&JOB));
    leader.live(&[1], 2000);
    assert!(!leader.state.jobs.contains_key(&JOB));
}

#[test]
fn one_that_somebody_leaves_just_when_its_time_is_over_is_kept_for_as_long_again() {
    let mut leader = detached();
    (0..4).for_each(|index| _ = leader.done(1, attempt(u64::from(index)), task(0, index)));
    leader.done(1, attempt(4), task(1, 0));
    comes(&mut leader, 7, "ann");
    leaves(&mut leader);
    for _ in 0..RETENTION_MS / 10_000 {
        leader.live(&[1], 9_999);
        says(&mut leader, 7, "ann", FromClient::Alive);
    }
    leader.slow = true;
    attaches(&mut leader, 7, "ann", JOB);
    says(&mut leader, 7, "ann", FromClient::Detach);
    leader.wait(1000);
    let expires = matches!(leader.proposed.last(), Some(Command::ExpireJob { job: JOB }));
    assert!(expires, "before it has heard of that: {:?}", leader.proposed);
    leader.commit();
    assert!(leader.state.jobs.contains_key(&JOB));
    leader.slow = false;
    leader.live(&[1], RETENTION_MS + 1000);
    assert!(!leader.state.jobs.contains_key(&JOB));
}

#[test]
fn who_has_read_all_is_told_nothing_again() {
    let mut leader = detached();
    leader.done(1, attempt(4), task(1, 0));
    let done = (batch(1), DONE_WITH_BATCH);
    assert_eq!(delivered(&leader.client(FromClient::Acknowledge(vec![done]))), []);
    let mut leader = leader.succeed();
    leader.attach(&[(batch(0), 0)]);
    let again = leader.client(FromClient::Acknowledge(vec![done]));
    assert_eq!((delivered(&again), told(&again)), (vec![], vec![]));
}

#[test]
fn what_ends_as_somebody_attaches_is_not_his_before_he_reads() {
    let mut leader = detached();
    leader.done(1, attempt(0), task(0, 0));
    leaves(&mut leader);
    comes(&mut leader, 7, "ann");
    leader.slow = true;
    leader.done(1, attempt(1), task(0, 1));
    attaches(&mut leader, 7, "ann", JOB);
    assert_eq!(delivered(&leader.commit()), []);
    let read = says(&mut leader, 7, "ann", FromClient::Read(vec![(batch(0), 0)]));
    assert_eq!(delivered(&read), [(0, range(0, 1)), (1, range(1, 2))]);
}
