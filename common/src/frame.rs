//! The frame: the unit of every link between two processes of a cluster.
//!
//! ```text
//!  0      4         6       8           12          16
//! ┌──────┬─────────┬───────┬───────────┬───────────┬─────────────┬─────────────┐
//! │ AHND │ version │ kind  │ head_len  │ bulk_len  │ head        │ bulk        │
//! │      │ u16 LE  │ u16 LE│ u32 LE    │ u32 LE    │ head_len B  │ bulk_len B  │
//! └──────┴─────────┴───────┴───────────┴───────────┴─────────────┴─────────────┘
//! ```
//!
//! *head* is one message, encoded by the codec; *bulk* is raw bytes (segments, chunks) and never passes
//! through the codec. The kind says who speaks to whom; the messages of that direction are a closed enum
//! inside the head. Lengths are checked against the caps of the kind when the header is decoded, before
//! anything else is read or allocated.
//!
//! The layout of these 16 bytes never changes, whatever the protocol version: two processes of different
//! versions can always tell each other so.

use serde::{Serialize, de::DeserializeOwned};

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"AHND";

/// The protocol that this build speaks. Raised with every change of a message or of its meaning.
pub const PROTOCOL_VERSION: u16 = 7;

/// Length of the encoded [`Header`].
pub const HEADER_BYTES: usize = 16;

/// Bulk cap of every working link. A log entry is at most 4 MiB and a chunk 1 MiB: 8 MiB leaves room for a
/// bundle of both, and bounds what one peer can make us allocate for one frame.
const BULK_BYTES_MAX: u32 = 8 << 20;

/// Bulk cap of a worker's link. A bundle of ranges or outcomes is cut at 4 MiB; a range by itself has up to
/// 4 MiB of arguments by what its tasks take on average, and may lie in segments of 4 MiB at both ends,
/// where one task is nearly all.
const WORKER_BULK_BYTES_MAX: u32 = 16 << 20;

/// Head cap of every working link: control messages are bundles of ranges and ids, measured in kilobytes.
const HEAD_BYTES_MAX: u32 = 1 << 20;

/// Head cap of a client's link: it names all open batches of a session when it attaches, 21 bytes each.
const CLIENT_HEAD_BYTES_MAX: u32 = 6 << 20;

/// Head cap while the peer's purpose is not yet known.
const GREETING_BYTES_MAX: u32 = 16 << 10;

/// What a frame carries and in which direction: one per link direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// First frame of the side that opened a link.
    Hello = 1,
    /// The answer that turns the stream into a link.
    Welcome = 2,
    /// The answer that ends it.
    Refused = 3,
    ClientToCoordinator = 4,
    CoordinatorToClient = 5,
    WorkerToCoordinator = 6,
    CoordinatorToWorker = 7,
    /// Coordinator to coordinator: Raft and what goes with it.
    PeerRequest = 8,
    PeerReply = 9,
    AdminRequest = 10,
    AdminReply = 11,
    ChunkRequest = 12,
    ChunkReply = 13,
}

impl Kind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 13] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::ClientToCoordinator,
        Self::CoordinatorToClient,
        Self::WorkerToCoordinator,
        Self::CoordinatorToWorker,
        Self::PeerRequest,
        Self::PeerReply,
        Self::AdminRequest,
        Self::AdminReply,
        Self::ChunkRequest,
        Self::ChunkReply,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind with this number, if there is one.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Greatest length of the head, in bytes.
    pub const fn head_bytes_max(self) -> u32 {
        match self {
            Self::Hello | Self::Welcome | Self::Refused => GREETING_BYTES_MAX,
            Self::ClientToCoordinator | Self::CoordinatorToClient => CLIENT_HEAD_BYTES_MAX,
            Self::WorkerToCoordinator
            | Self::CoordinatorToWorker
            | Self::PeerRequest
            | Self::PeerReply
            | Self::AdminRequest
            | Self::AdminReply
            | Self::ChunkRequest
            | Self::ChunkReply => HEAD_BYTES_MAX,
        }
    }

    /// Greatest length of the bulk, in bytes.
    pub const fn bulk_bytes_max(self) -> u32 {
        match self {
            Self::Hello | Self::Welcome | Self::Refused => 0,
            Self::WorkerToCoordinator | Self::CoordinatorToWorker => WORKER_BULK_BYTES_MAX,
            Self::ClientToCoordinator
            | Self::CoordinatorToClient
            | Self::PeerRequest
            | Self::PeerReply
            | Self::AdminRequest
            | Self::AdminReply
            | Self::ChunkRequest
            | Self::ChunkReply => BULK_BYTES_MAX,
        }
    }
}

