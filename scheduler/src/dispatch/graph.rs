//! Who waits for which outcome: tasks that are made of it, tasks that have begun and ask for it, clients.
//!
//! Each waits at the task at the end of those that the one it names was forwarded to, and is looked at again
//! when that one has ended. Nothing of this is replicated: a new leader finds the first kind in the state, is
//! told of the second by the workers' inventories, and of the third by the clients.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::bulk::Bulk;
use allhands_common::execution::{Awaited, Given, Need};
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{BatchId, SessionId, TaskId, WorkerId};
use allhands_common::limit::AWAITED_MAX;
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::record::End;
use allhands_common::wire::worker::Order;

use super::{Dispatcher, Timer};
use crate::state::{Batch, Fate, FaultKind};
use crate::{Action, Command, State};

/// How long a task may be named that nobody has heard of: what opens its batch may be on its way.
const UNHEARD_GRACE: Duration = Duration::from_secs(5);

/// What an order that gives an outcome counts in a message besides the outcome.
const GIVE_BYTES: usize = 4 * 80;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watcher {
    /// A task that starts after it.
    Dependant {
        task: TaskId,
        need: Need,
        /// The one that it names.
        named: TaskId,
    },
    /// Blocked tasks of a worker.
    Worker(WorkerId, Awaited),
    /// A client.
    Session(SessionId, Awaited),
}

/// Everything that waits for outcomes.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) watchers: BTreeMap<TaskId, BTreeSet<Watcher>>,
    /// Tasks that have begun and wait.
    pub(super) blocked: BTreeMap<TaskId, Waits>,
    /// Outcomes that clients get at the end of this step.
    pub(super) given: BTreeMap<SessionId, Vec<Awaited>>,
    /// How many each client awaits.
    pub(super) awaited: BTreeMap<SessionId, usize>,
    /// Tasks that end at the end of this step, because they wait for what will never come.
    pub(super) hopeless: Vec<(TaskId, Cause)>,
    /// Tasks that were named in this step and that nobody has heard of.
    pub(super) unheard: Vec<TaskId>,
}

/// What a task that has begun waits for.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) on: Vec<Awaited>,
    /// Whether it would wait for itself, and is told so.
    pub(super) stuck: bool,
}

/// What a dependant may hope for.
enum Hope {
    Fulfilled,
    Waiting,
    None(Cause),
}

impl Dispatcher {
    /// Lets those of the tasks `range` wait that name others which have not ended.
    pub(super) fn depend(&mut self, state: &State, id: BatchId, range: TaskRange) {
        let Some(links) = state.batches.get(&id).and_then(Batch::links) else { return };
        for (index, named) in links.mentions.range(range.start..range.end) {
            let task = TaskId { batch: id, index: *index };
            let needs: BTreeSet<&(TaskId, Need)> =
                named.iter().filter(|(_, need)| need.waits()).collect();
            let (mut waits, mut hopeless) = (0, None);
            for (on, need) in needs {
                match self.hope(state, task, *on, *need) {
                    Hope::Fulfilled => {}
                    Hope::Waiting => waits += 1,
                    Hope::None(cause) => hopeless = Some(cause),
                }
            }
            if waits == 0 && hopeless.is_none() {
                // They were there when it was submitted, or this leader does not know since when they are.
                if self.awaited.is_some() && named.iter().any(|(_, need)| need.waits()) {
                    self.note_ready(state, id, *index);
                }
                continue;
            }
            let Some(active) = self.activate(state, id) else { return };
            if !active.hold_back(*index, waits) {
                continue;
            }
            match hopeless {
                Some(cause) => self.despair(task, cause),
                None => self.look_for_circle(state, task),
            }
        }
    }

    /// A task waits for what will never come: it ends at the end of this step.
    pub(super) fn despair(&mut self, task: TaskId, cause: Cause) {
        let active = self.active.get_mut(&task.batch).filter(|active| active.waits(task.index));
        if let Some(active) = active {
            active.give_up(task.index);
            self.graph.hopeless.push((task, cause));
        }
    }

