//! The frame header: golden bytes, caps, and bytes from nowhere. Needs no socket.

use allhands_common::frame::{FrameError, HEADER_BYTES, Header, Kind, MAGIC, PROTOCOL_VERSION};
use proptest::prelude::*;

/// These bytes are the protocol: a change here is a new `PROTOCOL_VERSION`.
const GOLDEN: [(Kind, usize, usize, [u8; HEADER_BYTES]); 4] = [
    (Kind::Hello, 9, 0, *b"AHND\x07\x00\x01\x00\x09\x00\x00\x00\x00\x00\x00\x00"),
    (Kind::Refused, 16 << 10, 0, *b"AHND\x07\x00\x03\x00\x00\x40\x00\x00\x00\x00\x00\x00"),
    (
        Kind::ClientToCoordinator,
        258,
        4 << 20,
        *b"AHND\x07\x00\x04\x00\x02\x01\x00\x00\x00\x00\x40\x00",
    ),
    (Kind::ChunkReply, 1 << 20, 8 << 20, *b"AHND\x07\x00\x0d\x00\x00\x00\x10\x00\x00\x00\x80\x00"),
];

#[test]
fn golden_headers() {
    for (kind, head, bulk, bytes) in GOLDEN {
        let header = Header::new(kind, head, bulk).unwrap();
        assert_eq!(header.encode(), bytes, "{kind:?}");
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!((header.kind(), header.head_bytes(), header.bulk_bytes()), (kind, head, bulk));
    }
}

#[test]
fn codes_are_dense_and_stable() {
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(kind.code()), index + 1);
        assert_eq!(Kind::from_code(kind.code()), Some(kind));
    }
    assert_eq!(Kind::from_code(0), None);
    assert_eq!(Kind::from_code(14), None);
}

#[test]
fn lengths_beyond_the_caps_are_refused_from_the_header_alone() {
    for kind in Kind::ALL {
        let (head, bulk) = (kind.head_bytes_max() as usize, kind.bulk_bytes_max() as usize);
        assert!(Header::new(kind, head, bulk).is_ok());
        assert!(matches!(Header::new(kind, head + 1, 0), Err(FrameError::HeadTooLong { .. })));
        assert!(matches!(Header::new(kind, 0, bulk + 1), Err(FrameError::BulkTooLong { .. })));
        let mut bytes = Header::new(kind, head, bulk).unwrap().encode();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Header::decode(&bytes), Err(FrameError::HeadTooLong { .. })));
    }
    assert!(matches!(
        Header::new(Kind::PeerRequest, 1 << 40, 0),
        Err(FrameError::HeadTooLong { bytes: 0x100_0000_0000, .. })
    ));
}

#[test]
fn the_version_is_checked_before_the_kind() {
    let mut bytes = GOLDEN[0].3;
    let (theirs, ours) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION);
    bytes[4..6].copy_from_slice(&theirs.to_le_bytes());
    bytes[6..8].copy_from_slice(&[0xff, 0xff]);
    let error = Header::decode(&bytes).unwrap_err();
    assert_eq!(error, FrameError::Version { theirs, ours });
    assert_eq!(
        error.to_string(),
        format!(
            "the peer speaks protocol {theirs}, this process speaks protocol {ours}; run the same \
             release of allhands on both"
        )
    );
}

#[test]
fn a_frame_of_another_link_is_refused() {
    let header = Header::new(Kind::WorkerToCoordinator, 0, 0).unwrap();
    assert_eq!(
        header.expect(Kind::ClientToCoordinator),
        Err(FrameError::OtherKind {
            expected: Kind::ClientToCoordinator,
            got: Kind::WorkerToCoordinator
        })
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: [u8; HEADER_BYTES]) {
        let _ = Header::decode(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(tail: [u8; 12], code in 0u16..20) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..].copy_from_slice(&tail);
        bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&code.to_le_bytes());
        bytes[11] = 0;
        bytes[15] = 0;
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            prop_assert!(header.head_bytes() <= header.kind().head_bytes_max() as usize);
            prop_assert!(header.bulk_bytes() <= header.kind().bulk_bytes_max() as usize);
        }
    }
}
