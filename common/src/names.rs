//! What a task's result holds handles on: said beside the result, so that whoever passes it on can keep what it names
//! without reading it.
//!
//! An outcome that names something has a second string, these [`Names`] through the codec.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::Content;
use crate::codec::{self, DecodeError};
use crate::id::WorkerId;

/// Handles in one result, at most: some 700 KiB of names, which fit a log entry beside a result of 1 MiB.
pub const NAMES_MAX: usize = 1 << 14;

/// What one result names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Who ran the task, and has what was made there.
    pub worker: WorkerId,
    /// Each content once, and whether the task's worker has stored it as a result.
    pub contents: Vec<(Content, bool)>,
}

impl Names {
    /// Reads what an outcome says.
    ///
    /// # Errors
    /// It was damaged, or comes from another release.
    pub fn read(string: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(string)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::blob::BlobId;
    use crate::limit::SEGMENT_BYTES_MAX;
    use crate::segment::{DONE, Segment, SegmentBuilder};

    fn names(many: usize) -> Names {
        let blob = Content::Blob { id: BlobId([7; 32]), bytes: u64::MAX };
        Names { worker: WorkerId(u64::MAX), contents: vec![(blob, true); many] }
    }

    #[test]
    fn the_most_names_fit_a_segment() {
        let mut string = Vec::new();
        codec::encode(&names(NAMES_MAX), &mut string).unwrap();
        assert!(string.len() + (1 << 20) < SEGMENT_BYTES_MAX, "{}", string.len());
        assert_eq!(Names::read(&string), Ok(names(NAMES_MAX)));
        assert!(Names::read(&string[1..]).is_err());
    }

    #[test]
    fn a_value_is_read_without_its_names() {
        let mut string = Vec::new();
        codec::encode(&names(2), &mut string).unwrap();
        let mut builder = SegmentBuilder::new(1);
        builder.push(DONE, [&b"plain"[..]].into_iter());
        builder.push(DONE, [&b"value"[..], &string].into_iter());
        let segment = Segment::parse(builder.finish()).unwrap();
        assert_eq!(segment.value(1), Some((DONE, &b"value"[..])));
        let naming: Vec<_> = segment.naming().collect();
        assert_eq!(naming, [crate::range::TaskRange::new(1, 2)]);
        assert_eq!((segment.names(0), segment.names(1)), (None, Some(string.as_slice())));
        let one = Segment::parse(segment.slice(naming[0]).unwrap()).unwrap();
        assert_eq!(one.names(0), Some(string.as_slice()));
    }
}