    /// What `task` may hope for of a task that it names; it is told when there is more.
    fn hope(&mut self, state: &State, task: TaskId, named: TaskId, need: Need) -> Hope {
        if !may_read(state, owner_of(state, task), named) {
            return Hope::None(unreadable(named));
        }
        let (end, fate) = match cfg!(plant = "forwarded_not_followed") {
            true => (named, state.fate(named)),
            false => state.follow(named),
        };
        match (fate, need) {
            (Fate::Value, _) => Hope::Fulfilled,
            (Fate::Forwarded(_), _) if cfg!(plant = "forwarded_not_followed") => Hope::Fulfilled,
            (Fate::Fault(FaultKind::Returned), Need::Returned) => Hope::Fulfilled,
            (Fate::Fault(_) | Fate::Stopped(_), Need::End) => Hope::Fulfilled,
            (Fate::Unknown, _) if state.batches.contains_key(&end.batch) => {
                Hope::None(expired(named))
            }
            (Fate::Unknown | Fate::Unfinished | Fate::Forwarded(_), _) => {
                self.watch(end, Watcher::Dependant { task, need, named }, fate == Fate::Unknown);
                Hope::Waiting
            }
            (Fate::Fault(_) | Fate::Stopped(_), _) => Hope::None(failed(end, fate)),
        }
    }

    fn watch(&mut self, end: TaskId, watcher: Watcher, unheard: bool) {
        self.graph.watchers.entry(end).or_default().insert(watcher);
        if unheard {
            self.graph.unheard.push(end);
        }
    }

    /// Tasks have ended, in any way, or can be no more: who waits for them is looked at.
    pub(super) fn release(&mut self, state: &State, batch: BatchId, range: TaskRange) {
        let at = |index| TaskId { batch, index };
        let ended = self.graph.watchers.range(at(range.start)..at(range.end));
        let ended: Vec<TaskId> = ended.map(|(task, _)| *task).collect();
        let mut changed = BTreeSet::new();
        for end in ended {
            for watcher in self.graph.watchers.remove(&end).unwrap_or_default() {
                match watcher {
                    Watcher::Dependant { task, need, named } => {
                        changed.insert(task.batch);
                        self.go_on(state, task, named, need);
                    }
                    Watcher::Worker(worker, awaited) => self.answer_again(state, worker, awaited),
                    Watcher::Session(session, awaited) => {
                        self.count_awaited(session, false);
                        self.answer_client(state, session, awaited);
                    }
                }
            }
        }
        changed.into_iter().for_each(|batch| self.requeue(state, batch));
    }

    /// One of the tasks that a dependant names has ended.
    fn go_on(&mut self, state: &State, task: TaskId, named: TaskId, need: Need) {
        let waits = self.active.get(&task.batch).is_some_and(|a| a.waits(task.index));
        let unfinished = state.fate(task) == Fate::Unfinished;
        if !waits || !unfinished {
            return;
        }
        match self.hope(state, task, named, need) {
            Hope::Waiting => self.look_for_circle(state, task),
            Hope::Fulfilled => {
                let active = self.active.get_mut(&task.batch);
                if active.is_some_and(|active| active.let_go(task.index)) {
                    self.note_ready(state, task.batch, task.index);
                    let one = TaskRange::new(task.index, task.index + 1);
                    self.records.became_ready(task.batch, one, self.records.now);
                }
                self.put_off(state, task.batch, TaskRange::new(task.index, task.index + 1));
            }
            Hope::None(cause) => self.despair(task, cause),
        }
    }

    /// At the end of a step: ends the tasks that wait for what will not come, and sees to those of which
    /// nobody has heard.
    pub(super) fn settle_graph(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        for (TaskId { batch, index }, cause) in core::mem::take(&mut self.graph.hopeless) {
            let range = TaskRange::new(index, index + 1);
            if let Some(known) = state.batches.get(&batch) {
                self.records.not_run((batch, known), range, End::Hopeless);
            }
            let failed = Failed { cause, worker: None, attempt: None, tries: 0 };
            out.push(Action::Propose(Command::Fail { batch, range, failed }));
        }
        for task in core::mem::take(&mut self.graph.unheard) {
            self.timers.set(now + UNHEARD_GRACE, Timer::Unheard(task));
        }
        for (session, of) in core::mem::take(&mut self.graph.given) {
            self.spoken_to.insert(session);
            out.push(Action::Give { session, of });
        }
    }

