//! The core against a small model of a cluster: three coordinators that share what is committed, of
//! which one leads.

mod keeps;
mod kept;
mod model;
mod needs;
mod visits;
mod wants;

use allhands_common::execution::Mention;
use allhands_common::failure::{Cause, Failed};
use allhands_common::frame::Message;
use allhands_common::limit::{BLOB_NEWS_MAX, SEGMENT_BYTES_MAX, SUBMIT_BYTES_MAX};
use allhands_common::policy::Policy;
use allhands_common::program::{Platform, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::role::Role;
use allhands_common::wire::client::{Appended, DONE_WITH_BATCH, ToClient};
use allhands_common::wire::data::{Holder, Node};
use proptest::prelude::*;

use super::*;
use crate::session::names::Names;
use model::{Model, Step as Do};

fn config() -> Config {
    let platform = Platform { arch: "a".into(), os: "o".into(), glibc: None };
    let program = Program { id: ProgramId([1; 32]), bytes: 9, platform, name: "p".into() };
    Config {
        cluster: ClusterId([1; 16]),
        session: SessionId([2; 16]),
        program,
        name: "p".into(),
        purpose: Purpose::Attached,
        patience: Duration::from_secs(30),
        batches_max: BATCHES_MAX,
    }
}

fn spec() -> BatchSpec {
    BatchSpec {
        name: "b".into(),
        functions: Vec::new(),
        policy: Policy::default(),
        env: Vec::new(),
    }
}

const LEADER: Peer = Peer(0);

/// A core, its clock, and what it did last.
struct Bench {
    core: Core,
    names: Names,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let Config { cluster, session, .. } = config();
        let names = Names::new(cluster, session);
        Self { core: Core::new(config(), Instant(0)), names, now: Instant(0) }
    }

    fn attached() -> Self {
        let mut bench = Self::new();
        bench.attach();
        bench
    }

    /// The leader takes the session.
    fn attach(&mut self) -> Vec<Action> {
        self.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
        self.hear(ToClient::Attached { term: Term(1), batches: Vec::new(), slots: 2 })
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.core.handle(self.now, [event], &mut out);
        out
    }

    fn hear(&mut self, message: ToClient) -> Vec<Action> {
        self.step(Event::Said { peer: LEADER, message })
    }

    fn open(&mut self) -> (BatchId, Vec<Action>) {
        let (batch, sequence) = self.names.next();
        (
            batch,
            self.step(Event::Open {
                batch,
                sequence,
                call: sequence,
                spec: spec().into(),
                context: Bytes::new(),
                kept: false,
            }),
        )
    }

    /// A batch of one task, committed.
    fn one_task(&mut self) -> BatchId {
        let (batch, _) = self.open();
        self.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
        self.step(Event::Append {
            batch,
            tasks: 1,
            segment: Bytes::from_static(b"arg"),
            mentions: Vec::new(),
            needs: None,
        });
        self.step(Event::Seal { batch });
        self.hear(appended(batch, 1, true));
        batch
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.step(Event::Tick)
    }
}

fn said(actions: &[Action]) -> Vec<&FromClient> {
    let messages = actions.iter().filter_map(|action| match action {
        Action::Send { message, .. } => Some(message),
        _ => None,
    });
    messages.collect()
}

fn outcomes(batch: BatchId, sequence: u32, range: TaskRange) -> ToClient {
    let segment = Bytes::from_static(b"out").into();
    ToClient::Outcomes { batch, sequence, range, segment, last: false }
}

fn appended(batch: BatchId, tasks: u32, sealed: bool) -> ToClient {
    ToClient::Appended(vec![Appended { batch, tasks, sealed }])
}

#[test]
fn what_is_offered_is_said_again_to_each_leader() {
    let mut bench = Bench::new();
    let blob = |number| BlobId([number; 32]);
    let offer =
        |blobs: &[u8]| FromClient::Offer { blobs: blobs.iter().map(|n| blob(*n)).collect() };
    assert_eq!(bench.step(Event::Offer { blobs: vec![blob(1)] }), []);
    bench.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
    let attached = |term| ToClient::Attached { term: Term(term), batches: Vec::new(), slots: 2 };
    assert_eq!(said(&bench.hear(attached(1))), [&offer(&[1])]);
    assert_eq!(said(&bench.step(Event::Offer { blobs: vec![blob(1), blob(2)] })), [&offer(&[2])]);
    let actions = bench.step(Event::Withdraw { blobs: vec![blob(1), blob(3)] });
    assert_eq!(said(&actions), [&FromClient::Withdraw { blobs: vec![blob(1)] }]);
    assert_eq!(said(&bench.hear(attached(2))), [&offer(&[2])]);

    let node = Node { role: Role::Worker, name: "w".into() };
    let by = Holder { node, addresses: Vec::new() };
    let wanted = |number| ToClient::Wanted { blob: blob(number), by: by.clone() };
    let actions = bench.hear(wanted(2));
    assert_eq!(actions, [Action::Wanted { blob: blob(2), by: by.clone() }]);
    assert_eq!(bench.hear(wanted(1)), [], "it is withdrawn");

    let many = (0..BLOB_NEWS_MAX + 1).map(|number| {
        let mut id = [9; 32];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        BlobId(id)
    });
    let actions = bench.step(Event::Offer { blobs: many.collect() });
    assert_eq!(said(&actions).len(), 2);
}

