//! A handle on one blob of the store: what of it is here, and its bytes.

use std::ops::Range;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use allhands_common::blob::{BlobId, Manifest};
use bytes::Bytes;

use super::Store;
use super::body::{Body, Written};
use super::error::{ReadError, WriteError};
use super::verified::Verified;
use crate::map::{FileRange, Map, MapError};

/// One blob of a store, complete or not. It is not evicted while a clone of this is there; what was mapped
/// needs no handle.
#[derive(Debug, Clone)]
pub struct Blob {
    pub(super) body: Arc<Body>,
    hold: Arc<Hold>,
}

/// What is let go of with the last clone.
#[derive(Debug)]
struct Hold {
    store: Store,
    body: Arc<Body>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.store.let_go(&self.body));
    }
}

impl Blob {
    /// A handle that is counted already.
    pub(super) fn new(store: Store, body: Arc<Body>) -> Self {
        Self { body: body.clone(), hold: Arc::new(Hold { store, body }) }
    }

    /// Its name.
    pub fn id(&self) -> BlobId {
        self.body.id
    }

    /// What it consists of.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.body.manifest
    }

    /// Whether all chunks are here, as far as is known: what was here at the start is believed until it is
    /// first used.
    pub fn is_complete(&self) -> bool {
        self.body.is_complete()
    }

    /// The chunks that are here, as far as is known.
    pub fn present(&self) -> Vec<Range<u32>> {
        runs(self.body.here(), true)
    }

    /// The chunks that are not here.
    pub fn missing(&self) -> Vec<Range<u32>> {
        runs(self.body.here(), false)
    }

    /// Writes chunk `index`, unless it is here. Several threads may write chunks of one blob, also the same
    /// one: that is then written once. Durable after [`Store::make_durable`].
    ///
    /// # Errors
    /// These are not its bytes, or the disk refuses.
    pub fn write_chunk(&self, index: u32, bytes: &[u8]) -> Result<Written, WriteError> {
        self.body.write_chunk(index, bytes)
    }

    /// [`Blob::write_chunk`] of bytes that were hashed already: the proof says which chunk they are, and it is
    /// compared with what the blob has at `index`.
    ///
    /// # Errors
    /// They are another chunk, or the disk refuses.
    pub fn write_verified(&self, index: u32, chunk: &Verified) -> Result<Written, WriteError> {
        self.body.write_verified(index, chunk)
    }

    /// The bytes of chunk `index`, with the right hash: what the disk has spoilt is noticed here, each time.
    ///
    /// # Errors
    /// It is not here, or is damaged; then it counts as missing.
    pub fn read_chunk(&self, index: u32) -> Result<Bytes, ReadError> {
        let mut bytes = Vec::new();
        self.body.read_chunk(index, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Checks the hashes of all chunks that were here at the start and were not used since.
    ///
    /// # Errors
    /// One is missing, or is damaged; then it counts as missing.
    pub fn verify(&self) -> Result<(), ReadError> {
        self.body.open_proven(0..self.manifest().chunks().len() as u32).map(drop)
    }

    /// Whether the bytes `range` are here, and their hashes were seen to be right: they can be handed out at once.
    pub fn is_proven(&self, range: Range<u64>) -> bool {
        self.body.is_proven(self.manifest().chunks_of(range))
    }

    /// Maps the bytes `range`, whose chunks have to be here. Only they are looked at; other chunks may be
    /// missing.
    ///
    /// # Errors
    /// A chunk is not here or is damaged, the blob is shorter, or the system refuses.
    pub fn map(&self, range: Range<u64>) -> Result<Map, ReadError> {
        let length = self.check(&range)?;
        let file = self.body.open_proven(self.manifest().chunks_of(range.clone()))?;
        crate::map::map(file.as_fd(), range.start, length).map_err(|source| self.unmapped(source))
    }

    /// The bytes `range` as a descriptor that can only be read, for a process that maps them itself.
    ///
    /// # Errors
    /// As [`Blob::map`].
    pub fn file_range(&self, range: Range<u64>) -> Result<FileRange, ReadError> {
        let bytes = self.check(&range)?;
        let file = self.body.open_proven(self.manifest().chunks_of(range.clone()))?;
        let file = file.as_fd().try_clone_to_owned().map_err(|source| {
            let path = self.body.paths.bytes.clone();
            ReadError::Io { id: self.id(), path, source }
        })?;
        Ok(FileRange { file, offset: range.start, bytes })
    }

    pub(super) fn store(&self) -> &Store {
        &self.hold.store
    }

    /// How long a range of this blob is.
    fn check(&self, range: &Range<u64>) -> Result<u64, ReadError> {
        let (id, bytes) = (self.id(), self.manifest().bytes());
        let at = range.start.max(range.end);
        if at > bytes {
            return Err(ReadError::Beyond { id, bytes, at });
        }
        Ok(range.end.saturating_sub(range.start))
    }

    fn unmapped(&self, source: MapError) -> ReadError {
        ReadError::Map { id: self.id(), source }
    }
}

/// The runs of chunks whose `flags` are `wanted`.
pub(super) fn runs(flags: Vec<bool>, wanted: bool) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (index, flag) in (0..).zip(flags) {
        match runs.last_mut() {
            _ if flag != wanted => {}
            Some(last) if last.end == index => last.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}
