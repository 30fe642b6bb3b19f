//! The encoded arguments of one call: one byte string each, without a heap allocation if they are small.

use std::any::type_name;
use std::fmt;

use bincode::enc::write::Writer;
use serde::Serialize;
use smallvec::SmallVec;

use super::{Codec, EncodeError, encode_bincode, encode_cbor};

/// Most arguments of a function.
const ARGUMENTS_MAX: usize = 8;

/// Bytes of arguments kept in place: four numbers, or a short string. More would cost each call of a
/// function of one number the copying of it.
const INLINE_BYTES_MAX: usize = 32;

/// Arguments of a call: their byte strings end to end, and where each ends.
#[derive(Clone)]
pub(crate) struct Arguments {
    bytes: SmallVec<[u8; INLINE_BYTES_MAX]>,
    ends: [u32; ARGUMENTS_MAX],
    count: u8,
    codec: Codec,
}

impl Arguments {
    /// None yet.
    #[inline]
    pub(crate) fn new(codec: Codec) -> Self {
        Self {
            bytes: SmallVec::new(),
            ends: [0; ARGUMENTS_MAX],
            count: 0,
            codec,
        }
    }

    /// What they are written in.
    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    /// How many they are.
    pub(crate) const fn count(&self) -> usize {
        self.count as usize
    }

    /// One byte string an argument.
    #[inline]
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.count()).map(|place| {
            let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[start as usize..self.ends[place] as usize]
        })
    }

    /// All of them, end to end.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each argument ends in [`bytes`](Self::bytes).
    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends[..self.count()]
    }

    /// Calls `run` with the byte strings as a slice of slices, as a function's entry takes them.
    pub(crate) fn with_slices<R>(&self, run: impl FnOnce(&[&[u8]]) -> R) -> R {
        let mut slices = [&[][..]; ARGUMENTS_MAX];
        for (slice, bytes) in slices.iter_mut().zip(self.iter()) {
            *slice = bytes;
        }
        run(&slices[..self.count()])
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Takes the arguments of one call, in order.
#[derive(Debug)]
pub struct ArgWriter<'a> {
    arguments: &'a mut Arguments,
}

impl<'a> ArgWriter<'a> {
    pub(crate) const fn new(arguments: &'a mut Arguments) -> Self {
        Self { arguments }
    }

    /// Arguments taken so far: the place of the next one.
    pub(crate) const fn position(&self) -> u8 {
        self.arguments.count
    }

    /// Takes `value` as the next argument.
    ///
    /// # Errors
    ///
    /// The value refuses to be serialised, the codec cannot represent it, or the arguments of this
    /// call have more than 4 GiB.
    ///
    /// # Panics
    ///
    /// After eight arguments.
    #[inline]
    pub fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let bytes = &mut self.arguments.bytes;
        match self.arguments.codec {
            Codec::Bincode => encode_bincode(value, Inline(bytes))?,
            Codec::Cbor => {
                let mut grown = Vec::new();
                encode_cbor(value, &mut grown)?;
                bytes.extend_from_slice(&grown);
            }
        }
        let Ok(end) = u32::try_from(bytes.len()) else {
            return Err(too_long::<T>());
        };
        self.arguments.ends[usize::from(self.arguments.count)] = end;
        self.arguments.count += 1;
        Ok(())
    }
}

#[cold]
fn too_long<T: ?Sized>() -> EncodeError {
    EncodeError::new(
        type_name::<T>(),
        "the arguments of one call have more than 4 GiB: send large data once with `Shared`",
    )
}

struct Inline<'a>(&'a mut SmallVec<[u8; INLINE_BYTES_MAX]>);

impl Writer for Inline<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(codec: Codec) -> Arguments {
        let mut arguments = Arguments::new(codec);
        let mut writer = ArgWriter::new(&mut arguments);
        writer.put(&7u64).unwrap();
        writer.put(&()).unwrap();
        writer.put("abc").unwrap();
        arguments
    }

    #[test]
    fn one_byte_string_an_argument() {
        let arguments = written(Codec::Bincode);
        assert_eq!(arguments.ends(), [8, 8, 19]);
        let strings: Vec<&[u8]> = arguments.iter().collect();
        assert_eq!(
            strings,
            [&[7, 0, 0, 0, 0, 0, 0, 0][..], &[], b"\x03\0\0\0\0\0\0\0abc"]
        );
        assert!(arguments.with_slices(|slices| slices == strings));
        assert!(!arguments.bytes.spilled(), "32 bytes fit in place");
    }

    #[test]
    fn cbor_has_the_same_shape() {
        let arguments = written(Codec::Cbor);
        let strings: Vec<&[u8]> = arguments.iter().collect();
        assert_eq!(strings, [&[7][..], &[0xf6], b"\x63abc"]);
    }
}
