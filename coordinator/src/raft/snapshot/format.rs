//! The bytes of a snapshot's state file. Little-endian.
//!
//! ```text
//! "AHSNAP01" · meta length u32 · meta · state length u64 · state
//!            · segments u64 · { id u64 · length u32 · blake3 [32] · file u64 · offset u64 }
//!            · blake3 of everything before [32]
//! meta       has u8 · log id · has u8 · log id of the membership · membership      (see `layout`)
//! ```

use std::io::{self, BufWriter, Write};

use bytes::Bytes;

use allhands_common::id::SegmentId;

use crate::raft::bytes_in::BytesIn;
use crate::raft::layout;
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership};
use crate::segments::{SegmentHead, SegmentPlace};

const MAGIC: &[u8] = b"AHSNAP01";
const DIGEST_BYTES: usize = 32;
const PLACE_BYTES: usize = 8 + 4 + 32 + 8 + 8;

/// A state file, read and checked.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: Bytes,
    /// Where the segments are in the snapshot's own directory, if it has them.
    pub(crate) places: Vec<SegmentPlace>,
}

pub(super) fn encode_into(
    file: &mut impl Write,
    meta: &SnapshotMeta,
    state: &Bytes,
    places: &[SegmentPlace],
) -> io::Result<()> {
    let mut out = Hashing { out: BufWriter::new(file), hasher: blake3::Hasher::new() };
    let meta = encode_meta(meta)?;
    out.write_all(MAGIC)?;
    let meta_length = u32::try_from(meta.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    out.write_all(&meta_length.to_le_bytes())?;
    out.write_all(&meta)?;
    out.write_all(&(state.len() as u64).to_le_bytes())?;
    out.write_all(state)?;
    out.write_all(&(places.len() as u64).to_le_bytes())?;
    for SegmentPlace { head, file, offset } in places {
        out.write_all(&head.id.0.to_le_bytes())?;
        out.write_all(&head.length.to_le_bytes())?;
        out.write_all(&head.digest)?;
        out.write_all(&file.to_le_bytes())?;
        out.write_all(&offset.to_le_bytes())?;
    }
    let digest = out.hasher.finalize();
    out.out.write_all(digest.as_bytes())?;
    out.out.flush()
}

impl SnapshotFile {
    pub(crate) fn decode(file: Bytes) -> io::Result<Self> {
        let content = file.len().checked_sub(DIGEST_BYTES).ok_or_else(damaged)?;
        if blake3::hash(&file[..content]) != file[content..] {
            return Err(damaged());
        }
        let mut bytes = BytesIn(&file[..content]);
        if bytes.take(MAGIC.len())? != MAGIC {
            return Err(damaged());
        }
        let meta_length = bytes.u32()? as usize;
        let meta = decode_meta(bytes.take(meta_length)?)?;
        let state_length = usize::try_from(bytes.u64()?).map_err(|_| damaged())?;
        let state = file.slice_ref(bytes.take(state_length)?);
        let count = usize::try_from(bytes.u64()?).map_err(|_| damaged())?;
        if bytes.0.len() != count.saturating_mul(PLACE_BYTES) {
            return Err(damaged());
        }
        let places = (0..count).map(|_| place(&mut bytes)).collect::<io::Result<_>>()?;
        bytes.end()?;
        Ok(Self { meta, state, places })
    }
}

fn place(bytes: &mut BytesIn<'_>) -> io::Result<SegmentPlace> {
    let head =
        SegmentHead { id: SegmentId(bytes.u64()?), length: bytes.u32()?, digest: bytes.array()? };
    Ok(SegmentPlace { head, file: bytes.u64()?, offset: bytes.u64()? })
}

fn encode_meta(meta: &SnapshotMeta) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    put_some(meta.last_log_id.as_ref(), &mut out);
    put_some(meta.last_membership.log_id().as_ref(), &mut out);
    layout::put_membership(meta.last_membership.membership(), &mut out)?;
    Ok(out)
}

fn decode_meta(meta: &[u8]) -> io::Result<SnapshotMeta> {
    let mut bytes = BytesIn(meta);
    let last_log_id = some(&mut bytes)?;
    let membership_id = some(&mut bytes)?;
    let membership = layout::membership(&mut bytes)?;
    bytes.end()?;
    Ok(SnapshotMeta {
        last_log_id,
        last_membership: StoredMembership::new(membership_id, membership),
    })
}

fn put_some(id: Option<&LogId>, out: &mut Vec<u8>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        layout::put_log_id(id, out);
    }
}

fn some(bytes: &mut BytesIn<'_>) -> io::Result<Option<LogId>> {
    match bytes.u8()? {
        0 => Ok(None),
        1 => layout::log_id(bytes).map(Some),
        _ => Err(damaged()),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a whole snapshot")
}

struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_comes_back_and_any_flipped_bit_is_noticed() {
        let head = SegmentHead::of(SegmentId(4), b"segment");
        let places = vec![SegmentPlace { head, file: 1, offset: 96 }];
        let meta = SnapshotMeta::default();
        let mut out = Vec::new();
        encode_into(&mut out, &meta, &Bytes::from_static(b"state"), &places).unwrap();
        assert_eq!(&out[..8], MAGIC);
        let back = SnapshotFile::decode(out.clone().into()).unwrap();
        assert_eq!((back.meta, &back.state[..], back.places), (meta, &b"state"[..], places));
        for at in 0..out.len() {
            let mut flipped = out.clone();
            flipped[at] ^= 1;
            assert!(SnapshotFile::decode(flipped.into()).is_err(), "byte {at}");
        }
    }
}