    /// Nobody has told of a task that others name: it was forgotten, or never was.
    pub(super) fn check_unheard(&mut self, state: &State, task: TaskId) {
        if state.fate(task) != Fate::Unknown {
            return;
        }
        for watcher in self.graph.watchers.remove(&task).unwrap_or_default() {
            match watcher {
                Watcher::Dependant { task, named, .. } => self.despair(task, expired(named)),
                // The shell finds nothing, and says so.
                Watcher::Worker(worker, awaited) => self.give_worker(state, worker, awaited),
                Watcher::Session(session, awaited) => {
                    self.count_awaited(session, false);
                    self.graph.given.entry(session).or_default().push(awaited);
                }
            }
        }
    }

    /// A client asks for outcomes.
    pub(super) fn client_awaits(&mut self, state: &State, session: SessionId, of: Vec<Awaited>) {
        for awaited in of {
            if self.graph.awaited.get(&session).copied().unwrap_or(0) < AWAITED_MAX {
                self.answer_client(state, session, awaited);
            }
        }
    }

    /// A client waits for these no more.
    pub(super) fn client_unawaits(&mut self, state: &State, session: SessionId, of: &[Awaited]) {
        for awaited in of {
            let end = end_of(state, *awaited);
            if let Some(watchers) = self.graph.watchers.get_mut(&end)
                && watchers.remove(&Watcher::Session(session, *awaited))
            {
                if watchers.is_empty() {
                    self.graph.watchers.remove(&end);
                }
                self.count_awaited(session, false);
            }
        }
    }

    /// A client waits for nothing any more: it is gone, or says anew what it waits for.
    pub(super) fn forget_awaited(&mut self, session: SessionId) {
        if self.graph.awaited.remove(&session).is_none() {
            return;
        }
        self.graph.watchers.retain(|_, watchers| {
            watchers.retain(|w| !matches!(w, Watcher::Session(of, _) if *of == session));
            !watchers.is_empty()
        });
    }

    fn count_awaited(&mut self, session: SessionId, more: bool) {
        let count = self.graph.awaited.entry(session).or_insert(0);
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.graph.awaited.remove(&session);
        }
    }

    fn answer_client(&mut self, state: &State, session: SessionId, awaited: Awaited) {
        let owner = state.sessions.get(&session).map(|known| known.owner.as_str());
        if let Some((end, unheard)) = wait_at(state, owner, awaited) {
            let watcher = Watcher::Session(session, awaited);
            let new = self.graph.watchers.get(&end).is_none_or(|all| !all.contains(&watcher));
            self.watch(end, watcher, unheard);
            if new {
                self.count_awaited(session, true);
            }
        } else {
            self.graph.given.entry(session).or_default().push(awaited);
        }
    }

    /// A task of a worker has begun and waits for outcomes.
    pub(super) fn block(
        &mut self,
        state: &State,
        worker: WorkerId,
        task: TaskId,
        on: Vec<Awaited>,
    ) {
        for awaited in &on {
            if !self.was_given(worker, *awaited) {
                self.answer_worker(state, worker, *awaited);
            }
        }
        // Each inventory says it again: what is new is the first time, and each answer that has come.
        let known = self.graph.blocked.get(&task).filter(|known| known.on == on);
        let (new, stuck) = (known.is_none(), known.is_some_and(|known| known.stuck));
        self.graph.blocked.insert(task, Waits { on, stuck });
        if stuck || new && self.is_stuck(state, task) {
            self.tell_stuck(state, worker, task);
        }
    }

    /// A task goes on, or is with that worker no more.
    pub(super) fn unblock(&mut self, batch: BatchId, range: TaskRange) {
        let at = |index| TaskId { batch, index };
        let gone = self.graph.blocked.range(at(range.start)..at(range.end));
        let gone: Vec<TaskId> = gone.map(|(task, _)| *task).collect();
        gone.iter().for_each(|task| _ = self.graph.blocked.remove(task));
    }

    pub(super) fn answer_worker(&mut self, state: &State, worker: WorkerId, awaited: Awaited) {
        // A worker runs the tasks of many owners: who asks was looked at when it blocked.
        match wait_at(state, None, awaited) {
            Some((end, unheard)) => self.watch(end, Watcher::Worker(worker, awaited), unheard),
            None => self.give_worker(state, worker, awaited),
        }
    }

    pub(super) fn give_worker(&mut self, state: &State, id: WorkerId, of: Awaited) {
        let bytes = outcome_bytes(state, of.task) + GIVE_BYTES;
        self.order_of(id, Order::Give(Given { of, outcome: Bulk::default() }), bytes);
        if let Some(worker) = self.workers.get_mut(&id) {
            let number = worker.sent + 1 + worker.cuts.len() as u64;
            worker.given.insert(of, number);
        }
    }

    /// Whether an answer is on its way.
    pub(super) fn was_given(&self, worker: WorkerId, awaited: Awaited) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.given.contains_key(&awaited))
    }

    /// Whether a task that has begun waits for others.
    pub(super) fn is_blocked(&self, task: TaskId) -> Option<&[Awaited]> {
        self.graph.blocked.get(&task).map(|waits| waits.on.as_slice())
    }
}

