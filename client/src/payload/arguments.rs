//! The encoded arguments of one call: one byte string each, without a heap allocation if they are small.

use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::mem::needs_drop;
use std::sync::Arc;

use allhands_common::execution::{Filling, StandIn};
use bincode::enc::write::Writer;
use serde::Serialize;

use super::once::{self, Once};
use super::{Codec, EncodeError, encode, encode_bincode};
use crate::execution::named;
use crate::function::Arg;
use crate::shared::mention;

/// Most arguments of a function.
const ARGUMENTS_MAX: usize = 8;

/// Bytes of arguments kept in place: four numbers, or a short string. More would cost each call of a
/// function of one number the copying of it.
const INLINE_BYTES_MAX: usize = 32;

/// An argument of this size is not copied out of the buffer that it was written in: copying it costs
/// more than allocating the next buffer.
const MOVED_BYTES_MIN: usize = 4 << 10;

/// Room that a thread keeps for its next argument.
const ASIDE_BYTES_MAX: usize = 64 << 10;

/// Arguments of a call: their byte strings end to end, and where each ends.
#[derive(Clone)]
pub(crate) struct Arguments {
    buffer: Buffer,
    ends: [u32; ARGUMENTS_MAX],
    count: u8,
    codec: Codec,
    /// For which of them something stands in, a bit each: they are made of outcomes.
    stand_ins: u8,
    /// Those that are written once for many calls; their own byte strings are empty.
    once: Option<Box<[Option<Arc<Once>>; ARGUMENTS_MAX]>>,
}

/// Bytes that move to the heap once they are too many for their place.
#[derive(Clone)]
struct Buffer {
    inline: [u8; INLINE_BYTES_MAX],
    inline_len: u8,
    /// All bytes once they have moved; without an allocation until then.
    heap: Vec<u8>,
}

impl Buffer {
    #[inline]
    fn bytes(&self) -> &[u8] {
        if self.heap.is_empty() { &self.inline[..usize::from(self.inline_len)] } else { &self.heap }
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        self.heap.reserve(2 * INLINE_BYTES_MAX + bytes.len());
        self.heap.extend_from_slice(&self.inline[..usize::from(self.inline_len)]);
        self.heap.extend_from_slice(bytes);
    }

    #[inline(always)]
    fn extend(&mut self, bytes: &[u8]) {
        if !self.heap.is_empty() {
            self.heap.extend_from_slice(bytes);
            return;
        }
        let start = usize::from(self.inline_len);
        match self.inline.get_mut(start..start + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.inline_len += bytes.len() as u8;
            }
            None => self.spill(bytes),
        }
    }
}

struct InPlace<'a>(&'a mut Buffer);

impl Writer for InPlace<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend(bytes);
        Ok(())
    }
}

