//! A real agent whose tasks call others and wait for them.

use std::time::Duration;

use allhands_common::bulk::Bulk;
use allhands_common::execution::Given;
use allhands_common::id::{ExecutorId, JobId, TaskId, Term};
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{
    ChildCall, Ended, FromWorker, How, Order, Run, Shared, ToWorker,
};
use allhands_scheduler::{AgentAction, AgentEvent, ExecutorEvent};
use bytes::Bytes;

use crate::support::*;

const EXECUTOR: ExecutorId = ExecutorId(0);

/// A worker of one slot, registered; it runs the four tasks of batch 0 as attempt 0.
fn working(policy: Policy) -> TestWorker {
    let mut worker = TestWorker::new(1);
    register(&mut worker, 1);
    order(&mut worker, 1, 1, vec![shared(0, policy), run(0, 0, range(0, 4))]);
    assert_eq!(worker.loads.len(), 1);
    worker
}

fn register(worker: &mut TestWorker, term: u64) {
    let term = Term(term);
    worker.step(Instant(0), AgentEvent::Connected { term });
    worker.step(Instant(0), AgentEvent::Leader(ToWorker::Registered { term }));
    worker.sent.clear();
}

fn order(worker: &mut TestWorker, term: u64, number: u64, orders: Vec<Order>) {
    let message = ToWorker::Orders { term: Term(term), number, orders };
    worker.step(Instant(0), AgentEvent::Leader(message));
}

fn shared(sequence: u32, policy: Policy) -> Order {
    Order::Batch(Box::new(Shared {
        batch: batch(sequence),
        job: JobId(0),
        owner: "ann".into(),
        program: program(),
        spec: spec(policy).into(),
        context: Bulk::default(),
    }))
}

fn run(number: u64, sequence: u32, range: TaskRange) -> Order {
    Order::Run(Run {
        attempt: attempt(number),
        batch: batch(sequence),
        range,
        segments: vec![arguments(range).into()],
        threads: 1,
        alone: false,
        task_ns: None,
        given: Vec::new(),
        rounds: Vec::new(),
    })
}

fn hear(worker: &mut TestWorker, event: ExecutorEvent) {
    worker.step(Instant(0), AgentEvent::Executor(EXECUTOR, event));
    worker.agent.check().unwrap();
}

fn outcome(index: u32) -> ExecutorEvent {
    let (attempt, range) = (attempt(0), range(index, index + 1));
    let (segment, mentions) = (values(range), Vec::new());
    ExecutorEvent::Outcomes { attempt, range, segment, run_us: 1, mentions }
}

/// A task waits for its first call; what is behind it in its range comes back.
fn block(worker: &mut TestWorker, parent: TaskId) {
    let returned = range(parent.index + 1, 4);
    let on = vec![of(child(parent, 0))];
    let index = parent.index;
    hear(worker, ExecutorEvent::Blocked { attempt: attempt(0), index, on, returned, run_us: None });
    hear(worker, ExecutorEvent::Finished { attempt: attempt(0) });
}

/// What the worker has reported since it was last asked.
fn reported(worker: &mut TestWorker) -> Vec<Ended> {
    let sent = std::mem::take(&mut worker.sent).into_iter();
    let reports = sent.filter_map(|message| match message {
        FromWorker::Report { ended, .. } => Some(ended),
        _ => None,
    });
    reports.flatten().collect()
}

/// The calls among what it has said.
fn said(worker: &TestWorker) -> Vec<ChildCall> {
    let calls = worker.sent.iter().filter_map(|message| match message {
        FromWorker::Submit(calls) => Some(calls.clone()),
        _ => None,
    });
    calls.flatten().collect()
}

#[test]
fn an_outcome_waits_until_its_calls_are_committed() {
    let mut worker = working(Policy::default());
    let parent = task(0, 0);
    let calls: Vec<ChildCall> = (0..2).map(|number| call(parent, attempt(0), number)).collect();
    calls.iter().for_each(|one| hear(&mut worker, ExecutorEvent::Called(one.clone())));
    assert_eq!(said(&worker), calls);
    hear(&mut worker, outcome(0));
    hear(&mut worker, outcome(1));
    let mut ended: Vec<_> = reported(&mut worker).into_iter().map(|ended| ended.range).collect();
    assert_eq!(ended, [range(1, 2)], "the first has calls that nobody may have heard of");
    let opened = |number| Order::Opened { batch: child(parent, number).batch, attempt: attempt(0) };
    order(&mut worker, 1, 2, vec![opened(0)]);
    assert_eq!(reported(&mut worker), []);
    order(&mut worker, 1, 3, vec![opened(1)]);
    ended = reported(&mut worker).into_iter().map(|ended| ended.range).collect();
    assert_eq!(ended, [range(0, 1)]);
}

#[test]
fn two_attempts_that_call_the_same_are_answered_apart() {
    let mut worker = working(Policy::default());
    let parent = task(0, 0);
    hear(&mut worker, ExecutorEvent::Called(call(parent, attempt(0), 0)));
    order(&mut worker, 1, 2, vec![run(1, 0, range(0, 1))]);
    hear(&mut worker, ExecutorEvent::Called(call(parent, attempt(1), 0)));
    hear(&mut worker, outcome(0));
    assert_eq!(reported(&mut worker), []);
    let batch = child(parent, 0).batch;
    order(&mut worker, 1, 3, vec![Order::Opened { batch, attempt: attempt(1) }]);
    assert_eq!(reported(&mut worker), [], "that the other's is committed says nothing of this one");
    order(&mut worker, 1, 4, vec![Order::Opened { batch, attempt: attempt(0) }]);
    assert_eq!(reported(&mut worker).len(), 1);
}

