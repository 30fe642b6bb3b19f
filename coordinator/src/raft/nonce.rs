//! Bytes that nobody has drawn before: they tell one process, or one file, from any other. The system's, not a clock's.

use std::io;

use allhands_common::net::random;

/// 16 random bytes.
pub(crate) fn nonce() -> io::Result<[u8; 16]> {
    random::bytes()
}
