//! Kept batches, and outcomes that are asked for.

use allhands_common::execution::{Awaited, Given, Need};
use allhands_common::id::TaskId;

use super::*;

fn append(bench: &mut Bench, batch: BatchId, names: Option<TaskId>) -> Vec<Action> {
    let mentions = names.map(|on| Mention { index: 0, on, need: Need::Value });
    let (segment, mentions) = (Bytes::from_static(b"arg"), mentions.into_iter().collect());
    bench.step(Event::Append { batch, tasks: 1, segment, mentions, needs: None })
}

fn open(bench: &mut Bench) -> BatchId {
    let (batch, sequence) = bench.names.next();
    let (call, context) = (sequence, Bytes::new());
    bench.step(Event::Open { batch, sequence, call, spec: spec().into(), context, kept: true });
    batch
}

fn task(batch: BatchId, index: u32) -> TaskId {
    TaskId { batch, index }
}

/// Which batch each message is about, and whether it opens it.
fn order(actions: &[Action]) -> Vec<(BatchId, bool)> {
    let about = |message: &FromClient| match message {
        FromClient::OpenBatch { batch, kept: true, .. } => Some((*batch, true)),
        FromClient::Append { batch, .. } => Some((*batch, false)),
        _ => None,
    };
    said(actions).into_iter().filter_map(about).collect()
}

#[test]
fn segments_of_kept_batches_are_said_in_the_order_in_which_they_were_given() {
    let mut bench = Bench::attached();
    let (a, b) = (open(&mut bench), open(&mut bench));
    append(&mut bench, a, None);
    append(&mut bench, b, Some(task(a, 0)));
    append(&mut bench, a, Some(task(b, 0)));
    append(&mut bench, b, Some(task(a, 1)));
    let expected = [(a, true), (b, true), (a, false), (b, false)];
    let all = bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    assert_eq!(order(&all), expected);
    // Nothing of it is known to be committed: all of it again, in the same order.
    let again = bench.hear(ToClient::Attached { term: Term(2), batches: Vec::new(), slots: 2 });
    assert_eq!(order(&again), expected);
    // The next leader has the first of each.
    bench.hear(appended(a, 1, false));
    let rest =
        bench.hear(ToClient::Attached { term: Term(3), batches: vec![(a, 1), (b, 1)], slots: 2 });
    assert_eq!(order(&rest), [(a, false), (b, false)]);
    let seal = bench.step(Event::Seal { batch: a });
    assert!(matches!(said(&seal)[..], [FromClient::Seal { tasks: 2, .. }]));
}

#[test]
fn a_batch_that_names_what_was_not_said_waits_for_that() {
    let mut bench = Bench::attached();
    bench.one_task();
    let (plain, _) = bench.open();
    // The credit is used up by another, so that neither is said.
    let big = Bytes::from(vec![0; SUBMIT_BYTES_MAX - 2048]);
    let blocked = open(&mut bench);
    bench.step(Event::Append {
        batch: blocked,
        tasks: 1,
        segment: big.clone(),
        mentions: vec![],
        needs: None,
    });
    bench.step(Event::Append {
        batch: blocked,
        tasks: 1,
        segment: big,
        mentions: vec![],
        needs: None,
    });
    let actions = append(&mut bench, plain, Some(task(blocked, 1)));
    assert!(order(&actions).is_empty(), "{actions:?}");
    let actions = bench.hear(appended(blocked, 1, false));
    assert_eq!(order(&actions), [(blocked, false), (plain, false)]);
}

#[test]
fn a_kept_batch_is_done_with_once_it_is_over_and_released() {
    let done = |actions: &[Action], batch| {
        said(actions).iter().any(|message| match message {
            FromClient::Acknowledge(all) => all.contains(&(batch, DONE_WITH_BATCH)),
            _ => false,
        })
    };
    for released_first in [false, true] {
        let mut bench = Bench::attached();
        bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
        let batch = open(&mut bench);
        append(&mut bench, batch, None);
        bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
        bench.step(Event::Seal { batch });
        bench.hear(appended(batch, 1, true));
        if released_first {
            bench.step(Event::Release { batch });
        }
        bench.hear(outcomes(batch, 0, TaskRange::new(0, 1)));
        bench.step(Event::Consumed { batch, segments: 1 });
        bench.hear(ToClient::Ended { batch, segments: 1, rest: None });
        let mut actions = bench.pass(HEARTBEAT);
        assert_eq!(done(&actions, batch), released_first);
        if !released_first {
            bench.step(Event::Release { batch });
            actions = bench.pass(HEARTBEAT);
        }
        assert!(done(&actions, batch) && bench.core.batches.is_empty());
    }
}

#[test]
fn an_outcome_is_asked_for_once_its_task_is_known_and_of_each_leader() {
    let mut bench = Bench::attached();
    bench.one_task();
    let own = open(&mut bench);
    append(&mut bench, own, None);
    let foreign = Awaited { task: task(BatchId([5; 16]), 3), follow: false };
    let of_own = Awaited { task: task(own, 0), follow: true };
    let asked = |actions: &[Action]| -> Vec<Awaited> {
        let all = said(actions).into_iter().filter_map(|message| match message {
            FromClient::Await(all) => Some(all.clone()),
            _ => None,
        });
        all.flatten().collect()
    };
    assert_eq!(asked(&bench.step(Event::Await(vec![foreign, of_own]))), [foreign]);
    assert_eq!(asked(&bench.step(Event::Await(vec![foreign]))), []);
    assert_eq!(asked(&bench.hear(appended(own, 1, false))), [of_own]);
    let again = bench.hear(ToClient::Attached { term: Term(2), batches: vec![(own, 1)], slots: 2 });
    assert_eq!(asked(&again).len(), 2);
    let given = Given { of: foreign, outcome: Bytes::from_static(b"out").into() };
    let actions = bench.hear(ToClient::Given(vec![given.clone()]));
    assert_eq!(actions, [Action::Given(vec![given.clone()])]);
    // It comes twice after two leaders were asked.
    assert_eq!(bench.hear(ToClient::Given(vec![given])), []);
    let actions = bench.step(Event::Unawait(vec![of_own]));
    assert!(matches!(said(&actions)[..], [FromClient::Unawait(_)]));
    let again = bench.hear(ToClient::Attached { term: Term(3), batches: vec![(own, 1)], slots: 2 });
    assert_eq!(asked(&again), []);
}
