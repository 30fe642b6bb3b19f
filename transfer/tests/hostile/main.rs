//! Peers that send what they like on a link for chunks: no panic, no allocation that they can choose, the
//! connection is closed with a reason, and nobody else notices.
//!
//! A process of its own, so that its memory can be looked at.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its frames fails")]

mod support;

use allhands_common::codec;
use allhands_common::frame::{Header, Kind};
use allhands_common::id::BlobId;
use allhands_common::net::access::Role;
use allhands_common::net::cause::{Cause, CloseCode, PeerCode};
use allhands_common::wire::data::{Answer, Ask, ChunkRange, Holder, Node};
use allhands_transfer::node::FetchError;
use proptest::prelude::*;

use support::*;

/// What one attack sends after the handshake, and what it is told.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    told: &'static str,
}

/// A frame whose head is `head`, and which announces `bulk` bytes behind it.
fn frame(kind: Kind, head: &[u8], bulk: usize) -> Vec<u8> {
    [&Header::new(kind, head.len(), bulk).unwrap().encode()[..], head].concat()
}

/// As the codec writes a number of 64 bits.
fn huge() -> Vec<u8> {
    [&[253][..], &(1_u64 << 63).to_le_bytes()].concat()
}

/// What is hostile whatever the kind is.
fn attacks(kind: Kind, wrong: Kind) -> Vec<Attack> {
    let mut long_head = frame(kind, &[], 0);
    long_head[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long_bulk = frame(kind, &[], 0);
    long_bulk[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        Attack { name: "noise", bytes: noise(1).take(4_000).collect(), told: "" },
        Attack { name: "noise in a frame", bytes: frame(kind, &[0xff; 99], 0), told: "" },
        Attack { name: "no message", bytes: frame(kind, &[], 0), told: "" },
        Attack { name: "a head of 4 GiB", bytes: long_head, told: "4294967295 bytes long" },
        Attack { name: "a bulk of 4 GiB", bytes: long_bulk, told: "4294967295 bytes long" },
        Attack { name: "another role's", bytes: frame(wrong, &[], 0), told: "a frame of kind" },
    ]
}

fn hostile_asks() -> Vec<Attack> {
    let kind = Kind::ChunkRequest;
    let chunk = [&[2, 1][..], &[7; 32], &[0], &huge()].concat();
    let mut trailing = encoded(&Ask::Cancel { request: 1 });
    trailing.push(0);
    let cut = encoded(&Ask::Follow { blob: BlobId([7; 32]) });
    let here = [&[0][..], &huge()].concat();
    let mut all = attacks(kind, Kind::ChunkReply);
    all.extend([
        Attack { name: "2^63 addresses", bytes: frame(kind, &here, 0), told: "" },
        Attack { name: "2^63 failed holders", bytes: frame(kind, &chunk, 0), told: "" },
        Attack { name: "more than a message", bytes: frame(kind, &trailing, 0), told: "" },
        Attack { name: "half a message", bytes: frame(kind, &cut[..20], 0), told: "" },
    ]);
    all
}

fn hostile_answers() -> Vec<Attack> {
    let kind = Kind::ChunkReply;
    let blob = [7; 32];
    let runs = [&[5][..], &blob, &huge()].concat();
    let others = [&[5][..], &blob, &[0], &huge()].concat();
    // A manifest whose ids are said to be 4 GiB, and do not come.
    let ids = [&[0, 1, 9, 0, 252][..], &u32::MAX.to_le_bytes()].concat();
    let cut = encoded(&Answer::Have {
        blob: BlobId(blob),
        chunks: vec![ChunkRange::new(0, 4)],
        others: Vec::new(),
    });
    let mut all = attacks(kind, Kind::ChunkRequest);
    all.extend([
        Attack { name: "2^63 runs", bytes: frame(kind, &runs, 0), told: "" },
        Attack { name: "2^63 others", bytes: frame(kind, &others, 0), told: "" },
        Attack { name: "4 GiB of ids", bytes: frame(kind, &ids, 0), told: "" },
        Attack { name: "half a message", bytes: frame(kind, &cut[..35], 0), told: "" },
    ]);
    all
}

fn encoded<T: serde::Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes).unwrap();
    bytes
}

