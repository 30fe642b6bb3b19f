//! Bytes that nobody has drawn before. The system's, not a clock's.

use std::fs::File;
use std::io::{self, Read as _};

/// `N` random bytes.
///
/// # Errors
/// The system gives none.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
