//! The cluster's words: what two or more of the crates must agree on.
//!
//! The default half is `no_std` and pure: ids, task ranges, columnar segments, policies, failures,
//! messages and their codec. The feature `net` adds the half that has a socket: identities, mutual
//! TLS, QUIC endpoints and links.
//!
//! What belongs to one crate alone does not belong here.
#![cfg_attr(not(any(feature = "net", test)), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blob;
pub mod bulk;
pub mod chain;
pub mod codec;
pub mod execution;
pub mod failure;
pub mod frame;
pub mod function;
pub mod id;
pub mod limit;
pub mod names;
#[cfg(feature = "net")]
pub mod net;
pub mod paged;
pub mod policy;
pub mod program;
pub mod range;
pub mod resources;
pub mod role;
pub mod segment;
pub mod time;
pub mod wire;
