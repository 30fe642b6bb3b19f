//! Telling leaders what workers are to keep.

use allhands_common::blob::BlobRef;
use allhands_common::id::WorkerId;
use allhands_common::range::TaskRange;
use allhands_common::wire::client::Keep;

use super::*;

fn keep(number: u8, replicas: u8) -> Keep {
    let blob = BlobRef { id: BlobId([number; 32]), bytes: 7 };
    Keep { blob, replicas, at: Some(WorkerId(3)) }
}

fn keeps(blobs: &[Keep]) -> Event {
    Event::Keep { blobs: blobs.to_vec() }
}

fn said_keep(blobs: &[Keep], all: bool) -> FromClient {
    FromClient::Keep { blobs: blobs.to_vec(), all }
}

fn attached(term: u64) -> ToClient {
    ToClient::Attached { term: Term(term), batches: Vec::new(), slots: 2 }
}

fn let_go(number: u8) -> Event {
    Event::LetGo { blobs: vec![BlobId([number; 32])] }
}

#[test]
fn what_is_kept_is_said_once_and_to_each_leader_until_the_last_handle_is_gone() {
    let mut bench = Bench::new();
    assert_eq!(bench.step(keeps(&[keep(1, 1)])), []);
    bench.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
    assert_eq!(said(&bench.hear(attached(1))), [&said_keep(&[keep(1, 1)], true)]);
    let both = [keep(1, 1), keep(2, 1)];
    assert_eq!(said(&bench.step(keeps(&both))), [&said_keep(&[keep(2, 1)], false)]);
    let more = said_keep(&[keep(2, 3)], false);
    assert_eq!(said(&bench.step(keeps(&[keep(2, 3)]))), [&more], "more holders are wanted");
    assert_eq!(said(&bench.hear(attached(2))), [&said_keep(&[keep(1, 1), keep(2, 3)], true)]);

    assert_eq!(bench.step(let_go(1)), [], "there is another one");
    let gone = FromClient::LetGo { blobs: vec![BlobId([1; 32])] };
    assert_eq!(said(&bench.step(let_go(1))), [&gone]);
    assert_eq!(bench.step(let_go(1)), []);
    bench.step(let_go(2));
    bench.step(let_go(2));
    // What was said on the way to another leader may be lost: it hears that there is none.
    assert_eq!(said(&bench.hear(attached(3))), [&said_keep(&[], true)]);
}

#[test]
fn a_session_that_never_kept_anything_says_nothing() {
    let mut bench = Bench::new();
    bench.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
    assert_eq!(said(&bench.hear(attached(1))), Vec::<&FromClient>::new());
}

#[test]
fn what_was_fetched_is_said_when_there_is_a_leader() {
    let mut bench = Bench::new();
    let batch = BatchId([4; 16]);
    let fetched = |start, end| Event::Fetched { batch, tasks: TaskRange::new(start, end) };
    assert_eq!(bench.step(fetched(0, 2)), []);
    assert_eq!(bench.step(fetched(2, 3)), []);
    bench.step(Event::LinkUp { peer: LEADER, coordinator: Some(CoordinatorId(1)) });
    let told = |tasks: &[TaskRange]| FromClient::Fetched { batch, tasks: tasks.to_vec() };
    assert_eq!(said(&bench.hear(attached(1))), [&told(&[TaskRange::new(0, 3)])]);
    assert_eq!(said(&bench.step(fetched(9, 10))), [&told(&[TaskRange::new(9, 10)])]);
}
