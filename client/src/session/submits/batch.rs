//! One kept batch on the callers' side.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ptr;
use std::sync::{Arc, Weak};

use allhands_common::execution::{Awaited, Mention};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::BatchId;
use allhands_common::limit::{MENTIONS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_TARGET};
use allhands_common::range::TaskRange;
use allhands_common::segment::{Segment, SegmentBuilder, is_value};
use allhands_common::time::Instant;
use bytes::Bytes;

use super::{MENTION_BYTES, Submission};
use crate::delayed::Patch;
use crate::entry::Entry;
use crate::execution::slot::{Outcome, Settled, Slot};
use crate::payload::Codec;
use crate::session::core::{End, Event};
use crate::session::exchange::ROOM_BYTES;
use crate::session::inbox::Kept;
use crate::session::needs::{Gathering, Parts};
use crate::shared::whole::Whole;

/// A batch takes at most so many appends: each leaves a record in the state until its tasks have ended.
const APPENDS_MAX: u32 = 512;

/// ... and so many tasks: the cluster keeps the outcomes of all of them for as long as one is held.
const TASKS_MAX: u32 = 1 << 13;

/// An outcome that is longer is not copied out of its segment, which it keeps.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// By what calls join a batch: the same function, and the same said of it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) entry: &'static Entry,
    pub(crate) patch: Option<Patch>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.entry, other.entry) && self.patch == other.patch
    }
}

/// What is kept for a task until it has ended.
pub(crate) type Keeps = Vec<Arc<dyn Any + Send + Sync>>;

/// A kept batch that somebody may join, that is not over, or of which somebody has an execution.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) key: Key,
    /// Its tasks so far.
    pub(super) tasks: u32,
    open: SegmentBuilder,
    mentions: Vec<Mention>,
    maps: Gathering,
    /// What the tasks of the open segment have stored counts as so many bytes.
    stored_bytes: usize,
    appends: u32,
    /// Arguments of tasks that have not ended, for their errors.
    arguments: Kept,
    /// Slots of tasks without an outcome, from `first` on.
    slots: VecDeque<Weak<Slot>>,
    first: u32,
    keeps: BTreeMap<u32, Keeps>,
    /// What is not committed, in order.
    ahead: VecDeque<Ahead>,
    committed: u32,
    /// Outcome segments that have come.
    pub(super) delivered: u32,
    /// Slots of it that there are.
    pub(super) alive: usize,
    /// Calls may join it.
    pub(super) is_open: bool,
    /// The loop was told that nobody has an execution of it any more.
    pub(super) is_released: bool,
    /// Nothing more will come of it.
    pub(super) is_over: bool,
    /// The last time that the loop saw that somebody had joined, once it has.
    pub(super) joined: Option<Instant>,
    seen: u32,
}

/// A call that is not committed.
#[derive(Debug)]
struct Ahead {
    bytes: usize,
    /// Executions that it names: its mention keeps them once it is committed.
    named: Vec<Arc<Slot>>,
}

/// Calls that need no room any more. To be dropped when nothing is locked: what they named may be the last of its
/// slots.
#[derive(Debug, Default)]
pub(super) struct Committed {
    pub(super) calls: usize,
    pub(super) bytes: usize,
    named: Vec<Arc<Slot>>,
}

/// Outcomes that have come, to be put into their slots when nothing is locked.
#[derive(Debug, Default)]
pub(super) struct Came {
    settled: Vec<(Arc<Slot>, Settled)>,
    keeps: Keeps,
}

/// What is left of a batch that has ended, to be dealt with when nothing is locked.
#[derive(Debug)]
pub(super) struct Ended {
    slots: Vec<Arc<Slot>>,
    pub(super) committed: Committed,
    keeps: BTreeMap<u32, Keeps>,
}

impl Came {
    pub(super) fn settle(self) {
        self.settled.into_iter().for_each(|(slot, settled)| slot.settle(settled));
        drop(self.keeps);
    }
}

impl Ended {
    /// Says to whoever waits why nothing more will come.
    pub(super) fn settle(self, end: &End) {
        let end = match end {
            End::Complete { rest: None } => {
                let cause = Cause::Cancelled { reason: "its batch ended before it".into() };
                let rest = Some(Failed { cause, worker: None, attempt: None, tries: 0 });
                End::Complete { rest }
            }
            end => end.clone(),
        };
        self.slots.iter().for_each(|slot| slot.settle(Settled::Ended(end.clone())));
        drop(self.keeps);
    }
}

