//! Worker ↔ executor, over a Unix socket of one machine.
//!
//! The executor connects and says [`FromExecutor::Hello`]; the worker answers
//! [`ToExecutor::Welcome`], with the descriptor of the cell beside it. That the peer runs the program
//! that it should is known by its process id: the worker started it. Then a batch's common part goes
//! out once, before its first load, and outcomes come back, many to a frame. Which task runs, and
//! which are taken back, is in the cell: no message a task.
//!
//! Blobs and files are mapped by the executor itself. With the welcome comes the *counter*, a socket of
//! whole messages on which it borrows them, and leaves long results, whichever of its threads has to: one
//! message an [`Application`], with a socket for the [`Reply`] beside it, on which the descriptor comes. Both
//! are one message through the codec.
//!
//! ```text
//! frame     head bytes u32 | bulk bytes u32 | head | bulk
//! ```
//! Integers are little-endian; the head is one message through the codec, the bulk its
//! [`Bulk`] fields. Both sides are always of one release, or part at the version in the first message.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::blob::{BlobRef, Content, FileRef};
use crate::bulk::{self, Bulk, BulkMismatch, Carries};
use crate::codec::{self, DecodeError, EncodeError};
use crate::execution::{Awaited, Given, Mention};
use crate::failure::Cause;
use crate::function::FunctionName;
use crate::id::{AttemptId, BatchId, JobId, TaskId, WorkerId};
use crate::policy::{BatchSpec, Function};
use crate::range::TaskRange;
use crate::wire::note::Said;

/// Version of these messages and of the cell. An executor of another one is refused.
pub const VERSION: u16 = 4;

/// Where an executor finds its worker: `PID:PATH`, the worker's process and the socket to connect to.
/// A process is meant only if its parent is that process.
pub const SOCKET_VARIABLE: &str = "ALLHANDS_EXECUTOR";

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// Longest head: the function table and environment of a batch.
pub const HEAD_BYTES_MAX: usize = 4 << 20;

/// Longest bulk: a load's argument segments, or the outcomes of one flush. Memory for it is taken as
/// it arrives, so a lying header costs nothing.
pub const BULK_BYTES_MAX: usize = 1 << 30;

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToExecutor {
    /// First. The descriptors of the cell and of the counter come with its bytes, in this order.
    Welcome {
        /// [`VERSION`] of the worker.
        version: u16,
        /// Who it is, for failures.
        worker: WorkerId,
        /// Threads that run tasks.
        lanes: u32,
    },
    /// Loads of this batch will follow: what they share.
    Batch(Common),
    /// Run these tasks.
    Load(Load),
    /// No load of this batch will follow.
    Forget {
        /// Which.
        batch: BatchId,
    },
    /// Exit; nothing is loaded.
    Stop,
    /// An outcome that tasks of this process wait for.
    Give(Given),
    /// So many more of the batches that its tasks have submitted are committed.
    Opened {
        /// How many.
        batches: u32,
    },
    /// A task that has begun was cancelled: it is to be told.
    Cancel {
        /// Which.
        task: Begun,
    },
}

/// A task that an executor has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Begun {
    /// Of which load; known for as long as the task has not ended, also after the load.
    pub sequence: u32,
    /// Its place in the load, from 0.
    pub place: u32,
}

/// What the loads of a batch share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Common {
    /// Which batch.
    pub batch: BatchId,
    /// Its job.
    pub job: JobId,
    /// How long each task may run, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The functions that its argument segments' tags count.
    pub functions: Vec<Function>,
    /// The program's function that says what is tried again.
    pub retry_when: Option<FunctionName>,
    /// The program's function that says what is run again.
    pub recurs: Option<FunctionName>,
    /// Whether a task may be run again, so that outcomes may wait for one another.
    pub idempotent: bool,
    /// The context of `map_with`; empty when there is none.
    pub context: Bulk,
    /// The environment that its executors have in addition: what its tasks call has it too.
    pub env: Vec<(String, String)>,
}

/// Tasks to run. Which of them are left to take is in the cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Greater with each load of an executor; outstanding ones have different slots in the cell.
    pub sequence: u32,
    /// For failures.
    pub attempt: AttemptId,
    /// Of which batch.
    pub batch: BatchId,
    /// Which tasks.
    pub range: TaskRange,
    /// Argument segments that together hold just these tasks, in order.
    pub segments: Vec<Bulk>,
    /// Whether the moment at which each task starts is to be noted in the cell.
    pub timed: bool,
    /// The outcomes of which their arguments are made.
    pub given: Vec<Given>,
    /// Tasks that have had rounds before, in order, each with a number that is another one in each round.
    pub rounds: Vec<(u32, u32)>,
}

