//! What has happened.

use allhands_common::blob::BlobId;
use allhands_common::wire::data::{ChunkRange, ChunkSet};

use super::{Peer, Request, Ticket, Want, Wanted};

/// Why a holder did not send a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not there and not about to come.
    NotHere,
    /// Too much is asked there at the moment.
    Busy,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time has passed.
    Tick,

    /// Somebody here wants chunks.
    Want {
        /// Under which number.
        want: Want,
        /// What.
        wanted: Wanted,
    },
    /// It does not any more.
    Unwant {
        /// Which.
        want: Want,
    },
    /// The leader knows more holders of a blob that may be being fetched.
    Holders {
        /// Which blob.
        blob: BlobId,
        /// Who, and whether they have all of it.
        holders: Vec<(Peer, bool)>,
    },
    /// A manifest has come, is right, and the store has made room for its blob.
    ManifestCame {
        /// Our number.
        request: Request,
        /// Which blob.
        blob: BlobId,
        /// How long it is, in bytes.
        bytes: u64,
        /// Which of its chunks the store has.
        present: ChunkSet,
    },
    /// A chunk has come, is right, and is in the store.
    Stored {
        /// Our number.
        request: Request,
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
    },
    /// A chunk that was here turned out to be damaged: whoever wants it waits for it again.
    Damaged {
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
    },
    /// What came as an answer is not what was asked for.
    Wrong {
        /// Our number.
        request: Request,
    },
    /// A holder sends us to another.
    Redirected {
        /// Our number.
        request: Request,
        /// To whom.
        to: Peer,
    },
    /// A holder did not send it.
    Refused {
        /// Our number.
        request: Request,
        /// Why.
        why: Refused,
    },
    /// The store cannot keep a blob: everybody who waits for it learns that.
    StoreFailed {
        /// Which blob.
        blob: BlobId,
    },
    /// A holder says what it has and who else wants the blob.
    Have {
        /// Who says so.
        peer: Peer,
        /// Which blob.
        blob: BlobId,
        /// What it has, beside what it said before.
        chunks: Vec<ChunkRange>,
        /// Who else wants it.
        others: Vec<Peer>,
    },
    /// `peer` cannot be asked: there is no link, or it has ended.
    HolderGone {
        /// Who.
        peer: Peer,
    },

    /// Somebody may ask now.
    AskerCame {
        /// Who.
        peer: Peer,
        /// Whether others can be sent there.
        reachable: bool,
    },
    /// Somebody asks no more.
    AskerGone {
        /// Who.
        peer: Peer,
    },
    /// A chunk is asked for.
    Asked {
        /// By whom, under which number.
        ticket: Ticket,
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
        /// Who did not give it.
        failed: Vec<Peer>,
    },
    /// An answer is not needed any more.
    Withdrawn {
        /// To what.
        ticket: Ticket,
    },
    /// A chunk was read and handed to the transport, or it was not here.
    Served {
        /// The answer to what.
        ticket: Ticket,
        /// Whether it was here.
        found: bool,
    },
    /// Somebody wants to know what is here of a blob.
    Followed {
        /// Who.
        peer: Peer,
        /// Which.
        blob: BlobId,
    },
    /// Not any more.
    Unfollowed {
        /// Who.
        peer: Peer,
        /// Which.
        blob: BlobId,
    },
    /// The answer to [`Action::LookUp`](super::Action::LookUp).
    Present {
        /// Who wanted to know.
        peer: Peer,
        /// Of which blob.
        blob: BlobId,
        /// What is here.
        chunks: ChunkSet,
    },
}
