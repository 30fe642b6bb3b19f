//! The messages of each link, one enum a direction. A link is opened by a handshake
//! (`net::handshake`); then only its two enums travel on it, so that what a peer may say follows from
//! what its certificate let it open.
//!
//! Variants and fields are only appended, never edited: their order is the encoding.

pub mod admin;
pub mod client;
pub mod executor;
pub mod worker;
