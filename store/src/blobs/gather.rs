//! Finds out which chunks of a blob need not be fetched: those that are here, and those that other blobs have.
//!
//! An array that was edited in one place has all but one of its chunks in common with what it was. They are
//! copied from there, each with its hash checked, so that they do not travel again.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Blob;
use super::error::{ReadError, WriteError};
use crate::crew;

/// Why a blob's chunks were not looked at. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// What is said to be here cannot be read.
    #[error("what is here of a blob cannot be checked")]
    Check(#[source] ReadError),
    /// A chunk that another blob has cannot be written.
    #[error("a chunk that another blob has cannot be copied")]
    Copy(#[source] WriteError),
}

impl Blob {
    /// Checks the chunks under the bytes `range` that are said to be here, and copies those that other blobs
    /// of the store have. Those that are here and whole are in [`Blob::present`] afterwards; a damaged one
    /// counts as missing.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn gather(&self, range: Range<u64>) -> Result<(), GatherError> {
        let chunks = self.manifest().chunks_of(range);
        self.body.prove_whole(chunks.clone()).map_err(GatherError::Check)?;
        let here = self.body.here();
        let missing: Vec<u32> = chunks.filter(|index| !here[*index as usize]).collect();
        let next = AtomicU32::new(0);
        crew::run(missing.len(), || {
            let mut bytes = Vec::new();
            while let Some(index) = missing.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                self.copy_from_others(*index, &mut bytes)?;
            }
            Ok(())
        })
    }

    /// Whether another blob had it.
    fn copy_from_others(&self, index: u32, bytes: &mut Vec<u8>) -> Result<bool, GatherError> {
        let Some(chunk) = self.manifest().chunks().get(index as usize) else { return Ok(false) };
        for (other, at) in self.store().holding(chunk, &self.id()) {
            // One that cannot be read is one that it has not got.
            if other.body.read_chunk(at, bytes).is_ok() {
                self.body.write_hashed(index, bytes).map_err(GatherError::Copy)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
