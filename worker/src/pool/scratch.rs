//! Directories that executors may write to, and that go away with them.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, geteuid, test_kill_process};

const PREFIX: &str = "allhands-";

/// Longest path of a pool's directory: what a socket's path leaves, which has at most 107 bytes.
const PATH_BYTES_MAX: usize = 80;

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes `path`, for this user alone or, with `shared`, for others to pass through.
    ///
    /// # Errors
    /// When it cannot be made, or is there.
    pub fn make(path: PathBuf, shared: bool) -> io::Result<Self> {
        let mode = if shared { 0o711 } else { 0o700 };
        std::fs::DirBuilder::new().mode(mode).create(&path)?;
        Ok(Self(path))
    }

    /// A directory of this process among the system's temporary files. What earlier processes of this
    /// user left there when they were killed is removed first.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > PATH_BYTES_MAX - 32 {
            parent = "/tmp".into();
        }
        sweep(&parent);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match Self::make(path, false) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                answer => return answer,
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes directories of processes that are no more.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| {
            let (process, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
            Pid::from_raw(process.parse().ok()?)
        });
        let dead = process
            .is_some_and(|process| test_kill_process(process) == Err(rustix::io::Errno::SRCH));
        let ours = entry
            .metadata()
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
        if dead && ours {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_away_with_its_owner_and_dead_ones_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let left = parent.path().join(format!("{PREFIX}{}-0", gone.id()));
        let alive = parent.path().join(format!("{PREFIX}{}-0", std::process::id()));
        let other = parent.path().join("allhands-notes");
        for path in [&left, &alive, &other] {
            std::fs::create_dir(path).unwrap();
        }
        sweep(parent.path());
        assert_eq!([&left, &alive, &other].map(|path| path.exists()), [false, true, true]);
        let directory = Directory::make(parent.path().join("d"), false).unwrap();
        let path = directory.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }
}
