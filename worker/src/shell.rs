//! The worker's one loop: an event from a link, an executor, the program store or the clock goes into
//! the agent, and the actions that come out are carried out, in order, before the next.
//!
//! Nothing here survives a crash, and needs to: what runs dies with the worker, what it owed is run
//! again elsewhere. Only the program store stays.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use allhands_common::id::{ExecutorId, WorkerId};
use allhands_common::limit::{DRAIN_MOVES_MS, KEEP_GRACE_MS};
use allhands_common::program::ProgramId;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{Depot, FromWorker, Order, ToWorker};
use allhands_scheduler::{Agent, AgentAction, AgentConfig, AgentEvent, ExecutorEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::blobs::Blobs;
use crate::fetch::Plane;
use crate::pool::output::Written;
use crate::pool::{Launch, Pool, PoolConfig};
use crate::programs::{Programs, Step};
use crate::session::{Coordinators, News, Session};

/// Events taken in one step: they share a report and a write to each executor.
const EVENTS_PER_STEP_MAX: usize = 256;

/// How long executors may take to be gone once they were killed, at the end.
const END_MAX: Duration = Duration::from_secs(2);

/// What a worker needs to know.
#[derive(Debug)]
pub struct Config {
    /// Who it is, and what it has.
    pub agent: AgentConfig,
    /// How programs are started. [`Launch::Stored`] names the program store.
    pub launch: Launch,
    /// Where executors' sockets and scratch directories lie; see [`PoolConfig::directory`].
    pub scratch: PathBuf,
    /// Who takes what executors print.
    pub output: mpsc::Sender<Written>,
    /// What tasks map.
    pub blobs: Blobs,
    /// How it gets blobs of other machines; see [`fetch::start`](crate::fetch::start). None: in a cluster of
    /// one process, where all blobs are here.
    pub plane: Option<Plane>,
}

/// A worker that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its executors cannot be.
    #[error("executors cannot be started with {directory} for their scratch files")]
    Pool {
        /// Where.
        directory: PathBuf,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// Its program store cannot be opened.
    #[error("the program store cannot be opened")]
    Programs(#[source] io::Error),
    /// To go on trying is of no use: the identity is of another cluster, say, or out of date.
    #[error("no coordinator takes this worker, and trying again cannot help{}", Lines(causes))]
    Refused {
        /// What each of them says.
        causes: Vec<String>,
    },
}

/// Each on a line of its own.
struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Runs a worker until it has drained after `shutdown`, or all its links have ended for good, which
/// only that of an embedded cluster does. To be awaited where `spawn_local` works.
///
/// # Errors
/// When it cannot be started, or no coordinator will ever take it.
pub async fn run(
    config: Config,
    coordinators: Coordinators,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Config { agent, launch, scratch, output, blobs, plane } = config;
    let store = match &launch {
        Launch::Own(_) => None,
        Launch::Stored(stored) => Some(stored.programs.clone()),
    };
    let programs = Programs::open(store, agent.platform.clone()).map_err(RunError::Programs)?;
    let worker: WorkerId = agent.worker;
    let shared = blobs.clone();
    let pool = PoolConfig { worker, launch, directory: scratch.clone(), output, blobs: shared };
    let (pool, executors) =
        Pool::new(pool).map_err(|source| RunError::Pool { directory: scratch, source })?;
    let shell = Shell {
        agent: Agent::new(agent, Instant::default()),
        session: Session::start(coordinators),
        pool,
        executors,
        programs,
        blobs,
        plane,
        seals: JoinSet::new(),
        began: tokio::time::Instant::now(),
        keep_until: None,
        leave_by: None,
        joined: false,
        refusals: Vec::new(),
    };
    shell.run(shutdown).await
}

struct Shell {
    agent: Agent,
    session: Session,
    pool: Pool,
    executors: mpsc::Receiver<(ExecutorId, ExecutorEvent)>,
    programs: Programs,
    blobs: Blobs,
    plane: Option<Plane>,
    /// Programs that are being checked.
    seals: JoinSet<(ProgramId, io::Result<bool>)>,
    began: tokio::time::Instant,
    /// When what an earlier leader has said is to be kept need not be any more.
    keep_until: Option<tokio::time::Instant>,
    /// Until when others may come for what only this worker has: it has drained.
    leave_by: Option<tokio::time::Instant>,
    /// Whether a leader has ever taken it.
    joined: bool,
    /// Why no coordinator will ever take it.
    refusals: Vec<String>,
}

impl Shell {
    async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut draining = false;
        loop {
            let deadline = self.agent.next_deadline();
            let deadline = deadline.map(|at| self.began + Duration::from_micros(at.0));
            let deadlines = [deadline, self.keep_until, self.leave_by];
            let deadline = deadlines.into_iter().flatten().min();
            let event = tokio::select! {
                Some((executor, event)) = self.executors.recv() => self.hear_executor(executor, event),
                news = self.session.next() => match news {
                    Some(news) => self.hear(news),
                    None => break,
                },
                Some(Ok((program, answer))) = self.seals.join_next() => {
                    let step = self.programs.sealed(program, answer);
                    self.step(step)
                }
                word = next_word(&mut self.plane) => {
                    self.session.send(word);
                    None
                }
                () = &mut shutdown, if !draining => {
                    draining = true;
                    Some(AgentEvent::Drain)
                }
                () = tokio::time::sleep_until(deadline.unwrap_or(self.began)), if deadline.is_some() => {
                    Some(AgentEvent::Tick)
                }
            };
            if self.keep_until.is_some_and(|until| until <= tokio::time::Instant::now()) {
                self.keep_until = None;
                self.blobs.end_round();
            }
            let mut events: Vec<AgentEvent> = event.into_iter().collect();
            self.gather(&mut events);
            if self.handle(events).is_break() || !self.refusals.is_empty() {
                break;
            }
        }
        let causes = std::mem::take(&mut self.refusals);
        self.end().await;
        if causes.is_empty() { Ok(()) } else { Err(RunError::Refused { causes }) }
    }

    /// Adds what else has happened already: one step for all of it.
    fn gather(&mut self, events: &mut Vec<AgentEvent>) {
        for _ in 0..EVENTS_PER_STEP_MAX {
            let event = match self.executors.try_recv() {
                Ok((executor, event)) => self.hear_executor(executor, event),
                Err(_) => match self.session.try_next() {
                    Some(news) => self.hear(news),
                    None => return,
                },
            };
            events.extend(event);
        }
    }

    /// Hands events to the agent, and carries out what it says, with what follows from that.
    fn handle(&mut self, mut events: Vec<AgentEvent>) -> ControlFlow<()> {
        let mut actions = Vec::new();
        while !events.is_empty() {
            let now = Instant(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
            self.agent.handle(now, events.drain(..), &mut actions);
            for action in actions.drain(..) {
                if matches!(action, AgentAction::Exit) && self.may_leave() {
                    return ControlFlow::Break(());
                }
                events.extend(self.act(action));
            }
        }
        self.pool.flush();
        ControlFlow::Continue(())
    }

    /// Whether nobody need come any more for what only this worker has: it is elsewhere, or was waited for.
    fn may_leave(&mut self) -> bool {
        if !self.blobs.is_awaited() || !self.session.has_leader() {
            return true;
        }
        let now = tokio::time::Instant::now();
        let patience = Duration::from_millis(DRAIN_MOVES_MS);
        let left = *self.leave_by.get_or_insert_with(|| {
            tracing::info!("has drained, and waits until its results are elsewhere");
            now + patience
        });
        if left <= now {
            tracing::warn!("leaves with results that nobody else has");
        }
        left <= now
    }

    /// Carries out one action; what it is answered with at once.
    fn act(&mut self, action: AgentAction) -> Option<AgentEvent> {
        match action {
            AgentAction::Send(message) => self.send(message),
            AgentAction::FetchProgram(program) => {
                let step = self.programs.fetch(program);
                return self.step(step);
            }
            AgentAction::Spawn(spawn) => self.pool.spawn(spawn),
            AgentAction::Load { executor, load } => self.pool.load(executor, load),
            AgentAction::Take { executor, attempt, share } => {
                return Some(AgentEvent::Executor(
                    executor,
                    self.pool.take(executor, attempt, share),
                ));
            }
            AgentAction::Kill { executor } => self.pool.kill(executor),
            AgentAction::Stop { executor } => self.pool.stop(executor),
            AgentAction::Give { executor, given } => self.pool.give(executor, given),
            AgentAction::Opened { executor, batches } => self.pool.opened(executor, batches),
            AgentAction::Cancel { executor, attempt } => self.pool.cancel(executor, attempt),
            AgentAction::Exit => {}
        }
        None
    }

    fn send(&self, mut message: FromWorker) {
        if let FromWorker::Register(registration) = &mut message
            && let Some(plane) = &self.plane
        {
            *registration.depot = Depot { results: self.pool.results(), ..plane.depot() };
        }
        self.session.send(message);
    }

    fn hear_executor(&mut self, executor: ExecutorId, event: ExecutorEvent) -> Option<AgentEvent> {
        if let ExecutorEvent::Died { .. } = &event {
            self.pool.bury(executor);
        }
        Some(AgentEvent::Executor(executor, event))
    }

    fn hear(&mut self, news: News) -> Option<AgentEvent> {
        match news {
            News::Turn(turn) => Some(turn.into()),
            News::Refused(causes) => {
                self.refusals = causes;
                None
            }
            News::Said(ToWorker::ProgramChunk { program, offset, chunk }) => {
                let step = self.programs.chunk(program, offset, &chunk.bytes);
                self.step(step)
            }
            News::Said(ToWorker::ProgramUnknown { program }) => {
                let step = self.programs.unknown(program);
                self.step(step)
            }
            News::Said(ToWorker::Holders { blob, holders }) => {
                if let Some(plane) = &self.plane {
                    plane.heard(blob, holders);
                }
                None
            }
            News::Said(message) => {
                match &message {
                    ToWorker::Registered { .. } => {
                        if !std::mem::replace(&mut self.joined, true) {
                            tracing::info!("has joined the cluster");
                        }
                        self.ask_again();
                        self.blobs.begin_round();
                        let grace = Duration::from_millis(KEEP_GRACE_MS);
                        self.keep_until = Some(tokio::time::Instant::now() + grace);
                    }
                    ToWorker::Orders { orders, .. } => {
                        orders.iter().for_each(|order| self.look_at_data(order));
                    }
                    ToWorker::Leader { .. }
                    | ToWorker::ProgramChunk { .. }
                    | ToWorker::ProgramUnknown { .. }
                    | ToWorker::Holders { .. } => {}
                }
                Some(AgentEvent::Leader(message))
            }
        }
    }

    /// What an order means for the data that is here: the rest of it is the agent's.
    fn look_at_data(&mut self, order: &Order) {
        match order {
            Order::Forget { batch } => self.pool.forget(*batch),
            Order::Keep { blobs } => self.blobs.keep_all(blobs.clone()),
            Order::LetGo { blobs } => self.blobs.let_go(blobs),
            Order::Fetched { batch, tasks } => self.blobs.fetched(*batch, tasks),
            Order::Batch(_)
            | Order::Run(_)
            | Order::Retract { .. }
            | Order::Cancel { .. }
            | Order::Give(_)
            | Order::Opened { .. }
            | Order::Committed { .. } => {}
        }
    }

    /// Questions that an earlier leader has not answered.
    fn ask_again(&self) {
        for (program, offset) in self.programs.wanted() {
            self.session.send(FromWorker::WantProgram { program, offset });
        }
        let wanted = self.plane.as_ref().map(Plane::registered);
        wanted.into_iter().flatten().for_each(|word| self.session.send(word));
    }

    fn step(&mut self, step: Step) -> Option<AgentEvent> {
        match step {
            Step::Nothing => None,
            Step::Want(program, offset) => {
                self.session.send(FromWorker::WantProgram { program, offset });
                None
            }
            Step::Ready(program) => Some(AgentEvent::ProgramReady(program)),
            Step::Failed(program, cause) => Some(AgentEvent::ProgramFailed(program, cause)),
            Step::Seal(seal) => {
                self.seals.spawn_blocking(move || (seal.program, seal.run()));
                None
            }
        }
    }

    /// Ends all executors, and waits until they are gone.
    async fn end(mut self) {
        self.pool.end();
        let gone = async {
            while !self.pool.is_empty() {
                if let Some((executor, ExecutorEvent::Died { .. })) = self.executors.recv().await {
                    self.pool.bury(executor);
                }
            }
        };
        if tokio::time::timeout(END_MAX, gone).await.is_err() {
            tracing::warn!("executors are still there after they were killed");
        }
        // Who asks this worker for chunks learns that it is gone, while the links end.
        drop(self.plane.take());
        self.session.end().await;
    }
}

async fn next_word(plane: &mut Option<Plane>) -> FromWorker {
    match plane {
        Some(plane) => plane.next().await,
        None => std::future::pending().await,
    }
}
