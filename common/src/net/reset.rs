//! How a restarted process tells its peers that their connections are gone.
//!
//! A peer keeps sending to a process that was killed and came back on the same port. QUIC answers such
//! packets with a *stateless reset*, but the new process must take the connection id for one of its former
//! life and sign with the key of that life. quinn's defaults draw a random key per endpoint for both, so
//! that nobody ever recognises anything and the dead connection lingers until the idle timeout. Here the
//! signing key is derived from the identity's `reset.key`, which lies on disk, and connection ids are
//! plainly random: any id may be one of a former life.

use core::time::Duration;
use std::sync::Arc;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rustls::crypto::SecureRandom;

/// Keyed blake3 as quinn's MAC, its key derived from the bytes of `reset.key`.
struct TokenKey([u8; 32]);

pub(super) fn token_key(reset_key: &[u8; 32]) -> Arc<dyn HmacKey> {
    Arc::new(TokenKey(blake3::derive_key("allhands 2026 stateless reset token", reset_key)))
}

impl HmacKey for TokenKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let theirs = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        // `Hash` compares in constant time.
        if blake3::keyed_hash(&self.0, data) == theirs { Ok(()) } else { Err(CryptoError) }
    }
}

/// Long enough that two ids never meet, short enough not to matter in each packet.
const ID_BYTES: usize = 10;

/// Connection ids that are nothing but random.
pub(super) struct RandomIds(pub(super) &'static dyn SecureRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_BYTES];
        // Without entropy the handshake fails before any id matters: TLS draws from the same source.
        let filled = self.0.fill(&mut bytes);
        debug_assert!(filled.is_ok(), "the system has no entropy");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_file_signs_alike_after_a_restart() {
        let (before, after) = (token_key(&[1; 32]), token_key(&[1; 32]));
        let mut signature = [0; 32];
        before.sign(b"connection", &mut signature);
        assert!(after.verify(b"connection", &signature).is_ok());
        assert!(after.verify(b"connectioN", &signature).is_err());
        assert!(after.verify(b"connection", &signature[..31]).is_err());
        assert!(token_key(&[2; 32]).verify(b"connection", &signature).is_err());
    }
}
