//! What comes back to a call: outcome segments of its parts, and their ends.
//!
//! The session puts in, one caller takes out. The caller says what it waits for, so that it is woken
//! once and not for every segment; it parks on a condition variable of its own (or leaves a waker),
//! never in a runtime.

mod kept;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, FAILED, is_value};
use bytes::Bytes;

use super::core::End;
use super::outcomes::Outcomes;
pub(crate) use kept::{Kept, KeptSegment};

/// Where a call finds what comes back.
#[derive(Debug)]
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    bell: Condvar,
    rules: Rules,
    /// Number of the first batch that was opened for the call.
    call: OnceLock<u32>,
}

/// How a call takes what comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Everything is kept until the end: outcomes count as consumed as they come.
    pub(crate) hold: bool,
    /// The call is over after this many failures.
    pub(crate) stop_after: Option<u64>,
    /// Whether a function's own `Err` is a failure.
    pub(crate) errors_count: bool,
    /// How many workers are to keep what its tasks leave, if the caller said so.
    pub(crate) replicas: Option<u8>,
}

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// Segments that the caller has not taken.
    pub(crate) arrived: VecDeque<Arrived>,
    /// Why a part is over, by part.
    pub(crate) ends: Vec<(u32, End)>,
    /// Arguments of unfinished tasks, by part.
    pub(crate) kept: Vec<Kept>,
    /// Tasks that ended, of all parts.
    pub(crate) finished: u64,
    /// Tasks that ended without a value.
    pub(crate) failures: u64,
    /// Bytes of `arrived`.
    pub(crate) arrived_bytes: usize,
    /// Parts of the call.
    pub(crate) parts: u32,
    /// No part will be added, and no task to one.
    pub(crate) sealed: bool,
    waiting: Option<Wanted>,
    waker: Option<(Wanted, Waker)>,
}

/// Outcomes of some tasks of a part.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) part: u32,
    pub(crate) range: TaskRange,
    pub(crate) outcomes: Outcomes,
    /// Argument segments of these tasks, where one of them has no value.
    pub(crate) arguments: Vec<KeptSegment>,
}

/// What a caller waits for; the end of a part, and one failure too many, always wake it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any outcome.
    Outcome,
    /// At most so many bytes of arguments of unfinished tasks.
    KeptBelow(usize),
    /// At most so many bytes of arguments that are not committed.
    UncommittedBelow(usize),
    /// At least so many tasks that ended.
    Finished(u64),
    /// The end of a part.
    End,
}

