//! The core loop: select, one event, step, run the actions. Nothing else changes any of this.
//!
//! The loop owns the replicated state, so entries are applied here and nowhere else, whether they come
//! from raft or, in the embedded cluster, straight from the proposals.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Instant as Clock;

use allhands_common::chain::chain;
use allhands_common::id::{CoordinatorId, LogIndex, SessionId, Term, WorkerId};
use allhands_common::limit::ENTRIES_IN_FLIGHT_MAX;
use allhands_common::time::Instant;
use allhands_common::wire::admin::{Answer, Question};
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, ToWorker};
use allhands_scheduler::{Action, Config as CoreConfig, Dispatcher, Effect, Event, State};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use crate::programs::Programs;
use crate::proposals::{self, Proposals};
use crate::raft::core::{Applied, AppliedPayload, CoreRequest, SnapshotImage};
use crate::raft::error::ProposeError;
use crate::raft::leadership::Leadership;
use crate::raft::node::Node;
use crate::raft::types::LeaderId;
use crate::seats::{ClientSeat, SeatId, Seats, WorkerSeat};
use crate::segments::{AppendError, Segments};

/// News from the links that may wait; a full queue slows their readers.
pub(crate) const NEWS_MAX: usize = 1024;

/// News taken in one step: they share an entry and a message to each worker.
const NEWS_PER_STEP_MAX: usize = 256;

/// Room for the actions of a step that is kept for the next.
const ACTIONS_KEPT: usize = 1024;

/// What the links tell the loop.
#[derive(Debug)]
pub(crate) enum News {
    /// A client's link stands.
    ClientUp { seat: SeatId, owner: String, out: mpsc::UnboundedSender<ToClient> },
    /// A client said something.
    Client { seat: SeatId, message: FromClient },
    /// A worker's link stands.
    WorkerUp { seat: SeatId, node: String, out: mpsc::UnboundedSender<ToWorker> },
    /// A worker said something.
    Worker { seat: SeatId, message: FromWorker },
    /// A link is gone.
    Down { seat: SeatId },
    /// An operator asks.
    Ask { name: String, question: Question, answer: oneshot::Sender<Answer> },
}

/// How entries come to be applied.
#[derive(Debug)]
pub(crate) enum Log {
    /// Through a majority.
    Raft(Node),
    /// At once: a cluster in one process, which ends with it.
    Direct,
}

type Outcome = Pin<Box<dyn Future<Output = Result<u64, ProposeError>> + Send>>;

/// The loop's own.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) id: CoordinatorId,
    pub(crate) state: State,
    /// There while this node leads.
    pub(crate) dispatcher: Option<Dispatcher>,
    pub(crate) segments: Segments,
    pub(crate) programs: Programs,
    pub(crate) seats: Seats,
    pub(crate) proposals: Proposals,
    pub(crate) log: Log,
    /// Who leads, as far as this node knows.
    pub(crate) leadership: Leadership,
    /// The leader whose entries were last applied.
    applied_leader: Option<LeaderId>,
    in_flight: FuturesUnordered<InFlight>,
    /// Last term in which this node led, and the attempts that it gave: no number is given twice.
    attempts_given: (Term, u64),
    /// What has happened in the step that is being taken.
    pub(crate) events: Vec<Event>,
    actions: Vec<Action>,
    started: Clock,
}

/// An entry on its way.
struct InFlight(Outcome);

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

