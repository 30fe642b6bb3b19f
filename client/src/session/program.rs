//! The user's executable: what the cluster is told of it, and its bytes when it asks for them.
//!
//! The file is opened once, so that a rebuild while the program runs changes nothing: the process, the
//! hash and the bytes that are shipped stay those of one build.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use allhands_common::program::{Platform, Program, ProgramId};
use bytes::Bytes;

/// Longest piece that is sent at a time.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// This process's executable.
#[derive(Debug)]
pub(crate) struct Executable {
    file: File,
    pub(crate) program: Program,
}

impl Executable {
    /// For a cluster that fetches it: named by the hash of its bytes.
    ///
    /// # Errors
    /// The file cannot be read, or is not one that the cluster can run.
    pub(crate) fn hashed() -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let mut bytes = Vec::new();
        io::copy(&mut &file, &mut bytes)?;
        let glibc = allhands_store::elf::glibc_needed(&bytes).map_err(io::Error::other)?;
        let id = ProgramId(*blake3::hash(&bytes).as_bytes());
        Ok(Self { file, program: program(id, bytes.len() as u64, glibc) })
    }

    /// For the embedded cluster, which starts the running file itself: named by which file it is, so
    /// that nothing has to be read before the first task.
    ///
    /// # Errors
    /// The file cannot be looked at.
    #[cfg(feature = "embedded")]
    pub(crate) fn named() -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;

        let file = File::open("/proc/self/exe")?;
        let data = file.metadata()?;
        let mut hasher = blake3::Hasher::new_derive_key("allhands 2026 executable in place");
        for number in [data.dev(), data.ino(), data.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
        let id = ProgramId(*hasher.finalize().as_bytes());
        Ok(Self { file, program: program(id, data.size(), None) })
    }

    /// The bytes from `offset` on, at most `bytes` of them.
    pub(crate) fn read(&self, offset: u64, bytes: u32) -> io::Result<Bytes> {
        let left = self.program.bytes.saturating_sub(offset);
        let length =
            usize::try_from(left).unwrap_or(usize::MAX).min(bytes as usize).min(CHUNK_BYTES_MAX);
        let mut chunk = vec![0; length];
        self.file.read_exact_at(&mut chunk, offset)?;
        Ok(chunk.into())
    }
}

fn program(id: ProgramId, bytes: u64, glibc: Option<(u16, u16)>) -> Program {
    let platform =
        Platform { arch: std::env::consts::ARCH.into(), os: std::env::consts::OS.into(), glibc };
    Program { id, bytes, platform, name: program_name() }
}

/// The executable's file name.
pub(crate) fn program_name() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_make_up_what_was_hashed() {
        let executable = Executable::hashed().unwrap();
        let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
        while offset < executable.program.bytes {
            let chunk = executable.read(offset, 700_000).unwrap();
            hasher.update(&chunk);
            offset += chunk.len() as u64;
        }
        assert_eq!(*hasher.finalize().as_bytes(), executable.program.id.0);
        assert!(executable.read(offset, 10).unwrap().is_empty());
    }
}
