//! Bytes that nobody has drawn before: they tell one process, or one file, from any other. The system's, not a clock's.

use std::fs::File;
use std::io::{self, Read as _};

/// 16 random bytes.
pub(crate) fn nonce() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