impl Future for InFlight {
    type Output = Result<u64, ProposeError>;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Where the loop hears from.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) core: mpsc::Receiver<CoreRequest>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Shell {
    pub(crate) fn new(id: CoordinatorId, segments: Segments, programs: Programs, log: Log) -> Self {
        Self {
            id,
            state: State::default(),
            dispatcher: None,
            segments,
            programs,
            seats: Seats::default(),
            proposals: Proposals::default(),
            log,
            leadership: Leadership { leader: None, am_leader: false },
            applied_leader: None,
            in_flight: FuturesUnordered::new(),
            attempts_given: (Term(0), 0),
            events: Vec::new(),
            actions: Vec::new(),
            started: Clock::now(),
        }
    }

    /// Leads from now on, without asking anybody.
    pub(crate) fn lead_alone(&mut self) {
        let now = self.now();
        self.dispatcher =
            Some(Dispatcher::resume(CoreConfig::new(self.id, Term(1)), now, &self.state));
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Runs until nobody can tell it anything any more.
    ///
    /// # Errors
    /// A segment was not stored, in a cluster of one process: with a log it is the log that stops.
    pub(crate) async fn run(mut self, mut ears: Ears) -> Result<(), AppendError> {
        loop {
            let deadline = self.dispatcher.as_ref().and_then(Dispatcher::next_deadline);
            // While no entry has room, what is due waits for one to be decided and not for the clock: a
            // moment that has passed would keep this loop from sleeping.
            let due = self.proposals.due().filter(|_| self.has_room());
            let deadline = deadline.into_iter().chain(due).min();
            let wait = deadline.map(|at| at.since(self.now()));
            tokio::select! {
                biased;
                Some(request) = ears.core.recv() => {
                    if self.serve_log(request).is_break() {
                        return Ok(());
                    }
                }
                Ok(()) = ears.leadership.changed() => {
                    self.leadership = *ears.leadership.borrow_and_update();
                    self.leadership_changed();
                }
                Some(outcome) = self.in_flight.next() => self.decided(outcome),
                Some(done) = self.programs.done() => self.program_done(done),
                news = ears.news.recv() => {
                    let Some(news) = news else { return Ok(()) };
                    self.hear(news);
                    for _ in 1..NEWS_PER_STEP_MAX {
                        match ears.news.try_recv() {
                            Ok(news) => self.hear(news),
                            Err(_) => break,
                        }
                    }
                }
                // The step below looks at what is due.
                () = sleep(wait) => {}
            }
            self.take_lead();
            self.step();
            self.settle().await?;
        }
    }

    /// Takes what has happened through the dispatcher and carries out what it asks for.
    pub(crate) fn step(&mut self) {
        let now = self.now();
        let Some(dispatcher) = &mut self.dispatcher else { return self.events.clear() };
        dispatcher.handle(now, &self.state, self.events.drain(..), &mut self.actions);
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.act(action);
        }
        actions.shrink_to(ACTIONS_KEPT);
        self.actions = actions;
    }

    /// Tells the dispatcher what an entry has changed, before the state changes again.
    fn learn(&mut self, effects: Vec<Effect>) {
        self.events.push(Event::Applied(effects));
        self.step();
    }

    /// Whether another entry may be on its way.
    fn has_room(&self) -> bool {
        self.in_flight.len() < ENTRIES_IN_FLIGHT_MAX
    }

    /// Puts what was proposed on its way.
    async fn settle(&mut self) -> Result<(), AppendError> {
        loop {
            if !self.has_room() || !self.proposals.pressing(self.now()) {
                return Ok(());
            }
            let Some(dispatcher) = &self.dispatcher else {
                self.proposals.clear();
                return Ok(());
            };
            let Some(entry) = self.proposals.take(dispatcher.cluster_time(self.now())) else {
                return Ok(());
            };
            match &self.log {
                Log::Direct => {
                    let index = LogIndex(self.state.applied.0 + 1);
                    let effects = self.apply(index, entry)?;
                    self.learn(effects);
                }
                Log::Raft(node) => {
                    let Some(fence) = self.leadership.leader else {
                        self.proposals.clear();
                        return Ok(());
                    };
                    let encoded = match proposals::encode(entry) {
                        Ok(encoded) => encoded,
                        Err(error) => {
                            tracing::error!(%error, "an entry cannot be encoded: it is dropped");
                            continue;
                        }
                    };
                    match node.propose(encoded, fence).await {
                        Ok(outcome) => self.in_flight.push(InFlight(Box::pin(outcome))),
                        Err(error) => self.decided(Err(error)),
                    }
                }
            }
        }
    }

    /// A proposal's outcome. What was applied came through the log already; what failed did because
    /// this node leads no more, and whoever asked asks the next leader again.
    fn decided(&mut self, outcome: Result<u64, ProposeError>) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a proposal was not accepted");
            self.step_down();
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::ClientUp { seat, owner, out } => {
                self.introduce_leader(|term, leader| {
                    let _ = out.send(ToClient::Leader { term, leader });
                });
                let new = ClientSeat { owner, out, attach: None, session: None, term: None };
                self.seats.clients.insert(seat, new);
            }
            News::WorkerUp { seat, node, out } => {
                self.introduce_leader(|term, leader| {
                    let _ = out.send(ToWorker::Leader { term, leader });
                });
                let new = WorkerSeat { node, out, register: None, worker: None, term: None };
                self.seats.workers.insert(seat, new);
            }
            News::Client { seat, message } => self.hear_client(seat, message),
            News::Worker { seat, message } => self.hear_worker(seat, message),
            News::Down { seat } => self.leave(seat),
            News::Ask { name, question, answer } => {
                let reply = self.answer(name, question);
                // Whoever asked may have given up.
                let _ = answer.send(reply);
            }
        }
    }

    fn hear_client(&mut self, id: SeatId, message: FromClient) {
        let Some(seat) = self.seats.clients.get_mut(&id) else { return };
        if let FromClient::Attach { session, .. } = &message {
            seat.session = Some(*session);
            seat.attach = Some(message);
            return self.attach_client(id);
        }
        let (Some(session), Some(_)) = (seat.session, seat.term) else { return };
        let owner = seat.owner.clone();
        match &message {
            FromClient::ProgramChunk { program, offset, chunk } => {
                self.take_chunk(session, *program, *offset, &chunk.bytes);
            }
            FromClient::OpenJob { program, .. } => self.want_program(session, program.clone()),
            FromClient::Attach { .. }
            | FromClient::Alive
            | FromClient::OpenBatch { .. }
            | FromClient::Append { .. }
            | FromClient::Seal { .. }
            | FromClient::Acknowledge { .. }
            | FromClient::Cancel { .. }
            | FromClient::CancelTasks { .. }
            | FromClient::Offer { .. }
            | FromClient::Withdraw { .. }
            | FromClient::WantBlob { .. }
            | FromClient::UnwantBlob { .. }
            | FromClient::Await(_)
            | FromClient::Unawait(_)
            | FromClient::AttachJob { .. }
            | FromClient::Read(_)
            | FromClient::LookAtJob(_)
            | FromClient::CancelJob { .. }
            | FromClient::Keep { .. }
            | FromClient::LetGo { .. }
            | FromClient::Fetched { .. }
            | FromClient::Needs { .. }
            | FromClient::Detach => {}
        }
        self.events.push(Event::Client { session, owner, message });
    }

    /// Takes a client's seat, if this node leads; else its `Attach` waits.
    fn attach_client(&mut self, id: SeatId) {
        let Some(term) = self.term() else { return };
        let Some(seat) = self.seats.clients.get_mut(&id) else { return };
        let (Some(session), Some(message)) = (seat.session, seat.attach.clone()) else { return };
        seat.term = Some(term);
        let owner = seat.owner.clone();
        self.seats.sessions.insert(session, id);
        self.events.push(Event::Client { session, owner, message });
    }

    fn hear_worker(&mut self, id: SeatId, mut message: FromWorker) {
        let Some(seat) = self.seats.workers.get_mut(&id) else { return };
        if let FromWorker::Register(registration) = &mut message {
            // Others dial it as the holder of its certificate, not of a name that it likes.
            registration.depot.node = seat.node.clone();
            seat.worker = Some(registration.worker);
            seat.register = Some(message);
            return self.register_worker(id);
        }
        let (Some(worker), Some(_)) = (seat.worker, seat.term) else { return };
        if let FromWorker::WantProgram { program, offset } = message {
            return self.serve_program(worker, program, offset);
        }
        self.events.push(Event::Worker { worker, message });
    }

    fn register_worker(&mut self, id: SeatId) {
        let Some(term) = self.term() else { return };
        let Some(seat) = self.seats.workers.get_mut(&id) else { return };
        let (Some(worker), Some(message)) = (seat.worker, seat.register.take()) else { return };
        seat.term = Some(term);
        self.seats.registered.insert(worker, id);
        self.events.push(Event::Worker { worker, message });
    }

    fn leave(&mut self, id: SeatId) {
        if let Some(seat) = self.seats.clients.remove(&id)
            && let Some(session) = seat.session
            && self.seats.sessions.get(&session) == Some(&id)
        {
            self.seats.sessions.remove(&session);
            self.events.push(Event::ClientGone { session });
        }
        if let Some(seat) = self.seats.workers.remove(&id)
            && let Some(worker) = seat.worker
            && self.seats.registered.get(&worker) == Some(&id)
        {
            self.seats.registered.remove(&worker);
            self.events.push(Event::WorkerGone { worker });
        }
    }

    /// The term in which this node leads.
    fn term(&self) -> Option<Term> {
        self.dispatcher.as_ref().map(Dispatcher::term)
    }

    fn introduce_leader(&self, say: impl FnOnce(Term, CoordinatorId)) {
        match (&self.log, self.leadership.leader) {
            (Log::Direct, _) => say(Term(1), self.id),
            (Log::Raft(_), Some(leader)) => say(term_of(leader), CoordinatorId(leader.node_id)),
            (Log::Raft(_), None) => {}
        }
    }

    /// Tells everybody who leads, and takes the lead or lays it down.
    fn leadership_changed(&mut self) {
        if let Some(leader) = self.leadership.leader {
            let (term, leader) = (term_of(leader), CoordinatorId(leader.node_id));
            for seat in self.seats.clients.values() {
                let _ = seat.out.send(ToClient::Leader { term, leader });
            }
            for seat in self.seats.workers.values() {
                let _ = seat.out.send(ToWorker::Leader { term, leader });
            }
        }
        let leads = self.leadership.leader.filter(|_| self.leadership.am_leader);
        if self.dispatcher.is_some() && leads.map(term_of) != self.term() {
            self.step_down();
        }
        self.take_lead();
    }

    /// Leads once everything that earlier leaders committed is applied: the first entry of this
    /// leader's own term says so.
    fn take_lead(&mut self) {
        let Some(leader) = self.leadership.leader.filter(|_| self.leadership.am_leader) else {
            return;
        };
        if self.dispatcher.is_some() || self.applied_leader != Some(leader) {
            return;
        }
        tracing::info!(term = leader.term, "leads");
        let mut config = CoreConfig::new(self.id, term_of(leader));
        if self.attempts_given.0 == config.term {
            config.first_attempt = self.attempts_given.1;
        }
        self.dispatcher = Some(Dispatcher::resume(config, self.now(), &self.state));
        let workers: Vec<SeatId> = self.seats.workers.keys().copied().collect();
        workers.into_iter().for_each(|seat| self.register_worker(seat));
        let clients: Vec<SeatId> = self.seats.clients.keys().copied().collect();
        clients.into_iter().for_each(|seat| self.attach_client(seat));
    }

    fn step_down(&mut self) {
        if let Some(dispatcher) = self.dispatcher.take() {
            tracing::info!("leads no more");
            self.attempts_given = (dispatcher.term(), dispatcher.next_attempt());
        }
        self.proposals.clear();
        self.events.clear();
        self.seats.dismiss_attached();
    }

    /// Does what the log asks. `Break`: nothing may be skipped, so that this is the end; the node stops
    /// because the request has no answer.
    fn serve_log(&mut self, request: CoreRequest) -> ControlFlow<()> {
        match request {
            CoreRequest::Apply { entries, done } => {
                for entry in entries {
                    if self.apply_one(entry).is_err() {
                        return ControlFlow::Break(());
                    }
                }
                let _ = done.send(());
                self.take_lead();
            }
            CoreRequest::Snapshot { reply } => {
                let segments = self.state.segments().collect();
                let image = SnapshotImage { state: self.state.to_snapshot().into(), segments };
                let _ = reply.send(image);
            }
            CoreRequest::Install { image, applied, done } => {
                match State::from_snapshot(&image.state) {
                    Ok(state) => {
                        self.state = state;
                        self.applied_leader = applied.map(|id| id.leader_id);
                        let _ = done.send(());
                    }
                    Err(error) => {
                        tracing::error!(%error, "a snapshot cannot be installed");
                        return ControlFlow::Break(());
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn apply_one(&mut self, applied: Applied) -> Result<(), ()> {
        self.applied_leader = Some(applied.leader);
        let index = LogIndex(applied.index);
        match applied.payload {
            AppliedPayload::Blank | AppliedPayload::Membership(_) => Ok(()),
            AppliedPayload::Proposal(bytes) => match proposals::decode(bytes) {
                Ok(entry) => match self.apply(index, entry) {
                    Ok(effects) => {
                        self.learn(effects);
                        Ok(())
                    }
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(%error, "a segment was not stored: this coordinator stops");
                        Err(())
                    }
                },
                Err(error) => {
                    tracing::error!(%error, index = index.0, "cannot go on");
                    Err(())
                }
            },
        }
    }

    /// Applies an entry to the state, and its effects on the segments. After a failed write the state
    /// names bytes that are nowhere: whoever applies must stop.
    fn apply(
        &mut self,
        index: LogIndex,
        entry: allhands_scheduler::Entry,
    ) -> Result<Vec<Effect>, AppendError> {
        let mut effects = Vec::new();
        self.state.apply(index, entry, &mut effects);
        for effect in &effects {
            match effect {
                Effect::Keep { segment, bytes } => self.segments.append(*segment, bytes)?,
                Effect::Drop { segment } => self.segments.discard(*segment),
                _ => {}
            }
        }
        Ok(effects)
    }

    pub(crate) fn hear_operator(&mut self, name: String, question: Question) {
        self.events.push(Event::Operator { name, question });
    }

    pub(crate) fn attached_session(&self, session: SessionId) -> bool {
        self.seats.sessions.contains_key(&session)
    }

    pub(crate) fn registered_worker(&self, worker: WorkerId) -> bool {
        self.seats.registered.contains_key(&worker)
    }
}

/// Bits of a core's term that say which coordinator leads.
const LEADER_BITS: u32 = 16;

/// The core's term of a leader. In one term of openraft several may lead, one after the other (its
/// vote orders them by term, then by node); the core's attempts, and the workers' and clients' idea of
/// who leads now, need one leader a term. The order is openraft's.
fn term_of(leader: LeaderId) -> Term {
    Term(leader.term << LEADER_BITS | leader.node_id)
}

/// Runs the loop of a coordinator of a cluster: first only the log speaks, which restores the state;
/// once the log is up, everybody.
pub(crate) async fn start(
    id: CoordinatorId,
    segments: Segments,
    programs: Programs,
    mut core: mpsc::Receiver<CoreRequest>,
    news: mpsc::Receiver<News>,
    mut up: oneshot::Receiver<Node>,
) {
    let mut shell = Shell::new(id, segments, programs, Log::Direct);
    let node = loop {
        tokio::select! {
            biased;
            request = core.recv() => match request {
                Some(request) => {
                    if shell.serve_log(request).is_break() {
                        return;
                    }
                }
                None => return,
            },
            node = &mut up => match node {
                Ok(node) => break node,
                Err(_) => return,
            },
        }
    };
    let leadership = node.leader();
    shell.leadership = *leadership.borrow();
    shell.log = Log::Raft(node);
    shell.leadership_changed();
    if let Err(error) = shell.run(Ears { news, core, leadership }).await {
        tracing::error!(error = chain(&error), "this coordinator stops");
    }
}

async fn sleep(wait: Option<std::time::Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
