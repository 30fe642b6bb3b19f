//! The worker's half: what it holds, runs and owes.
//!
//! The agent takes ranges from the leader, cuts them into *pieces*, one for each executor that works
//! on the range, starts executors at need, and reports. It keeps every outcome until the leader says
//! that it is committed (it *owes* it), through any number of leaders and connections.
//!
//! An executor has at most two pieces: the one it works on and the next, so that it never waits. An
//! executor without work takes from the others: their next pieces first, then half of what they have
//! not started.

mod balance;
mod calls;
mod check;
mod drain;
mod executors;
mod holdings;
mod orders;
mod schedule;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use allhands_common::execution::{Awaited, Given, Mention};
use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId, BootId, ExecutorId, TaskId, Term, WorkerId};
use allhands_common::limit::{BUNDLE_BYTES_MAX, HEARTBEAT_MS};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::note::Note;
use allhands_common::wire::worker::{ChildCall, FromWorker, Registration, Shared, ToWorker};
use bytes::Bytes;

use calls::Call;
use executors::Executor;
use holdings::{Attempt, Owed, Piece};
pub use schedule::PIECES_MAX;

/// How long a worker without any leader keeps running what it has.
const ORPHAN_GRACE: Duration = Duration::from_secs(600);

/// Ends of one report: some 100 bytes each in a head of 1 MiB, where none is an executor's last words of
/// 4 KiB.
const REPORT_ENDS_MAX: usize = 200;

/// What a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Who.
    pub worker: WorkerId,
    /// This start.
    pub boot: BootId,
    /// Its host's name.
    pub name: String,
    /// What it has.
    pub resources: Resources,
    /// What it can run.
    pub platform: Platform,
}

/// One thing that happened to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// A deadline passed; see [`Agent::next_deadline`].
    Tick,
    /// A connection to the leader of `term` stands.
    Connected {
        /// Its term.
        term: Term,
    },
    /// The connection to the leader is gone.
    Disconnected,
    /// The leader said something. `Leader` and program chunks are the shell's affair.
    Leader(ToWorker),
    /// A program is in the store.
    ProgramReady(ProgramId),
    /// A program cannot be had, or cannot run here.
    ProgramFailed(ProgramId, Cause),
    /// News of an executor.
    Executor(ExecutorId, ExecutorEvent),
    /// The daemon was told to stop: finish what runs, give back the rest, take nothing new.
    Drain,
}

/// News of an executor.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// It has proved itself and takes loads.
    Ready,
    /// Tasks of a load have ended.
    Outcomes {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which tasks.
        range: TaskRange,
        /// The outcome segment of just these.
        segment: Bytes,
        /// How long they ran, together, in microseconds.
        run_us: u64,
        /// Which of their results name which tasks.
        mentions: Vec<Mention>,
    },
    /// Nothing of a load is left; all its outcomes came before.
    Finished {
        /// Which.
        attempt: AttemptId,
    },
    /// The answer to [`AgentAction::Take`]: these tasks were taken back unstarted, maybe none.
    Taken {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which tasks.
        range: TaskRange,
    },
    /// A task that it has begun waits for the outcomes of others. What had ended of its load came before.
    Blocked {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which task.
        index: u32,
        /// For what it waits.
        on: Vec<Awaited>,
        /// What of the load was not started, and is not started here any more; maybe nothing.
        returned: TaskRange,
        /// How long it ran before that, if it is known, in microseconds.
        run_us: Option<u64>,
    },
    /// A blocked task goes on. Its outcome comes as `Outcomes`.
    Resumed {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which task.
        index: u32,
    },
    /// A task has called another.
    Called(ChildCall),
    /// What tasks that it runs say.
    Said(Vec<Note>),
    /// A task wants another ended, here or elsewhere.
    Cancels {
        /// Which.
        task: TaskId,
    },
    /// It is gone.
    Died {
        /// Tasks that it was running.
        running: Vec<(AttemptId, u32)>,
        /// The one of them that is known to be the reason: one that ran too long.
        culprit: Option<(AttemptId, u32)>,
        /// How.
        cause: Cause,
    },
}

