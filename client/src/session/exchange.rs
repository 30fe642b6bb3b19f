//! One batch between the thread that calls and the thread of the session.
//!
//! The caller writes tasks into the open segment; the session cuts it when the caller says so, when it
//! is full, or when it has lain open for one beat, so that a caller whose iterator blocks does not hold
//! back the tasks before. Therefore the open segment stands behind a lock, which is nearly always
//! free: taking it costs a task some ten nanoseconds, and nothing else is shared per task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use allhands_common::codec;
use allhands_common::execution::Mention;
use allhands_common::id::BatchId;
use allhands_common::limit::{
    DELIVER_BYTES_MAX, ENTRY_BYTES_MAX, MENTIONS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_TARGET,
    SEGMENT_TASKS_MAX,
};
use allhands_common::policy::{BatchSpec, Function};
use allhands_common::segment::SegmentBuilder;
use allhands_common::wire::needs::Needs;
use bytes::Bytes;

use super::inbox::Inbox;
use super::needs::{Gathering, Parts};
use super::submits::MENTION_BYTES;
use crate::execution::named::Named;

/// A batch, shared by its caller and the session.
#[derive(Debug)]
pub(crate) struct Exchange {
    feed: Mutex<Feed>,
    /// Where what comes back is put.
    pub(crate) inbox: Arc<Inbox>,
    /// Which part of the call it is.
    pub(crate) part: u32,
    /// How many workers are to keep what its tasks leave for this process.
    replicas: u8,
    /// Where it goes, once the session has said so.
    place: OnceLock<Place>,
    /// Whether the session will look at it at the next beat. Its own note, nobody else's.
    beating: AtomicBool,
}

/// Where a batch of the caller's goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is one of the cluster.
    Whole(BatchId),
    /// It is one task of this batch, which it shares with others.
    Task(BatchId, u32),
}

/// What goes from the caller to the session.
#[derive(Debug)]
struct Feed {
    /// What is to be opened; gone once the session has taken it.
    spec: Option<(BatchSpec, Bytes)>,
    open: SegmentBuilder,
    /// What was stored for the tasks of the open segment counts as so many bytes.
    stored: usize,
    /// What its tasks map, ...
    maps: Gathering,
    /// ... what the next one does, and what all do.
    next_maps: Option<Parts>,
    all_map: Parts,
    /// Tasks so far, and whom those of the open segment name.
    tasks: u32,
    mentions: Vec<Mention>,
    ready: Vec<Cut>,
    /// Counts cuts, so that a beat can tell an old open segment from a new one.
    cuts: u64,
    /// How many cuts there were at the last beat.
    beat: u64,
    /// The session looks at it at every beat.
    watched: bool,
    /// It stands in the list of what the session has to look at.
    noted: bool,
    sealed: bool,
    seal_taken: bool,
    consumed: u32,
    /// Bytes consumed since the session last looked.
    consumed_bytes: usize,
    cancel: Option<String>,
    /// Nothing more of it will run.
    stopped: bool,
}

/// Tasks that go out together.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) tasks: u32,
    pub(crate) segment: Bytes,
    /// Whom they name.
    pub(crate) mentions: Vec<Mention>,
    /// What they map.
    pub(crate) needs: Option<Box<Needs>>,
}

/// What the session takes at a time.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) open: Option<(BatchSpec, Bytes)>,
    pub(crate) segments: Vec<Cut>,
    pub(crate) sealed: bool,
    pub(crate) consumed: u32,
    pub(crate) cancel: Option<String>,
    /// It has to be looked at after a beat.
    pub(crate) watched: bool,
}

/// What is left to do after a change.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// Nothing: the session need not know, or has been told.
    Quiet,
    /// Put it into the session's list.
    Tell,
    /// The call is over; the task was not taken.
    Stopped,
}

