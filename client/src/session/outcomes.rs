//! Outcomes as they come to a caller: a segment, and the long results that it only names.

use std::ops::Deref;
use std::sync::Arc;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::codec;
use allhands_common::failure::{Cause, Failed};
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, ERROR, STORED, Segment, SegmentBuilder, SegmentError};
use allhands_store::blobs::{Blob, ReadError};
use allhands_store::map::Map;

use super::holdings::Received;
use crate::shared::whole::{self, Whole};

/// Bytes in the store that count as one byte in memory, as for arguments.
const STORED_SHARE: u64 = 64;

/// An outcome segment with what it names.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes {
    segment: Segment,
    /// Held, so that they stay in the store. Few: such results are longer than a mebibyte.
    stored: Vec<Stored>,
    /// What its values hold handles on.
    named: Vec<Arc<Whole>>,
}

/// A long result that is here.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// Taken over from the worker in this process.
    Claimed(Blob),
    /// Fetched from another machine.
    Received(Arc<Received>),
}

impl Stored {
    fn blob(&self) -> Option<&Blob> {
        match self {
            Self::Claimed(blob) => Some(blob),
            Self::Received(received) => received.blob(),
        }
    }

    fn is(&self, id: &BlobId) -> bool {
        self.blob().is_some_and(|blob| blob.id() == *id)
    }
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
        Self { segment, stored: Vec::new(), named: Vec::new() }
    }

    /// The same, with what its values hold handles on.
    pub(crate) fn naming(self, named: Vec<Arc<Whole>>) -> Self {
        Self { named, ..self }
    }

    /// Runs `read`, which decodes some of its values.
    #[inline]
    pub(crate) fn reading<R>(&self, read: impl FnOnce() -> R) -> R {
        whole::near(&self.named, read)
    }

    /// Bytes that are kept for it, in memory and, by a fraction, in a store.
    pub(crate) fn weight(&self) -> usize {
        let stored = self.stored.iter().filter_map(Stored::blob);
        let stored: u64 = stored.map(|blob| blob.manifest().bytes()).sum();
        self.segment.bytes().len() + usize::try_from(stored / STORED_SHARE).unwrap_or(usize::MAX)
    }

    /// A segment with what `claim` gives of the long results that it names.
    pub(crate) fn claimed(segment: Segment, claim: impl Fn(u32, &BlobId) -> Option<Blob>) -> Self {
        let claimed = named(&segment).filter_map(|(row, reference)| claim(row, &reference.id));
        let stored = claimed.map(Stored::Claimed).collect();
        Self { segment, stored, named: Vec::new() }
    }

    /// The long results that a segment names, row by row.
    pub(crate) fn names(segment: &Segment) -> Vec<BlobRef> {
        named(segment).map(|(_, reference)| reference).collect()
    }

    /// A segment with the results that it names. A task whose result cannot be had has an error in place of it.
    ///
    /// # Errors
    /// What is made of the segment is none.
    pub(crate) fn received(
        segment: Segment,
        results: Vec<(BlobId, Result<Arc<Received>, String>)>,
    ) -> Result<Self, SegmentError> {
        let (mut stored, mut lost) = (Vec::new(), Vec::new());
        for (id, result) in results {
            match result {
                Ok(received) => stored.push(Stored::Received(received)),
                Err(why) => lost.push((id, why)),
            }
        }
        let why = |_, tag, string: &[u8]| {
            let BlobRef { id, bytes } = BlobRef::from_bytes(string).filter(|_| tag == STORED)?;
            let (_, why) = lost.iter().find(|(lost, _)| *lost == id)?;
            Some(format!("its {bytes} bytes were kept by the worker that ran it, and {why}"))
        };
        let segment = if lost.is_empty() { segment } else { without(&segment, why)? };
        Ok(Self { segment, stored, named: Vec::new() })
    }

    /// The result that `reference` names.
    pub(crate) fn stored(&self, reference: &[u8]) -> Result<Map, StoredError> {
        let reference = BlobRef::from_bytes(reference).ok_or(StoredError::Gone)?;
        let stored = self.stored.iter().find(|stored| stored.is(&reference.id));
        let blob = stored.and_then(Stored::blob);
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
        let is_named = |stored: &&Stored| id.is_some_and(|id| stored.is(&id));
        let stored = self.stored.iter().filter(is_named).cloned().collect();
        // Those of others as well, for a little longer: whose is whose would have to be read.
        Ok(Self { segment, stored, named: self.named.clone() })
    }
}

impl Deref for Outcomes {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}

/// Rows whose results are long, and what they are called.
fn named(segment: &Segment) -> impl Iterator<Item = (u32, BlobRef)> + '_ {
    let stored = segment.runs().filter(|(tag, _)| *tag == STORED);
    let rows = stored.flat_map(|(_, rows)| rows.start..rows.end);
    rows.filter_map(|row| Some((row, BlobRef::from_bytes(segment.value(row)?.1)?)))
}

/// The same outcomes, with an error of each task of which `why` says, by row, tag and string, why its result is lost.
#[cold]
pub(super) fn without(
    segment: &Segment,
    why: impl Fn(u32, u16, &[u8]) -> Option<String>,
) -> Result<Segment, SegmentError> {
    let mut builder = SegmentBuilder::new(segment.codec());
    for row in 0..segment.tasks() {
        let mut strings = [&[][..]; ARITY_MAX];
        let (tag, arity) = segment.row(row, &mut strings).ok_or(SegmentError::Field("row"))?;
        match why(row, tag, strings[0]) {
            Some(why) => {
                let cause = Cause::ResultLost { message: format!("{why}; call it again") };
                let failed = Failed { cause, worker: None, attempt: None, tries: 1 };
                let mut string = Vec::new();
                // It has no field that could refuse; an empty string decodes as damage, not as a value.
                if codec::encode(&failed, &mut string).is_err() {
                    string.clear();
                }
                builder.push(ERROR, std::iter::once(string.as_slice()));
            }
            None => builder.push(tag, strings[..arity].iter().copied()),
        }
    }
    Segment::parse(builder.finish())
}

#[cfg(test)]
mod tests;
