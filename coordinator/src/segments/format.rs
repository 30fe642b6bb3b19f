//! The bytes of a segment file. Little-endian; golden bytes in the tests below.
//!
//! ```text
//! file      "AHSEGS01" · number u64 · salt [16] · check [8]                   40 bytes, then segments without gaps
//! segment   "AHSG" · length u32 · id u64 · blake3 of the bytes [32] · check [16]          64 bytes, then the bytes
//! ```
//!
//! A file's `check` is the start of the blake3 of the 32 bytes before it. A segment's `check` is the start of the
//! blake3 of salt, offset and the 48 bytes before it: a header is never mistaken for
//! payload or for a header of another file or place, also when the search starts in the middle of a damaged file.

use std::path::{Path, PathBuf};

use allhands_common::id::SegmentId;

pub(super) const FILE_HEADER_BYTES: usize = 40;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const FILE_MAGIC: [u8; 8] = *b"AHSEGS01";
pub(super) const MAGIC: [u8; 4] = *b"AHSG";
const FILE_CHECKED_BYTES: usize = 32;
const CHECKED_BYTES: usize = 48;

/// A segment by name and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentHead {
    /// Its id.
    pub id: SegmentId,
    /// Bytes of it.
    pub length: u32,
    /// Their blake3.
    pub digest: [u8; 32],
}

impl SegmentHead {
    /// The head of these bytes.
    pub fn of(id: SegmentId, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { id, length, digest: *blake3::hash(bytes).as_bytes() }
    }

    /// Whether these are its bytes.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length as usize && blake3::hash(bytes) == self.digest
    }
}

/// Where a segment's bytes are, in the segment directory or in a snapshot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPlace {
    /// Which segment.
    pub head: SegmentHead,
    /// Number of the file.
    pub file: u64,
    /// Where its bytes begin in it.
    pub offset: u64,
}

/// The salt of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; 16]);

pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

pub(super) fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

pub(super) fn file_number(name: &str) -> Option<u64> {
    // The index counts files in 32 bits: four billion of them are 256 PiB.
    u32::from_str_radix(name.strip_suffix(".seg")?, 16).ok().map(u64::from)
}

pub(super) fn file_header(number: u64, salt: Salt) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..FILE_CHECKED_BYTES].copy_from_slice(&salt.0);
    let check = blake3::hash(&header[..FILE_CHECKED_BYTES]);
    header[FILE_CHECKED_BYTES..].copy_from_slice(&check.as_bytes()[..8]);
    header
}

pub(super) fn parse_file_header(number: u64, header: &[u8; FILE_HEADER_BYTES]) -> Option<Salt> {
    let mut salt = [0; 16];
    salt.copy_from_slice(&header[16..FILE_CHECKED_BYTES]);
    (*header == file_header(number, Salt(salt))).then_some(Salt(salt))
}

/// The header of a segment that stands at `offset`.
pub(super) fn header(salt: Salt, offset: u64, head: &SegmentHead) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&head.length.to_le_bytes());
    header[8..16].copy_from_slice(&head.id.0.to_le_bytes());
    header[16..CHECKED_BYTES].copy_from_slice(&head.digest);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&salt.0).update(&offset.to_le_bytes()).update(&header[..CHECKED_BYTES]);
    header[CHECKED_BYTES..].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    header
}

pub(super) fn parse_header(salt: Salt, offset: u64, given: &[u8]) -> Option<SegmentHead> {
    let (mut length, mut id, mut digest) = ([0; 4], [0; 8], [0; 32]);
    length.copy_from_slice(given.get(4..8)?);
    id.copy_from_slice(given.get(8..16)?);
    digest.copy_from_slice(given.get(16..CHECKED_BYTES)?);
    let head = SegmentHead {
        id: SegmentId(u64::from_le_bytes(id)),
        length: u32::from_le_bytes(length),
        digest,
    };
    (given.get(..HEADER_BYTES)? == header(salt, offset, &head)).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_golden_bytes() {
        let salt = Salt([7; 16]);
        let file = file_header(2, salt);
        assert_eq!(&file[..16], b"AHSEGS01\x02\0\0\0\0\0\0\0");
        assert_eq!(parse_file_header(2, &file), Some(salt));
        assert_eq!(parse_file_header(3, &file), None);

        let head = SegmentHead::of(SegmentId(5), b"abc");
        let bytes = header(salt, 32, &head);
        assert_eq!(&bytes[..16], b"AHSG\x03\0\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(&bytes[16..48], blake3::hash(b"abc").as_bytes());
        assert_eq!(parse_header(salt, 32, &bytes), Some(head));
        assert_eq!(parse_header(salt, 33, &bytes), None, "a header belongs to its place");
        assert_eq!(parse_header(Salt([8; 16]), 32, &bytes), None, "and to its file");
    }
}