/// What an executor says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromExecutor {
    /// First.
    Hello {
        /// [`VERSION`] of the program.
        version: u16,
        /// Release of the library in it, for people.
        release: String,
    },
    /// Tasks have ended.
    Outcomes(Vec<Outcomes>),
    /// A task waits for the outcomes of others. All of its load that has ended was said before; what of the
    /// load was not started is not started here any more, and the load is over but for this task.
    Blocked {
        /// Which.
        task: Begun,
        /// For what.
        on: Vec<Awaited>,
        /// How long it ran before that, if it is known, in microseconds.
        run_us: Option<u64>,
    },
    /// A blocked task goes on, in this lane: its outcome comes in a [`FromExecutor::Late`].
    Resumed {
        /// Which.
        task: Begun,
    },
    /// A task has ended that had blocked.
    Late {
        /// Which.
        task: Begun,
        /// Its outcome, of its range in the batch.
        part: Part,
    },
    /// A task has called another: a batch of one task.
    Submit(Box<Submitted>),
    /// A task wants another ended.
    Cancel {
        /// Which.
        task: TaskId,
    },
    /// What tasks say to people; of one that has ended meanwhile it is not heard.
    Said(Vec<(Begun, Said)>),
}

/// A call from a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Who called.
    pub parent: Begun,
    /// The call's batch.
    pub batch: BatchId,
    /// Function, policy, environment.
    pub spec: BatchSpec,
    /// The argument segment.
    pub segment: Bulk,
    /// Which tasks it names.
    pub mentions: Vec<Mention>,
}

/// What of a load has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Of which load.
    pub sequence: u32,
    /// What of it, in order.
    pub parts: Vec<Part>,
    /// Whether nothing of the load is left.
    pub finished: bool,
}

/// The outcomes of contiguous tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which tasks.
    pub range: TaskRange,
    /// Their outcome segment.
    pub segment: Bulk,
    /// How long they ran, together, in microseconds.
    pub run_us: u64,
    /// Which of their results name which tasks.
    pub mentions: Vec<Mention>,
}

/// Longest message at the counter, in bytes.
pub const COUNTER_BYTES_MAX: usize = 8 << 10;

/// Arrays that the tasks of one executor may write at a time ([`Application::Pour`]).
pub const WRITERS_MAX: usize = 16;

/// What an executor wants at the counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Application {
    /// To map these bytes.
    Borrow {
        /// Of what.
        content: Content,
        /// The first one, ...
        start: u64,
        /// ... and the one behind the last.
        end: u64,
    },
    /// To leave a long result: `bytes` bytes of a sealed memory file, whose descriptor is behind that of the
    /// socket for the answer.
    Deposit {
        /// Of which batch.
        batch: BatchId,
        /// Of which of its tasks.
        task: u32,
        /// How long it is.
        bytes: u64,
    },
    /// To leave an array of any length that is still to be written. It comes through the pipe whose descriptor is behind
    /// that of the socket for the answer, in pieces and with an end of its own: see `allhands_store::pieces`.
    Pour {
        /// Of which batch.
        batch: BatchId,
        /// Of which of its tasks.
        task: u32,
    },
}

/// The answer to an [`Application`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The descriptor beside this has the bytes that were asked for, and those around them that may be mapped
    /// as well.
    Lent {
        /// The first byte of the content that may be mapped, ...
        start: u64,
        /// ... the one behind the last, ...
        end: u64,
        /// ... and where the first is in the descriptor's file.
        offset: u64,
        /// Which file in place that is, if it is none of the store: to be looked at before and after each use.
        in_place: Option<FileRef>,
    },
    /// The result is stored.
    Kept(BlobRef),
    /// It cannot be.
    Refused(Cause),
}

impl Carries for ToExecutor {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Batch(common) => visit(&mut common.context),
            Self::Load(load) => {
                load.segments.iter_mut().for_each(&mut *visit);
                load.given.iter_mut().for_each(|given| visit(&mut given.outcome));
            }
            Self::Give(given) => visit(&mut given.outcome),
            Self::Welcome { .. }
            | Self::Forget { .. }
            | Self::Stop
            | Self::Opened { .. }
            | Self::Cancel { .. } => {}
        }
    }
}

impl Carries for FromExecutor {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Outcomes(loads) => {
                let parts = loads.iter_mut().flat_map(|load| &mut load.parts);
                parts.for_each(|part| visit(&mut part.segment));
            }
            Self::Late { part, .. } => visit(&mut part.segment),
            Self::Submit(submitted) => visit(&mut submitted.segment),
            Self::Hello { .. }
            | Self::Blocked { .. }
            | Self::Resumed { .. }
            | Self::Said(_)
            | Self::Cancel { .. } => {}
        }
    }
}