/// One thing that a worker's shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentAction {
    /// Say this to the leader.
    Send(FromWorker),
    /// Have this program in the store; answer `ProgramReady` or `ProgramFailed`.
    FetchProgram(Program),
    /// Start an executor.
    Spawn(Spawn),
    /// Give an executor work: what it has now, or what comes next.
    Load {
        /// Whom.
        executor: ExecutorId,
        /// What.
        load: Load,
    },
    /// Take unstarted tasks back from the end of a load; answer `Taken`.
    Take {
        /// From whom.
        executor: ExecutorId,
        /// Of which load.
        attempt: AttemptId,
        /// How many of those not started.
        share: Share,
    },
    /// End an executor and all its descendants, now; answer `Died`.
    Kill {
        /// Whom.
        executor: ExecutorId,
    },
    /// An idle executor is needed no more: let it end.
    Stop {
        /// Whom.
        executor: ExecutorId,
    },
    /// Give an executor an outcome that tasks of it wait for.
    Give {
        /// Whom.
        executor: ExecutorId,
        /// What.
        given: Given,
    },
    /// So many of the batches that tasks of an executor have called are committed.
    Opened {
        /// Whom to tell.
        executor: ExecutorId,
        /// How many.
        batches: u32,
    },
    /// What an executor has begun of an attempt was cancelled: tell those tasks.
    Cancel {
        /// Whom to tell.
        executor: ExecutorId,
        /// Of which attempt.
        attempt: AttemptId,
    },
    /// Everything is drained: the daemon can end.
    Exit,
}

/// How much of what an executor has not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All of it.
    All,
    /// The later half, rounded up.
    Half,
}

/// How an executor is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// Its name.
    pub executor: ExecutorId,
    /// What it runs.
    pub program: Program,
    /// Whose work it does.
    pub owner: String,
    /// Threads that take tasks.
    pub threads: u16,
    /// Processors that it may use: the limit for thread pools within it.
    pub cpus: u32,
    /// Environment in addition to the worker's own choice.
    pub env: Vec<(String, String)>,
}

/// Work for an executor.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// As which attempt.
    pub attempt: AttemptId,
    /// Which tasks.
    pub range: TaskRange,
    /// What its batch shares.
    pub shared: Arc<Shared>,
    /// Argument segments that together hold just these tasks, in order.
    pub segments: Vec<Bytes>,
    /// The outcomes of which arguments are made.
    pub given: Vec<Given>,
    /// Its tasks that have had rounds before, in order, each with the round's number.
    pub rounds: Vec<(u32, u32)>,
}

/// The worker's half of the protocol.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    /// Highest term seen: a message of a lower one is refused.
    term: Term,
    /// Whether the leader of `term` has taken the registration.
    registered: bool,
    /// Since when there is no leader.
    alone_since: Option<Instant>,
    /// Last number from the leader that is processed.
    processed: u64,
    heartbeats: u64,
    next_heartbeat: Instant,
    draining: bool,
    /// Since when all that is left of a worker that drains waits for others.
    blocked_since: Option<Instant>,
    batches: BTreeMap<BatchId, Arc<Shared>>,
    /// Batches that go with their last attempt.
    forgotten: BTreeSet<BatchId>,
    programs: BTreeMap<ProgramId, ProgramState>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Of those that were to be stopped: when the executors that still run them are killed.
    kills: BTreeMap<AttemptId, Instant>,
    /// Pieces that no executor has.
    waiting: VecDeque<Piece>,
    executors: BTreeMap<ExecutorId, Executor>,
    next_executor: ExecutorId,
    /// What is not occupied by executors with work.
    free: Resources,
    owed: BTreeMap<(AttemptId, u32), Owed>,
    /// What tasks here have called, as far as it is not known to be committed.
    calls: BTreeMap<(BatchId, AttemptId), Call>,
    /// What tasks here wanted ended last: the word may have been lost with a leader.
    cancels: VecDeque<(String, TaskId)>,
    /// Outcomes of tasks whose calls are not.
    deferred: BTreeMap<(AttemptId, u32), Owed>,
    /// Nanoseconds that a task of a batch takes, as last measured.
    costs: BTreeMap<BatchId, u64>,
    /// Executors of a program that ended before they were ready, in a row.
    failed_starts: BTreeMap<ProgramId, u8>,
    /// When to look again who has nothing to do.
    next_balance: Option<Instant>,
    /// Reports of the step that is being taken.
    reports: Vec<allhands_common::wire::worker::Ended>,
}

/// What is known of a program.
#[derive(Debug, Clone, PartialEq)]
enum ProgramState {
    Fetching,
    Ready,
    Failed(Cause),
}

impl Agent {
    /// A worker that holds nothing and knows no leader.
    pub fn new(config: AgentConfig, now: Instant) -> Self {
        Self {
            free: config.resources.clone(),
            config,
            term: Term(0),
            registered: false,
            alone_since: Some(now),
            processed: 0,
            heartbeats: 0,
            next_heartbeat: now,
            draining: false,
            blocked_since: None,
            batches: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            programs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            kills: BTreeMap::new(),
            waiting: VecDeque::new(),
            executors: BTreeMap::new(),
            next_executor: ExecutorId(0),
            owed: BTreeMap::new(),
            calls: BTreeMap::new(),
            cancels: VecDeque::new(),
            deferred: BTreeMap::new(),
            costs: BTreeMap::new(),
            failed_starts: BTreeMap::new(),
            next_balance: None,
            reports: Vec::new(),
        }
    }

