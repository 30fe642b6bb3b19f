//! The blobs of this machine, on disk: [`Store`] as the exchange wants it.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::wire::data::{ChunkRange, ChunkSet};
use allhands_store::blobs::{Blob, ReadError, ReserveError, Store, Verified, WriteError};

use super::{ChunkStore, Found, Hold, StoreError};

impl ChunkStore for Store {
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError> {
        Ok(self.get(&blob).map(|blob| Arc::clone(blob.manifest())))
    }

    fn open(&self, manifest: &Manifest) -> Result<Hold, StoreError> {
        let reserved = self.reserve(manifest);
        let blob = reserved.map_err(|source| {
            let (id, bytes) = (manifest.id(), manifest.bytes());
            let what = format!("no room for blob {id} of {bytes} bytes");
            let retry_can_help = match source {
                ReserveError::Full(_) | ReserveError::DiskFull { .. } | ReserveError::Io { .. } => {
                    true
                }
            };
            failed(what, retry_can_help, source)
        })?;
        Ok(Hold::new(blob))
    }

    fn gather(&self, blob: BlobId, bytes: Range<u64>) -> Result<ChunkSet, StoreError> {
        let Some(held) = self.get(&blob) else { return Ok(ChunkSet::new()) };
        held.gather(bytes).map_err(|source| {
            failed(format!("blob {blob} cannot be looked through"), true, source)
        })?;
        Ok(here(&held))
    }

    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError> {
        Ok(self.get(&blob).as_ref().map(here).unwrap_or_default())
    }

    fn read(&self, blob: BlobId, chunk: u32) -> Result<Found, StoreError> {
        let Some(held) = self.get(&blob) else { return Ok(Found::Absent) };
        match held.read_chunk(chunk) {
            Ok(bytes) => Ok(Found::Whole(bytes)),
            Err(ReadError::Damaged { .. }) => Ok(Found::Damaged),
            Err(ReadError::Missing { .. } | ReadError::Beyond { .. } | ReadError::Gone { .. }) => {
                Ok(Found::Absent)
            }
            Err(source @ (ReadError::Io { .. } | ReadError::Map { .. })) => {
                let what = format!("chunk {chunk} of blob {blob} cannot be read");
                Err(failed(what, true, source))
            }
        }
    }

    fn write(&self, blob: BlobId, chunk: u32, bytes: &Verified) -> Result<(), StoreError> {
        let what = || format!("chunk {chunk} of blob {blob} cannot be kept");
        let gone = || failed(what(), true, WriteError::Gone { id: blob });
        let held = self.get(&blob).ok_or_else(gone)?;
        let written = held.write_verified(chunk, bytes);
        written.map(drop).map_err(|source| {
            let retry_can_help = match source {
                WriteError::Gone { .. } | WriteError::Io { .. } => true,
                WriteError::Beyond { .. } | WriteError::Mismatch { .. } => false,
            };
            failed(what(), retry_can_help, source)
        })
    }
}

fn here(blob: &Blob) -> ChunkSet {
    blob.present().into_iter().map(|run| ChunkRange::new(run.start, run.end)).collect()
}

fn failed(
    what: String,
    retry_can_help: bool,
    source: impl Error + Send + Sync + 'static,
) -> StoreError {
    StoreError { what, retry_can_help, source: Some(Box::new(source)) }
}