impl Exchange {
    pub(crate) fn new(spec: BatchSpec, context: Bytes, inbox: Arc<Inbox>, part: u32) -> Self {
        // What cannot be computed again is kept twice.
        let least = if spec.policy.idempotent { 1 } else { 2 };
        let replicas = inbox.rules().replicas.unwrap_or(least);
        let feed = Feed {
            spec: Some((spec, context)),
            open: SegmentBuilder::new(0),
            stored: 0,
            maps: Gathering::default(),
            next_maps: None,
            all_map: Parts::default(),
            tasks: 0,
            mentions: Vec::new(),
            ready: Vec::new(),
            cuts: 0,
            beat: 0,
            watched: false,
            noted: false,
            sealed: false,
            seal_taken: false,
            consumed: 0,
            consumed_bytes: 0,
            cancel: None,
            stopped: false,
        };
        let (place, beating) = (OnceLock::new(), AtomicBool::new(false));
        Self { feed: Mutex::new(feed), inbox, part, replicas, place, beating }
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers are to keep what its tasks leave for this process.
    pub(super) const fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Where it goes, once the session has taken it.
    pub(super) fn place(&self) -> Option<Place> {
        self.place.get().copied()
    }

    /// Says where it goes.
    pub(super) fn set_place(&self, place: Place) {
        self.place.get_or_init(|| place);
    }

    /// Whether it shares a batch with others: then its outcome counts as consumed when it comes.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.place(), Some(Place::Task(..)))
    }

    /// Whether the session will look at it at the next beat.
    pub(super) fn is_beating(&self) -> bool {
        self.beating.load(Ordering::Relaxed)
    }

    pub(super) fn set_beating(&self, beating: bool) {
        self.beating.store(beating, Ordering::Relaxed);
    }

    /// Adds a function; its number. `None` once the batch is open, for then its functions are fixed, and
    /// when the specification cannot hold it.
    pub(crate) fn add_function(&self, function: Function) -> Option<u8> {
        let mut feed = self.feed();
        let (spec, _) = feed.spec.as_mut()?;
        let tag = u8::try_from(spec.functions.len()).ok()?;
        spec.functions.push(function);
        if spec_bytes(spec) > SPEC_BYTES_MAX {
            spec.functions.pop();
            return None;
        }
        Some(tag)
    }

    /// Each task maps these.
    pub(crate) fn all_map(&self, parts: Parts) {
        self.feed().all_map = parts;
    }

    /// The task that is added next maps these.
    pub(crate) fn maps(&self, parts: Parts) {
        self.feed().next_maps = Some(parts);
    }

    /// Adds a task, and what counts for it beside its arguments. `last` is said when the caller knows that no other
    /// follows.
    #[inline]
    pub(crate) fn push<'a>(
        &self,
        codec: u8,
        tag: u16,
        (bytes, stored): (usize, usize),
        (strings, needs): (impl ExactSizeIterator<Item = &'a [u8]>, &[Named]),
        last: bool,
    ) -> Note {
        let mut feed = self.feed();
        if feed.stopped {
            return Note::Stopped;
        }
        let there = feed.open.bytes() + feed.mentions.len() * MENTION_BYTES;
        if feed.open.codec() != codec
            || there + bytes > SEGMENT_BYTES_MAX - ROOM_BYTES
            || feed.mentions.len() + needs.len() > MENTIONS_MAX
        {
            self.cut(&mut feed);
            feed.open = SegmentBuilder::new(codec);
        }
        if let Some(parts) = feed.next_maps.take() {
            let task = feed.open.tasks();
            feed.maps.add(task, parts);
        }
        feed.open.push(tag, strings);
        if !needs.is_empty() {
            let task = feed.tasks;
            feed.mentions.extend(needs.iter().map(|named| named.mention(task)));
        }
        feed.tasks += 1;
        feed.stored += stored;
        if feed.open.bytes() + feed.stored >= SEGMENT_BYTES_TARGET
            || feed.open.tasks() >= SEGMENT_TASKS_MAX
        {
            self.cut(&mut feed);
        } else if feed.watched || last {
            return Note::Quiet;
        }
        feed.watched = true;
        feed.note()
    }

