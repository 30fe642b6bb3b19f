//! One enum per operation on blobs; each says whether trying again can help.

use std::io;
use std::path::PathBuf;

use allhands_common::blob::BlobId;
use allhands_common::id::ClusterId;

use crate::map::MapError;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has it. Trying again helps once that has ended.
    #[error(
        "the store in {dir} is in use by another process: stop that, or give this one a directory of its own"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to another cluster. Trying again cannot help.
    #[error(
        "the store in {dir} belongs to cluster {found}, not to {wanted}: give each cluster a directory of its own"
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        wanted: ClusterId,
    },
    /// Another version wrote it, or something else did. Trying again cannot help.
    #[error(
        "{path} is not the stamp of a store of this version: remove {dir}, what was in it is fetched again"
    )]
    Stamp {
        /// The directory.
        dir: PathBuf,
        /// The file.
        path: PathBuf,
    },
    /// The system refused. Trying again may help.
    #[error("the store in {dir} cannot be opened: {what} failed")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// There is no room, and nothing may be evicted to make some. Trying again helps once pins are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the chunk store is full: {needed_bytes} bytes are needed; of its {quota_bytes} bytes, {held_bytes} are taken \
     and {pinned_bytes} of these pinned or in use: raise its quota, or wait for jobs to end"
)]
pub struct StoreFull {
    /// What was asked for, with what the file system adds.
    pub needed_bytes: u64,
    /// What the store may take.
    pub quota_bytes: u64,
    /// What it has taken.
    pub held_bytes: u64,
    /// What of that cannot be evicted.
    pub pinned_bytes: u64,
}

/// Why there is no space for a blob. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The quota does not allow it.
    #[error(transparent)]
    Full(StoreFull),
    /// The disk is full although the quota allows more, and nothing may be evicted. Trying again helps once
    /// there is space.
    #[error(
        "blob {id} needs {bytes} bytes, and the disk of {dir} is full: free space there, or lower the \
         store's quota"
    )]
    DiskFull {
        /// Which.
        id: BlobId,
        /// Its length.
        bytes: u64,
        /// The store.
        dir: PathBuf,
    },
    /// The system refused. Trying again may help.
    #[error(
        "no space can be taken for blob {id} at {path}: a store needs a file system that can \
         preallocate (ext4, xfs, btrfs, tmpfs)"
    )]
    Io {
        /// Which.
        id: BlobId,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Why a chunk was not stored. The blob is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The blob has no such chunk. Trying again cannot help.
    #[error("blob {id} has {chunks} chunks, none with the index {index}")]
    Beyond {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// How many there are.
        chunks: u32,
    },
    /// These are not the chunk's bytes: who sent them is wrong. Trying again with other bytes helps.
    #[error("these {bytes} bytes are not chunk {index} of blob {id}: fetch it from another holder")]
    Mismatch {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// How many bytes were given.
        bytes: usize,
    },
    /// The blob was removed meanwhile. Trying again helps after it is reserved again.
    #[error("blob {id} is not in the store any more")]
    Gone {
        /// Which.
        id: BlobId,
    },
    /// The system refused. Trying again may help.
    #[error("chunk {index} of blob {id} cannot be written to {path}")]
    Io {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Why bytes of a blob are not handed out. What is missing can be fetched and written, then trying again helps.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The blob ends before. Trying again cannot help.
    #[error("blob {id} has {bytes} bytes, none at {at}")]
    Beyond {
        /// Which.
        id: BlobId,
        /// Its length.
        bytes: u64,
        /// What was asked for.
        at: u64,
    },
    /// Not all of it is here.
    #[error("chunk {index} of blob {id} is not here")]
    Missing {
        /// Which blob.
        id: BlobId,
        /// The first chunk that is missing.
        index: u32,
    },
    /// The disk gave back other bytes than were written, or none. The chunk counts as missing from now on.
    #[error("chunk {index} of blob {id} is damaged on disk: fetch it from another holder")]
    Damaged {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// What the system said, where it could not read.
        #[source]
        source: Option<io::Error>,
    },
    /// The blob was removed meanwhile.
    #[error("blob {id} is not in the store any more")]
    Gone {
        /// Which.
        id: BlobId,
    },
    /// Its file cannot be opened.
    #[error("blob {id} cannot be read from {path}")]
    Io {
        /// Which.
        id: BlobId,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Its file cannot be mapped.
    #[error("blob {id} cannot be mapped")]
    Map {
        /// Which.
        id: BlobId,
        /// Why.
        #[source]
        source: MapError,
    },
}

/// Why bytes were not put into the store. Nothing is left of them.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The quota does not allow so many.
    #[error(transparent)]
    Full(StoreFull),
    /// The disk is full although the quota allows more, and nothing may be evicted. Trying again helps once
    /// there is space.
    #[error(
        "the disk of {dir} is full after {bytes} bytes: free space there, or lower the store's quota"
    )]
    DiskFull {
        /// How many were taken.
        bytes: u64,
        /// The store.
        dir: PathBuf,
    },
    /// There are more bytes than a blob may have. Trying again cannot help.
    #[error("more than {max} bytes are no blob: put them in pieces", max = super::put::BLOB_BYTES_MAX)]
    TooLong,
    /// The source of the bytes failed.
    #[error("what was to be stored cannot be read")]
    Source(#[source] io::Error),
    /// The system refused. Trying again may help.
    #[error(
        "bytes cannot be written to {path}: a store needs a file system that can \
         preallocate (ext4, xfs, btrfs, tmpfs)"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A part of the blob was here before, and what is missing cannot be added to it. Trying again may help.
    #[error("the bytes are a blob that is here in part, and the rest cannot be added")]
    Rest(#[source] WriteError),
    /// The blob was here before, and cannot be checked. Trying again may help.
    #[error("the bytes are a blob that is here, and it cannot be checked")]
    Check(#[source] ReadError),
}

/// Why a blob is not pinned, or not released, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is not here. Trying again helps after it is reserved.
    #[error("blob {id} is not in the store")]
    Unknown {
        /// Which.
        id: BlobId,
    },
    /// Somebody pins it, so it is not removed. Trying again helps after it is released.
    #[error("blob {id} is pinned by {owner} and {others} others")]
    Pinned {
        /// Which.
        id: BlobId,
        /// One that pins it.
        owner: super::Owner,
        /// How many more there are.
        others: usize,
    },
    /// The system refused. Trying again may help.
    #[error("a pin of blob {id} cannot be changed: {path}")]
    Io {
        /// Which.
        id: BlobId,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Why a blob is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Not all of it is here and whole. Trying again helps after what is missing is written.
    #[error("blob {id} is not complete")]
    Incomplete {
        /// Which.
        id: BlobId,
        /// What is missing.
        #[source]
        source: ReadError,
    },
    /// The system could not write it all. It does not say what, so the blob was removed. Trying again helps
    /// after it was fetched again.
    #[error(
        "blob {id} cannot be made durable: {path} was not written by the disk, so the blob \
         was removed: look at the disk, and fetch it again"
    )]
    Lost {
        /// Which.
        id: BlobId,
        /// What was synced.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}
