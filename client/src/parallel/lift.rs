//! Long arguments: lifted out of the segment into the chunk store, a reference of 40 bytes in their place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use allhands_common::blob::{BlobId, BlobRef};

use super::keeping::Kept;
use crate::data::Data;
use crate::delayed::Delayed;
use crate::error::Result;
use crate::notice::notice;
use crate::payload::bytes_text;

/// After so many calls with equal long arguments, the user is told that there is a better way.
const EQUAL_MAX: u32 = 10;

/// Different long arguments of which it is counted how often they occur.
const COUNTED_MAX: usize = 1024;

/// Lifts the long arguments of one call of `Parallel`.
pub(super) struct Lifting {
    /// How long an argument may be, in bytes, without being lifted.
    above: usize,
    /// How often equal ones came by value.
    equal: BTreeMap<BlobId, u32>,
    told: bool,
}

/// The arguments of a task, with references in place of the long ones.
pub(super) struct Lifted<'a> {
    pub(super) strings: Vec<Cow<'a, [u8]>>,
    /// Which are references, a bit each.
    pub(super) which: u8,
    /// Bytes that were stored for it.
    pub(super) stored_bytes: usize,
    /// What must be there until the task has ended.
    pub(super) kept: Vec<Kept>,
}

impl Lifted<'_> {
    /// The references.
    pub(super) fn references(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let lifted = |place: usize| self.which & 1 << place != 0;
        let strings = self.strings.iter().enumerate().filter(move |(place, _)| lifted(*place));
        strings.filter_map(|(_, string)| BlobRef::from_bytes(string))
    }
}

impl Lifting {
    pub(super) fn new(max_nbytes: Option<usize>) -> Self {
        Self { above: max_nbytes.unwrap_or(usize::MAX), equal: BTreeMap::new(), told: false }
    }

    /// Arguments that together are no longer need not be looked at.
    #[inline]
    pub(super) const fn above(&self) -> usize {
        self.above
    }

    /// Stores the long ones among a call's arguments, each once.
    pub(super) fn lift<'a, R>(&mut self, data: &Data, call: &'a Delayed<R>) -> Result<Lifted<'a>> {
        let mut lifted =
            Lifted { strings: Vec::new(), which: 0, stored_bytes: 0, kept: Vec::new() };
        for (place, string) in call.arguments().enumerate() {
            if string.len() <= self.above {
                lifted.strings.push(string.into());
                continue;
            }
            let (stored, is_new) = match call.encoded().once(place) {
                Some(once) => {
                    lifted.kept.push(once.clone());
                    once.stored(data.cluster(), |bytes| data.put_bytes(bytes).map(Arc::new))?
                }
                None => {
                    let stored = data.put_bytes(string)?;
                    let is_new = self.count(&stored.reference(), call);
                    (Arc::new(stored), is_new)
                }
            };
            if is_new {
                lifted.stored_bytes += string.len();
            }
            lifted.strings.push(stored.reference().to_bytes().to_vec().into());
            lifted.which |= 1 << place;
            lifted.kept.push(stored);
        }
        Ok(lifted)
    }

    /// Counts an argument that came by value; whether it is the first of its kind.
    fn count<R>(&mut self, reference: &BlobRef, call: &Delayed<R>) -> bool {
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
                call.label(),
                reference.bytes
            ));
        }
        is_new
    }
}

/// Arguments as text, in parentheses, some of which are references.
pub(super) fn text(strings: &[&[u8]], lifted: u8) -> String {
    let text = |(place, string): (usize, &&[u8])| match BlobRef::from_bytes(string) {
        Some(reference) if lifted & 1 << place != 0 => {
            format!("{} bytes in a blob", reference.bytes)
        }
        _ => bytes_text(string),
    };
    let texts: Vec<String> = strings.iter().enumerate().map(text).collect();
    format!("({})", texts.join(", "))
}
