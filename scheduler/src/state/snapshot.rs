//! The state as bytes, alike on all replicas, and its digest.

use alloc::vec::Vec;

use allhands_common::codec::{self, DecodeError};

use super::State;

const VERSION: u8 = 4;
const DIGEST_BYTES: usize = 32;

/// Bytes that are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The digest does not fit the bytes.
    #[error("a snapshot's digest does not fit: it was damaged; take it from another coordinator")]
    Damaged,
    /// Another version made it.
    #[error("a snapshot of version {0}; this is version {VERSION}: upgrade this coordinator")]
    Version(u8),
    /// The bytes are whole and yet no state.
    #[error("a snapshot cannot be read")]
    Decode(#[source] DecodeError),
}

impl State {
    /// The state as bytes: version, digest, encoding.
    ///
    /// # Panics
    /// Never: every part of the state can be encoded.
    #[expect(clippy::expect_used, reason = "a state of plain data always encodes")]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 1 + DIGEST_BYTES];
        codec::encode(self, &mut bytes).expect("the state is plain data");
        let digest = blake3::hash(&bytes[1 + DIGEST_BYTES..]);
        bytes[0] = VERSION;
        bytes[1..1 + DIGEST_BYTES].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// The state that `bytes` hold.
    ///
    /// # Errors
    /// When they were damaged or made by another version.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let Some((head, body)) = bytes.split_at_checked(1 + DIGEST_BYTES) else {
            return Err(SnapshotError::Damaged);
        };
        if head[0] != VERSION {
            return Err(SnapshotError::Version(head[0]));
        }
        if blake3::hash(body).as_bytes()[..] != head[1..] {
            return Err(SnapshotError::Damaged);
        }
        let mut state: Self = codec::decode_snapshot(body).map_err(SnapshotError::Decode)?;
        state.share_specs();
        Ok(state)
    }

    /// Decoding gives every batch a specification of its own: shares equal ones again.
    fn share_specs(&mut self) {
        for batch in self.batches.values_mut() {
            let shared = self.jobs.get(&batch.job).into_iter().flat_map(|job| job.specs.iter());
            if let Some(spec) = shared.into_iter().find(|spec| **spec == batch.spec) {
                batch.spec = spec.clone();
            }
        }
    }

    /// A digest of the whole state: equal on all replicas that applied the same entries.
    pub fn digest(&self) -> [u8; DIGEST_BYTES] {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&self.to_snapshot()[1..=DIGEST_BYTES]);
        digest
    }
}