/// A frame that cannot be read. The other side is damaged: it is to be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its header announces more than a frame may have.
    #[error(
        "a frame of {head} and {bulk} bytes, beyond the limit of {HEAD_BYTES_MAX} and {BULK_BYTES_MAX}"
    )]
    TooLong {
        /// Bytes of the head.
        head: usize,
        /// Bytes of the bulk.
        bulk: usize,
    },
    /// Its head is not a message.
    #[error("the head of a frame is not a message")]
    Head(#[from] DecodeError),
    /// Its bulk is not what its head announces.
    #[error("the bulk of a frame is not what its head announces")]
    Bulk(#[from] BulkMismatch),
}

/// Lengths of a frame's head and bulk.
///
/// # Errors
/// When they are beyond the limits.
pub fn read_header(header: [u8; HEADER_BYTES]) -> Result<(usize, usize), FrameError> {
    let [a, b, c, d, e, f, g, h] = header;
    let head = u32::from_le_bytes([a, b, c, d]) as usize;
    let bulk = u32::from_le_bytes([e, f, g, h]) as usize;
    if head > HEAD_BYTES_MAX || bulk > BULK_BYTES_MAX {
        return Err(FrameError::TooLong { head, bulk });
    }
    Ok((head, bulk))
}

/// Appends header and head of `message`'s frame to `head`, and the pieces of its bulk, which follow
/// in this order on the wire, to `bulk`.
///
/// # Errors
/// When the message cannot be encoded.
pub fn write_frame<T: Serialize + Carries>(
    message: &mut T,
    head: &mut Vec<u8>,
    bulk: &mut Vec<Bytes>,
) -> Result<(), EncodeError> {
    let start = head.len();
    head.extend_from_slice(&[0; HEADER_BYTES]);
    codec::encode(message, head)?;
    let mut carried = 0;
    message.each_bulk(&mut |piece| {
        carried += piece.bytes.len();
        if !piece.bytes.is_empty() {
            bulk.push(piece.bytes.clone());
        }
    });
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let announced = length(head.len() - start - HEADER_BYTES);
    head[start..start + 4].copy_from_slice(&announced);
    head[start + 4..start + HEADER_BYTES].copy_from_slice(&length(carried));
    Ok(())
}

/// The message of a frame whose head and bulk these are.
///
/// # Errors
/// When they are not one.
pub fn read_frame<T: DeserializeOwned + Carries>(
    head: &[u8],
    bulk: Bytes,
) -> Result<T, FrameError> {
    let mut message = codec::decode(head)?;
    bulk::attach(&mut message, bulk)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> FromExecutor {
        let part = |start, bytes: &'static [u8]| Part {
            range: TaskRange::new(start, start + 1),
            segment: Bytes::from_static(bytes).into(),
            run_us: 300,
            mentions: Vec::new(),
        };
        let parts = [part(4, b"ab"), part(9, b"c")].into();
        FromExecutor::Outcomes([Outcomes { sequence: 3, parts, finished: true }].into())
    }

    #[test]
    fn the_bytes_are_these() {
        let (mut head, mut bulk) = (Vec::new(), Vec::new());
        write_frame(&mut outcomes(), &mut head, &mut bulk).unwrap();
        let expected = [
            19, 0, 0, 0, 3, 0, 0, 0, 1, 1, 3, 2, 4, 5, 2, 251, 44, 1, 0, 9, 10, 1, 251, 44, 1, 0, 1,
        ];
        assert_eq!(head, expected);
        assert_eq!(bulk.concat(), b"abc");
    }

    #[test]
    fn a_frame_comes_back() {
        let (mut head, mut bulk) = (Vec::new(), Vec::new());
        write_frame(&mut outcomes(), &mut head, &mut bulk).unwrap();
        let lengths = read_header(*head.first_chunk().unwrap()).unwrap();
        assert_eq!(lengths, (head.len() - HEADER_BYTES, 3));
        let got: FromExecutor = read_frame(&head[HEADER_BYTES..], bulk.concat().into()).unwrap();
        let FromExecutor::Outcomes(loads) = got else { panic!("{got:?}") };
        let [Outcomes { parts, finished: true, .. }] = &loads[..] else { panic!("{loads:?}") };
        assert_eq!(
            (parts[0].segment.bytes.as_ref(), parts[1].segment.bytes.as_ref()),
            (&b"ab"[..], &b"c"[..])
        );
    }

    #[test]
    fn a_header_beyond_the_limits_is_refused() {
        assert!(read_header([0xff; HEADER_BYTES]).is_err());
    }
}
