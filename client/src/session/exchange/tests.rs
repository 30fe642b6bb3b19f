//! Calls that are under way: what is resent, what is consumed, how they end.

use std::time::Duration;

use allhands_common::blob::BlobRef;
use allhands_common::id::BlobId;
use allhands_common::policy::Policy;
use allhands_common::segment::Segment;

use super::*;
use crate::session::inbox::Rules;

fn exchange() -> Exchange {
    let rules = Rules { hold: true, stop_after: None, errors_count: false, replicas: None };
    let spec = BatchSpec {
        name: "b".into(),
        functions: Vec::new(),
        policy: Policy::default(),
        env: Vec::new(),
    };
    Exchange::new(spec, Bytes::new(), Arc::new(Inbox::new(rules)), 0)
}

fn push(exchange: &Exchange, bytes: &[u8], last: bool) -> Note {
    exchange.push(1, 0, (bytes.len(), 0), (std::iter::once(bytes), &[]), last)
}

#[test]
fn a_lone_task_is_told_once_with_everything() {
    let exchange = exchange();
    assert_eq!(push(&exchange, b"a", true), Note::Quiet);
    assert_eq!(exchange.seal(), Note::Tell);
    let taken = exchange.take();
    assert!(taken.open.is_some() && taken.sealed && !taken.watched);
    assert_eq!(taken.segments.len(), 1);
}

#[test]
fn the_first_of_many_is_told_and_an_old_segment_goes_with_the_second_beat() {
    let exchange = exchange();
    assert_eq!(push(&exchange, b"a", false), Note::Tell);
    assert_eq!(push(&exchange, b"b", false), Note::Quiet);
    let taken = exchange.take();
    assert_eq!((taken.segments[0].tasks, taken.watched), (2, true));

    assert_eq!(push(&exchange, b"c", false), Note::Quiet);
    exchange.take_beat();
    let taken = exchange.take_beat();
    assert_eq!((taken.segments.len(), taken.watched), (1, true));
    // Nothing more: the session sleeps, and is told of the next.
    assert!(!exchange.take_beat().watched);
    assert_eq!(push(&exchange, b"d", false), Note::Tell);
}

#[test]
fn what_tasks_map_goes_with_their_segment() {
    let parts = |blob| {
        let lifted = BlobRef { id: BlobId([blob; 32]), bytes: 8 << 20 };
        Parts::of(&[], [lifted])
    };
    let exchange = exchange();
    _ = push(&exchange, b"a", false);
    exchange.maps(parts(1));
    _ = push(&exchange, b"b", false);
    _ = exchange.flush();
    _ = push(&exchange, b"c", false);
    _ = exchange.flush();
    // The next one is of another segment.
    exchange.maps(parts(2));
    _ = exchange.push(2, 0, (1, 0), (std::iter::once(&b"d"[..]), &[]), true);
    _ = exchange.seal();
    let needs: Vec<_> = exchange.take().segments.into_iter().map(|cut| cut.needs).collect();
    let [Some(first), None, Some(last)] = &needs[..] else { panic!("{needs:?}") };
    let runs = |needs: &Needs| needs.runs.iter().map(|run| (run.tasks, run.parts.len())).collect();
    let of_first: Vec<_> = runs(first);
    assert_eq!((first.blobs[0], of_first), (BlobId([1; 32]), vec![(1, 0), (1, 1)]));
    let of_last: Vec<_> = runs(last);
    assert_eq!((last.blobs[0], of_last), (BlobId([2; 32]), vec![(1, 1)]));
}

#[test]
fn a_full_segment_is_told() {
    let exchange = exchange();
    _ = push(&exchange, b"a", false);
    exchange.take();
    let task = vec![0; SEGMENT_BYTES_TARGET / 4];
    let notes: Vec<Note> = (0..4).map(|_| push(&exchange, &task, false)).collect();
    assert_eq!(notes[3], Note::Tell);
    assert_eq!(exchange.take().segments.len(), 1);
    assert!(exchange.inbox.mail().kept_bytes() > SEGMENT_BYTES_TARGET);
}

#[test]
fn a_segment_has_one_codec_and_fits_an_entry() {
    let exchange = exchange();
    _ = push(&exchange, b"a", false);
    _ = exchange.push(2, 0, (1, 0), (std::iter::once(&b"b"[..]), &[]), false);
    let large = vec![0; SEGMENT_BYTES_MAX - ROOM_BYTES];
    _ = push(&exchange, b"c", false);
    _ = push(&exchange, &large, false);
    let segments = exchange.take().segments;
    let codecs: Vec<u8> =
        segments.iter().map(|cut| Segment::parse(cut.segment.clone()).unwrap().codec()).collect();
    assert_eq!(codecs, [1, 2, 1, 1]);
    assert!(segments.iter().all(|cut| cut.segment.len() <= SEGMENT_BYTES_MAX));
}

#[test]
fn functions_are_fixed_once_the_session_has_the_batch() {
    let exchange = exchange();
    let name = allhands_common::function::FunctionName { module: 0, offset: 8 };
    let function = || Function { name, label: "f".into(), returns: "u64".into() };
    assert_eq!(
        (exchange.add_function(function()), exchange.add_function(function())),
        (Some(0), Some(1))
    );
    exchange.take();
    assert_eq!(exchange.add_function(function()), None);
}

#[test]
fn functions_that_do_not_fit_the_specification_go_elsewhere() {
    let exchange = exchange();
    let name = allhands_common::function::FunctionName { module: 0, offset: 8 };
    let function =
        || Function { name, label: "f".repeat(SPEC_BYTES_MAX / 3), returns: String::new() };
    let tags = [(); 4].map(|()| exchange.add_function(function()));
    assert_eq!(tags, [Some(0), Some(1), None, None]);
    assert!(spec_bytes(&exchange.take().open.unwrap().0) <= SPEC_BYTES_MAX);
}

#[test]
fn a_stopped_batch_takes_no_tasks() {
    let exchange = exchange();
    exchange.stop();
    assert_eq!(push(&exchange, b"a", false), Note::Stopped);
    let waited = exchange.inbox.wait(crate::session::inbox::Wanted::End, Some(Duration::ZERO));
    assert_eq!(waited.kept_bytes(), 0);
}
