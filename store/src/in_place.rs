//! Files that stay where they are: mapped, and hashed only when somebody needs it.
//!
//! A client opens one for `Shared::open`, and gives its descriptor to a worker of the same machine, which
//! maps it. Nothing is copied and nothing is written down.
//!
//! Such a file belongs to its user. It may be written or cut under a map: then the map shows other bytes, and
//! a page beyond the new end ends the process by SIGBUS. What is promised is less than for blobs: a change is
//! *noticed* ([`FileInPlace::check`], before and after each use), and what was computed from it is not
//! accepted. Two writes within a tick of the file system's clock (4 ms or less) that leave the length as it
//! was look like one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use allhands_common::blob::FileRef;
use allhands_common::blob::{CHUNK_BYTES, ChunkId, Manifest};
use bytes::Bytes;
use rustix::fs::{FileType, Stat};
use rustix::time::{ClockId, Timespec};

use crate::crew;
use crate::map::{FileRange, Map};

mod error;

pub use error::InPlaceError;

/// Manifests that are remembered, at most: of 1,024 files of 1 GiB they are 32 MiB.
const REMEMBERED_FILES_MAX: usize = 1024;
/// A file that was changed so shortly before it was hashed may change again without showing it: a tick of the
/// slowest file system clock, twice.
const TICK_NS: i128 = 20_000_000;

/// A file that is used where it is.
#[derive(Debug)]
pub struct FileInPlace {
    file: File,
    /// Only for messages.
    path: PathBuf,
    identity: FileRef,
    /// What blob it is, once it was hashed and quiet: the process remembers that of so many files only.
    manifest: OnceLock<Arc<Manifest>>,
}

