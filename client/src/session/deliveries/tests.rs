//! Outcomes that wait for long results: order, ends, bounds.

use allhands_common::failure::Cause;
use allhands_common::segment::SegmentBuilder;

use super::*;

const A: BatchId = BatchId([1; 16]);
const B: BatchId = BatchId([2; 16]);
const MIB: u64 = 1 << 20;

/// Results are their numbers.
type Queue = Deliveries<u8>;

/// Of which batch, the task and its results; none: the end.
type Shown = (BatchId, Option<(u32, Vec<u8>)>);

const fn id(number: u8) -> BlobId {
    BlobId([number; 32])
}

const fn named(number: u8, bytes: u64) -> BlobRef {
    BlobRef { id: id(number), bytes }
}

/// The `task`-th outcome of a batch names these results of 8 MiB.
fn add(queue: &mut Queue, batch: BatchId, task: u32, names: &[u8]) {
    let names = names.iter().map(|number| named(*number, 8 * MIB)).collect();
    let mut builder = SegmentBuilder::new(1);
    builder.push(0, std::iter::once(&[][..]));
    let segment = Segment::parse(builder.finish()).unwrap();
    queue.add(batch, TaskRange::new(task, task + 1), (segment, Vec::new()), names);
}

fn start(queue: &mut Queue) -> Vec<u8> {
    queue.start().into_iter().map(|reference| reference.id.0[0]).collect()
}

/// What may be delivered once a result is here: the task and its results, or the end.
fn here(queue: &mut Queue, number: u8) -> Vec<Shown> {
    shown(queue.fetched(id(number), &Ok(number)))
}

fn shown(deliveries: Vec<(BatchId, Delivery<u8>)>) -> Vec<Shown> {
    let show = |(batch, delivery)| match delivery {
        Delivery::Outcomes(ready) => {
            let stored = ready.stored.into_iter().map(|(_, result)| result.unwrap());
            (batch, Some((ready.range.start, stored.collect())))
        }
        Delivery::End(_) => (batch, None),
    };
    deliveries.into_iter().map(show).collect()
}

const COMPLETE: End = End::Complete { rest: None };

#[test]
fn outcomes_of_a_batch_stay_in_order_and_its_end_is_last() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1]);
    add(&mut queue, A, 1, &[]);
    add(&mut queue, A, 2, &[2]);
    add(&mut queue, A, 3, &[]);
    queue.end(A, COMPLETE);
    assert_eq!(start(&mut queue), [1, 2]);
    assert_eq!(here(&mut queue, 2), [], "it waits for those before it");
    let all = here(&mut queue, 1);
    let tasks = [(0, vec![1]), (1, vec![]), (2, vec![2]), (3, vec![])];
    let expected: Vec<_> =
        tasks.into_iter().map(|task| (A, Some(task))).chain([(A, None)]).collect();
    assert_eq!(all, expected);
    assert!(!queue.is_waiting(&A));
}

#[test]
fn one_batch_does_not_wait_for_another() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1]);
    assert!(queue.is_waiting(&A) && !queue.is_waiting(&B));
    add(&mut queue, B, 0, &[2]);
    assert_eq!(here(&mut queue, 2), [(B, Some((0, vec![2])))]);
    assert!(queue.is_waiting(&A) && !queue.is_waiting(&B));
}

#[test]
fn a_result_that_many_name_is_fetched_once() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1, 1]);
    add(&mut queue, A, 1, &[1, 2]);
    add(&mut queue, B, 0, &[1]);
    assert_eq!(start(&mut queue), [1, 2]);
    assert_eq!(here(&mut queue, 1), [(A, Some((0, vec![1]))), (B, Some((0, vec![1])))]);
    assert_eq!(here(&mut queue, 2), [(A, Some((1, vec![1, 2])))]);
    // And again, if it is named again.
    add(&mut queue, A, 2, &[1]);
    assert_eq!(start(&mut queue), [1]);
}

#[test]
fn what_cannot_be_had_delays_nobody() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1, 2]);
    here(&mut queue, 1);
    let why = Err("its worker is gone".to_owned());
    let mut delivered = queue.fetched(id(2), &why);
    let Some((A, Delivery::Outcomes(ready))) = delivered.pop() else { panic!("{delivered:?}") };
    assert_eq!(ready.stored, [(id(1), Ok(1)), (id(2), why)]);
}

#[test]
fn so_many_bytes_are_fetched_at_a_time_and_the_others_in_turn() {
    let mut queue = Queue::default();
    let fit = u8::try_from(FETCH_BYTES_MAX / (8 * MIB)).unwrap();
    for number in 0..fit + 2 {
        add(&mut queue, A, number.into(), &[number]);
    }
    assert_eq!(start(&mut queue).len(), usize::from(fit));
    assert!(start(&mut queue).is_empty());
    here(&mut queue, 5);
    assert_eq!(start(&mut queue), [fit]);
    here(&mut queue, 0);
    here(&mut queue, 1);
    assert_eq!(start(&mut queue), [fit + 1]);
}

#[test]
fn so_many_results_are_fetched_at_a_time() {
    let mut queue = Queue::default();
    for number in 0..=FETCHES_MAX {
        let names = vec![named(u8::try_from(number).unwrap(), MIB)];
        let segment = Segment::parse(SegmentBuilder::new(1).finish()).unwrap();
        queue.add(A, TaskRange::new(0, 0), (segment, Vec::new()), names);
    }
    assert_eq!(start(&mut queue).len(), FETCHES_MAX);
}

#[test]
fn one_that_is_longer_than_all_may_be_is_fetched_alone() {
    let mut queue = Queue::default();
    let segment = || Segment::parse(SegmentBuilder::new(1).finish()).unwrap();
    queue.add(A, TaskRange::new(0, 0), (segment(), Vec::new()), vec![named(1, u64::MAX)]);
    queue.add(A, TaskRange::new(0, 0), (segment(), Vec::new()), vec![named(2, u64::MAX)]);
    assert_eq!(start(&mut queue), [1]);
    here(&mut queue, 1);
    assert_eq!(start(&mut queue), [2]);
}

#[test]
fn a_batch_that_is_forgotten_wants_nothing_and_gives_its_room() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1]);
    add(&mut queue, A, 1, &[2]);
    add(&mut queue, B, 0, &[2]);
    assert_eq!(start(&mut queue), [1, 2]);
    add(&mut queue, A, 2, &[3]);
    assert_eq!(queue.forget(&A), [id(1)], "the other batch wants 2, and 3 was not begun");
    assert_eq!((queue.fetching, queue.fetching_bytes), (1, 8 * MIB));
    assert!(start(&mut queue).is_empty(), "3 is not begun any more");
    assert_eq!(here(&mut queue, 1), [], "it came all the same");
    assert_eq!(here(&mut queue, 2), [(B, Some((0, vec![2])))]);
    assert_eq!((queue.fetching, queue.fetching_bytes, queue.blobs.len()), (0, 0, 0));
    assert_eq!(queue.forget(&A), []);
}

#[test]
fn the_end_comes_as_it_was_given() {
    let mut queue = Queue::default();
    add(&mut queue, A, 0, &[1]);
    let failed = allhands_common::failure::Failed {
        cause: Cause::Abandoned,
        worker: None,
        attempt: None,
        tries: 1,
    };
    queue.end(A, End::Complete { rest: Some(failed.clone()) });
    let delivered = queue.fetched(id(1), &Ok(1));
    let Some((_, Delivery::End(end))) = delivered.into_iter().last() else { panic!("no end") };
    assert_eq!(end, End::Complete { rest: Some(failed) });
}
