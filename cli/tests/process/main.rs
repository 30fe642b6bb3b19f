//! The command as a user meets it: real processes, real sockets, real files.

#[path = "../support/mod.rs"]
mod support;

mod dev;
mod init;
mod refusals;
