//! What is needed of a chunk store.
//!
//! Its functions may block: they are called on the blocking pool.

use std::error::Error;
use std::sync::Arc;

use allhands_common::blob::{BlobId, ChunkId, Manifest};
use allhands_common::wire::data::ChunkSet;
use bytes::{Bytes, BytesMut};

/// A store of chunks, shared by everybody in the process.
pub trait ChunkStore: Send + Sync + 'static {
    /// What a blob consists of, if that is known here.
    ///
    /// # Errors
    /// The store cannot be read.
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError>;

    /// Makes room for a blob and keeps its manifest; nothing if both is done already.
    ///
    /// # Errors
    /// There is no room, or the store cannot be written.
    fn open(&self, blob: BlobId, manifest: &Arc<Manifest>) -> Result<(), StoreError>;

    /// Which chunks of a blob are here; none of a blob that is not known.
    ///
    /// # Errors
    /// The store cannot be read.
    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError>;

    /// A chunk that was verified when it came; `None` if it is not here.
    ///
    /// # Errors
    /// The store cannot be read, or what it has is damaged.
    fn read(&self, blob: BlobId, chunk: u32) -> Result<Option<Bytes>, StoreError>;

    /// Keeps a chunk of a blob that is open; nothing if it is here already.
    ///
    /// # Errors
    /// The blob is not open any more, or the store cannot be written.
    fn write(&self, blob: BlobId, chunk: u32, bytes: Verified) -> Result<(), StoreError>;
}

/// Bytes that are the chunk that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Bytes);

impl Verified {
    /// `None` if they are not.
    pub fn check(bytes: Bytes, id: &ChunkId) -> Option<Self> {
        (ChunkId::of(&bytes) == *id).then_some(Self(bytes))
    }

    /// The same for bytes that lie in pieces, which are joined.
    pub fn join(pieces: &[Bytes], id: &ChunkId) -> Option<Self> {
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Self::check(whole.freeze(), id)
    }

    /// They.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    /// The thing, and what to do.
    pub what: String,
    /// Whether the same may work later.
    pub retry_can_help: bool,
    /// The cause.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
