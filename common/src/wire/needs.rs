//! Which chunks of blobs the tasks of a segment map: said beside their arguments, so that the leader can prefer
//! machines that have them.
//!
//! Soft: nothing of it is in the log. A new leader does not know the needs of tasks that were committed before it,
//! and places them as if they had none. So it costs a batch without blobs nothing, and the state never.
//!
//! ```text
//! runs    tasks 12  blob 0 chunks 0..8      consecutive tasks that map the same
//!         tasks 12  blob 0 chunks 8..16, blob 1 chunks 0..256
//!         tasks 3                           that map nothing
//! ```

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::BlobId;
use crate::wire::data::ChunkRange;

/// Runs of one [`Needs`], at most: a segment is given out in some 64 ranges or fewer, so finer ones would decide
/// nothing. Neighbours are merged to stay below it.
pub const RUNS_MAX: usize = 64;

/// Blobs of one run, at most: those of which it maps most.
pub const PARTS_MAX: usize = 4;

/// Bytes of a blob that is worth a word, at least: a shorter one has travelled before a message has.
pub const BLOB_BYTES_MIN: u64 = 256 << 10;

/// What the tasks of one segment map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The blobs that `runs` name by their place here.
    pub blobs: Vec<BlobId>,
    /// From the segment's first task on.
    pub runs: Vec<Run>,
}

/// Consecutive tasks that map the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How many.
    pub tasks: u32,
    /// What: nothing, or so much of each of these blobs.
    pub parts: Vec<Part>,
}

/// Chunks of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its place among the blobs.
    pub blob: u16,
    /// Which chunks.
    pub chunks: ChunkRange,
}

impl Needs {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Whether it is within the bounds and names only what it has.
    pub fn is_valid(&self) -> bool {
        let part_is_valid =
            |part: &Part| !part.chunks.is_empty() && usize::from(part.blob) < self.blobs.len();
        let run_is_valid = |run: &Run| {
            run.tasks > 0 && run.parts.len() <= PARTS_MAX && run.parts.iter().all(part_is_valid)
        };
        self.runs.len() <= RUNS_MAX
            && self.blobs.len() <= RUNS_MAX * PARTS_MAX
            && self.runs.iter().all(run_is_valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(parts: Vec<Part>, tasks: u32) -> Needs {
        Needs { blobs: [BlobId([1; 32])].into(), runs: [Run { tasks, parts }].into() }
    }

    #[test]
    fn what_a_stranger_may_say_is_bounded() {
        let part = |blob, start, end| Part { blob, chunks: ChunkRange::new(start, end) };
        assert!(needs([part(0, 3, 4)].into(), 1).is_valid());
        assert!(needs([].into(), 1).is_valid());
        assert!(!needs([part(1, 3, 4)].into(), 1).is_valid(), "no such blob");
        assert!(!needs([part(0, 4, 4)].into(), 1).is_valid(), "no chunk");
        assert!(!needs([part(0, 3, 4)].into(), 0).is_valid(), "no task");
        assert!(!needs([part(0, 3, 4); PARTS_MAX + 1].into(), 1).is_valid());
        let one = needs([part(0, 3, 4)].into(), 1);
        let many = Needs { runs: alloc::vec![one.runs[0].clone(); RUNS_MAX + 1], ..one };
        assert!(!many.is_valid());
    }
}