#[test]
fn the_first_batch_opens_the_job_and_everything_follows_in_order() {
    let mut bench = Bench::attached();
    let (batch, actions) = bench.open();
    assert!(matches!(said(&actions)[..], [FromClient::OpenJob { request: RequestId(0), .. }]));
    bench.step(Event::Append {
        batch,
        tasks: 3,
        segment: Bytes::from_static(b"abc"),
        mentions: Vec::new(),
        needs: None,
    });
    assert_eq!(bench.step(Event::Seal { batch }), []);
    let actions = bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    assert!(matches!(
        said(&actions)[..],
        [FromClient::OpenBatch { sequence: 0, job: JobId(7), tasks: 3, sealed: true, .. }]
    ));
}

#[test]
fn outcomes_are_handed_on_once_and_in_order() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    let range = |index| TaskRange::new(index, index + 1);
    let deliver =
        |index| Action::Deliver { batch, range: range(index), segment: Bytes::from_static(b"out") };
    assert_eq!(bench.hear(outcomes(batch, 1, range(1))), []);
    assert_eq!(bench.hear(outcomes(batch, 0, range(0))), [deliver(0), deliver(1)]);
    assert_eq!(bench.hear(outcomes(batch, 0, range(0))), []);
    assert_eq!(bench.hear(outcomes(batch, 1, range(1))), []);
    let end = Action::End { batch, end: End::Complete { rest: None } };
    assert_eq!(bench.hear(ToClient::Ended { batch, segments: 2, rest: None }), [end]);
    assert_eq!(bench.hear(ToClient::Ended { batch, segments: 2, rest: None }), []);
}

#[test]
fn the_end_waits_for_what_comes_before_it() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    let cause = Cause::DeadlinePassed { limit_ms: 1 };
    let rest = Some(Failed { cause, worker: None, attempt: None, tries: 0 });
    assert_eq!(bench.hear(ToClient::Ended { batch, segments: 1, rest: rest.clone() }), []);
    let actions = bench.hear(outcomes(batch, 0, TaskRange::new(0, 1)));
    assert_eq!(actions[1], Action::End { batch, end: End::Complete { rest } });
}

#[test]
fn a_new_leader_is_told_what_it_does_not_know() {
    let mut bench = Bench::attached();
    let (batch, _) = bench.open();
    bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    for _ in 0..3 {
        bench.step(Event::Append {
            batch,
            tasks: 2,
            segment: Bytes::from_static(b"ab"),
            mentions: Vec::new(),
            needs: None,
        });
    }
    bench.step(Event::Seal { batch });
    bench.hear(appended(batch, 2, false));
    let actions = bench.step(Event::LinkUp { peer: Peer(1), coordinator: Some(CoordinatorId(2)) });
    assert!(matches!(said(&actions)[..], [FromClient::Attach { .. }]));

    let news = ToClient::Leader { term: Term(2), leader: CoordinatorId(2) };
    let actions = bench.hear(news);
    let expected = FromClient::Attach {
        session: SessionId([2; 16]),
        low: RequestId(1),
        batches: vec![(batch, 0)],
    };
    assert_eq!(actions, [Action::Send { peer: Peer(1), message: expected }]);

    let message = ToClient::Attached { term: Term(2), batches: vec![(batch, 4)], slots: 2 };
    let actions = bench.step(Event::Said { peer: Peer(1), message });
    assert!(matches!(
        said(&actions)[..],
        [FromClient::Append { first: 4, tasks: 2, .. }, FromClient::Seal { tasks: 6, .. }]
    ));
    // What the deposed one still says of the view it had is no news.
    let late = ToClient::Attached { term: Term(1), batches: Vec::new(), slots: 2 };
    assert_eq!(bench.hear(late), []);
}

