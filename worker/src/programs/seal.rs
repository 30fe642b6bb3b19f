//! The last step of a fetch: from a part to a program.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use allhands_common::program::ProgramId;

/// What is hashed at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A part that has all its bytes.
#[derive(Debug)]
pub(crate) struct Seal {
    pub(crate) program: ProgramId,
    pub(super) part: PathBuf,
}

impl Seal {
    /// Checks it, and gives it its name. `false` when its bytes are others. Blocks.
    pub(crate) fn run(self) -> io::Result<bool> {
        let mut file = File::open(&self.part)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => _ = hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if *hasher.finalize().as_bytes() != self.program.0 {
            return Ok(false);
        }
        file.set_permissions(Permissions::from_mode(0o555))?;
        file.sync_all()?;
        std::fs::rename(&self.part, self.part.with_extension(""))?;
        if let Some(directory) = self.part.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(true)
    }
}
