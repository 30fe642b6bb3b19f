//! What tasks map, as it is said to a leader.

use allhands_common::wire::data::ChunkRange;
use allhands_common::wire::needs::{Needs, Part, Run};

use super::*;

#[test]
fn what_tasks_map_is_said_right_before_them_and_again_with_them() {
    let mut bench = Bench::attached();
    let (batch, _) = bench.open();
    let needs = |blob| {
        let parts = vec![Part { blob: 0, chunks: ChunkRange::new(0, 8) }];
        Needs { blobs: vec![BlobId([blob; 32])], runs: vec![Run { tasks: 2, parts }] }
    };
    let append = |bench: &mut Bench, blob: Option<u8>| {
        let needs = blob.map(|blob| Box::new(needs(blob)));
        let (segment, mentions) = (Bytes::from_static(b"ab"), Vec::new());
        bench.step(Event::Append { batch, tasks: 2, segment, mentions, needs })
    };
    append(&mut bench, Some(1));
    let said_of = |first, blob| FromClient::Needs { batch, first, needs: needs(blob) };
    let actions = bench.hear(ToClient::JobOpened { request: RequestId(0), job: JobId(7) });
    let [before, FromClient::OpenBatch { tasks: 2, .. }] = said(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*before, said_of(0, 1));
    let actions = append(&mut bench, None);
    assert!(
        matches!(said(&actions)[..], [FromClient::Append { first: 2, .. }]),
        "they map nothing"
    );
    let actions = append(&mut bench, Some(2));
    let [before, FromClient::Append { first: 4, .. }] = said(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*before, said_of(4, 2));

    // Of what is committed a new leader is told nothing.
    let message = ToClient::Attached { term: Term(2), batches: vec![(batch, 2)], slots: 2 };
    let actions = bench.hear(message);
    let [FromClient::Append { first: 2, .. }, before, FromClient::Append { first: 4, .. }] =
        said(&actions)[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(*before, said_of(4, 2));
}