#[test]
fn credit_bounds_what_is_said_and_not_committed() {
    let mut bench = Bench::attached();
    let (batch, _) = bench.open();
    bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    let big = Bytes::from(vec![0; SUBMIT_BYTES_MAX / 2 - 1024]);
    let mut sent = 0;
    for _ in 0..4 {
        sent += said(&bench.step(Event::Append {
            batch,
            tasks: 1,
            segment: big.clone(),
            mentions: Vec::new(),
            needs: None,
        }))
        .len();
    }
    assert_eq!(sent, 2);
    let actions = bench.hear(appended(batch, 1, false));
    assert!(matches!(said(&actions)[..], [FromClient::Append { first: 2, .. }]));
}

#[test]
fn a_context_and_the_first_segment_fit_an_entry_or_go_one_by_one() {
    for (context, tasks_with_it) in [(SEGMENT_BYTES_MAX / 2, 1), (SEGMENT_BYTES_MAX / 2 + 1, 0)] {
        let mut bench = Bench::attached();
        let (batch, sequence) = bench.names.next();
        let context = Bytes::from(vec![0; context]);
        bench.step(Event::Open {
            batch,
            sequence,
            call: sequence,
            spec: spec().into(),
            context,
            kept: false,
        });
        let segment = Bytes::from(vec![0; SEGMENT_BYTES_MAX / 2]);
        bench.step(Event::Append { batch, tasks: 1, segment, mentions: Vec::new(), needs: None });
        bench.step(Event::Seal { batch });
        let actions = bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
        match said(&actions)[..] {
            [FromClient::OpenBatch { tasks: 1, sealed: true, .. }] => assert_eq!(tasks_with_it, 1),
            [
                FromClient::OpenBatch { tasks: 0, sealed: false, .. },
                FromClient::Append { first: 0, tasks: 1, .. },
                FromClient::Seal { tasks: 1, .. },
            ] => assert_eq!(tasks_with_it, 0),
            _ => panic!("{} messages", actions.len()),
        }
    }
}

#[test]
fn a_leader_is_told_of_as_many_batches_as_an_attach_can_name() {
    let mut bench = Bench::attached();
    bench.one_task();
    let opened = |actions: &[Action]| -> Vec<u32> {
        let sequence = |message: &FromClient| match message {
            FromClient::OpenBatch { sequence, .. } => Some(*sequence),
            _ => None,
        };
        said(actions).into_iter().filter_map(sequence).collect()
    };
    let batches: Vec<BatchId> = (0..BATCHES_MAX + 2).map(|_| bench.open().0).collect();
    // The first task's batch is one of them, so three wait. What was said goes on.
    let actions = bench.step(Event::Seal { batch: batches[0] });
    assert!(matches!(said(&actions)[..], [FromClient::Seal { .. }]));
    let actions = bench.step(Event::LinkUp { peer: Peer(1), coordinator: Some(CoordinatorId(2)) });
    let [attach @ FromClient::Attach { batches: named, .. }] = said(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(named.len(), BATCHES_MAX);
    let mut head = Vec::new();
    allhands_common::codec::encode(attach, &mut head).unwrap();
    let room = BATCHES_MAX * size_of::<u32>();
    assert!(head.len() + room <= FromClient::KIND.head_bytes_max() as usize, "{}", head.len());

    // One that waited and is not wanted any more does not cost another its turn.
    bench.step(Event::Cancel { batch: batches[BATCHES_MAX - 1], reason: "unwanted".into() });
    let ended = |batch| ToClient::Ended { batch, segments: 0, rest: None };
    let next = BATCHES_MAX as u32 + 1;
    assert_eq!(opened(&bench.hear(ended(batches[0]))), [next]);
    assert_eq!(opened(&bench.hear(ended(batches[1]))), [next + 1]);
    assert!(opened(&bench.hear(ended(batches[2]))).is_empty());
}

#[test]
fn without_a_leader_patience_ends_and_the_batch_is_cancelled_later() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    bench.step(Event::LinkDown { peer: LEADER });
    assert_eq!(bench.core.next_deadline(), Some(Instant(30_000_000)));
    assert_eq!(bench.pass(Duration::from_secs(29)), []);
    let end = End::Leaderless(Duration::from_secs(30));
    assert_eq!(bench.pass(Duration::from_secs(1)), [Action::End { batch, end }]);
    assert_eq!(bench.core.next_deadline(), None);

    bench.step(Event::LinkUp { peer: LEADER, coordinator: None });
    let view = ToClient::Attached { term: Term(1), batches: vec![(batch, 1)], slots: 2 };
    let actions = bench.hear(view);
    assert!(matches!(said(&actions)[..], [FromClient::Cancel { .. }]));
    bench.hear(ToClient::Ended { batch, segments: 0, rest: None });
    assert!(matches!(
        said(&bench.pass(HEARTBEAT))[..],
        [FromClient::Acknowledge(batches)] if batches[..] == [(batch, DONE_WITH_BATCH)]
    ));
    assert!(bench.core.batches.is_empty());
}

