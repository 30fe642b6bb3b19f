//! Reading results that came over the network.
//!
//! bincode reads a string by allocating the length that the bytes claim, so eight hostile bytes could
//! ask for all memory. Its limit stops that, but is a constant of the type: the next of three steps
//! above the received length is taken. A limit is four times its step because bincode counts a `char`
//! as four bytes. (Sequences need no limit for that: serde allocates 1 MiB ahead of the elements that
//! are really there, at most.)

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::error::DecodeError;
use serde::de::DeserializeOwned;

/// Most results are smaller than this; what they may claim is not worth a finer step.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Results that travel inline.
const MEDIUM_BYTES_MAX: usize = 16 << 20;
/// What one byte string may have: its ends are `u32`.
const LARGE_BYTES_MAX: usize = u32::MAX as usize;

const fn limited<const BYTES: usize>() -> Configuration<LittleEndian, Fixint, Limit<BYTES>> {
    super::config().with_limit::<BYTES>()
}

/// Reads a `T` from the front of `bytes`; also says how many bytes it took.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    use bincode::serde::decode_from_slice as read;
    match bytes.len() {
        length if length <= SMALL_BYTES_MAX => read(bytes, limited::<{ 4 * SMALL_BYTES_MAX }>()),
        length if length <= MEDIUM_BYTES_MAX => read(bytes, limited::<{ 4 * MEDIUM_BYTES_MAX }>()),
        length if length <= LARGE_BYTES_MAX => read(bytes, limited::<{ 4 * LARGE_BYTES_MAX }>()),
        _ => Err(DecodeError::LimitExceeded),
    }
}

#[cfg(test)]
mod tests {
    use crate::payload::{Codec, decode_received, encode};

    #[test]
    fn a_claimed_length_is_not_allocated() {
        for claimed in [1u64 << 20, 1 << 40, 1 << 60, u64::MAX] {
            let bytes = claimed.to_le_bytes();
            decode_received::<String>(Codec::Bincode, &bytes).unwrap_err();
            decode_received::<Vec<u64>>(Codec::Bincode, &bytes).unwrap_err();
            decode_received::<Vec<String>>(Codec::Bincode, &bytes).unwrap_err();
        }
    }

    #[test]
    fn honest_results_of_each_step_are_read() {
        for length in [3usize, 63 << 10, 70 << 10, 17 << 20] {
            let value = "ä".repeat(length / 2);
            let mut bytes = Vec::new();
            encode(Codec::Bincode, &value, &mut bytes).unwrap();
            assert_eq!(decode_received::<String>(Codec::Bincode, &bytes).unwrap(), value);
        }
        let letters = vec!['x'; 60_000];
        let mut bytes = Vec::new();
        encode(Codec::Bincode, &letters, &mut bytes).unwrap();
        assert_eq!(decode_received::<Vec<char>>(Codec::Bincode, &bytes).unwrap(), letters);
    }
}
