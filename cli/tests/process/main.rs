//! The command as a user meets it: real processes, real sockets, real files.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../support/mod.rs"]
mod support;

mod blobs;
mod daemons;
mod dev;
mod init;
mod refusals;
