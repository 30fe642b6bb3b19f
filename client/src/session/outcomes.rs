//! Outcomes as they come to a caller: a segment, and the long results that it only names.

use std::ops::Deref;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::range::TaskRange;
use allhands_common::segment::{STORED, Segment, SegmentError};
use allhands_store::blobs::{Blob, ReadError};
use allhands_store::map::Map;

/// An outcome segment with what it names.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes {
    segment: Segment,
    /// Held, so that they stay in the store. Few: such results are longer than a mebibyte.
    stored: Vec<Blob>,
}

/// A long result that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    /// The string is no reference, or what it names was not claimed.
    #[error("its bytes are not in the store of the worker that ran it any more")]
    Gone,
    /// It is there, and cannot be mapped.
    #[error("its bytes cannot be read: {0}")]
    Read(#[from] ReadError),
}

impl Outcomes {
    /// A segment that names none.
    pub(crate) const fn plain(segment: Segment) -> Self {
        Self { segment, stored: Vec::new() }
    }

    /// A segment with what `claim` gives of the long results that it names.
    pub(crate) fn claimed(segment: Segment, claim: impl Fn(&BlobId) -> Option<Blob>) -> Self {
        let mut stored = Vec::new();
        for (_, rows) in segment.runs().filter(|(tag, _)| *tag == STORED) {
            let names = (rows.start..rows.end).filter_map(|row| segment.value(row));
            let references = names.filter_map(|(_, string)| BlobRef::from_bytes(string));
            stored.extend(references.filter_map(|reference| claim(&reference.id)));
        }
        Self { segment, stored }
    }

    /// The result that `reference` names.
    pub(crate) fn stored(&self, reference: &[u8]) -> Result<Map, StoredError> {
        let reference = BlobRef::from_bytes(reference).ok_or(StoredError::Gone)?;
        let blob = self.stored.iter().find(|blob| blob.id() == reference.id);
        Ok(blob.ok_or(StoredError::Gone)?.map(0..reference.bytes)?)
    }

    /// One row alone.
    ///
    /// # Errors
    /// There is no such row.
    pub(super) fn one(&self, row: u32) -> Result<Self, SegmentError> {
        let segment = Segment::parse(self.segment.slice(TaskRange::new(row, row + 1))?)?;
        let named = segment.value(0).filter(|(tag, _)| *tag == STORED);
        let id = named.and_then(|(_, string)| BlobRef::from_bytes(string)).map(|named| named.id);
        let stored = self.stored.iter().filter(|blob| Some(blob.id()) == id).cloned().collect();
        Ok(Self { segment, stored })
    }
}

impl Deref for Outcomes {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}
