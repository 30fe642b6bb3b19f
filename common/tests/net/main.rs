//! Tests of `allhands_common::net` over real sockets on 127.0.0.1 and real files. Nothing here judges time;
//! every wait has a generous deadline, so that nothing hangs.
#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]

mod dial;
mod hostile;
mod identity;
mod link;
mod refusal;
mod support;
mod throughput;
