//! The bytes of an entry: what the store knows of one blob, in a file beside it.
//!
//! ```text
//!  0  "AHENTRY1" | blob's length u64 | last use u64 | zero u64
//! 32  chunk ids, 32 bytes each
//!  .  one bit a chunk: it was written; chunk i is bit i % 8 of byte i / 8
//! ```
//! Integers are little-endian. Length and chunk ids are written once and proven by the file's name, which is
//! their hash. The rest is written in place and never synced for its own sake: last use only orders the
//! evictions, and a bit is a claim that is checked by the chunk's hash before any byte of it is handed out.
//! So no write here has to reach the disk before or after another.

use std::io;

use allhands_common::blob::{BlobId, CHUNK_BYTES, CHUNKS_MAX, ChunkId, Manifest};

use crate::disk::DiskFile;

const MAGIC: [u8; 8] = *b"AHENTRY1";
const HEADER_BYTES: usize = 32;
const CHUNK_ID_BYTES: usize = 32;
/// Where the last use stands.
pub(super) const USED_OFFSET: u64 = 16;

/// An entry that was read.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) manifest: Manifest,
    pub(super) used: u64,
    claims: Vec<u8>,
}

impl Entry {
    /// Whether chunk `index` is said to be there.
    pub(super) fn claims(&self, index: u32) -> bool {
        self.claims.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }
}

/// Length of the entry of a blob of so many bytes.
pub(super) const fn entry_bytes(blob_bytes: u64) -> u64 {
    let chunks = blob_bytes.div_ceil(CHUNK_BYTES as u64);
    HEADER_BYTES as u64 + chunks * CHUNK_ID_BYTES as u64 + chunks.div_ceil(8)
}

/// Where the bit of chunk `index` stands, of a blob of `chunks` chunks.
pub(super) const fn claim_offset(chunks: usize, index: u32) -> u64 {
    (HEADER_BYTES + chunks * CHUNK_ID_BYTES) as u64 + index as u64 / 8
}

/// The entry of a blob; all of its chunks are claimed, or none.
pub(super) fn encode(manifest: &Manifest, used: u64, claimed: bool) -> Vec<u8> {
    let chunks = manifest.chunks();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + chunks.len() * (CHUNK_ID_BYTES + 1));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&manifest.bytes().to_le_bytes());
    bytes.extend_from_slice(&used.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(&chunk.0));
    bytes.extend(chunks.chunks(8).map(|eight| match claimed {
        true => (0xff_u16 >> (8 - eight.len())) as u8,
        false => 0,
    }));
    bytes
}

/// Reads the entry of blob `id`; `None` when the file holds none: it was torn, or damaged.
pub(super) fn read(file: &dyn DiskFile, id: &BlobId) -> io::Result<Option<Entry>> {
    let length = file.length()?;
    if length < HEADER_BYTES as u64
        || length > entry_bytes(u64::from(CHUNKS_MAX) * u64::from(CHUNK_BYTES))
    {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0)?;
    Ok(parse(&bytes, id))
}

fn parse(bytes: &[u8], id: &BlobId) -> Option<Entry> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let blob_bytes = number(8);
    if !header.starts_with(&MAGIC) || blob_bytes.div_ceil(CHUNK_BYTES.into()) > CHUNKS_MAX.into() {
        return None;
    }
    if bytes.len() as u64 != entry_bytes(blob_bytes) {
        return None;
    }
    let chunks = usize::try_from(blob_bytes.div_ceil(CHUNK_BYTES.into())).ok()?;
    let (ids, claims) = rest.split_at_checked(chunks * CHUNK_ID_BYTES)?;
    let (ids, _) = ids.as_chunks();
    let manifest = Manifest::new(blob_bytes, ids.iter().map(|id| ChunkId(*id)).collect()).ok()?;
    (manifest.id() == *id).then(|| Entry { manifest, used: number(16), claims: claims.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(chunks: u8) -> Manifest {
        let ids = (0..chunks).map(|chunk| ChunkId([chunk; 32])).collect();
        Manifest::new(u64::from(CHUNK_BYTES) * u64::from(chunks) - 5, ids).unwrap()
    }

    #[test]
    fn an_entry_keeps_its_golden_bytes() {
        let bytes = encode(&manifest(2), 0x0102, true);
        assert_eq!(bytes[..8], *b"AHENTRY1");
        assert_eq!(bytes[8..32], *b"\xfb\xff\x1f\0\0\0\0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes[32..64], [0; 32]);
        assert_eq!(bytes[64..], [[1; 32].as_slice(), &[0b11]].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        for (chunks, claimed) in [(1, true), (8, true), (9, false), (17, true)] {
            let manifest = manifest(chunks);
            let bytes = encode(&manifest, 9, claimed);
            assert_eq!(bytes.len() as u64, entry_bytes(manifest.bytes()));
            let entry = parse(&bytes, &manifest.id()).unwrap();
            assert_eq!((&entry.manifest, entry.used), (&manifest, 9));
            for index in 0..chunks.into() {
                assert_eq!(entry.claims(index), claimed);
            }
            assert!(!entry.claims(chunks.into()), "beyond the end there is nothing");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_where_it_counts() {
        let manifest = manifest(3);
        let bytes = encode(&manifest, 0, false);
        let proven = (0..16).chain(32..32 + 3 * 32);
        for at in proven {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged, &manifest.id()).is_none(), "byte {at}");
            assert!(parse(&bytes[..at], &manifest.id()).is_none(), "cut at {at}");
        }
    }
}
