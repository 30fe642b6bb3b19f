//! The first call of a function, and one that its codec refused: which codec serves it?
//!
//! bincode is tried first: it must be able to write the arguments, to read them back, and to carry
//! the result's type. If it cannot, the function uses CBOR from then on. `#[task(codec = "...")]`
//! leaves no choice, but is read back as well.

use std::fmt::Display;

use super::Extra;
use crate::entry::Entry;
use crate::execution::named;
use crate::payload::{ArgWriter, ArgumentError, Arguments, Codec, EncodeError};
use crate::registry::Known;

type Put<'a> = &'a dyn Fn(&mut ArgWriter<'_>) -> Result<(), EncodeError>;

/// Writes the arguments in the first codec that serves; if none does, the extra holds the error.
#[cold]
pub(super) fn write(
    entry: &'static Entry,
    known: &Known,
    put: Put<'_>,
    arguments: &mut Arguments,
    extra: &mut Option<Box<Extra>>,
) {
    let mut error = None;
    for codec in candidates(entry, known) {
        match write_in(*codec, entry, put) {
            Ok(written) => {
                known.set_codec(*codec);
                *arguments = written;
                return;
            }
            // The last codec's word counts: CBOR refuses only what is wrong with the value itself.
            Err(refused) => error = Some(refused),
        }
    }
    *arguments = Arguments::new(arguments.codec());
    *extra = Some(Box::new(Extra { error, ..Extra::default() }));
}

fn candidates(entry: &'static Entry, known: &Known) -> &'static [Codec] {
    match known.task().and_then(|task| task.codec) {
        Some(Codec::Bincode) => &[Codec::Bincode],
        Some(Codec::Cbor) => &[Codec::Cbor],
        None if known.codec() == Some(Codec::Cbor) || entry.result_needs_names() => &[Codec::Cbor],
        None => &[Codec::Bincode, Codec::Cbor],
    }
}

fn write_in(codec: Codec, entry: &'static Entry, put: Put<'_>) -> Result<Arguments, ArgumentError> {
    let refused = |position, cause: &dyn Display| ArgumentError {
        function: entry.label(),
        position,
        cause: cause.to_string(),
    };
    let mut arguments = Arguments::new(codec);
    named::begin_anew();
    let mut writer = ArgWriter::new(&mut arguments);
    if let Err(error) = put(&mut writer) {
        return Err(refused(writer.position(), &error));
    }
    let stand_ins = arguments.stand_ins();
    match arguments.with_slices(|args| entry.check(codec, args, stand_ins)) {
        Ok(()) => Ok(arguments),
        Err(bad) => Err(refused(bad.position, &bad.message)),
    }
}
