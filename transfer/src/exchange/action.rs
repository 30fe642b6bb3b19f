//! What the shell is to do.

use allhands_common::blob::BlobId;
use allhands_common::wire::data::ChunkRange;

use super::{Peer, Request, Ticket, Unfetched, Want};

/// One thing to do, in the order given. What cannot be done is said with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask `peer` for a blob's manifest, page by page; verify it, make room for the blob and keep it.
    AskManifest {
        /// Whom.
        peer: Peer,
        /// Our number.
        request: Request,
        /// Which blob.
        blob: BlobId,
    },
    /// Ask `peer` for a chunk.
    Ask {
        /// Whom.
        peer: Peer,
        /// Our number.
        request: Request,
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
        /// Who did not give it.
        failed: Vec<Peer>,
    },
    /// Tell `peer` that an answer is not needed any more.
    Cancel {
        /// Whom.
        peer: Peer,
        /// Our number.
        request: Request,
    },
    /// Ask `peer` to say what it has of a blob, now and later.
    Follow {
        /// Whom.
        peer: Peer,
        /// Which blob.
        blob: BlobId,
    },
    /// The opposite.
    Unfollow {
        /// Whom.
        peer: Peer,
        /// Which blob.
        blob: BlobId,
    },
    /// `peer` is silent: end the link on which it is asked.
    GiveUp {
        /// Who.
        peer: Peer,
    },
    /// `peer` sent wrong bytes; it is not asked for this blob again. For the log and for the leader.
    Report {
        /// Who.
        peer: Peer,
        /// Which blob.
        blob: BlobId,
    },
    /// A waiter has what it wants, or never will.
    Finish {
        /// Which.
        want: Want,
        /// How it ended.
        result: Result<(), Unfetched>,
    },

    /// Read a chunk and send it; then [`Event::Served`](super::Event::Served).
    Serve {
        /// As the answer to this.
        ticket: Ticket,
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
    },
    /// Answer that somebody else has it.
    Redirect {
        /// What is answered.
        ticket: Ticket,
        /// Who.
        to: Peer,
    },
    /// Answer why it is not sent.
    Refuse {
        /// What is answered.
        ticket: Ticket,
        /// Why.
        why: super::Refused,
    },
    /// Find out which chunks of a blob are here; then [`Event::Present`](super::Event::Present).
    LookUp {
        /// Which blob.
        blob: BlobId,
        /// Who wants to know.
        peer: Peer,
    },
    /// Tell `peer` what has come of a blob and who else wants it.
    Tell {
        /// Whom.
        peer: Peer,
        /// Which blob.
        blob: BlobId,
        /// Which chunks.
        chunks: Vec<ChunkRange>,
        /// Who else.
        others: Vec<Peer>,
    },
}