    /// Cuts the open segment: the caller is going to wait.
    pub(crate) fn flush(&self) -> Note {
        let mut feed = self.feed();
        self.cut(&mut feed);
        if feed.ready.is_empty() { Note::Quiet } else { feed.note() }
    }

    /// There are no more tasks.
    pub(crate) fn seal(&self) -> Note {
        let mut feed = self.feed();
        self.cut(&mut feed);
        feed.sealed = true;
        feed.note()
    }

    /// The caller has taken more outcome segments, of so many bytes. The session is told when it
    /// matters to the cluster; else it sees it when it looks for another reason.
    pub(crate) fn consume(&self, segments: u32, bytes: usize) -> Note {
        let mut feed = self.feed();
        feed.consumed += segments;
        feed.consumed_bytes += bytes;
        if feed.consumed_bytes >= CONSUMED_BYTES { feed.note() } else { Note::Quiet }
    }

    /// Nothing more of it will run: tasks need not be given.
    pub(super) fn stop(&self) {
        self.feed().stopped = true;
    }

    /// The caller wants no more of it.
    pub(crate) fn cancel(&self, reason: &str) -> Note {
        let mut feed = self.feed();
        feed.cancel = Some(reason.to_owned());
        feed.note()
    }

    /// What the session has to know, after the caller told.
    pub(crate) fn take(&self) -> Taken {
        let mut feed = self.feed();
        feed.noted = false;
        if feed.spec.is_some() {
            self.cut(&mut feed);
        }
        feed.taken()
    }

    /// The same, after a beat: an open segment that is as old as the beat is cut.
    pub(crate) fn take_beat(&self) -> Taken {
        let mut feed = self.feed();
        if feed.open.tasks() == 0 {
            feed.watched = false;
        } else if feed.beat == feed.cuts {
            self.cut(&mut feed);
        }
        feed.beat = feed.cuts;
        feed.taken()
    }

    /// Cuts the open segment. Its arguments are kept until its tasks have ended: that is the measure
    /// of how much is on its way.
    fn cut(&self, feed: &mut Feed) {
        let tasks = feed.open.tasks();
        if tasks > 0 {
            let segment = feed.open.finish();
            let stored = std::mem::take(&mut feed.stored);
            self.inbox.keep(self.part, tasks, segment.clone(), stored);
            let mentions = std::mem::take(&mut feed.mentions);
            let Feed { maps, all_map, .. } = feed;
            let needs = maps.take(tasks, all_map);
            feed.ready.push(Cut { tasks, segment, mentions, needs });
            feed.cuts += 1;
        }
    }
}

/// Consumed bytes that the session is told of at once: an eighth of what may be on its way.
const CONSUMED_BYTES: usize = DELIVER_BYTES_MAX / 8;

/// Of a segment, besides payload: its header, and columns of a run whose lengths differ.
pub(crate) const ROOM_BYTES: usize = 64 << 10;

/// Longest encoded specification of a batch. With its context and first segment it makes up one
/// command, and this is what an entry has room for beside the longest of these, less 16 KiB for the
/// entry's own.
pub(crate) const SPEC_BYTES_MAX: usize = ENTRY_BYTES_MAX - SEGMENT_BYTES_MAX - (16 << 10);

/// How long a specification is when it is sent.
pub(crate) fn spec_bytes(spec: &BatchSpec) -> usize {
    let mut bytes = Vec::new();
    // Strings and numbers: nothing in it can refuse.
    _ = codec::encode(spec, &mut bytes);
    bytes.len()
}

impl Feed {
    const fn note(&mut self) -> Note {
        if self.noted {
            return Note::Quiet;
        }
        self.noted = true;
        Note::Tell
    }

    fn taken(&mut self) -> Taken {
        let sealed = self.sealed && !self.seal_taken;
        self.seal_taken = self.sealed;
        self.consumed_bytes = 0;
        Taken {
            open: self.spec.take(),
            segments: std::mem::take(&mut self.ready),
            sealed,
            consumed: self.consumed,
            cancel: self.cancel.take(),
            watched: self.watched && !self.sealed,
        }
    }
}

#[cfg(test)]
mod tests;
