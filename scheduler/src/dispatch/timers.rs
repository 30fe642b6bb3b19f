//! All that waits for a moment. One set, one `next`; what a timer was for is looked at when it fires,
//! so nothing needs to be taken out when it becomes moot.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, SessionId, TaskId, WorkerId};
use allhands_common::time::Instant;

use super::Dispatcher;
use super::queue::ClassId;
use crate::{Action, State};

/// What a moment was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The roster had its time to register.
    Resume,
    /// A worker may have been silent too long.
    Worker(WorkerId),
    /// A client may have been silent too long.
    Session(SessionId),
    /// A job that goes on without its client may have been kept long enough.
    Job(JobId),
    /// A batch has a deadline, a queue timeout, or a task to be tried again.
    Batch(BatchId),
    /// Work may have waited long enough for a worker that can hold it.
    Class(ClassId),
    /// Somebody is idle while others may have too much.
    Balance,
    /// Nobody may have heard of a task that others name.
    Unheard(TaskId),
    /// A worker's orders may have waited long enough for company.
    Orders(WorkerId),
    /// Something has waited long enough for company: the end of the step sends it.
    Send,
}

/// The moments that are waited for.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Due in the step that is being taken.
    pub(super) fn set_due(&mut self, timer: Timer) {
        self.set(Instant(0), timer);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Instant) -> Option<Timer> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, timer)| timer)
    }
}

impl Dispatcher {
    pub(super) fn fire_timers(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Resume => self.finish_resume(now, state, out),
                Timer::Worker(worker) => self.check_worker(now, state, worker, out),
                Timer::Session(session) => self.check_lease(now, session, out),
                Timer::Batch(batch) => self.check_batch(now, state, batch, out),
                Timer::Job(job) => self.check_job(now, state, job, out),
                Timer::Class(class) => self.check_class(now, state, class, out),
                Timer::Balance => self.balance(now, state),
                Timer::Unheard(task) => self.check_unheard(state, task),
                // They may be on their way already: an empty message would be sent otherwise.
                Timer::Orders(id)
                    if self.workers.get(&id).is_some_and(|w| !w.orders.is_empty()) =>
                {
                    self.call_up(id);
                }
                Timer::Orders(_) => {}
                Timer::Send => {}
            }
        }
    }
}