/// Bytes of a kept task's outcome, about.
pub(super) fn outcome_bytes(state: &State, task: TaskId) -> usize {
    let (end, _) = state.follow(task);
    let outcome = state.batches.get(&end.batch).and_then(|batch| batch.outcome_of(end.index));
    outcome.map_or(0, |outcome| (outcome.bytes / outcome.tasks.len().max(1)) as usize)
}

/// Where the outcome of a task is waited for.
pub(super) fn end_of(state: &State, awaited: Awaited) -> TaskId {
    if awaited.follow { state.follow(awaited.task).0 } else { state.same_as(awaited.task) }
}

/// Where whoever asks has to wait, and whether nobody has heard of that task; `None`: there is an answer.
pub(super) fn wait_at(
    state: &State,
    owner: Option<&str>,
    awaited: Awaited,
) -> Option<(TaskId, bool)> {
    if owner.is_some() && !may_read(state, owner, awaited.task) {
        return None;
    }
    let end = end_of(state, awaited);
    match state.fate(end) {
        Fate::Unfinished => Some((end, false)),
        Fate::Unknown if !state.batches.contains_key(&end.batch) => Some((end, true)),
        Fate::Unknown | Fate::Value | Fate::Fault(_) | Fate::Stopped(_) | Fate::Forwarded(_) => {
            None
        }
    }
}

/// The name in the certificate of whoever opened a task's job.
fn owner_of(state: &State, task: TaskId) -> Option<&str> {
    let job = state.job_of(state.batches.get(&task.batch)?)?;
    Some(&job.owner)
}

/// Whether a job of `owner` may have the outcome of a task, as far as that is known.
fn may_read(state: &State, owner: Option<&str>, task: TaskId) -> bool {
    let theirs = owner_of(state, task);
    theirs.is_none() || theirs == owner
}

fn expired(task: TaskId) -> Cause {
    Cause::Expired { message: state_gone(task) }
}

pub(crate) fn state_gone(task: TaskId) -> String {
    format!(
        "this cluster does not know execution {task} (any more): it keeps one for as long as its job, and a \
         handle or an unfinished task that has it"
    )
}

fn unreadable(task: TaskId) -> Cause {
    Cause::Expired { message: format!("execution {task} is of a job of another identity") }
}

/// Why a dependant of `end` does not run.
fn failed(end: TaskId, fate: Fate<'_>) -> Cause {
    let (root, message) = match fate {
        Fate::Fault(FaultKind::Failed { root, message }) => (root.unwrap_or(end), message.clone()),
        Fate::Fault(FaultKind::Returned) => (end, "returned an error of its own".to_string()),
        Fate::Fault(FaultKind::Cycle) => (end, "returned an execution that leads to itself".into()),
        Fate::Stopped(rest) => (end, rest.cause.to_string()),
        Fate::Unknown | Fate::Unfinished | Fate::Value | Fate::Forwarded(_) => {
            (end, "has no outcome".into())
        }
    };
    Cause::DependencyFailed { root, message }
}
