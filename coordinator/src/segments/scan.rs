//! Finds the segments of one file when a directory is opened.
//!
//! Only headers are checked here; bytes are checked when they are read. What does not parse is skipped up to the next
//! header that belongs to this place of this file. When there is none, it is the torn tail of the last write and is
//! cut. Skipped segments are simply not there: the log still has them, or `Segments::retain` names them as missing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::format::{
    self, FILE_HEADER_BYTES, HEADER_BYTES, MAGIC, Salt, SegmentHead, parse_header,
};

/// Read at once while looking for the next header.
const SEARCH_BYTES: usize = 1 << 20;

/// What is in one file.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: Salt,
    pub(super) length: u64,
    /// What stands in it, and where the bytes of each begin.
    pub(super) segments: Vec<(SegmentHead, u64)>,
}

/// Why a directory of segments cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenSegmentsError {
    /// The system refused. Trying again may help.
    #[error("the segment files in {dir} cannot be opened")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Not a file of ours, or its first bytes are damaged. Trying again cannot help.
    #[error(
        "{path} does not begin as a segment file: take this coordinator out of the membership, move its data \
         directory away, and let it join again under a new id"
    )]
    Header {
        /// The file.
        path: PathBuf,
    },
}

/// Reads one file; `None` when it holds nothing, not even its header: it is removed.
pub(super) fn scan(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
) -> Result<Option<Scanned>, OpenSegmentsError> {
    let io = |source| OpenSegmentsError::Io { dir: dir.to_owned(), source };
    let path = format::file_path(dir, number);
    let file = disk.open(&path).map_err(io)?;
    let length = file.length().map_err(io)?;
    let mut first = [0; FILE_HEADER_BYTES];
    if length >= FILE_HEADER_BYTES as u64 {
        file.read_at(&mut first, 0).map_err(io)?;
    }
    let Some(salt) = format::parse_file_header(number, &first) else {
        if length < FILE_HEADER_BYTES as u64 || first == [0; FILE_HEADER_BYTES] {
            disk.remove(&path).map_err(io)?;
            return Ok(None);
        }
        return Err(OpenSegmentsError::Header { path });
    };

    let mut segments = Vec::new();
    let mut offset = FILE_HEADER_BYTES as u64;
    while offset < length {
        let Some(head) = header_at(&*file, salt, offset, length).map_err(io)? else {
            let next = next_header(&*file, salt, offset + 1, length).map_err(io)?;
            match next {
                Some(next) => {
                    tracing::error!(?path, from = offset, to = next, "skipping damaged segments");
                    offset = next;
                    continue;
                }
                None => {
                    tracing::warn!(?path, from = offset, to = length, "cutting a torn tail");
                    file.truncate(offset).map_err(io)?;
                    break;
                }
            }
        };
        let begin = offset + HEADER_BYTES as u64;
        segments.push((head, begin));
        offset = begin + u64::from(head.length);
    }
    Ok(Some(Scanned { file, salt, length: offset, segments }))
}

/// The segment that begins at `offset`, if all of it lies within the file.
fn header_at(
    file: &dyn DiskFile,
    salt: Salt,
    offset: u64,
    length: u64,
) -> io::Result<Option<SegmentHead>> {
    if length - offset < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, offset)?;
    let head = parse_header(salt, offset, &header);
    Ok(head.filter(|head| offset + HEADER_BYTES as u64 + u64::from(head.length) <= length))
}

/// The first place from `from` on where a whole segment begins.
fn next_header(
    file: &dyn DiskFile,
    salt: Salt,
    mut from: u64,
    length: u64,
) -> io::Result<Option<u64>> {
    let mut buffer = Vec::new();
    while length.saturating_sub(from) >= HEADER_BYTES as u64 {
        let window = usize::try_from(length - from).unwrap_or(SEARCH_BYTES).min(SEARCH_BYTES);
        buffer.resize(window, 0);
        file.read_at(&mut buffer, from)?;
        for at in 0..=window - HEADER_BYTES {
            let offset = from + at as u64;
            if buffer[at..].starts_with(&MAGIC) && header_at(file, salt, offset, length)?.is_some()
            {
                return Ok(Some(offset));
            }
        }
        // The next window begins where the last whole header of this one could have begun, plus one.
        from += (window - HEADER_BYTES + 1) as u64;
    }
    Ok(None)
}
