//! What a simulated task returns, as bytes.

use allhands_common::codec;
use allhands_common::execution::{Mention, Need};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::WorkerId;
use allhands_common::segment::{AGAIN, DONE, ERROR, FAILED, FORWARDED, SegmentBuilder};
use bytes::Bytes;

use super::{Made, Running};
use crate::sim::workload::Fate;

impl Running {
    /// Its outcome, and whom that names.
    pub(in crate::sim) fn outcome(&self, worker: WorkerId) -> (Bytes, Vec<Mention>) {
        let mut builder = SegmentBuilder::new(1);
        self.write(&mut builder, worker);
        (builder.finish(), self.mention().into_iter().collect())
    }

    pub(super) fn mention(&self) -> Option<Mention> {
        let (index, need) = (self.index, Need::Handle);
        match (self.fate, self.made) {
            (Fate::Value, Made::Value(_, Some(on)) | Made::Forward(on)) => {
                Some(Mention { index, on, need })
            }
            _ => None,
        }
    }

    /// Its execution's number is all that a task returns, whatever way it returns; but a task of a graph
    /// returns what it has made of those of others, too.
    pub(super) fn write(&self, builder: &mut SegmentBuilder, worker: WorkerId) {
        let number = self.execution.0.to_le_bytes();
        let value = match self.made {
            Made::Nothing => Vec::new(),
            Made::Value(value, _) => value.to_le_bytes().to_vec(),
            Made::Forward(_) => vec![0; 8],
        };
        let whole = [&number[..], &value].concat();
        match (self.fate, self.made) {
            (Fate::Value, Made::Forward(to)) => {
                let bytes = [&to.to_bytes()[..], &number].concat();
                builder.push(FORWARDED, [&bytes[..]].into_iter());
            }
            (Fate::Value | Fate::Death | Fate::Hang, _) => {
                builder.push(DONE, [&whole[..]].into_iter());
            }
            (Fate::Again, _) => builder.push(AGAIN, [&number[..]].into_iter()),
            (Fate::Err, _) => builder.push(FAILED, [&whole[..]].into_iter()),
            (Fate::Panic, _) => {
                let failed = Failed {
                    cause: Cause::Panicked {
                        message: self.execution.0.to_string(),
                        location: String::new(),
                        backtrace: String::new(),
                    },
                    worker: Some(worker),
                    attempt: Some(self.attempt),
                    tries: 1,
                };
                builder.push_with(ERROR, |bytes| {
                    let _ = codec::encode(&failed, bytes);
                });
            }
        }
    }
}