#[test]
fn a_call_is_said_again_until_it_is_answered() {
    let mut worker = working(Policy::default());
    let one = call(task(0, 0), attempt(0), 0);
    hear(&mut worker, ExecutorEvent::Called(one.clone()));
    worker.sent.clear();
    let mut now = Instant(0);
    let mut silent = 0;
    while said(&worker).is_empty() {
        now = now + Duration::from_millis(250);
        worker.step(now, AgentEvent::Tick);
        silent += 1;
    }
    assert_eq!((silent, said(&worker)), (4, vec![one.clone()]), "heartbeats");
    register(&mut worker, 2);
    worker.step(now, AgentEvent::Leader(ToWorker::Registered { term: Term(2) }));
    assert_eq!(said(&worker), [one], "at once to a new leader");
}

#[test]
fn a_blocked_task_leaves_its_executor_to_others_and_goes_on_beside_them() {
    let mut worker = working(Policy::default());
    worker.loads.clear();
    let parent = task(0, 0);
    block(&mut worker, parent);
    let ends = reported(&mut worker);
    let waits = ended(attempt(0), batch(0), range(0, 1), blocked(&[child(parent, 0)]));
    assert_eq!(ends, [waits, ended(attempt(0), batch(0), range(1, 4), How::Returned)]);
    order(&mut worker, 1, 2, vec![run(1, 0, range(1, 4))]);
    assert_eq!(worker.loads.len(), 1, "on the same executor");
    let given = |task| Given { of: of(task), outcome: Bytes::new().into() };
    worker.other.clear();
    order(&mut worker, 1, 3, vec![Order::Give(given(task(9, 9)))]);
    assert_eq!(worker.other, [], "nobody here waits for that");
    let answer = given(child(parent, 0));
    order(&mut worker, 1, 4, vec![Order::Give(answer.clone())]);
    let expected = AgentAction::Give { executor: EXECUTOR, given: answer };
    assert_eq!(worker.other, [expected]);
    hear(&mut worker, ExecutorEvent::Resumed { attempt: attempt(0), index: 0 });
    hear(&mut worker, outcome(0));
    let hows: Vec<_> = reported(&mut worker).into_iter().map(|ended| ended.how).collect();
    assert!(matches!(hows.as_slice(), [How::Resumed, How::Ran { .. }]), "{hows:?}");
}

#[test]
fn an_inventory_says_who_waits_for_what() {
    let mut worker = working(Policy::default());
    let parent = task(0, 0);
    block(&mut worker, parent);
    worker.sent.clear();
    worker.step(Instant(1_000_000), AgentEvent::Tick);
    let held = worker.sent.iter().find_map(|message| match message {
        FromWorker::Heartbeat { held, .. } => Some(held.clone()),
        _ => None,
    });
    // Both since the beginning.
    let mut expected = held_blocked(attempt(0), parent, &[child(parent, 0)]);
    (expected.since_us, expected.blocked[0].since_us) = (1_000_000, 1_000_000);
    assert_eq!(held, Some(vec![expected]));
}

#[test]
fn what_waited_in_an_executor_that_died_is_run_again_and_its_callees_are_claimed_again() {
    let mut worker = working(Policy::default());
    worker.loads.clear();
    block(&mut worker, task(0, 0));
    reported(&mut worker);
    hear(&mut worker, ExecutorEvent::Died { running: Vec::new(), culprit: None, cause: death() });
    assert_eq!(reported(&mut worker), [], "it did not run");
    let again: Vec<_> = worker.loads.iter().map(|(id, load)| (*id, load.range)).collect();
    assert_eq!(again, [(ExecutorId(1), range(0, 1))]);
    worker.agent.check().unwrap();
}

#[test]
fn who_is_killed_with_a_cancelled_task_that_waits_is_innocent() {
    let mut worker = working(Policy::default());
    block(&mut worker, task(0, 0));
    order(&mut worker, 1, 2, vec![run(1, 0, range(1, 2))]);
    order(&mut worker, 1, 3, vec![Order::Cancel { attempt: attempt(0) }]);
    worker.step(Instant(2_000_000), AgentEvent::Tick);
    assert!(worker.other.contains(&AgentAction::Kill { executor: EXECUTOR }));
    reported(&mut worker);
    let running = vec![(attempt(1), 1)];
    hear(&mut worker, ExecutorEvent::Died { running, culprit: None, cause: death() });
    let ends = reported(&mut worker);
    assert_eq!(ends, [ended(attempt(0), batch(0), range(0, 1), How::Cancelled)]);
}

#[test]
fn a_worker_that_drains_does_not_wait_for_ever() {
    for idempotent in [true, false] {
        let mut worker = working(Policy { idempotent, ..Policy::default() });
        block(&mut worker, task(0, 0));
        worker.step(Instant(0), AgentEvent::Drain);
        worker.other.clear();
        worker.step(Instant(9_900_000), AgentEvent::Tick);
        assert!(!worker.other.contains(&AgentAction::Kill { executor: EXECUTOR }));
        worker.step(Instant(10_000_000), AgentEvent::Tick);
        let killed = worker.other.contains(&AgentAction::Kill { executor: EXECUTOR });
        assert_eq!(killed, idempotent, "what must not run twice is not given up");
        if killed {
            reported(&mut worker);
            let running = Vec::new();
            hear(&mut worker, ExecutorEvent::Died { running, culprit: None, cause: death() });
            let back = ended(attempt(0), batch(0), range(0, 1), How::Returned);
            assert_eq!(reported(&mut worker), [back]);
            assert!(worker.other.contains(&AgentAction::Exit));
        }
    }
}
