//! How tasks speak of each other's outcomes: what an argument waits for, what a task may ask for, and
//! what comes back.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::bulk::Bulk;
use crate::function::FunctionName;
use crate::id::{BatchId, TaskId};

/// A task of a segment names another task: its outcome stays for as long as the one that names it has not
/// ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mention {
    /// Who, by its place in the batch.
    pub index: u32,
    /// Whom.
    pub on: TaskId,
    /// What for.
    pub need: Need,
}

/// What a task needs of one that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Need {
    /// A value, in place of an argument. It starts once that is there; without one it ends as
    /// [`Cause::DependencyFailed`](crate::failure::Cause::DependencyFailed), and does not run.
    Value,
    /// The same, and the function's own `Err` is a value too.
    Returned,
    /// That it has ended, in whatever way: it starts after that.
    End,
    /// Nothing before it starts: it may ask while it runs.
    Handle,
}

impl Need {
    /// Whether a task has to wait for one that it needs so.
    pub const fn waits(self) -> bool {
        match self {
            Self::Value | Self::Returned | Self::End => true,
            Self::Handle => false,
        }
    }

    /// Whether the outcome has to come along with the task.
    pub const fn takes(self) -> bool {
        match self {
            Self::Value | Self::Returned => true,
            Self::End | Self::Handle => false,
        }
    }
}

/// A question for an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Awaited {
    /// Of which task.
    pub task: TaskId,
    /// Whether one that was forwarded is followed to where it leads.
    pub follow: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// To which question.
    pub of: Awaited,
    /// An outcome segment of one task. Of a task that is not known (any more), an error that says so.
    pub outcome: Bulk,
}

/// What stands in a segment in place of an argument's own bytes; the segment's tag says for which
/// arguments ([`crate::segment::argument_tag`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandIn {
    /// They are in a blob.
    Blob(BlobRef),
    /// They are made of outcomes, which come along with the task ([`Need::Value`]).
    Outcomes(Filling),
}

/// How an argument is made of outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// The program's function that makes it, of one string an outcome: a byte that says its codec, and the
    /// outcome's own bytes.
    pub made_by: FunctionName,
    /// Whether the one outcome's bytes are the argument as they are, where both are of one codec.
    pub plain: bool,
    /// Of which tasks, in order; each once for each place that it takes.
    pub of: Vec<TaskId>,
}

/// What a task's id is as bytes.
pub const TASK_ID_BYTES: usize = 20;

/// First byte of a blob's stand-in.
const BLOB: u8 = 0;
/// First byte of a filling.
const OUTCOMES: u8 = 1;
/// Bytes of a filling before its tasks: the kind, the function, and whether it is plain.
const FILLING_HEAD_BYTES: usize = 1 + 2 + 8 + 1;

impl TaskId {
    /// The bytes that stand for it: the batch, then the index in little-endian.
    pub fn to_bytes(self) -> [u8; TASK_ID_BYTES] {
        let mut bytes = [0; TASK_ID_BYTES];
        bytes[..16].copy_from_slice(&self.batch.0);
        bytes[16..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    /// What these bytes stand for.
    pub fn from_bytes(bytes: [u8; TASK_ID_BYTES]) -> Self {
        let (batch, index) = bytes.split_at(16);
        let mut id = ([0; 16], [0; 4]);
        id.0.copy_from_slice(batch);
        id.1.copy_from_slice(index);
        Self { batch: BatchId(id.0), index: u32::from_le_bytes(id.1) }
    }
}

impl StandIn {
    /// The bytes that stand in the segment.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Blob(blob) => [&[BLOB][..], &blob.to_bytes()].concat(),
            Self::Outcomes(filling) => {
                let FunctionName { module, offset } = filling.made_by;
                let mut bytes =
                    Vec::with_capacity(FILLING_HEAD_BYTES + filling.of.len() * TASK_ID_BYTES);
                bytes.push(OUTCOMES);
                bytes.extend_from_slice(&module.to_le_bytes());
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.push(filling.plain.into());
                filling.of.iter().for_each(|task| bytes.extend_from_slice(&task.to_bytes()));
                bytes
            }
        }
    }

    /// What these bytes stand for; `None` if they are not those of a stand-in.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == BLOB {
            return BlobRef::from_bytes(rest).map(Self::Blob);
        }
        let (module, rest) = rest.split_first_chunk::<2>().filter(|_| *kind == OUTCOMES)?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (plain, tasks) = rest.split_first()?;
        let (tasks, over) = tasks.as_chunks::<TASK_ID_BYTES>();
        over.is_empty().then(|| {
            Self::Outcomes(Filling {
                made_by: FunctionName {
                    module: u16::from_le_bytes(*module),
                    offset: u64::from_le_bytes(*offset),
                },
                plain: *plain != 0,
                of: tasks.iter().map(|task| TaskId::from_bytes(*task)).collect(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::BlobId;

    fn task(number: u8) -> TaskId {
        TaskId { batch: BatchId([number; 16]), index: u32::from(number) << 8 }
    }

    #[test]
    fn the_bytes_are_these() {
        let made_by = FunctionName { module: 0, offset: 0x0102 };
        let filling = Filling { made_by, plain: true, of: [task(7)].into() };
        let bytes = StandIn::Outcomes(filling).to_bytes();
        assert_eq!(bytes[..12], [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((&bytes[12..28], &bytes[28..]), (&[7; 16][..], &[0, 7, 0, 0][..]));
    }

    proptest! {
        #[test]
        fn what_stands_in_is_read_back(
            offset in any::<u64>(), plain in any::<bool>(), of in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let made_by = FunctionName { module: 0, offset };
            let of = of.into_iter().map(task).collect();
            let filling = StandIn::Outcomes(Filling { made_by, plain, of });
            let blob = StandIn::Blob(BlobRef { id: BlobId([9; 32]), bytes: offset });
            for stand_in in [filling, blob] {
                let bytes = stand_in.to_bytes();
                prop_assert_eq!(StandIn::from_bytes(&bytes[..bytes.len() - 1]), None);
                prop_assert_eq!(StandIn::from_bytes(&bytes), Some(stand_in));
            }
        }
    }
}
