//! Who fetches which chunk from whom.
//!
//! Bytes move once: a blob that many machines want leaves its source about once, chunk by chunk, and those
//! who have some chunks give them to those who lack them, while they are still fetching the rest.
//!
//! * [`exchange`] decides, and does nothing: a deterministic machine, driven by the shell here and by the
//!   simulator in the tests.
//! * [`node`] does it: over QUIC, with a chunk store behind the trait in [`store`].
//! * [`inquiry`] waits for the leader to say who has a blob.
//!
//! Nothing here survives a crash: chunks that have come are in the store, and what is still wanted is asked
//! for again by whoever wants it.
#![forbid(unsafe_code)]

pub mod exchange;
pub mod inquiry;
pub mod node;
pub mod store;