impl Inbox {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { mail: Mutex::default(), bell: Condvar::new(), rules, call: OnceLock::new() }
    }

    /// The number of the call, a batch of which is opened as the session's `sequence`-th.
    pub(super) fn number_call(&self, sequence: u32) -> u32 {
        *self.call.get_or_init(|| sequence)
    }

    pub(crate) const fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what is wanted has come, or `patience` has passed. It may return early.
    pub(crate) fn wait(&self, wanted: Wanted, patience: Option<Duration>) -> MutexGuard<'_, Mail> {
        let mut mail = self.mail();
        if mail.has(wanted, self.rules) {
            return mail;
        }
        mail.waiting = Some(wanted);
        let mut mail = match patience {
            None => self.bell.wait(mail).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.bell.wait_timeout(mail, patience).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        mail.waiting = None;
        mail
    }

    /// Leaves a waker for when what is wanted comes; `false` when it is there already.
    pub(crate) fn wake_at(&self, wanted: Wanted, waker: &Waker) -> bool {
        let mut mail = self.mail();
        if mail.has(wanted, self.rules) {
            return false;
        }
        mail.waker = Some((wanted, waker.clone()));
        true
    }

    /// What is wanted has come.
    pub(crate) async fn until(&self, wanted: Wanted) {
        poll_fn(|context| match self.wake_at(wanted, context.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// Whether the call has one part, and no other will come.
    pub(super) fn is_of_one_part(&self) -> bool {
        let mail = self.mail();
        mail.sealed && mail.parts == 1
    }

    /// Arguments have gone out; what was stored for them counts as so many bytes more.
    pub(super) fn keep(&self, part: u32, tasks: u32, arguments: Bytes, stored: usize) {
        self.mail().kept_of(part).push(tasks, arguments, stored);
    }

    /// The cluster has so many tasks of a part.
    pub(super) fn commit(&self, part: u32, tasks: u32) {
        let mut mail = self.mail();
        mail.kept_of(part).commit(tasks);
        self.ring(mail);
    }

    /// Outcomes have come. Whether they are one failure too many.
    pub(super) fn deliver(&self, part: u32, range: TaskRange, outcomes: Outcomes) -> bool {
        let mail = self.put_in(part, range, outcomes);
        let stopped = mail.is_stopped(self.rules);
        self.ring(mail);
        stopped
    }

    /// The outcome of a part of one task has come, and with it the part's end.
    pub(super) fn finish(&self, part: u32, outcome: Outcomes) {
        let mut mail = self.put_in(part, TaskRange::new(0, 1), outcome);
        mail.ends.push((part, End::Complete { rest: None }));
        self.ring(mail);
    }

    fn put_in(&self, part: u32, range: TaskRange, outcomes: Outcomes) -> MutexGuard<'_, Mail> {
        let (mut failures, mut valueless) = (0, false);
        for (tag, tasks) in outcomes.runs() {
            valueless |= !is_value(tag);
            if tag == ERROR || (tag == FAILED && self.rules.errors_count) {
                failures += u64::from(tasks.len());
            }
        }
        let mut mail = self.mail();
        let kept = mail.kept_of(part);
        let arguments = if valueless { kept.covering(range) } else { Vec::new() };
        kept.finish(range);
        mail.finished += u64::from(range.len());
        mail.failures += failures;
        mail.arrived_bytes += outcomes.weight();
        mail.arrived.push_back(Arrived { part, range, outcomes, arguments });
        mail
    }

    /// A part is over.
    pub(super) fn end(&self, part: u32, end: End) {
        let mut mail = self.mail();
        mail.ends.push((part, end));
        self.ring(mail);
    }

    /// Wakes the caller if what it waits for is there.
    fn ring(&self, mut mail: MutexGuard<'_, Mail>) {
        let is_due = |wanted: Wanted| mail.has(wanted, self.rules);
        let parked = mail.waiting.is_some_and(is_due);
        let awaited = mail.waker.as_ref().is_some_and(|(wanted, _)| is_due(*wanted));
        if parked {
            mail.waiting = None;
        }
        let waker = if awaited { mail.waker.take() } else { None };
        drop(mail);
        if parked {
            self.bell.notify_one();
        }
        if let Some((_, waker)) = waker {
            waker.wake();
        }
    }
}

impl Mail {
    /// As many failures as end the call.
    pub(crate) fn is_stopped(&self, rules: Rules) -> bool {
        rules.stop_after.is_some_and(|most| self.failures >= most)
    }

    /// Nothing more will come: every part is over, or one before its time.
    pub(crate) fn is_over(&self) -> bool {
        if self.sealed && self.ends.len() >= self.parts as usize {
            return true;
        }
        let in_order = |end: &End| self.sealed && matches!(end, End::Complete { .. });
        self.ends.iter().any(|(_, end)| !in_order(end))
    }

    /// Whether what is wanted has come.
    pub(crate) fn is_met(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Outcome => !self.arrived.is_empty(),
            Wanted::KeptBelow(bytes) => self.kept_bytes() <= bytes,
            Wanted::UncommittedBelow(bytes) => self.uncommitted_bytes() <= bytes,
            Wanted::Finished(tasks) => self.finished >= tasks,
            Wanted::End => false,
        }
    }

    /// Whether nobody need wait for what is wanted: it has come, or never will.
    pub(crate) fn has(&self, wanted: Wanted, rules: Rules) -> bool {
        self.is_over() || self.is_stopped(rules) || self.is_met(wanted)
    }

    /// Bytes of arguments of unfinished tasks.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept.iter().map(Kept::bytes).sum()
    }

    /// Bytes of arguments that are not committed.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.kept.iter().map(Kept::uncommitted_bytes).sum()
    }

    /// The arguments that are kept of a part.
    pub(crate) fn kept_of(&mut self, part: u32) -> &mut Kept {
        let part = part as usize;
        if self.kept.len() <= part {
            self.kept.resize_with(part + 1, Kept::default);
        }
        &mut self.kept[part]
    }
}

#[cfg(test)]
mod tests;
