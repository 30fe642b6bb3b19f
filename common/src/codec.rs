//! The one bincode module: every message, log entry and snapshot is encoded here.
//!
//! bincode 2.0.1 is unmaintained (RUSTSEC-2025-0141) and each of these four rules answers a way in
//! which hostile bytes abort or spin a process that decodes with its defaults (measured, see
//! `docs/decisions/`): always a limit; no recursive types; no zero-sized element types; trailing
//! bytes are refused. Bulk bytes never pass through it: see [`crate::bulk`].
//!
//! Integers are variable length: messages are small numbers for the most part.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most memory that decoding one value may ask for, counted as bincode counts it (in-memory size).
/// A frame's head is at most 1 MiB on the wire; eight-byte numbers of one byte each grow eightfold.
pub const DECODE_BYTES_MAX: usize = 16 << 20;

/// Snapshots of the replicated state are made by ourselves and checked by a digest before they are
/// decoded, but the limit rule has no exception: 4 GiB.
pub const SNAPSHOT_BYTES_MAX: usize = 4 << 30;

/// A value that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode {what}: {reason}")]
pub struct EncodeError {
    what: &'static str,
    reason: String,
}

/// Bytes that are not the value they should be. Trying again cannot help: the sender is of another
/// version, or the bytes were damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

const fn config<const LIMIT: usize>() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
> {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Appends the encoding of `value` to `out`.
///
/// # Errors
/// When a `Serialize` of `T` fails.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::serde::encode_into_writer(value, Append(out), config::<DECODE_BYTES_MAX>()).map_err(
        |error| EncodeError { what: core::any::type_name::<T>(), reason: error.to_string() },
    )
}

/// The value that `bytes` hold, all of them.
///
/// # Errors
/// When the bytes are not a `T`, ask for more than [`DECODE_BYTES_MAX`], or go on after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, DECODE_BYTES_MAX>(bytes)
}

/// As [`decode`], for a snapshot of the replicated state.
///
/// # Errors
/// As [`decode`], with [`SNAPSHOT_BYTES_MAX`].
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, SNAPSHOT_BYTES_MAX>(bytes)
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = core::any::type_name::<T>();
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, config::<LIMIT>())
        .map_err(|error| DecodeError { what, reason: error.to_string() })?;
    if consumed != bytes.len() {
        let reason = alloc::format!("{} bytes follow its end", bytes.len() - consumed);
        return Err(DecodeError { what, reason });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back() {
        let mut bytes = Vec::new();
        encode(&(7u64, Some("text".to_string())), &mut bytes).unwrap();
        assert_eq!(decode(&bytes), Ok((7u64, Some("text".to_string()))));
    }

    #[test]
    fn the_bytes_are_these() {
        let mut bytes = Vec::new();
        encode(&(1u8, 300u32, -1i64, true, "ab"), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 251, 44, 1, 1, 1, 2, b'a', b'b']);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let error = decode::<u8>(&[1, 2]).unwrap_err();
        assert!(error.to_string().contains("1 bytes follow"), "{error}");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let mut bytes = Vec::new();
        encode(&(1u64 << 40), &mut bytes).unwrap();
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
