//! Blobs: immutable bytes of any length, named by what they hold.
//!
//! A blob is a sequence of chunks of 1 MiB, of which the last may be shorter; an empty blob has none.
//! Chunks are hashed each for itself, so that they can be verified, fetched and shared one by one, and
//! an array that was edited in one place has all but one of its chunks in common with what it was.
//!
//! ```text
//! chunk id = blake3(chunk's bytes)
//! blob id  = blake3-derive-key("allhands 2026 blob", length u64 LE | chunk id | chunk id | ...)
//! ```

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use serde::{Deserialize, Serialize};

pub use crate::id::{BlobId, ChunkId};

/// Bytes of a chunk: long enough that its id and its request (some 100 bytes) vanish beside it, short
/// enough that a broadcast is passed on while it still comes in.
pub const CHUNK_BYTES: u32 = 1 << 20;

/// Chunks of a blob, at most: 16 TiB, whose manifest is 512 MiB.
pub const CHUNKS_MAX: u32 = 1 << 24;

impl ChunkId {
    /// The id of a chunk of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

/// What a blob consists of: enough to verify each chunk for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    bytes: u64,
    chunks: Vec<ChunkId>,
}

/// Chunks that cannot be a blob of that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Their number is wrong.
    #[error("a blob of {bytes} bytes has {wanted} chunks, not {chunks}")]
    Chunks {
        /// The length.
        bytes: u64,
        /// How many it has to have.
        wanted: u64,
        /// How many there are.
        chunks: usize,
    },
    /// It is longer than a blob may be.
    #[error("a blob of {0} bytes is too long: at most {max} bytes", max = u64::from(CHUNKS_MAX) * u64::from(CHUNK_BYTES))]
    TooLong(u64),
}

impl Manifest {
    /// The blob of these chunks, `bytes` bytes long.
    ///
    /// # Errors
    /// A blob of that length has another number of chunks, or is too long.
    pub fn new(bytes: u64, chunks: Vec<ChunkId>) -> Result<Self, ManifestError> {
        let wanted = bytes.div_ceil(CHUNK_BYTES.into());
        if wanted > CHUNKS_MAX.into() {
            return Err(ManifestError::TooLong(bytes));
        }
        if chunks.len() as u64 != wanted {
            return Err(ManifestError::Chunks { bytes, wanted, chunks: chunks.len() });
        }
        Ok(Self { bytes, chunks })
    }

    /// The blob of bytes that are all here.
    ///
    /// # Errors
    /// They are longer than a blob may be.
    pub fn of(bytes: &[u8]) -> Result<Self, ManifestError> {
        let chunks = bytes.chunks(CHUNK_BYTES as usize).map(ChunkId::of).collect();
        Self::new(bytes.len() as u64, chunks)
    }

    /// Its name.
    pub fn id(&self) -> BlobId {
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 blob");
        hasher.update(&self.bytes.to_le_bytes());
        self.chunks.iter().for_each(|chunk| {
            hasher.update(&chunk.0);
        });
        BlobId(hasher.finalize().into())
    }

    /// How long it is, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its chunks' ids, in order.
    pub fn chunks(&self) -> &[ChunkId] {
        &self.chunks
    }

    /// Where chunk `index` lies in the blob, in bytes; `None` beyond its end.
    pub fn range_of(&self, index: u32) -> Option<Range<u64>> {
        let start = u64::from(index) * u64::from(CHUNK_BYTES);
        (start < self.bytes).then(|| start..self.bytes.min(start + u64::from(CHUNK_BYTES)))
    }

    /// The chunks that hold these bytes, none for an empty range; what lies beyond the end has none.
    pub fn chunks_of(&self, bytes: Range<u64>) -> Range<u32> {
        chunks_of(bytes.start.min(self.bytes)..bytes.end.min(self.bytes))
    }
}

/// Which file, in which state: another identity is another file, or the same after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When it or its attributes were last changed, in nanoseconds since 1970.
    pub changed_ns: i128,
}

/// What bytes that are mapped belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Content {
    /// A blob.
    Blob {
        /// Which.
        id: BlobId,
        /// Its length: whoever has only the id need not trust a stranger about it.
        bytes: u64,
    },
    /// A file that is used where it is, and has no blob id as long as nobody needs one.
    File(FileRef),
}

impl Content {
    /// How long it is, in bytes.
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Blob { bytes, .. } => *bytes,
            Self::File(file) => file.bytes,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { id, bytes } => write!(f, "blob {id} of {bytes} bytes"),
            Self::File(file) => {
                write!(f, "file {}:{} of {} bytes", file.device, file.inode, file.bytes)
            }
        }
    }
}

