//! One batch as its submitter sees it: what was said and must be said again to a new leader, and what
//! has come back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use allhands_common::execution::Mention;
use allhands_common::failure::Failed;
use allhands_common::id::BatchId;
use allhands_common::policy::BatchSpec;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::time::Instant;
use allhands_common::wire::client::FromClient;
use allhands_common::wire::needs::Needs;
use bytes::Bytes;

/// A batch that is not over, or whose last acknowledgement is not sent.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) sequence: u32,
    pub(super) call: u32,
    pub(super) spec: Arc<BatchSpec>,
    pub(super) context: Bytes,
    pub(super) since: Instant,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// Its tasks are executions, ...
    pub(super) kept: bool,
    /// ... of which somebody in this process may still have one.
    pub(super) held: bool,
    /// Nobody wants it: what comes is dropped.
    pub(super) cancelled: Option<String>,
    /// Since when a leader does not know it, although it was committed.
    pub(super) doubted: Option<Instant>,
}

/// What was given by the caller, and how far the leader has it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Segments that are not known to be committed, in order.
    pub(super) held: VecDeque<Held>,
    /// How many of them were said to the current leader.
    pub(super) said: usize,
    /// Tasks given by the caller.
    pub(super) given: u32,
    /// Tasks that are committed.
    pub(super) committed: u32,
    pub(super) opening: Step,
    /// A leader may know of it: whoever follows has to be told if it is not wanted.
    pub(super) was_said: bool,
    pub(super) sealing: Step,
    pub(super) cancelling: Step,
    /// Tasks that nobody wants and that have no outcome, ...
    pub(super) unwanted: RangeSet,
    /// ... and those of them that the current leader was not told of.
    pub(super) unwanted_due: RangeSet,
    /// It stands in the queue of batches that have something to say.
    pub(super) queued: bool,
}

/// A thing that is said once to each leader until it is known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Step {
    /// Not to be said (yet).
    #[default]
    Idle,
    /// To be said.
    Due,
    /// Said to the current leader.
    Said,
    /// Committed.
    Done,
}

impl Step {
    /// Another leader: what is not committed is to be said again.
    pub(super) fn again(&mut self) {
        if *self == Self::Said {
            *self = Self::Due;
        }
    }
}

/// The next tasks, for as long as they may have to be said again.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) first: u32,
    pub(super) tasks: u32,
    pub(super) segment: Bytes,
    pub(super) mentions: Vec<Mention>,
    /// What they map.
    pub(super) needs: Option<Box<Needs>>,
    /// Its place among all that the session was given.
    pub(super) order: u64,
}

/// The same for a run of what its tasks map.
const RUN_BYTES: usize = 128;

/// What a leader holds for a segment besides its bytes, about: the message, and the command that waits
/// for its entry.
const HELD_BYTES: usize = 512;

impl Held {
    /// What is said of them before they are.
    pub(super) fn needs_of(&self, batch: BatchId) -> Option<FromClient> {
        let needs = (**self.needs.as_ref()?).clone();
        Some(FromClient::Needs { batch, first: self.first, needs })
    }

    /// What it takes of the session's credit.
    pub(super) fn cost(&self) -> usize {
        let runs = self.needs.as_ref().map_or(0, |needs| needs.runs.len());
        let mentions = self.mentions.len() * size_of::<Mention>();
        HELD_BYTES + RUN_BYTES * runs + mentions + self.segment.len()
    }
}

/// What has come back.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Outcome segments handed on.
    pub(super) received: u32,
    /// Segments that came before their predecessors.
    early: BTreeMap<u32, (TaskRange, Bytes)>,
    /// Segments that the caller has taken.
    pub(super) consumed: u32,
    /// Sizes of the segments that were handed on and not taken.
    sizes: VecDeque<usize>,
    /// Stands in the list of batches to be acknowledged.
    pub(super) acknowledging: bool,
    /// How many segments there are in all, and why tasks without one have none.
    pub(super) end: Option<(u32, Option<Failed>)>,
    /// The caller was told of the end.
    pub(super) over: bool,
}

impl Batch {
    /// Somebody waits for its end.
    pub(super) const fn is_wanted(&self) -> bool {
        self.cancelled.is_none() && !self.inbox.over
    }

    /// When the user's deadline passes, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.spec.policy.deadline_ms.map(|limit| self.since + Duration::from_millis(limit))
    }

    /// Everything came, the caller has taken it, and nobody has one of its executions any more.
    pub(super) fn is_done(&self) -> bool {
        !self.held && self.inbox.is_finished()
    }

    /// A leader knows of it, or may, and it is not over.
    pub(super) const fn is_open(&self) -> bool {
        self.outbox.was_said && !self.inbox.over
    }
}

impl Outbox {
    /// Adds the caller's next tasks.
    pub(super) fn give(&mut self, held: Held) {
        let (first, tasks) = (self.given, held.tasks);
        self.held.push_back(Held { first, ..held });
        self.given += tasks;
    }

    /// Notes that the cluster has `tasks` tasks; answers how many bytes the leader no longer owes.
    pub(super) fn commit(&mut self, tasks: u32) -> usize {
        self.committed = self.committed.max(tasks.min(self.given));
        let mut freed = 0;
        while let Some(first) = self.held.front()
            && first.first + first.tasks <= self.committed
        {
            if self.said > 0 {
                self.said -= 1;
                freed += first.cost();
            }
            self.held.pop_front();
        }
        freed
    }

    /// Whether a task was said to the current leader, or one before it has it.
    pub(super) fn has_said(&self, task: u32) -> bool {
        task < self.held.get(self.said).map_or(self.given, |next| next.first)
    }

    /// Bytes said and not known to be committed.
    pub(super) fn said_bytes(&self) -> usize {
        self.held.iter().take(self.said).map(Held::cost).sum()
    }

    /// Another leader: everything that is not committed is to be said again.
    pub(super) fn again(&mut self) {
        self.said = 0;
        self.opening.again();
        self.sealing.again();
        self.cancelling.again();
        self.unwanted_due = self.unwanted.clone();
    }
}

impl Inbox {
    /// Takes a segment in; hands on, in order, what has become complete. A repeated one is dropped.
    pub(super) fn take_in(
        &mut self,
        sequence: u32,
        range: TaskRange,
        segment: Bytes,
        mut hand_on: impl FnMut(TaskRange, Bytes),
    ) {
        if sequence < self.received || self.over {
            return;
        }
        self.early.insert(sequence, (range, segment));
        while let Some((range, segment)) = self.early.remove(&self.received) {
            self.received += 1;
            self.sizes.push_back(segment.len());
            hand_on(range, segment);
        }
    }

    /// Notes that the caller has taken the first `segments`; how many bytes that are more than before.
    pub(super) fn consume(&mut self, segments: u32) -> Option<usize> {
        let more =
            segments.min(self.received).checked_sub(self.consumed).filter(|more| *more > 0)?;
        self.consumed += more;
        let sizes = self.sizes.len().min(more as usize);
        Some(self.sizes.drain(..sizes).sum())
    }

    /// Whether the end is known and everything before it was handed on: said once.
    pub(super) fn ends_now(&mut self) -> Option<Option<Failed>> {
        match &mut self.end {
            Some((segments, rest)) if !self.over && *segments <= self.received => {
                self.over = true;
                Some(rest.take())
            }
            _ => None,
        }
    }

    /// Whether everything came and the caller has taken it.
    pub(super) fn is_finished(&self) -> bool {
        self.over && self.consumed >= self.received
    }
}