#[test]
fn without_a_leader_a_deadline_is_kept_here() {
    let mut bench = Bench::attached();
    let other = bench.one_task();
    let (batch, sequence) = bench.names.next();
    let policy = Policy { deadline_ms: Some(1500), ..Policy::default() };
    let spec = BatchSpec { policy, ..spec() }.into();
    let context = Bytes::new();
    bench.step(Event::Open { batch, sequence, call: sequence, spec, context, kept: false });
    bench.pass(Duration::from_millis(500));
    bench.step(Event::LinkDown { peer: LEADER });
    assert_eq!(bench.core.next_deadline(), Some(Instant(1_500_000)));
    assert_eq!(bench.pass(Duration::from_millis(999)), []);
    let cause = Cause::DeadlinePassed { limit_ms: 1500 };
    let rest = Some(Failed { cause, worker: None, attempt: None, tries: 0 });
    let end = Action::End { batch, end: End::Complete { rest } };
    assert_eq!(bench.pass(Duration::from_millis(1)), [end]);
    // Who has set none waits on.
    assert_eq!(bench.core.next_deadline(), Some(Instant(30_500_000)));

    let view =
        ToClient::Attached { term: Term(2), batches: vec![(batch, 0), (other, 1)], slots: 2 };
    bench.step(Event::LinkUp { peer: LEADER, coordinator: None });
    let actions = bench.hear(view);
    let cancels = |message: &&FromClient| matches!(message, FromClient::Cancel { .. });
    assert_eq!(said(&actions).into_iter().filter(cancels).count(), 1);
}

#[test]
fn without_a_leader_nobody_is_woken_for_what_is_over() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    bench.hear(outcomes(batch, 0, TaskRange::new(0, 1)));
    bench.hear(ToClient::Ended { batch, segments: 1, rest: None });
    bench.step(Event::LinkDown { peer: LEADER });
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn patience_ends_before_a_later_deadline() {
    let mut bench = Bench::attached();
    let (batch, sequence) = bench.names.next();
    let policy = Policy { deadline_ms: Some(40_000), ..Policy::default() };
    let spec = BatchSpec { policy, ..spec() }.into();
    let context = Bytes::new();
    bench.step(Event::Open { batch, sequence, call: sequence, spec, context, kept: false });
    bench.step(Event::LinkDown { peer: LEADER });
    let end = End::Leaderless(Duration::from_secs(30));
    assert_eq!(bench.pass(Duration::from_secs(30)), [Action::End { batch, end }]);
}

#[test]
fn silence_is_broken_by_a_heartbeat() {
    let mut bench = Bench::attached();
    bench.one_task();
    assert_eq!(bench.pass(Duration::from_millis(HEARTBEAT_MS - 1)), []);
    let actions = bench.pass(Duration::from_millis(1));
    assert!(matches!(said(&actions)[..], [FromClient::Alive]));
}

#[test]
fn who_waits_for_a_first_worker_is_told_once() {
    let mut bench = Bench::attached();
    bench.hear(ToClient::Slots { slots: 0 });
    let told = |bench: &mut Bench, time| bench.pass(time).contains(&Action::NoWorkers);
    assert!(!told(&mut bench, Duration::from_secs(9)), "nobody waits");
    bench.one_task();
    assert!(!told(&mut bench, WORKLESS - Duration::from_millis(1)));
    assert!(told(&mut bench, Duration::from_millis(1)));
    assert!(!told(&mut bench, WORKLESS));

    let mut bench = Bench::attached();
    bench.one_task();
    bench.hear(ToClient::Slots { slots: 0 });
    bench.hear(ToClient::Slots { slots: 1 });
    assert!(!told(&mut bench, WORKLESS));
}