impl FileInPlace {
    /// Opens the file at `path` for reading.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> Result<Self, InPlaceError> {
        match File::open(path) {
            Ok(file) => Self::of(file.into(), path),
            Err(source) => {
                Err(InPlaceError::Io { path: path.to_owned(), what: "opening it", source })
            }
        }
    }

    /// The file behind a descriptor, in the state that it has now. The path is only for messages.
    ///
    /// # Errors
    /// It is no regular file.
    pub fn of(file: OwnedFd, path: &Path) -> Result<Self, InPlaceError> {
        let (file, path) = (File::from(file), path.to_owned());
        let stat = stat(&file, &path)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(InPlaceError::NotAFile { path });
        }
        Ok(Self { identity: identity_of(&stat), file, path, manifest: OnceLock::new() })
    }

    /// Where it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file, in which state.
    pub const fn identity(&self) -> FileRef {
        self.identity
    }

    /// Whether the file is still what was opened.
    ///
    /// # Errors
    /// It is not, or the system does not say.
    pub fn check(&self) -> Result<(), InPlaceError> {
        match identity_of(&stat(&self.file, &self.path)?) == self.identity {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }

    /// Maps the bytes `range`, if the file is what it was. Check it again when they were used.
    ///
    /// # Errors
    /// It was changed, is shorter, or the system refuses.
    pub fn map(&self, range: Range<u64>) -> Result<Map, InPlaceError> {
        let bytes = self.check_range(&range)?;
        crate::map::map(self.file.as_fd(), range.start, bytes)
            .map_err(|source| InPlaceError::Map { path: self.path.clone(), source })
    }

    /// The bytes `range` as a descriptor, for a process that maps them itself.
    ///
    /// # Errors
    /// As [`FileInPlace::map`].
    pub fn file_range(&self, range: Range<u64>) -> Result<FileRange, InPlaceError> {
        let bytes = self.check_range(&range)?;
        let file =
            self.file.try_clone().map_err(|source| self.io("copying its descriptor", source))?;
        Ok(FileRange { file: file.into(), offset: range.start, bytes })
    }

    /// What blob the file is: hashed the first time, remembered by its identity in this process.
    ///
    /// # Errors
    /// It was changed, cannot be read, or is too long.
    pub fn manifest(&self) -> Result<Arc<Manifest>, InPlaceError> {
        self.manifest_at(now())
    }

    fn manifest_at(&self, now: Timespec) -> Result<Arc<Manifest>, InPlaceError> {
        let known = self.manifest.get().cloned();
        if let Some(manifest) = known.or_else(|| remembered().get(&self.identity).cloned()) {
            self.check()?;
            return Ok(manifest);
        }
        self.check()?;
        let manifest = Arc::new(self.hash()?);
        self.check()?;
        let changed_ns = self.identity.modified_ns.max(self.identity.changed_ns);
        if changed_ns + TICK_NS <= nanoseconds(now.tv_sec, now.tv_nsec) {
            let mut remembered = remembered();
            if remembered.len() >= REMEMBERED_FILES_MAX {
                // Any: to hash a file again costs a second a few gigabytes.
                remembered.pop_first();
            }
            remembered.insert(self.identity, manifest.clone());
            drop(remembered);
            _ = self.manifest.set(manifest.clone());
        }
        Ok(manifest)
    }

    /// The bytes of chunk `index`, if they are what the manifest says.
    ///
    /// # Errors
    /// The file was changed, or cannot be read.
    pub fn read_chunk(&self, manifest: &Manifest, index: u32) -> Result<Bytes, InPlaceError> {
        let (Some(range), Some(id)) =
            (manifest.range_of(index), manifest.chunks().get(index as usize))
        else {
            let at = u64::from(index) * u64::from(CHUNK_BYTES);
            return Err(InPlaceError::Beyond {
                path: self.path.clone(),
                bytes: manifest.bytes(),
                at,
            });
        };
        let mut bytes = Vec::new();
        self.read(&range, &mut bytes)?;
        match ChunkId::of(&bytes) == *id {
            true => Ok(bytes.into()),
            false => Err(self.changed()),
        }
    }

    fn hash(&self) -> Result<Manifest, InPlaceError> {
        let bytes = self.identity.bytes;
        let chunks = bytes.div_ceil(CHUNK_BYTES.into());
        let next = AtomicU32::new(0);
        let hashed = Mutex::new(Vec::new());
        crew::run(usize::try_from(chunks).unwrap_or(usize::MAX), || {
            let mut buffer = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let start = u64::from(index) * u64::from(CHUNK_BYTES);
                if start >= bytes {
                    return Ok(());
                }
                let end = bytes.min(start + u64::from(CHUNK_BYTES));
                self.read(&(start..end), &mut buffer)?;
                let id = ChunkId::of(&buffer);
                hashed.lock().unwrap_or_else(PoisonError::into_inner).push((index, id));
            }
        })?;
        let mut hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
        hashed.sort_unstable_by_key(|(index, _)| *index);
        Manifest::new(bytes, hashed.into_iter().map(|(_, id)| id).collect())
            .map_err(|source| InPlaceError::TooLong { path: self.path.clone(), source })
    }

    fn read(&self, range: &Range<u64>, buffer: &mut Vec<u8>) -> Result<(), InPlaceError> {
        buffer.resize((range.end - range.start) as usize, 0);
        match self.file.read_exact_at(buffer, range.start) {
            Ok(()) => Ok(()),
            // It was longer when it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(source) => Err(self.io("reading it", source)),
        }
    }

    /// How long a range of this file is, if the file is what it was.
    fn check_range(&self, range: &Range<u64>) -> Result<u64, InPlaceError> {
        self.check()?;
        let (bytes, at) = (self.identity.bytes, range.start.max(range.end));
        if at > bytes {
            return Err(InPlaceError::Beyond { path: self.path.clone(), bytes, at });
        }
        Ok(range.end.saturating_sub(range.start))
    }

    fn changed(&self) -> InPlaceError {
        InPlaceError::Changed { path: self.path.clone() }
    }

    fn io(&self, what: &'static str, source: io::Error) -> InPlaceError {
        InPlaceError::Io { path: self.path.clone(), what, source }
    }
}

fn identity_of(stat: &Stat) -> FileRef {
    FileRef {
        device: stat.st_dev,
        inode: stat.st_ino,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
        changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
    }
}

fn stat(file: &File, path: &Path) -> Result<Stat, InPlaceError> {
    rustix::fs::fstat(file).map_err(|error| InPlaceError::Io {
        path: path.to_owned(),
        what: "looking at its state",
        source: error.into(),
    })
}

const fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    seconds as i128 * 1_000_000_000 + nanoseconds as i128
}

/// The clock that file systems stamp their files with.
fn now() -> Timespec {
    rustix::time::clock_gettime(ClockId::RealtimeCoarse)
}

/// The manifests of this process.
fn remembered() -> MutexGuard<'static, BTreeMap<FileRef, Arc<Manifest>>> {
    static REMEMBERED: Mutex<BTreeMap<FileRef, Arc<Manifest>>> = Mutex::new(BTreeMap::new());
    REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
