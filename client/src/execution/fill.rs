//! Making arguments of outcomes: the trampoline of a [`Conversion`], which executors call, and the same in the
//! caller's thread (`n_jobs(1)`).

use std::borrow::Cow;

use allhands_common::codec;
use allhands_common::execution::{Awaited, Filling, Need, StandIn};
use allhands_common::failure::{Cause, Failed};
use allhands_common::segment::{DONE, ERROR, FAILED};

use super::Execution;
use super::convert::Conversion;
use super::named::Named;
use crate::delayed::Delayed;
use crate::entry::{CallStatus, Entry};
use crate::payload::{Codec, decode, encode};

/// Writes the argument that `C` makes of outcomes: a string each, a byte of its codec before its own bytes.
pub(crate) fn convert<C: Conversion>(
    codec: Codec,
    strings: &[&[u8]],
    out: &mut Vec<u8>,
) -> CallStatus {
    let bad = |message: String| CallStatus::BadArgument { position: 0, message };
    let mut read = Vec::with_capacity(strings.len());
    for string in strings {
        let Some((first, bytes)) = string.split_first() else {
            return bad("an outcome without a codec: the message was damaged".into());
        };
        let Some(theirs) = Codec::from_byte(*first) else {
            return bad(format!("an outcome in codec {first}, which this program lacks"));
        };
        if C::PLAIN && theirs == codec && strings.len() == 1 {
            out.extend_from_slice(bytes);
            return CallStatus::Done;
        }
        match decode::<C::Reads>(theirs, bytes) {
            Ok(value) => read.push(value),
            Err(error) => return bad(error.to_string()),
        }
    }
    let written = C::convert(read)
        .and_then(|value| encode(codec, &value, out).map_err(|error| error.to_string()));
    match written {
        Ok(()) => CallStatus::Done,
        Err(message) => bad(message),
    }
}

/// The arguments of a call, with what its stand-ins stand for: waits for the outcomes.
///
/// # Errors
/// One of them is none that an argument can be made of: the call does not run.
pub(crate) fn here<'a, R>(call: &'a Delayed<R>) -> Result<Vec<Cow<'a, [u8]>>, Cause> {
    let stand_ins = call.encoded().stand_ins();
    let fill = |(place, string): (usize, &'a [u8])| match stand_ins & 1 << place {
        0 => Ok(string.into()),
        _ => fill(string, call.codec(), call.needs(), place).map(Cow::from),
    };
    call.needs().iter().filter(|named| named.need == Need::End).for_each(|named| {
        Execution::<()>::of_slot(&named.slot).wait_end(None);
    });
    call.arguments().enumerate().map(fill).collect()
}

fn fill(string: &[u8], codec: Codec, needs: &[Named], place: usize) -> Result<Vec<u8>, Cause> {
    let damaged = || Cause::Program { message: "a stand-in was damaged".into() };
    let Some(StandIn::Outcomes(Filling { made_by, of, .. })) = StandIn::from_bytes(string) else {
        return Err(damaged());
    };
    let entry = Entry::resolve(made_by).map_err(|_| damaged())?;
    let mut strings = Vec::with_capacity(of.len());
    for task in of {
        let named = needs.iter().find(|named| {
            named.slot.of().task == task && usize::from(named.place) == place && named.need.takes()
        });
        strings.push(string_of(named.ok_or_else(damaged)?)?);
    }
    let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    match (entry.call())(codec, &strings, &mut out) {
        CallStatus::BadArgument { message, .. } => {
            Err(Cause::BadArgument { position: u8::try_from(place).unwrap_or(u8::MAX), message })
        }
        _ => Ok(out),
    }
}

/// The outcome of an execution as a conversion reads it.
fn string_of(named: &Named) -> Result<Vec<u8>, Cause> {
    let Awaited { task: root, .. } = named.slot.of();
    let failed = |message: String| Cause::DependencyFailed { root, message };
    let execution = Execution::<()>::leading_to(&named.slot);
    let read = execution.wait_read(None).ok_or_else(|| failed("has not ended".into()))?;
    let (tag, codec, value) = read.map_err(|why| failed(why.to_string()))?;
    let bytes = value.bytes();
    match tag {
        DONE => {}
        FAILED if named.need == Need::Returned => {}
        FAILED => return Err(failed("returned an error".into())),
        ERROR => {
            let cause = codec::decode::<Failed>(bytes).map(|failed| failed.cause);
            return Err(match cause {
                Ok(cause @ Cause::DependencyFailed { .. }) => cause,
                Ok(cause) => failed(cause.to_string()),
                Err(error) => failed(error.to_string()),
            });
        }
        _ => return Err(failed("has an outcome of another release of allhands".into())),
    }
    Ok([&[codec][..], bytes].concat())
}