#[test]
fn an_expired_session_ends_its_batches_and_begins_another_stay() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    let actions = bench.hear(ToClient::SessionExpired);
    assert_eq!(actions[0], Action::End { batch, end: End::Expired });
    let [FromClient::Attach { session, low, batches }] = said(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_ne!(*session, SessionId([2; 16]));
    assert_eq!((*low, batches.len()), (RequestId(0), 0), "who has heard nothing names nothing");
    bench.attach();
    bench.open();
    bench.hear(ToClient::JobOpened { request: RequestId(1), job: JobId(8) });
    let actions = bench.step(Event::LinkUp { peer: LEADER, coordinator: None });
    assert!(matches!(said(&actions)[..], [FromClient::Attach { low: RequestId(2), .. }]));
}

#[test]
fn a_refusal_ends_what_it_names() {
    let mut bench = Bench::attached();
    let (batch, _) = bench.open();
    let refused = ToClient::Refused {
        batch: None,
        request: Some(RequestId(0)),
        reason: "needs glibc 9.9".into(),
    };
    let end = End::ProgramRefused("needs glibc 9.9".into());
    assert_eq!(bench.hear(refused), [Action::End { batch, end }]);
    // The next call asks again, by another number: an operator may have helped.
    let (_, actions) = bench.open();
    assert!(matches!(said(&actions)[..], [FromClient::OpenJob { request: RequestId(1), .. }]));
}

/// Of a batch that the cluster does not take all of.
fn refused(batch: Option<BatchId>) -> ToClient {
    ToClient::Refused { batch, request: None, reason: "too long".into() }
}

#[test]
fn what_is_refused_in_part_is_cancelled_at_the_cluster() {
    for named in [true, false] {
        let mut bench = Bench::attached();
        let (batch, _) = bench.open();
        bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
        bench.step(Event::Append {
            batch,
            tasks: 1,
            segment: Bytes::from_static(b"a"),
            mentions: Vec::new(),
            needs: None,
        });
        bench.hear(appended(batch, 1, false));
        bench.step(Event::Append {
            batch,
            tasks: 1,
            segment: Bytes::from_static(b"b"),
            mentions: Vec::new(),
            needs: None,
        });
        let refusal = refused(named.then_some(batch));
        let actions = bench.hear(refusal.clone());
        assert_eq!(actions[0], Action::End { batch, end: End::Refused("too long".into()) });
        assert!(matches!(said(&actions)[..], [FromClient::Cancel { .. }]), "{actions:?}");
        assert_eq!(bench.hear(refusal), []);

        // A new leader is told as well, and nothing of it again, until it says that it is over.
        let view = ToClient::Attached { term: Term(2), batches: vec![(batch, 1)], slots: 2 };
        assert!(matches!(said(&bench.hear(view))[..], [FromClient::Cancel { .. }]));
        bench.hear(ToClient::Ended { batch, segments: 0, rest: None });
        assert!(matches!(
            said(&bench.pass(HEARTBEAT))[..],
            [FromClient::Acknowledge(batches)] if batches[..] == [(batch, DONE_WITH_BATCH)]
        ));
        assert!(bench.core.batches.is_empty());
        assert_eq!((bench.core.said_bytes, bench.core.open_batches), (0, 0));
    }
}

#[test]
fn what_was_never_opened_need_not_be_cancelled() {
    let mut bench = Bench::attached();
    let (batch, _) = bench.open();
    bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    let end = Action::End { batch, end: End::Refused("too long".into()) };
    assert_eq!(bench.hear(refused(Some(batch))), [end]);
    assert!(bench.core.batches.is_empty());
    assert_eq!(bench.core.open_batches, 0);
}

#[test]
fn a_batch_that_the_leader_does_not_know_when_asked_is_lost() {
    let mut bench = Bench::attached();
    let batch = bench.one_task();
    // This may answer an attach of before the batch: it is asked again.
    let view = ToClient::Attached { term: Term(2), batches: Vec::new(), slots: 2 };
    assert_eq!(bench.hear(view.clone()), [Action::Slots(2)]);
    let actions = bench.pass(HEARTBEAT);
    assert!(matches!(
        said(&actions)[..],
        [FromClient::Alive, FromClient::Attach { batches, .. }] if batches.len() == 1
    ));
    bench.pass(speak::DOUBT);
    assert!(bench.hear(view).contains(&Action::End { batch, end: End::Forgotten }));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Links that fall, leaders that change, messages that come twice: every task's outcome is handed
    /// on once, every batch ends once, and in the end nobody owes anything.
    #[test]
    fn every_outcome_once_whatever_happens(steps in prop::collection::vec(any::<Do>(), 1..250)) {
        let config = Config { batches_max: 3, ..config() };
        let mut model = Model::new(Core::new(config, Instant(0)));
        for step in steps {
            model.step(step);
        }
        model.settle();
        model.verify();
    }
}