    /// Takes the events of one step: together, because work is placed and reports are made once a step.
    /// What must happen is appended to `out`, in order.
    pub fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = AgentEvent>,
        out: &mut Vec<AgentAction>,
    ) {
        events.into_iter().for_each(|event| self.take(now, event, out));
        self.fire_timers(now, out);
        self.schedule(now, out);
        self.drain_blocked(now, out);
        self.flush_calls(out);
        self.flush_reports(out);
        if self.draining && self.attempts.is_empty() && self.owed.is_empty() {
            out.push(AgentAction::Exit);
        }
    }

    fn take(&mut self, now: Instant, event: AgentEvent, out: &mut Vec<AgentAction>) {
        match event {
            AgentEvent::Tick => {}
            AgentEvent::Connected { term } => self.connected(now, term, out),
            AgentEvent::Disconnected => {
                self.registered = false;
                self.alone_since.get_or_insert(now);
            }
            AgentEvent::Leader(message) => self.obey(now, message, out),
            AgentEvent::ProgramReady(program) => {
                self.programs.insert(program, ProgramState::Ready);
            }
            AgentEvent::ProgramFailed(program, cause) => self.program_failed(program, &cause),
            AgentEvent::Executor(executor, event) => self.hear(now, executor, event, out),
            AgentEvent::Drain => self.drain(out),
        }
    }

    /// When [`AgentEvent::Tick`] must come at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let heartbeat = self.registered.then_some(self.next_heartbeat);
        let orphan = self.alone_since.map(|since| since + ORPHAN_GRACE);
        let idle = self.idle_deadline();
        let cancels = self.kills.iter().filter(|(id, _)| self.attempts.contains_key(id));
        let cancels = cancels.map(|(_, at)| *at).min();
        let drained = self.drain_deadline();
        let moments = [heartbeat, orphan, self.next_balance, cancels, idle, drained];
        moments.into_iter().flatten().min()
    }

    /// Whether it holds and owes nothing.
    pub fn is_idle(&self) -> bool {
        let begun =
            |executor: &Executor| !executor.suspended.is_empty() || !executor.resumed.is_empty();
        self.attempts.is_empty()
            && self.owed.is_empty()
            && self.calls.is_empty()
            && self.deferred.is_empty()
            && !self.executors.values().any(begun)
    }

    fn connected(&mut self, now: Instant, term: Term, out: &mut Vec<AgentAction>) {
        if term < self.term {
            return;
        }
        self.term = term;
        self.registered = false;
        out.push(AgentAction::Send(FromWorker::Register(Registration {
            worker: self.config.worker,
            boot: self.config.boot,
            name: self.config.name.clone(),
            resources: self.config.resources.clone(),
            platform: self.config.platform.clone(),
            draining: self.draining,
            held: self.inventory(now),
            // The shell has the store.
            depot: Box::default(),
        })));
    }

    fn fire_timers(&mut self, now: Instant, out: &mut Vec<AgentAction>) {
        if self.registered && self.next_heartbeat <= now {
            self.next_heartbeat = now + Duration::from_millis(HEARTBEAT_MS);
            self.heartbeats += 1;
            self.repeat_calls(false);
            self.flush_calls(out);
            self.flush_reports(out);
            let (number, processed) = (self.heartbeats, self.processed);
            let held = self.inventory(now);
            out.push(AgentAction::Send(FromWorker::Heartbeat { number, processed, held }));
        }
        if self.alone_since.is_some_and(|since| since + ORPHAN_GRACE <= now) {
            self.alone_since = None;
            self.end_everything(out);
        }
        self.kill_overdue(now, out);
        self.stop_idle(now, out);
        if self.next_balance.is_some_and(|at| at <= now) {
            self.next_balance = None;
        }
    }

    fn flush_reports(&mut self, out: &mut Vec<AgentAction>) {
        if self.reports.is_empty() {
            return;
        }
        let reports = core::mem::take(&mut self.reports);
        if !self.registered {
            return;
        }
        let processed = self.processed;
        let (mut ended, mut bytes) = (Vec::new(), 0);
        for one in reports {
            let more = one.bulk_bytes();
            if bytes + more > BUNDLE_BYTES_MAX && !ended.is_empty()
                || ended.len() >= REPORT_ENDS_MAX
            {
                let ended = core::mem::take(&mut ended);
                out.push(AgentAction::Send(FromWorker::Report { processed, ended }));
                bytes = 0;
            }
            bytes += more;
            ended.push(one);
        }
        out.push(AgentAction::Send(FromWorker::Report { processed, ended }));
    }
}

#[cfg(test)]
mod tests;