impl Submitted {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            tasks: 0,
            open: SegmentBuilder::new(0),
            mentions: Vec::new(),
            maps: Gathering::default(),
            stored_bytes: 0,
            appends: 0,
            arguments: Kept::default(),
            slots: VecDeque::new(),
            first: 0,
            keeps: BTreeMap::new(),
            ahead: VecDeque::new(),
            committed: 0,
            delivered: 0,
            alive: 0,
            is_open: true,
            is_released: false,
            is_over: false,
            joined: None,
            seen: 0,
        }
    }

    /// Whether another has to follow it.
    pub(super) const fn is_long(&self) -> bool {
        self.appends >= APPENDS_MAX || self.tasks >= TASKS_MAX
    }

    /// Bytes of what is open.
    fn open_bytes(&self) -> usize {
        self.open.bytes() + self.mentions.len() * MENTION_BYTES
    }

    /// Whether what is open has to go out before a call of so many bytes, mentions included.
    pub(super) fn is_full(&self, codec: Codec, bytes: usize, mentions: usize) -> bool {
        self.open.tasks() > 0
            && (self.open.codec() != codec.byte()
                || self.open_bytes() + bytes > SEGMENT_BYTES_MAX - ROOM_BYTES
                || self.mentions.len() + mentions > MENTIONS_MAX)
    }

    /// Whether a task has not gone to the loop.
    pub(super) const fn is_uncut(&self, task: u32) -> bool {
        task >= self.tasks - self.open.tasks()
    }

    /// Adds a call; whether what is open is to go out.
    pub(super) fn push(&mut self, call: Submission<'_>, bytes: usize, slot: &Arc<Slot>) -> bool {
        if self.open.tasks() == 0 && self.open.codec() != call.codec.byte() {
            self.open = SegmentBuilder::new(call.codec.byte());
        }
        if let Some(parts) = call.maps {
            self.maps.add(self.open.tasks(), parts);
        }
        self.open.push(call.tag, call.strings.iter().copied());
        self.mentions.extend(call.needs.iter().map(|named| named.mention(self.tasks)));
        self.stored_bytes += call.stored_bytes;
        if !call.keeps.is_empty() {
            self.keeps.insert(self.tasks, call.keeps);
        }
        let named = call.needs.iter().map(|named| Arc::clone(&named.slot)).collect();
        self.ahead.push_back(Ahead { bytes, named });
        self.slots.push_back(Arc::downgrade(slot));
        self.alive += 1;
        self.tasks += 1;
        self.open_bytes() + self.stored_bytes >= SEGMENT_BYTES_TARGET
    }

    /// What is open, for the loop.
    pub(super) fn cut(&mut self, id: BatchId) -> Option<Event> {
        let tasks = self.open.tasks();
        if tasks == 0 {
            return None;
        }
        let segment = self.open.finish();
        let stored = std::mem::take(&mut self.stored_bytes);
        self.arguments.push(tasks, segment.clone(), stored);
        self.appends += 1;
        let mentions = std::mem::take(&mut self.mentions);
        let needs = self.maps.take(tasks, &Parts::default());
        Some(Event::Append { batch: id, tasks, segment, mentions, needs })
    }

    /// The loop has looked: it was joined since, or not.
    pub(super) fn look(&mut self, now: Instant) {
        if std::mem::replace(&mut self.seen, self.tasks) != self.tasks || self.joined.is_none() {
            self.joined = Some(now);
        }
    }

    /// The cluster has so many tasks of it.
    pub(super) fn commit(&mut self, tasks: u32) -> Committed {
        let tasks = tasks.min(self.tasks);
        let calls = (tasks.saturating_sub(self.committed) as usize).min(self.ahead.len());
        self.committed = self.committed.max(tasks);
        self.arguments.commit(tasks);
        let mut committed = Committed { calls, ..Committed::default() };
        for Ahead { bytes, named } in self.ahead.drain(..calls) {
            committed.bytes += bytes;
            committed.named.extend(named);
        }
        committed
    }

    /// These tasks have ended.
    pub(super) fn came(
        &mut self,
        range: TaskRange,
        segment: &Segment,
        arrays: &Arc<[Arc<Whole>]>,
    ) -> Came {
        let valueless = segment.runs().any(|(tag, _)| !is_value(tag));
        let kept = if valueless { self.arguments.covering(range) } else { Vec::new() };
        self.arguments.finish(range);
        let mut came = Came::default();
        for (row, task) in (0u32..).zip(range.start..range.end) {
            came.keeps.extend(self.keeps.remove(&task).unwrap_or_default());
            let at = task.checked_sub(self.first).map(|at| at as usize);
            let slot = at.and_then(|at| self.slots.get_mut(at)).map(std::mem::take);
            let Some(slot) = slot.and_then(|slot| slot.upgrade()) else { continue };
            let settled = match segment.value(row) {
                Some((tag, string)) => {
                    let of = kept.iter().find(|kept| !is_value(tag) && kept.range.contains(task));
                    let arguments =
                        of.map(|kept| (kept.arguments.clone(), task - kept.range.start));
                    let bytes = string_of(segment, string);
                    let (codec, arrays) = (segment.codec(), arrays.clone());
                    Settled::Outcome(Outcome { tag, codec, bytes, arguments, arrays })
                }
                None => Settled::Ended(End::Unreadable("an outcome segment is damaged".into())),
            };
            came.settled.push((slot, settled));
        }
        while self.slots.pop_front_if(|slot| slot.strong_count() == 0).is_some() {
            self.first += 1;
        }
        came
    }

    /// Nothing more will come of it.
    pub(super) fn end(&mut self) -> Ended {
        (self.is_over, self.is_open) = (true, false);
        let committed = self.commit(self.tasks);
        self.arguments = Kept::default();
        self.open = SegmentBuilder::new(0);
        self.mentions.clear();
        let slots = std::mem::take(&mut self.slots);
        let slots = slots.iter().filter_map(Weak::upgrade).collect();
        Ended { slots, committed, keeps: std::mem::take(&mut self.keeps) }
    }

    /// The slot of a task that has no outcome yet.
    pub(super) fn slot(&self, of: Awaited) -> Option<Arc<Slot>> {
        let at = of.task.index.checked_sub(self.first)? as usize;
        self.slots.get(at).filter(|_| !of.follow)?.upgrade()
    }
}

/// A string of a segment, without the segment unless it is long.
pub(in crate::session) fn string_of(segment: &Segment, string: &[u8]) -> Bytes {
    match string.len() <= COPIED_BYTES_MAX {
        true => Bytes::copy_from_slice(string),
        false => segment.bytes().slice_ref(string),
    }
}
