//! A disk that takes no more: the log's open file is put into memory, behind a link, and sealed when it is to fail.
//! Whoever has it open gets an error for each write from then on, as from a disk that fails.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The chunk files of a log, oldest first.
pub(crate) fn chunks(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    paths.sort();
    paths
}

/// The newest chunk of a log, in memory.
#[derive(Debug)]
pub(crate) struct BadDisk {
    memory: File,
    path: PathBuf,
}

impl BadDisk {
    /// Puts itself below the log in `dir`, which nobody has open.
    pub(crate) fn below(dir: &Path) -> Self {
        let path = chunks(dir).pop().unwrap();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(memfd_create("log", flags).unwrap());
        memory.write_all(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(format!("/proc/self/fd/{}", memory.as_raw_fd()), &path).unwrap();
        Self { memory, path }
    }

    /// From now on each write fails.
    pub(crate) fn fail(&self) {
        fcntl_add_seals(&self.memory, SealFlags::WRITE | SealFlags::GROW).unwrap();
    }

    /// What was written comes onto a disk that is well.
    pub(crate) fn replace(self) {
        let written = fs::read(&self.path).unwrap();
        fs::remove_file(&self.path).unwrap();
        fs::write(&self.path, written).unwrap();
    }
}