fn assert_told(attack: &Attack, cause: &Cause) {
    let Cause::ClosedByPeer { code: PeerCode::Known(CloseCode::Protocol), reason } = cause else {
        panic!("{}: {cause}", attack.name)
    };
    assert!(!reason.is_empty() && reason.contains(attack.told), "{}: {reason}", attack.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_askers_disturb_nobody() {
    let cluster = Cluster::new();
    let (from, to) = (cluster.node("source"), cluster.node("sink"));
    let put = from.put(&content(3 << 20));
    let mallory = cluster.endpoint(Role::Client, "mallory");
    for attack in hostile_asks() {
        let connection = from.dialled_by(&mallory).await;
        let (mut send, _receive) = raw_hello(&connection).await;
        // The other side may stop the stream before all is written.
        let _ = send.write_all(&attack.bytes).await;
        let _ = send.finish();
        assert_told(&attack, &soon(connection.closed()).await);
        to.fetch_chunk(put, 1, &[from.holder()]).await.unwrap();
        assert!(peak_bytes() < PEAK_BYTES_MAX, "{}: {} bytes", attack.name, peak_bytes());
    }
    soon(to.fetch(put, &[from.holder()])).await.unwrap();
    assert!(*to.bytes(put) == *content(3 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_holders_are_left_for_others() {
    let cluster = Cluster::new();
    let (from, to) = (cluster.node("source"), cluster.node("sink"));
    for (number, attack) in (0_u8..).zip(hostile_answers()) {
        let name = format!("mallory-{number}");
        let endpoint = cluster.endpoint(Role::Worker, &name);
        let addresses = vec![endpoint.local_address().unwrap()];
        let holder = Holder { node: Node { role: Role::Worker, name }, addresses };
        let bytes = attack.bytes.clone();
        let answering = tokio::spawn(answer_with(endpoint, bytes));
        // Nobody else has it: that is what the fetch says, and not what the hostile one would like.
        let wanted = content((2 << 20) + usize::from(number));
        let put = Put::of(&wanted);
        let error = soon(to.fetch(put, std::slice::from_ref(&holder))).await.unwrap_err();
        assert!(matches!(error, FetchError::BlobLost { .. }), "{}: {error}", attack.name);
        assert_told(&attack, &soon(answering).await.unwrap());
        from.put(&wanted);
        soon(to.fetch(put, &[holder, from.holder()])).await.unwrap();
        assert!(*to.bytes(put) == *wanted, "{}", attack.name);
        assert!(peak_bytes() < PEAK_BYTES_MAX, "{}: {} bytes", attack.name, peak_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    /// What the codec makes of anything: a message or an error.
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(ask) = codec::decode::<Ask>(&bytes) {
            let again = encoded(&ask);
            prop_assert_eq!(codec::decode::<Ask>(&again).unwrap(), ask);
        }
        if let Ok(answer) = codec::decode::<Answer>(&bytes) {
            // Bulk is not part of it.
            let again = encoded(&answer);
            prop_assert_eq!(again.first(), bytes.first());
        }
    }

    #[test]
    fn part_of_a_message_is_none(request in any::<u64>(), chunk in any::<u32>(), at in 0_usize..1000) {
        let node = Node { role: Role::Worker, name: "w".to_owned() };
        let blob = BlobId([7; 32]);
        let ask = encoded(&Ask::Chunk { request, blob, chunk, failed: vec![node.clone()] });
        let cut = at % ask.len();
        prop_assert!(codec::decode::<Ask>(&ask[..cut]).is_err());
        let holder = Holder { node, addresses: vec![LOOPBACK] };
        let answer = encoded(&Answer::Redirect { request, holder });
        let cut = at % answer.len();
        prop_assert!(codec::decode::<Answer>(&answer[..cut]).is_err());
    }
}
