//! Arguments that are not in a load's segments: those that lie in blobs, and those that are made of other
//! tasks' outcomes, which come along with the load.

use std::collections::BTreeMap;
use std::sync::Arc;

use allhands_common::codec;
use allhands_common::execution::{Filling, Given, StandIn};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::TaskId;
use allhands_common::segment::{ARITY_MAX, ERROR, STORED, Segment};
use bytes::Bytes;

use crate::entry::{CallStatus, Entry};
use crate::payload::Codec;
use crate::shared::whole::{self, Whole};

/// The outcomes that came along with a load, by the tasks that arguments name.
pub(super) struct Outcomes(BTreeMap<TaskId, Segment>);

/// Arguments in place of their stand-ins.
pub(super) struct Filled {
    strings: [Filler; ARITY_MAX],
}

enum Filler {
    /// It stands in the segment.
    InPlace,
    /// It is a blob.
    Lent(Arc<Whole>),
    /// It is an outcome as it is.
    Given(Bytes),
    /// It was made of outcomes.
    Made(Vec<u8>),
}

impl Outcomes {
    pub(super) fn new(given: Vec<Given>) -> Self {
        let parsed = given.into_iter().filter_map(|given| {
            let segment = Segment::parse(given.outcome.bytes).ok()?;
            Some((given.of.task, segment)).filter(|(_, segment)| segment.tasks() == 1)
        });
        Self(parsed.collect())
    }

    fn get(&self, task: TaskId) -> Result<(u16, Codec, Bytes), Cause> {
        let damaged = || Cause::Program {
            message: format!(
                "the outcome of execution {task}, which it takes, did not come with it"
            ),
        };
        let segment = self.0.get(&task).ok_or_else(damaged)?;
        let (tag, string) = segment.value(0).ok_or_else(damaged)?;
        let codec = Codec::from_byte(segment.codec());
        if tag == ERROR {
            // It was there when the task was given out, and cannot be read any more.
            let message = match codec::decode::<Failed>(string) {
                Ok(failed) => failed.cause.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(Cause::DependencyFailed { root: task, message });
        }
        Ok((tag, codec.ok_or_else(damaged)?, segment.bytes().slice_ref(string)))
    }
}

impl Filled {
    /// What stands in for the strings of which the bits in `which` are set.
    ///
    /// # Errors
    /// A blob cannot be had, or an outcome is none that the argument can be made of.
    pub(super) fn of(
        strings: &[&[u8]],
        which: u8,
        codec: Codec,
        outcomes: &Outcomes,
    ) -> Result<Self, Cause> {
        let mut filled = Self { strings: [const { Filler::InPlace }; ARITY_MAX] };
        for (position, (filler, string)) in filled.strings.iter_mut().zip(strings).enumerate() {
            if which & 1 << position == 0 {
                continue;
            }
            *filler = match StandIn::from_bytes(string) {
                Some(StandIn::Blob(blob)) => Filler::Lent(whole::lend(blob)?),
                Some(StandIn::Outcomes(filling)) => fill(&filling, codec, outcomes, position)?,
                None => {
                    let message = "its arguments were damaged on the way".into();
                    return Err(Cause::Program { message });
                }
            };
        }
        Ok(filled)
    }

    /// The arguments.
    pub(super) fn strings<'a>(&'a self, strings: &[&'a [u8]]) -> [&'a [u8]; ARITY_MAX] {
        let mut whole = [&[][..]; ARITY_MAX];
        for ((place, string), filler) in whole.iter_mut().zip(strings).zip(&self.strings) {
            *place = match filler {
                Filler::InPlace => string,
                Filler::Lent(lent) => lent.all(),
                Filler::Given(bytes) => bytes,
                Filler::Made(bytes) => bytes,
            };
        }
        whole
    }

    /// The blobs among them.
    pub(super) fn blobs(&self) -> Vec<Arc<Whole>> {
        let lent = |filler: &Filler| match filler {
            Filler::Lent(lent) => Some(Arc::clone(lent)),
            Filler::InPlace | Filler::Given(_) | Filler::Made(_) => None,
        };
        self.strings.iter().filter_map(lent).collect()
    }
}

/// The argument that is made of these outcomes.
fn fill(
    filling: &Filling,
    codec: Codec,
    outcomes: &Outcomes,
    position: usize,
) -> Result<Filler, Cause> {
    let mut strings: Vec<Vec<u8>> = Vec::with_capacity(filling.of.len());
    for task in &filling.of {
        let (tag, theirs, bytes) = outcomes.get(*task)?;
        let plain = filling.plain && theirs == codec && filling.of.len() == 1;
        let blob = match tag {
            STORED => Some(whole::lend_string(&bytes)?),
            _ => None,
        };
        match blob {
            Some(blob) if plain => return Ok(Filler::Lent(blob)),
            None if plain => return Ok(Filler::Given(bytes)),
            Some(blob) => strings.push([&[theirs.byte()], blob.all()].concat()),
            None => strings.push([&[theirs.byte()], &bytes[..]].concat()),
        }
    }
    let position = u8::try_from(position).unwrap_or(u8::MAX);
    let refused = |message: String| Cause::BadArgument { position, message };
    let made_by = Entry::resolve(filling.made_by).map_err(|error| refused(error.to_string()))?;
    let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
    let mut made = Vec::new();
    match made_by.call()(codec, &strings, &mut made) {
        CallStatus::Done | CallStatus::Forwarded(_) => Ok(Filler::Made(made)),
        CallStatus::BadArgument { message, .. } | CallStatus::BadResult { message } => {
            Err(refused(message))
        }
        CallStatus::Failed | CallStatus::Again => {
            Err(refused("it is an error, where a value is wanted".into()))
        }
    }
}
