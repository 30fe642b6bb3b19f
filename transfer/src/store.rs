//! What is needed of a chunk store.
//!
//! Its functions may block: they are called on the blocking pool. `disk` is the store that processes use;
//! tests put others between, which misbehave.

mod disk;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use allhands_store::blobs::Verified;

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::wire::data::ChunkSet;
use bytes::Bytes;

/// A store of chunks, shared by everybody in the process.
pub trait ChunkStore: Send + Sync + 'static {
    /// What a blob consists of, if that is known here.
    ///
    /// # Errors
    /// The store cannot be read.
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError>;

    /// Makes room for a blob and keeps its manifest, unless both is done already. It stays as long as what
    /// is returned.
    ///
    /// # Errors
    /// There is no room, or the store cannot be written.
    fn open(&self, manifest: &Manifest) -> Result<Hold, StoreError>;

    /// The chunks of a blob that need not be fetched. Those under `bytes` that the store believes to have are
    /// looked at, and those that it has under another name are copied.
    ///
    /// # Errors
    /// The store cannot be read, or written.
    fn gather(&self, blob: BlobId, bytes: Range<u64>) -> Result<ChunkSet, StoreError>;

    /// Which chunks of a blob are here, as far as is known; none of a blob that is not known.
    ///
    /// # Errors
    /// The store cannot be read.
    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError>;

    /// A chunk, if it is here; its hash was right in this very moment.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read(&self, blob: BlobId, chunk: u32) -> Result<Found, StoreError>;

    /// Keeps a chunk of a blob that is open; nothing if it is here already.
    ///
    /// # Errors
    /// The blob is not open any more, or the store cannot be written.
    fn write(&self, blob: BlobId, chunk: u32, bytes: &Verified) -> Result<(), StoreError>;
}

/// What became of a chunk that was to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is here.
    Whole(Bytes),
    /// It is not.
    Absent,
    /// It was, and the disk gave back something else: it counts as absent from now on.
    Damaged,
}

/// Keeps a blob in its store as long as a clone of it is there.
#[derive(Clone)]
pub struct Hold(Arc<dyn Any + Send + Sync>);

impl Hold {
    /// As long as `guard` is not dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Arc::new(guard))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", Arc::strong_count(&self.0))
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
