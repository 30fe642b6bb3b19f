//! Temporary directories that go away with whoever made them: for what executors write, and for the blobs of a
//! program.
//!
//! Each holds a lock on itself while its owner lives. What is not locked was left by a process that was
//! killed. A lock also speaks for an owner in another PID namespace that shares the temporary files, where
//! a process id would not.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::geteuid;

const PREFIX: &str = "allhands-";

/// Longest path of a pool's directory: what a socket's path leaves, which has at most 107 bytes.
const PATH_BYTES_MAX: usize = 80;

/// For this user alone, and for others to pass through to what they are told of.
const OWN: u32 = 0o700;
const PASSABLE: u32 = 0o711;

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, locked.
    _lock: Option<File>,
}

impl Directory {
    /// Makes `path`, for this user alone or, with `shared`, for others to pass through.
    ///
    /// # Errors
    /// When it cannot be made, or is there.
    pub fn make(path: PathBuf, shared: bool) -> io::Result<Self> {
        let mode = if shared { PASSABLE } else { OWN };
        std::fs::DirBuilder::new().mode(mode).create(&path)?;
        Ok(Self { path, _lock: None })
    }

    /// A directory of this process among the system's temporary files, for this user alone. What earlier
    /// processes of this user left there when they were killed is removed first.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> io::Result<Self> {
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > PATH_BYTES_MAX - 32 {
            parent = "/tmp".into();
        }
        sweep(&parent);
        Self::locked(&parent)
    }

    fn locked(parent: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(OWN).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                answer => answer?,
            }
            // Somebody who sweeps may have been quicker: then the next number has more luck.
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, _lock: Some(lock) });
            }
        }
    }

    /// Lets other users pass through it: executors that run as another user than the worker.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn let_others_pass(&self) -> io::Result<()> {
        std::fs::set_permissions(&self.path, Permissions::from_mode(PASSABLE))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Locks the directory; `None` when somebody else has it, or has removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        directory => directory?,
    };
    match directory.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let still_there = std::fs::metadata(path).is_ok_and(|now| {
        directory.metadata().is_ok_and(|then| (then.dev(), then.ino()) == (now.dev(), now.ino()))
    });
    Ok(still_there.then_some(directory))
}

/// Removes directories of processes that are no more.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = is_name(&entry.file_name().to_string_lossy())
            && entry
                .metadata()
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
        if ours && let Ok(Some(_lock)) = lock(&entry.path()) {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether it is a name that [`Directory::temporary`] gives: another program's may begin alike.
fn is_name(name: &str) -> bool {
    let numbers = name.strip_prefix(PREFIX).and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(process, number)| {
        [process, number].iter().all(|part| part.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_nobody_holds_is_swept_whoever_has_the_number_of_its_process() {
        let parent = tempfile::tempdir().unwrap();
        // The number of a process that lives, but that did not make the directory.
        let left = parent.path().join(format!("{PREFIX}{}-4000000", std::process::id()));
        // The number of a process that cannot be seen from here: it may live in another namespace.
        let held = parent.path().join(format!("{PREFIX}4194304-0"));
        let other = parent.path().join("allhands-notes");
        for path in [&left, &held, &other] {
            std::fs::create_dir(path).unwrap();
        }
        let _held = lock(&held).unwrap().unwrap();
        let own = Directory::locked(parent.path()).unwrap();
        sweep(parent.path());
        let paths = [left.as_path(), &held, &other, own.path()];
        assert_eq!(paths.map(Path::exists), [false, true, true, true]);
    }

    #[test]
    fn a_directory_goes_away_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::locked(parent.path()).unwrap();
        let path = directory.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn others_pass_through_only_when_they_shall() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::locked(parent.path()).unwrap();
        assert_eq!(mode(directory.path()), 0o700);
        directory.let_others_pass().unwrap();
        assert_eq!(mode(directory.path()), 0o711);
        let shared = Directory::make(parent.path().join("d"), true).unwrap();
        assert_eq!(mode(shared.path()), 0o711);
    }
}