/// A blob in place of a byte string: an argument or a result that is too long to be sent with its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Which.
    pub id: BlobId,
    /// How long it is, and the string.
    pub bytes: u64,
}

impl BlobRef {
    /// Length of the bytes that stand for it: the id, then the length in little-endian.
    pub const LEN: usize = 40;

    /// The bytes that stand for it.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// What these bytes stand for; `None` if their number is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, length) = bytes.split_first_chunk::<32>()?;
        Some(Self { id: BlobId(*id), bytes: u64::from_le_bytes(length.try_into().ok()?) })
    }

    /// The blob, all of which is the string.
    pub const fn content(self) -> Content {
        Content::Blob { id: self.id, bytes: self.bytes }
    }
}

/// The chunks that hold the bytes `range` of a blob that is at least so long.
pub fn chunks_of(range: Range<u64>) -> Range<u32> {
    if range.is_empty() {
        return 0..0;
    }
    let chunk = u64::from(CHUNK_BYTES);
    let index = |at: u64| u32::try_from(at).unwrap_or(CHUNKS_MAX);
    index(range.start / chunk)..index(range.end.div_ceil(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    #[test]
    fn a_blob_is_named_by_length_and_chunks() {
        let zeros = alloc::vec![0; CHUNK as usize + 1];
        let manifest = Manifest::of(&zeros).unwrap();
        assert_eq!(manifest.chunks(), [ChunkId::of(&zeros[1..]), ChunkId::of(&[0])]);
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 blob");
        hasher.update(&(CHUNK + 1).to_le_bytes());
        hasher.update(blake3::hash(&zeros[1..]).as_bytes());
        hasher.update(blake3::hash(&[0]).as_bytes());
        assert_eq!(manifest.id().0, *hasher.finalize().as_bytes());
    }

    #[test]
    fn ids_are_the_same_for_ever() {
        let id = |bytes: &[u8]| Manifest::of(bytes).unwrap().id().to_string();
        assert_eq!(id(b""), "8e0403b9a334302cc355400718e2e2e5c6b4168b29a8085456595ae762a6c486");
        assert_eq!(
            id(b"allhands"),
            "88829f6b135f3cff2e2d87a020291dc4dc287aacec21de40717bd2f9eeb2f75a"
        );
        assert_eq!(id(b"allhands").parse(), Ok(Manifest::of(b"allhands").unwrap().id()));
    }

    #[test]
    fn a_manifest_has_as_many_chunks_as_its_length_asks_for() {
        assert!(Manifest::new(0, Vec::new()).is_ok());
        let one = || alloc::vec![ChunkId::of(b"")];
        assert!(Manifest::new(1, one()).is_ok());
        assert!(Manifest::new(CHUNK, one()).is_ok());
        let wrong = Manifest::new(CHUNK + 1, one());
        assert_eq!(wrong, Err(ManifestError::Chunks { bytes: CHUNK + 1, wanted: 2, chunks: 1 }));
        assert!(Manifest::new(0, one()).is_err());
        assert_eq!(Manifest::new(u64::MAX, one()), Err(ManifestError::TooLong(u64::MAX)));
    }

    #[test]
    fn a_reference_is_forty_bytes() {
        let reference = BlobRef { id: BlobId([7; 32]), bytes: 0x0102 };
        let bytes = reference.to_bytes();
        assert_eq!((bytes[31], &bytes[32..35]), (7, &[2, 1, 0][..]));
        assert_eq!(BlobRef::from_bytes(&bytes), Some(reference));
        assert_eq!(BlobRef::from_bytes(&bytes[1..]), None);
    }

    #[test]
    fn chunks_of_bytes() {
        let manifest = Manifest::of(&alloc::vec![0; 2 * CHUNK as usize + 7]).unwrap();
        assert_eq!(manifest.range_of(2), Some(2 * CHUNK..2 * CHUNK + 7));
        assert_eq!(manifest.range_of(3), None);
        assert_eq!(manifest.chunks_of(0..1), 0..1);
        assert_eq!(manifest.chunks_of(CHUNK - 1..CHUNK + 1), 0..2);
        assert_eq!(manifest.chunks_of(CHUNK..CHUNK), 0..0);
        assert_eq!(manifest.chunks_of(2 * CHUNK..u64::MAX), 2..3);
        assert_eq!(manifest.chunks_of(9 * CHUNK..10 * CHUNK), 0..0);
    }
}
