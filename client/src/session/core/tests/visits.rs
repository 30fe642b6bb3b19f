//! Jobs that go on without their client.

use allhands_common::limit::READING_MAX;
use allhands_common::wire::client::JobBatch;

use super::*;
use crate::session::core::Visited;

const JOB: JobId = JobId(7);

fn id(number: u8) -> BatchId {
    BatchId([number; 16])
}

fn bench(purpose: Purpose) -> Bench {
    let core = Core::new(Config { purpose, ..config() }, Instant(0));
    Bench { core, ..Bench::new() }
}

/// A session that is attached to a job of so many batches of two tasks.
fn visiting(batches: u8) -> Bench {
    let mut bench = bench(Purpose::Visit(JOB));
    let actions = bench.attach();
    let request = RequestId(0);
    assert!(said(&actions).contains(&&FromClient::AttachJob { request, job: JOB }));
    let named =
        |number| JobBatch { batch: id(number), name: "f".into(), returns: "u64".into(), tasks: 2 };
    let (first, rest) = (vec![named(0)], (1..batches).map(named).collect::<Vec<_>>());
    let attached = |batches, more| ToClient::JobAttached {
        request,
        job: JOB,
        name: "nightly".into(),
        batches,
        more,
    };
    assert_eq!(bench.hear(attached(first, true)), [], "others follow");
    let actions = bench.hear(attached(rest, false));
    let batches = (0..batches).map(named).collect();
    let visited = Visited { job: JOB, name: "nightly".into(), batches };
    assert_eq!(actions, [Action::JobOpen(visited)]);
    bench
}

fn reads(actions: &[Action]) -> Vec<(BatchId, u32)> {
    let read = said(actions).into_iter().filter_map(|message| match message {
        FromClient::Read(batches) => Some(batches.clone()),
        _ => None,
    });
    read.flatten().collect()
}

fn last(batch: BatchId, sequence: u32) -> ToClient {
    let (range, segment) = (TaskRange::new(sequence, sequence + 1), Bytes::from_static(b"out"));
    ToClient::Outcomes { batch, sequence, range, segment: segment.into(), last: true }
}

#[test]
fn some_batches_are_read_at_a_time_and_acknowledged() {
    let most = u8::try_from(READING_MAX).unwrap();
    let mut bench = visiting(most + 2);
    let all = (0..most + 2).map(id).collect();
    let first = reads(&bench.step(Event::Read { batches: all }));
    assert_eq!(first, (0..most).map(|number| (id(number), 0)).collect::<Vec<_>>());
    let early = bench.hear(last(id(3), 1));
    assert_eq!(early, [], "the first segment comes later");
    let came = bench.hear(outcomes(id(3), 0, TaskRange::new(0, 1)));
    let ended = Action::End { batch: id(3), end: End::Complete { rest: None } };
    assert!(matches!(came[..], [Action::Deliver { .. }, Action::Deliver { .. }, ..]));
    assert!(came.contains(&ended) && reads(&came).is_empty(), "nobody has taken them");
    let taken = bench.step(Event::Consumed { batch: id(3), segments: 2 });
    assert_eq!(reads(&taken), [(id(most), 0)]);
    bench.step(Event::Consumed { batch: id(4), segments: 1 });
    bench.hear(outcomes(id(4), 0, TaskRange::new(0, 1)));
    bench.step(Event::Consumed { batch: id(4), segments: 1 });
    let beat = bench.pass(HEARTBEAT);
    assert!(said(&beat).contains(&&FromClient::Acknowledge(vec![(id(4), 1)])), "{beat:?}");
}

#[test]
fn another_leader_and_another_stay_read_on() {
    let mut bench = visiting(2);
    bench.step(Event::Read { batches: vec![id(0), id(1)] });
    bench.hear(outcomes(id(0), 0, TaskRange::new(0, 1)));
    let on = [(id(0), 1), (id(1), 0)];
    bench.step(Event::LinkDown { peer: LEADER });
    let again = bench.attach();
    assert_eq!(reads(&again), on);
    let expired = bench.hear(ToClient::SessionExpired);
    assert!(!expired.iter().any(|action| matches!(action, Action::End { .. })), "{expired:?}");
    let attach = bench.hear(ToClient::Attached { term: Term(2), batches: Vec::new(), slots: 2 });
    let request = RequestId(1);
    assert!(said(&attach).contains(&&FromClient::AttachJob { request, job: JOB }), "{attach:?}");
    let (name, batches, more) = ("nightly".into(), Vec::new(), false);
    let attached = bench.hear(ToClient::JobAttached { request, job: JOB, name, batches, more });
    assert_eq!(reads(&attached), on);
    assert!(!attached.iter().any(|action| matches!(action, Action::JobOpen(_))), "it was told");
}

#[test]
fn what_cannot_be_had_is_said_once() {
    let mut bench = bench(Purpose::Visit(JOB));
    bench.attach();
    let reason = || "is over and forgotten".to_owned();
    let refused =
        || ToClient::Refused { batch: None, request: Some(RequestId(0)), reason: reason() };
    assert_eq!(bench.hear(refused()), [Action::JobRefused(reason())]);
    assert_eq!(bench.hear(refused()), []);
    let read = bench.step(Event::Read { batches: vec![id(0)] });
    assert_eq!(read, [Action::End { batch: id(0), end: End::Refused(reason()) }]);
}

#[test]
fn whoever_waits_is_told_when_nobody_leads() {
    let mut bench = visiting(2);
    bench.step(Event::Read { batches: vec![id(0), id(1)] });
    bench.step(Event::LinkDown { peer: LEADER });
    assert_eq!(bench.core.next_deadline(), Some(bench.now + config().patience));
    let given_up = bench.pass(config().patience);
    let ends = [0, 1]
        .map(|number| Action::End { batch: id(number), end: End::Leaderless(config().patience) });
    assert_eq!(given_up, ends);
}

#[test]
fn a_job_that_goes_on_is_opened_at_once_and_lost_with_its_lease() {
    let mut bench = bench(Purpose::Detached { retention_ms: 5 });
    let asked = bench.attach();
    let opens =
        |message: &&&FromClient| matches!(message, FromClient::OpenJob { detached: Some(5), .. });
    assert_eq!(said(&asked).iter().filter(opens).count(), 1);
    let opened = bench.hear(ToClient::JobOpened { request: RequestId(0), job: JOB });
    assert!(matches!(&opened[..], [Action::JobOpen(Visited { job: JOB, .. })]));
    let (batch, _) = bench.open();
    let expired = bench.hear(ToClient::SessionExpired);
    let ended = expired.iter().any(|a| matches!(a, Action::End { batch: id, .. } if *id == batch));
    let lost = |action: &&Action| matches!(action, Action::JobRefused(why) if why.contains("job 7 goes on"));
    assert!(ended && expired.iter().filter(lost).count() == 1, "{expired:?}");
    let attach = bench.hear(ToClient::Attached { term: Term(2), batches: Vec::new(), slots: 2 });
    assert_eq!(said(&attach).iter().filter(opens).count(), 0, "no second one");
    let (batch, actions) = bench.open();
    let refused = |action: &Action| matches!(action, Action::End { batch: id, end: End::Refused(_) } if *id == batch);
    assert!(actions.iter().any(refused), "{actions:?}");
}
