//! How values of the user become bytes: arguments and results, one byte string each.
//!
//! Two codecs. bincode (fixed-size integers) is the default: it is as fast as memory and needs no
//! names. It also has no way to say "this field is missing", so a type with `skip_serializing_if`
//! would be read back wrong *without an error*; and it cannot answer a type that asks "what comes
//! next?" (`flatten`, `untagged`, `serde_json::Value`). The first kind is refused while it is encoded
//! ([`guard`]), the second is found by reading back ([`check_round_trip`]) and by asking the type
//! ([`shape`]). A function that bincode cannot serve uses CBOR, which names its fields.
//!
//! What stands behind an `Arc` is written [`once`].
//!
//! Our own messages do not pass here: their codec is `allhands_common::codec`.

mod arguments;
mod budget;
mod error;
mod failed;
mod guard;
mod once;
mod shape;
mod text;

pub use arguments::ArgWriter;
pub(crate) use arguments::Arguments;
pub use error::{ArgumentError, DecodeError, EncodeError};
pub(crate) use failed::kind_status;
pub(crate) use once::{forget_what_was_read, read as read_argument};
pub(crate) use shape::needs_names;
pub(crate) use text::bytes_text;
pub use text::{ArgText, BytesText, DebugText};

use bincode::config::{Configuration, Fixint, LittleEndian, standard};
use bincode::enc::write::Writer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use guard::Guarded;

/// Which codec the values of a segment are written in: one byte of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// bincode, little endian, fixed-size integers, no field names.
    Bincode = 1,
    /// CBOR with field names, for types that bincode cannot represent.
    Cbor = 2,
}

impl Codec {
    /// The byte of a segment that says this codec.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The codec that a segment's byte says, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Bincode),
            2 => Some(Self::Cbor),
            _ => None,
        }
    }
}

const fn config() -> Configuration<LittleEndian, Fixint> {
    standard().with_fixed_int_encoding()
}

/// Appends `value` to `out`. After an error `out` ends in bytes that mean nothing.
///
/// # Errors
///
/// The value refuses to be serialised, or the codec cannot represent it.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(
    codec: Codec,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match codec {
        Codec::Bincode => encode_bincode(value, Growing(out)),
        Codec::Cbor => encode_cbor(value, out),
    }
}

#[inline]
fn encode_bincode<T: Serialize + ?Sized, W: Writer>(
    value: &T,
    writer: W,
) -> Result<(), EncodeError> {
    match bincode::serde::encode_into_writer(Guarded(value), writer, config()) {
        Ok(()) => Ok(()),
        Err(cause) => Err(EncodeError::bincode::<T>(cause)),
    }
}

#[cold]
fn encode_cbor<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    ciborium::into_writer(value, out).map_err(EncodeError::cbor::<T>)
}

struct Growing<'a>(&'a mut Vec<u8>);

impl Writer for Growing<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads one value, which must take all of `bytes`. For bytes that this program's own processes made:
/// nothing bounds what a value may claim, so a result may be 100 MiB, a tree, a `Vec<()>`.
///
/// # Errors
///
/// The bytes are not a `T`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, DecodeError> {
    match codec {
        Codec::Bincode => whole(bytes, bincode::serde::decode_from_slice(bytes, config())),
        Codec::Cbor => decode_cbor(bytes),
    }
}

/// Reads one value that came over the network: what it makes the reader allocate is bounded by the
/// number of bytes received (see [`budget`]). Elements that take no bytes (`Vec<()>`) are read for as
/// long as the length says.
///
/// # Errors
///
/// The bytes are not a `T`, or claim far more than they are.
pub(crate) fn decode_received<T: DeserializeOwned>(
    codec: Codec,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    match codec {
        Codec::Bincode => whole(bytes, budget::decode(bytes)),
        Codec::Cbor => decode_cbor(bytes),
    }
}

#[inline]
fn whole<T>(
    bytes: &[u8],
    read: Result<(T, usize), bincode::error::DecodeError>,
) -> Result<T, DecodeError> {
    match read {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(DecodeError::left_over::<T>(bytes.len() - used)),
        Err(cause) => Err(DecodeError::bincode::<T>(cause)),
    }
}

#[cold]
fn decode_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).map_err(DecodeError::cbor::<T>)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError::left_over::<T>(left)),
    }
}

/// Whether `bytes`, just encoded from a `T`, can be read back: what a client does with the first call
/// of a function, so that a type which only *encodes* is found before anything is sent.
///
/// # Errors
///
/// Why they cannot.
pub(crate) fn check_round_trip<T: DeserializeOwned>(
    codec: Codec,
    bytes: &[u8],
) -> Result<(), DecodeError> {
    decode::<T>(codec, bytes).map(drop)
}

#[cfg(test)]
mod tests;
