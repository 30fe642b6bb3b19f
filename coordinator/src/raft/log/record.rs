//! What one record of the log looks like to `raft-log`, which frames and checksums (CRC32) every record itself.
//!
//! ```text
//! id    log id (24 bytes, see `layout`)
//! body  kind u8 · length u32 · check u32 · bytes
//!       kind 0 blank, 1 proposal (raw bytes), 2 membership (see `layout`);
//!       check: the first 4 bytes of the blake3 of kind and length
//! ```
//!
//! The check keeps a flipped bit in `length` from looking like a torn tail: `raft-log` cuts the log where a record
//! ends before its length says, and must only do that where the file itself ends.
//!
//! Driven by the log store, on the caller's thread when encoding, on the opening thread when replaying.
//! A record is on disk when its [`Synced`] was told so; not before.

use std::io::{self, Read, Write};

use openraft::storage::IOFlushed;
use raft_log::codeq::{Decode, Encode};
use tokio::sync::oneshot;

use crate::raft::bytes_in::BytesIn;
use crate::raft::layout::{self, LOG_ID_BYTES, VOTE_BYTES};
use crate::raft::types::{ENTRY_BYTES_MAX, LogId, Payload, Proposal, TypeConfig, Vote};

/// The type family that `raft-log` is opened with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId(pub(crate) LogId);

#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub(crate) struct RecordVote(pub(crate) Vote);

/// `PartialEq` of a vote is total; `raft-log` wants it said.
impl Eq for RecordVote {}

#[derive(Debug, Clone)]
pub(crate) struct Body(pub(crate) Payload);

/// The user's part of a checkpoint, which we never write: one fixed byte, so that damage cannot give it a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nothing;

/// Whom to tell that a write has reached the disk, or that it failed.
pub(crate) enum Synced {
    Raft(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

impl raft_log::Callback for Synced {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Raft(flushed) => flushed.io_completed(result),
            // The waiter may have been cancelled; the write itself stands.
            Self::Waiter(waiter) => drop(waiter.send(result)),
        }
    }
}

impl raft_log::Types for Records {
    type LogId = RecordId;
    type LogPayload = Body;
    type Vote = RecordVote;
    type Callback = Synced;
    type UserData = Nothing;

    fn log_index(id: &RecordId) -> u64 {
        id.0.index
    }

    fn payload_size(body: &Body) -> u64 {
        body_bytes(&body.0)
    }
}

/// Bytes that an entry counts for in every budget of this module.
pub(crate) fn body_bytes(payload: &Payload) -> u64 {
    const OTHER_BYTES: u64 = 64;
    match payload {
        Payload::Normal(Proposal(bytes)) => OTHER_BYTES + bytes.len() as u64,
        Payload::Blank | Payload::Membership(_) => OTHER_BYTES,
    }
}

impl Encode for RecordId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut out = Vec::with_capacity(LOG_ID_BYTES);
        layout::put_log_id(&self.0, &mut out);
        w.write_all(&out)?;
        Ok(out.len())
    }
}

impl Decode for RecordId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let mut bytes = [0; LOG_ID_BYTES];
        r.read_exact(&mut bytes)?;
        layout::log_id(&mut BytesIn(&bytes)).map(Self)
    }
}

impl Encode for RecordVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut out = Vec::with_capacity(VOTE_BYTES);
        layout::put_vote(&self.0, &mut out);
        w.write_all(&out)?;
        Ok(out.len())
    }
}

impl Decode for RecordVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let mut bytes = [0; VOTE_BYTES];
        r.read_exact(&mut bytes)?;
        layout::vote(&mut BytesIn(&bytes)).map(Self)
    }
}

impl Encode for Body {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut membership = Vec::new();
        let (kind, bytes): (u8, &[u8]) = match &self.0 {
            Payload::Blank => (0, &[]),
            Payload::Normal(Proposal(bytes)) => (1, bytes),
            Payload::Membership(given) => {
                layout::put_membership(given, &mut membership)?;
                (2, &membership)
            }
        };
        let length = u32::try_from(bytes.len())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let head = body_head(kind, length);
        w.write_all(&head)?;
        w.write_all(bytes)?;
        Ok(head.len() + bytes.len())
    }
}

impl Decode for Body {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let mut given = [0; BODY_HEAD_BYTES];
        r.read_exact(&mut given)?;
        let mut head = BytesIn(&given);
        let (kind, length) = (head.u8()?, head.u32()?);
        if given != body_head(kind, length) {
            return Err(invalid("the head of an entry does not match its check".to_owned()));
        }
        let length = length as usize;
        if length > ENTRY_BYTES_MAX {
            return Err(invalid(format!(
                "an entry of {length} bytes: the longest has {ENTRY_BYTES_MAX}"
            )));
        }
        let mut bytes = Vec::with_capacity(length);
        if r.take(length as u64).read_to_end(&mut bytes)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match kind {
            0 => Ok(Self(Payload::Blank)),
            1 => Ok(Self(Payload::Normal(Proposal(bytes.into())))),
            2 => layout::membership(&mut BytesIn(&bytes))
                .map(|given| Self(Payload::Membership(given))),
            other => Err(invalid(format!(
                "an entry of unknown kind {other}: written by a newer version?"
            ))),
        }
    }
}

impl Encode for Nothing {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        w.write_all(&NOTHING)?;
        Ok(NOTHING.len())
    }
}

impl Decode for Nothing {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let mut given = [0; NOTHING.len()];
        r.read_exact(&mut given)?;
        if given == NOTHING {
            Ok(Self)
        } else {
            Err(invalid("user data in a checkpoint".to_owned()))
        }
    }
}

const NOTHING: [u8; 1] = [0x4e];
const BODY_HEAD_BYTES: usize = 9;

fn body_head(kind: u8, length: u32) -> [u8; BODY_HEAD_BYTES] {
    let mut head = [0; BODY_HEAD_BYTES];
    head[0] = kind;
    head[1..5].copy_from_slice(&length.to_le_bytes());
    let check = blake3::hash(&head[..5]);
    head[5..].copy_from_slice(&check.as_bytes()[..4]);
    head
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
