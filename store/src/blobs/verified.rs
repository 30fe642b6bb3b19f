//! The proof that bytes are a chunk: whoever holds one need not hash them again.

use allhands_common::blob::ChunkId;
use bytes::{Bytes, BytesMut};

/// Bytes whose hash was seen to be `id`. Only hashing them makes one, and nothing changes them afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: ChunkId,
    bytes: Bytes,
}

impl Verified {
    /// `None` if they are not the chunk `id`.
    pub fn check(bytes: Bytes, id: &ChunkId) -> Option<Self> {
        (ChunkId::of(&bytes) == *id).then_some(Self { id: *id, bytes })
    }

    /// The same for bytes that lie in pieces, which are joined.
    pub fn join(pieces: &[Bytes], id: &ChunkId) -> Option<Self> {
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Self::check(whole.freeze(), id)
    }

    /// Which chunk they are.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// They.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