/// The messages of one link direction: what may stand in the head of a frame of `KIND`.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    const KIND: Kind;
}

/// A decoded (or to be encoded) header; its lengths are within the caps of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    head_bytes: u32,
    bulk_bytes: u32,
}

impl Header {
    /// A header for a frame to be sent.
    pub fn new(kind: Kind, head_bytes: usize, bulk_bytes: usize) -> Result<Self, FrameError> {
        Ok(Self {
            kind,
            head_bytes: within(head_bytes as u64, kind.head_bytes_max())
                .map_err(|max| FrameError::HeadTooLong { kind, bytes: head_bytes as u64, max })?,
            bulk_bytes: within(bulk_bytes as u64, kind.bulk_bytes_max())
                .map_err(|max| FrameError::BulkTooLong { kind, bytes: bulk_bytes as u64, max })?,
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Length of the head, in bytes.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes as usize
    }

    /// Length of the bulk, in bytes.
    pub fn bulk_bytes(&self) -> usize {
        self.bulk_bytes as usize
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.bulk_bytes.to_le_bytes());
        bytes
    }

    /// Reads a header. The version is checked before the kind and the lengths, whose meaning it decides.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, h0, h1, h2, h3, b0, b1, b2, b3] = *bytes;
        let magic = [m0, m1, m2, m3];
        if magic != MAGIC {
            return Err(FrameError::NotOurs { magic });
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version { theirs: version, ours: PROTOCOL_VERSION });
        }
        let code = u16::from_le_bytes([k0, k1]);
        let kind = Kind::from_code(code).ok_or(FrameError::UnknownKind { code })?;
        Self::new(
            kind,
            u32::from_le_bytes([h0, h1, h2, h3]) as usize,
            u32::from_le_bytes([b0, b1, b2, b3]) as usize,
        )
    }

    /// Refuses a header of another kind than the link carries.
    pub fn expect(self, kind: Kind) -> Result<Self, FrameError> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(FrameError::OtherKind { expected: kind, got: self.kind })
        }
    }
}

fn within(bytes: u64, max: u32) -> Result<u32, u32> {
    u32::try_from(bytes).ok().filter(|bytes| *bytes <= max).ok_or(max)
}

/// Why 16 bytes are not the header of a frame that may be read, or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not a frame of this protocol: it starts with {magic:02x?} instead of \"AHND\"")]
    NotOurs { magic: [u8; 4] },
    #[error(
        "the peer speaks protocol {theirs}, this process speaks protocol {ours}; run the same release of allhands on both"
    )]
    Version { theirs: u16, ours: u16 },
    #[error("unknown kind of frame {code}")]
    UnknownKind { code: u16 },
    #[error("a frame of kind {got:?} on a link that carries {expected:?}")]
    OtherKind { expected: Kind, got: Kind },
    #[error("head of a {kind:?} frame is {bytes} bytes long, the limit is {max}")]
    HeadTooLong { kind: Kind, bytes: u64, max: u32 },
    #[error(
        "bulk of a {kind:?} frame is {bytes} bytes long, the limit is {max}; send it as a blob"
    )]
    BulkTooLong { kind: Kind, bytes: u64, max: u32 },
}

impl FrameError {
    /// No frame error goes away by sending the same bytes again.
    pub const fn retry_can_help(&self) -> bool {
        false
    }
}
