//! The decisions: who is asked for which chunk, and who is answered how.
//!
//! [`Exchange`] is a deterministic machine: events go in, actions come out, time is an argument. It has no
//! clock, socket, thread or randomness, and it never sees the bytes of a chunk. The shell (`node`) and the
//! simulator (`tests/sim`) drive the same code. Nothing of it survives a crash: what a node has is in its
//! store, what it wants is asked for again.
//!
//! It has two halves. `fetch` wants chunks and finds somebody who has them; `serve` answers those who
//! want some from here. They meet in one place: a chunk that is asked for here and is on its way here is
//! handed on as soon as it has come, so that a broadcast goes through everybody at once.

mod action;
mod config;
mod event;
mod fetch;
mod machine;
mod serve;

pub use action::Action;
pub use config::Config;
pub use event::{Event, Refused};
pub use fetch::{Known, Unfetched, Wanted};
pub use machine::{Exchange, Violation};

/// Somebody else, by the number that the shell gave. The same node keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

/// One request of ours; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request(pub u64);

/// One waiter for chunks, by the number that the shell gave. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want(pub u64);

/// A request of somebody else: whose, and by which number of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Who asks.
    pub peer: Peer,
    /// Their number for it.
    pub request: u64,
}
