//! Long arguments: lifted out of the segment into the chunk store, a stand-in of 41 bytes in their place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::execution::StandIn;

use super::keeping::Kept;
use crate::data::Data;
use crate::entry::Entry;
use crate::error::Result;
use crate::notice::notice;
use crate::payload::{Arguments, bytes_text};

/// After so many calls with equal long arguments, the user is told that there is a better way.
const EQUAL_MAX: u32 = 10;

/// Different long arguments of which it is counted how often they occur.
const COUNTED_MAX: usize = 1024;

/// Lifts the long arguments of one call of `Parallel`.
#[derive(Debug)]
pub(crate) struct Lifting {
    /// How long an argument may be, in bytes, without being lifted.
    above: usize,
    /// How often equal ones came by value.
    equal: BTreeMap<BlobId, u32>,
    told: bool,
}

/// The arguments of a task, with references in place of the long ones.
#[derive(Debug)]
pub(crate) struct Lifted<'a> {
    pub(crate) strings: Vec<Cow<'a, [u8]>>,
    /// For which of them something stands in, a bit each.
    pub(crate) which: u8,
    /// Bytes that were stored for it.
    pub(crate) stored_bytes: usize,
    /// What must be there until the task has ended.
    pub(crate) kept: Vec<Kept>,
}

impl Lifted<'_> {
    /// The references.
    pub(crate) fn references(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let lifted = |place: usize| self.which & 1 << place != 0;
        let strings = self.strings.iter().enumerate().filter(move |(place, _)| lifted(*place));
        strings.filter_map(|(_, string)| match StandIn::from_bytes(string)? {
            StandIn::Blob(reference) => Some(reference),
            StandIn::Outcomes(_) => None,
        })
    }
}

impl Lifting {
    pub(crate) fn new(max_nbytes: Option<usize>) -> Self {
        Self { above: max_nbytes.unwrap_or(usize::MAX), equal: BTreeMap::new(), told: false }
    }

    /// Arguments that together are no longer need not be looked at.
    #[inline]
    pub(super) const fn above(&self) -> usize {
        self.above
    }

    /// Stores the long ones among a call's arguments, each once.
    pub(crate) fn lift<'a>(
        &mut self,
        data: &Data,
        arguments: &'a Arguments,
        entry: &'static Entry,
    ) -> Result<Lifted<'a>> {
        let which = arguments.stand_ins();
        let mut lifted = Lifted { strings: Vec::new(), which, stored_bytes: 0, kept: Vec::new() };
        for (place, string) in arguments.iter().enumerate() {
            if string.len() <= self.above || which & 1 << place != 0 {
                lifted.strings.push(string.into());
                continue;
            }
            let (stored, is_new) = match arguments.once(place) {
                Some(once) => {
                    lifted.kept.push(once.clone());
                    once.stored(data.cluster(), |bytes| data.put_bytes(bytes).map(Arc::new))?
                }
                None => {
                    let stored = data.put_bytes(string)?;
                    let is_new = self.count(&stored.reference(), entry);
                    (Arc::new(stored), is_new)
                }
            };
            if is_new {
                lifted.stored_bytes += string.len();
            }
            lifted.strings.push(StandIn::Blob(stored.reference()).to_bytes().into());
            lifted.which |= 1 << place;
            lifted.kept.push(stored);
        }
        Ok(lifted)
    }

    /// Counts an argument that came by value; whether it is the first of its kind.
    fn count(&mut self, reference: &BlobRef, entry: &'static Entry) -> bool {
        if self.equal.len() >= COUNTED_MAX && !self.equal.contains_key(&reference.id) {
            return true;
        }
        let times = self.equal.entry(reference.id).or_default();
        *times += 1;
        let is_new = *times == 1;
        if *times == EQUAL_MAX && !std::mem::replace(&mut self.told, true) {
            notice(format_args!(
                "{EQUAL_MAX} calls of {} carry equal arguments of {} bytes, which are encoded and \
                 looked at each time: put the value behind an `Arc`, or `cluster.put` it once",
                entry.label(),
                reference.bytes
            ));
        }
        is_new
    }
}

/// Arguments as text, in parentheses; for some of them something stands in.
pub(crate) fn text(strings: &[&[u8]], stand_ins: u8) -> String {
    let text = |(place, string): (usize, &&[u8])| match StandIn::from_bytes(string) {
        Some(StandIn::Blob(reference)) if stand_ins & 1 << place != 0 => {
            format!("{} bytes in a blob", reference.bytes)
        }
        Some(StandIn::Outcomes(filling)) if stand_ins & 1 << place != 0 => match &filling.of[..] {
            [only] => format!("execution {only}"),
            all => format!("{} executions", all.len()),
        },
        _ => bytes_text(string),
    };
    let texts: Vec<String> = strings.iter().enumerate().map(text).collect();
    format!("({})", texts.join(", "))
}