thread_local! {
    /// Room for one argument, kept from call to call.
    static ASIDE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes `value` into a buffer of its own, then moves it to `buffer`: a short one by copying, a long
/// one as it is.
fn encode_aside<T: Serialize + ?Sized>(
    codec: Codec,
    place: u8,
    value: &T,
    buffer: &mut Buffer,
) -> Result<(), EncodeError> {
    // A value whose `Serialize` makes another call finds the place empty, and brings its own.
    let mut aside = ASIDE.take();
    aside.clear();
    mention::during(|| named::during(place, || encode(codec, value, &mut aside)))?;
    if aside.len() >= MOVED_BYTES_MIN && buffer.bytes().is_empty() {
        aside.shrink_to_fit();
        buffer.heap = aside;
    } else {
        buffer.extend(&aside);
        if aside.capacity() <= ASIDE_BYTES_MAX {
            ASIDE.set(aside);
        }
    }
    Ok(())
}

impl Arguments {
    /// None yet.
    #[inline(always)]
    pub(crate) const fn new(codec: Codec) -> Self {
        let buffer = Buffer { inline: [0; INLINE_BYTES_MAX], inline_len: 0, heap: Vec::new() };
        Self { buffer, ends: [0; ARGUMENTS_MAX], count: 0, codec, stand_ins: 0, once: None }
    }

    /// What they are written in.
    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    /// For which of them something stands in, a bit each.
    #[inline]
    pub(crate) const fn stand_ins(&self) -> u8 {
        self.stand_ins
    }

    /// How many they are.
    pub(crate) const fn count(&self) -> usize {
        self.count as usize
    }

    /// One byte string an argument.
    #[inline]
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.count()).map(|place| match self.once(place) {
            Some(once) => once.bytes(),
            None => {
                let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
                &self.buffer.bytes()[start as usize..self.ends[place] as usize]
            }
        })
    }

    /// How long all of them are together, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match &self.once {
            None => self.buffer.bytes().len(),
            Some(_) => self.iter().map(<[u8]>::len).sum(),
        }
    }

    /// The argument in this place, if it is written once for many calls.
    #[inline]
    pub(crate) fn once(&self, place: usize) -> Option<&Arc<Once>> {
        self.once.as_ref()?.get(place)?.as_ref()
    }

    /// Where each argument ends, with those before it.
    #[cfg(test)]
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
        let buffer = &mut self.arguments.buffer;
        // Known when this is compiled, but for slices: numbers and what is made of them go straight
        // into their place; what grows is faster to write in a buffer that does not ask where it is.
        let is_short = !needs_drop::<T>() && size_of_val(value) <= INLINE_BYTES_MAX;
        match self.arguments.codec {
            Codec::Bincode if is_short => encode_bincode(value, InPlace(buffer))?,
            codec => encode_aside(codec, self.arguments.count, value, buffer)?,
        }
        self.end_argument::<T>()
    }

    #[inline]
    fn end_argument<T: ?Sized>(&mut self) -> Result<(), EncodeError> {
        let Ok(end) = u32::try_from(self.arguments.buffer.bytes().len()) else {
            return Err(too_long::<T>());
        };
        self.arguments.ends[usize::from(self.arguments.count)] = end;
        self.arguments.count += 1;
        Ok(())
    }

    /// [`put`](Self::put)s an owned argument; a long array behind an `Arc` is written once, for all calls
    /// that carry it.
    #[inline]
    pub(crate) fn put_owned<T: Arg>(&mut self, value: &T) -> Result<(), EncodeError> {
        if needs_drop::<T>()
            && size_of::<T>() <= size_of::<Arc<str>>()
            && let Some(once) = once::write(self.arguments.codec, value)?
        {
            return self.put_once(once);
        }
        self.put(value)
    }

    /// Takes what `filling` makes of outcomes as the next argument, in place of its own bytes.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub(crate) fn put_filling(&mut self, filling: Filling) -> Result<(), EncodeError> {
        self.arguments.stand_ins |= 1 << self.arguments.count;
        self.arguments.buffer.extend(&StandIn::Outcomes(filling).to_bytes());
        self.end_argument::<Filling>()
    }

    /// What the arguments are written in.
    pub(crate) const fn codec(&self) -> Codec {
        self.arguments.codec
    }

    #[cold]
    fn put_once(&mut self, once: Arc<Once>) -> Result<(), EncodeError> {
        let place = usize::from(self.arguments.count);
        // Its place among the byte strings, as an empty one.
        self.put(&())?;
        self.arguments.once.get_or_insert_default()[place] = Some(once);
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
        assert_eq!(strings, [&[7, 0, 0, 0, 0, 0, 0, 0][..], &[], b"\x03\0\0\0\0\0\0\0abc"]);
        assert!(arguments.with_slices(|slices| slices == strings));
        assert!(arguments.buffer.heap.is_empty(), "19 bytes fit in place");
    }

    #[test]
    fn thirty_two_bytes_stay_in_place_and_more_do_not() {
        for numbers in 0..=8u64 {
            let mut arguments = Arguments::new(Codec::Bincode);
            let mut writer = ArgWriter::new(&mut arguments);
            (0..numbers).for_each(|number| writer.put(&number).unwrap());
            assert_eq!(arguments.buffer.heap.is_empty(), numbers <= 4, "{numbers}");
            let read: Vec<u64> = arguments
                .iter()
                .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert_eq!(read, (0..numbers).collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_and_short_arguments_follow_each_other() {
        let long: Vec<u32> = (0..5_000).collect();
        for codec in [Codec::Bincode, Codec::Cbor] {
            let mut arguments = Arguments::new(codec);
            let mut writer = ArgWriter::new(&mut arguments);
            writer.put(&long).unwrap();
            writer.put("short").unwrap();
            writer.put(&7u8).unwrap();
            writer.put(&long[..]).unwrap();
            let read: Vec<&[u8]> = arguments.iter().collect();
            assert_eq!(crate::payload::decode(codec, read[0]), Ok(long.clone()));
            assert_eq!(crate::payload::decode(codec, read[1]), Ok("short".to_owned()));
            assert_eq!(crate::payload::decode(codec, read[2]), Ok(7u8));
            assert_eq!(crate::payload::decode(codec, read[3]), Ok(long.clone()));
        }
    }

    #[test]
    fn cbor_has_the_same_shape() {
        let arguments = written(Codec::Cbor);
        let strings: Vec<&[u8]> = arguments.iter().collect();
        assert_eq!(strings, [&[7][..], &[0xf6], b"\x63abc"]);
    }
}
