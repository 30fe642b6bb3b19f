//! Identifiers. One macro for the counted ones, one for those that are random or derived from what they
//! name, so that two `u64` never stand side by side as arguments and every id prints alike.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// An id text that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {expected}")]
pub struct ParseIdError {
    what: &'static str,
    expected: &'static str,
}

/// A counted id: a `u64` (or smaller) that somebody hands out in order.
macro_rules! counted_id {
    ($(#[$meta:meta])* $name:ident($int:ty), $what:literal) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse()
                    .map(Self)
                    .map_err(|_| ParseIdError { what: $what, expected: "a decimal number" })
            }
        }
    };
}

/// An id of so many hexadecimal digits: random bits, or (the start of) a blake3.
macro_rules! hex_id {
    ($(#[$meta:meta])* $name:ident($digits:literal), $what:literal) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub [u8; $digits / 2]);

        impl $name {
            /// The first bytes of a blake3, as many as there are.
            pub fn from_hash(hash: blake3::Hash) -> Self {
                let mut bytes = [0; $digits / 2];
                bytes.copy_from_slice(&hash.as_bytes()[..$digits / 2]);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let expected = concat!($digits, " hexadecimal digits");
                parse_hex(text).map(Self).ok_or(ParseIdError { what: $what, expected })
            }
        }
    };
}

hex_id! {
    /// One cluster: 128 random bits, given by `allhands init`. In every certificate and directory.
    ClusterId(32), "a cluster id"
}
hex_id! {
    /// One client process's stay: 128 random bits, given by the client.
    SessionId(32), "a session id"
}
hex_id! {
    /// One batch, named by its submitter before anything is sent, so that submitting it again is
    /// submitting it once.
    BatchId(32), "a batch id"
}
hex_id! {
    /// One start of a worker daemon: a new boot id means that every attempt of the old one ended.
    BootId(32), "a boot id"
}

hex_id! {
    /// A user's executable: blake3 of the file.
    ProgramId(64), "a program id"
}
hex_id! {
    /// A chunk: blake3 of its bytes.
    ChunkId(64), "a chunk id"
}
hex_id! {
    /// A blob: blake3 of its length and of its chunks' ids, see [`crate::blob::Manifest::id`].
    BlobId(64), "a blob id"
}

counted_id! {
    /// One coordinator, for ever: a lost directory comes back under a new id.
    CoordinatorId(u64), "a coordinator id"
}
counted_id! {
    /// One worker, for as long as its directory lives: 63 random bits, given by itself.
    WorkerId(u64), "a worker id"
}
counted_id! {
    /// One job: a counter in the replicated state, never reused. Below the counter and absent means
    /// expired, above it unknown.
    JobId(u64), "a job id"
}
counted_id! {
    /// One executor process of a worker's boot.
    ExecutorId(u32), "an executor id"
}
counted_id! {
    /// One stored segment of a cluster: a counter in the replicated state, never reused.
    SegmentId(u64), "a segment id"
}
counted_id! {
    /// A request of a session that is not named by what it makes (a batch names itself).
    RequestId(u64), "a request id"
}
counted_id! {
    /// The leader's term.
    Term(u64), "a term"
}
counted_id! {
    /// The place of an entry in the log.
    LogIndex(u64), "a log index"
}
counted_id! {
    /// Whose work it is: interned name of a tenant.
    NamespaceId(u32), "a namespace id"
}

impl BatchId {
    /// The id of the `sequence`-th batch that `session` submits to `cluster`.
    pub fn of_session(cluster: ClusterId, session: SessionId, sequence: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 batch of a session");
        hasher.update(&cluster.0);
        hasher.update(&session.0);
        hasher.update(&sequence.to_le_bytes());
        Self::from_hash(hasher.finalize())
    }

    /// The id of the `number`-th of the equal calls that the task `parent` submits; `call` is the hash of
    /// functions and arguments. A task that is run again and makes the same calls names the same batches.
    pub fn of_task(parent: TaskId, call: &[u8; 32], number: u32) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 batch of a task");
        hasher.update(&parent.to_bytes());
        hasher.update(call);
        hasher.update(&number.to_le_bytes());
        Self::from_hash(hasher.finalize())
    }
}

/// One call: the `index`-th task of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// Its batch.
    pub batch: BatchId,
    /// Its place there, from 0.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.batch, self.index)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = ParseIdError {
            what: "a task id",
            expected: "BATCH:INDEX, as `allhands job` prints it",
        };
        let (batch, index) = text.split_once(':').ok_or_else(|| wrong.clone())?;
        match (batch.parse(), index.parse()) {
            (Ok(batch), Ok(index)) => Ok(Self { batch, index }),
            _ => Err(wrong),
        }
    }
}

/// One try to run a range of tasks. The term is in it, so no two leaders can give the same one, and
/// a later attempt is always the greater one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct AttemptId {
    /// Term of the leader that gave it.
    pub term: Term,
    /// Counter within that term: 64 bits, because a million attempts a second wrap 32 in an hour.
    pub number: u64,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_digits_print_and_parse_alike() {
        let id = BatchId::of_session(ClusterId([1; 16]), SessionId([2; 16]), 3);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("12".parse::<BatchId>().is_err());
        assert!("+1".repeat(16).parse::<BatchId>().is_err());
        let error = "12".parse::<ChunkId>().unwrap_err().to_string();
        assert_eq!(error, "not a chunk id: expected 64 hexadecimal digits");
        let id = ChunkId::from_hash(blake3::hash(b"chunk"));
        assert_eq!(id.to_string(), blake3::hash(b"chunk").to_hex().as_str());
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn task_ids_print_and_parse_alike() {
        let id = TaskId { batch: BatchId([7; 16]), index: 42 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("07:x".parse::<TaskId>().is_err());
    }

    #[test]
    fn a_later_term_outranks_any_number_of_an_earlier_one() {
        let old = AttemptId { term: Term(1), number: u64::MAX };
        let new = AttemptId { term: Term(2), number: 0 };
        assert!(old < new);
    }
}
