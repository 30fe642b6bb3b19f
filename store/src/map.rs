//! Read-only maps of files, and what a process sends to another so that it maps the same pages.
//!
//! The worker asks the store for a [`FileRange`], hands it to an executor over a Unix socket, and the
//! executor maps it with the same code as the worker would. A map keeps its file alive, also when the store
//! has let go of it; nothing of it survives its process.
//!
//! For blobs of the store a map never changes and never ends early: their files have all their space from
//! the beginning, are never cut, and a chunk that was handed out is never written again. What remains is the
//! machine itself: a disk that cannot read a page under a map ends the process by SIGBUS. For files in place
//! ([`crate::in_place`]) none of this can be promised: whoever owns the file may write it or cut it.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use memmap2::{Mmap, MmapMut, MmapOptions};

/// A file that cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file ends before the range does: it is not the file that the range was made for.
    #[error("a map of the bytes {offset}..{end} needs a file that long; it has {bytes} bytes")]
    Short {
        /// Where the range begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// The file's length.
        bytes: u64,
    },
    /// The system refused. Trying again can help where it had no memory for another map.
    #[error("{bytes} bytes of a file cannot be mapped")]
    System {
        /// How many.
        bytes: u64,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Bytes of an open file: what is sent to a process that is to map them.
#[derive(Debug)]
pub struct FileRange {
    /// The file, open for reading.
    pub file: OwnedFd,
    /// Where the bytes begin in it.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl FileRange {
    /// Maps the bytes.
    ///
    /// # Errors
    /// The file is shorter, or the system refuses.
    pub fn map(&self) -> Result<Map, MapError> {
        map(self.file.as_fd(), self.offset, self.bytes)
    }

    /// Maps the bytes for this process to write to: a page that is written becomes its own, and the file and
    /// other maps never see it.
    ///
    /// # Errors
    /// As [`FileRange::map`].
    pub fn map_private(&self) -> Result<PrivateMap, MapError> {
        map_private(self.file.as_fd(), self.offset, self.bytes)
    }
}

/// Bytes of a file, as a slice. Byte 0 of a blob is at the start of a page, so its alignment is that of its
/// offset.
pub struct Map {
    /// `None` where there is nothing to map: the system refuses that.
    pages: Option<Mmap>,
}

impl Map {
    /// Asks the system to read the bytes in before they are touched. It need not.
    pub fn will_need(&self) {
        if let Some(pages) = &self.pages {
            // Advice: what refuses it is slower, not wrong.
            _ = pages.advise(memmap2::Advice::WillNeed);
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("bytes", &self.len()).finish()
    }
}

/// Bytes of a file as they were, and what this process has made of them.
pub struct PrivateMap {
    /// `None` where there is nothing to map.
    pages: Option<MmapMut>,
}

impl Deref for PrivateMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_deref().unwrap_or_default()
    }
}

impl DerefMut for PrivateMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_deref_mut().unwrap_or_default()
    }
}

impl fmt::Debug for PrivateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateMap").field("bytes", &self.len()).finish()
    }
}

/// Maps `bytes` bytes of `file` from `offset` on.
#[expect(unsafe_code, reason = "a file's pages are seen through a pointer")]
pub(crate) fn map(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<Map, MapError> {
    let Some(options) = options(file, offset, bytes)? else { return Ok(Map { pages: None }) };
    // SAFETY: the map is read-only and lies within the file. Files of the store are never cut, and a chunk is
    // written before it is handed out, never after (`blobs/body.rs`), so the bytes stay there and stay the
    // same. Files in place belong to others: their users are told (`in_place.rs`) and check the file's
    // identity around each use.
    let pages = unsafe { options.map(file.as_raw_fd()) };
    Ok(Map { pages: Some(pages.map_err(|source| MapError::System { bytes, source })?) })
}

#[expect(unsafe_code, reason = "a file's pages are seen through a pointer")]
fn map_private(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<PrivateMap, MapError> {
    let Some(options) = options(file, offset, bytes)? else {
        return Ok(PrivateMap { pages: None });
    };
    // SAFETY: as in `map`; what is written goes to pages of this process alone.
    let pages = unsafe { options.map_copy(file.as_raw_fd()) };
    Ok(PrivateMap { pages: Some(pages.map_err(|source| MapError::System { bytes, source })?) })
}

/// What is to be mapped, if it lies within the file; `None` where there is nothing.
fn options(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<Option<MmapOptions>, MapError> {
    if bytes == 0 {
        return Ok(None);
    }
    let system = |source| MapError::System { bytes, source };
    let end = offset.saturating_add(bytes);
    let stat = rustix::fs::fstat(file).map_err(|error| system(error.into()))?;
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    if length < end {
        return Err(MapError::Short { offset, end, bytes: length });
    }
    let length = usize::try_from(bytes).map_err(|_| system(io::ErrorKind::OutOfMemory.into()))?;
    let mut options = MmapOptions::new();
    options.offset(offset).len(length);
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[test]
    fn a_map_begins_at_any_byte() {
        let bytes: Vec<u8> = (0..10_000u32).map(|at| at as u8).collect();
        let range = FileRange { file: file(&bytes), offset: 4097, bytes: 5000 };
        assert_eq!(*range.map().unwrap(), bytes[4097..9097]);
    }

    #[test]
    fn a_map_outlives_descriptor_and_name() {
        let map = FileRange { file: file(b"abc"), offset: 0, bytes: 3 }.map().unwrap();
        assert_eq!(&*map, b"abc");
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let range = FileRange { file: file(b"abc"), offset: 1, bytes: 3 };
        assert!(matches!(range.map(), Err(MapError::Short { offset: 1, end: 4, bytes: 3 })));
        let range = FileRange { file: file(b"abc"), offset: u64::MAX, bytes: 1 };
        assert!(matches!(range.map(), Err(MapError::Short { .. })));
    }

    #[test]
    fn what_is_written_to_a_private_map_stays_there() {
        let range = FileRange { file: file(b"abcdef"), offset: 1, bytes: 4 };
        let (mut own, shared) = (range.map_private().unwrap(), range.map().unwrap());
        own[0] = b'X';
        assert_eq!((&*own, &*shared), (&b"Xcde"[..], &b"bcde"[..]));
        assert_eq!(&*range.map().unwrap(), b"bcde");
    }

    #[test]
    fn no_bytes_are_an_empty_slice() {
        let range = FileRange { file: file(b""), offset: 0, bytes: 0 };
        assert_eq!(&*range.map().unwrap(), b"");
    }
}
