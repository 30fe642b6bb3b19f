//! Clients: what they ask becomes proposals, and who is silent too long is gone.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use core::time::Duration;

use allhands_common::id::{BatchId, RequestId, SessionId, WorkerId};
use allhands_common::limit::SUBMIT_BYTES_MAX;
use allhands_common::time::Instant;
use allhands_common::wire::client::{Appended, FromClient, ToClient};

use super::said::Hearing;
use super::{Dispatcher, Timer, cancelled};
use crate::state::Batch;
use crate::{Action, Command, State};

/// A client that this leader knows of.
#[derive(Debug)]
pub(super) struct Client {
    /// Whether it has a connection to this leader.
    pub(super) attached: bool,
    pub(super) last_heard: Instant,
    /// What it said of its batches when it attached, until its session is open.
    pub(super) batches: Vec<(BatchId, u32)>,
    /// Its requests below are known to be answered.
    pub(super) low: RequestId,
    /// What it has not been told of its commits.
    pub(super) notices: Notices,
    /// What it is told of what its tasks say.
    pub(super) hearing: Hearing,
}

/// Batches of which a client is to be told how much is committed: with the next thing that is said to
/// it, or soon.
#[derive(Debug, Default)]
pub(super) struct Notices {
    batches: BTreeSet<BatchId>,
    /// Bytes of arguments that were committed.
    bytes: u64,
    due: Option<Instant>,
}

/// How long a notice waits for company.
const NOTICE_PATIENCE: Duration = Duration::from_millis(5);

/// Names of one message, of at most 64 bytes each: some 400 KiB of a head that may have 6 MiB.
const NAMES_MAX: usize = 4096;

/// Committed bytes that a client is told of at once, because its credit may end.
const NOTICE_BYTES: u64 = SUBMIT_BYTES_MAX as u64 / 16;

impl Client {
    /// One that has not shown itself to this leader.
    pub(super) fn absent(now: Instant) -> Self {
        Self {
            attached: false,
            last_heard: now,
            batches: Vec::new(),
            low: RequestId(0),
            notices: Notices::default(),
            hearing: Hearing::default(),
        }
    }
}

impl Dispatcher {
    pub(super) fn hear_client(
        &mut self,
        now: Instant,
        state: &State,
        session: SessionId,
        owner: String,
        message: FromClient,
        out: &mut Vec<Action>,
    ) {
        if let FromClient::Attach { low, batches, .. } = message {
            let notices = Notices::default();
            let hearing = Hearing::default();
            let client = Client { attached: true, last_heard: now, batches, low, notices, hearing };
            return self.attach(state, session, owner, client, out);
        }
        let Some(client) = self.clients.get_mut(&session) else {
            // Its session was closed while it was away.
            out.push(Action::Tell { session, message: ToClient::SessionExpired });
            return;
        };
        if !client.attached {
            return;
        }
        client.last_heard = now;
        let mine = |batch: &BatchId| {
            let known = state.batches.get(batch).and_then(|batch| state.job_of(batch));
            known.is_none_or(|job| job.session == session)
        };
        let command = match message {
            FromClient::Attach { .. }
            | FromClient::Alive
            | FromClient::Program(_)
            | FromClient::ProgramChunk { .. } => return,
            FromClient::OpenJob { request, program, name, detached } => {
                let low = client.low;
                Command::OpenJob { session, request, low, program, name, detached }
            }
            FromClient::AttachJob { request, job } => Command::AttachJob { session, request, job },
            FromClient::Read(batches) => return self.read(state, session, batches, out),
            FromClient::LookAtJob(job) => return self.look_at_job(state, session, job, out),
            FromClient::CancelJob { job, reason } => {
                if state.jobs.get(&job).is_none_or(|known| known.session != session) {
                    return;
                }
                Command::StopJob { job, rest: cancelled(reason) }
            }
            FromClient::CancelGroup { group } => {
                let jobs = state.jobs.iter().filter(|(_, known)| known.session == session);
                for (job, _) in jobs {
                    let failed = cancelled("its group is not wanted any more".into());
                    let (job, group) = (*job, group.clone());
                    out.push(Action::Propose(Command::CancelGroup { job, group, failed }));
                }
                return;
            }
            FromClient::OpenBatch {
                batch,
                sequence,
                call,
                job,
                spec,
                context,
                tasks,
                segment,
                sealed,
                kept,
                mentions,
            } => {
                if let Some(reason) = refusal(&spec) {
                    self.needs.forget(batch);
                    let refused = ToClient::Refused { batch: Some(batch), request: None, reason };
                    return self.tell(session, refused, out);
                }
                Command::OpenBatch {
                    session,
                    batch,
                    sequence,
                    call,
                    job,
                    spec,
                    context,
                    tasks,
                    segment,
                    sealed,
                    kept,
                    mentions,
                }
            }
            FromClient::Append { batch, first, tasks, segment, mentions } if mine(&batch) => {
                Command::Append { batch, first, tasks, segment, mentions }
            }
            FromClient::Seal { batch, tasks } if mine(&batch) => Command::Seal { batch, tasks },
            FromClient::Acknowledge(mut batches) => {
                batches.retain(|(batch, _)| mine(batch));
                for (batch, segments) in &batches {
                    self.consumed(state, *batch, *segments, out);
                }
                if batches.is_empty() {
                    return;
                }
                Command::Acknowledge(batches)
            }
            FromClient::Cancel { batch, reason } if mine(&batch) => {
                Command::Stop { batch, rest: cancelled(reason) }
            }
            FromClient::Fetched { batch, tasks } if mine(&batch) => {
                return self.fetched(state, batch, tasks);
            }
            FromClient::CancelTasks { batch, range } if mine(&batch) => {
                let failed = cancelled("its caller wants no more of it".into());
                Command::CancelTasks { batch, range, failed }
            }
            FromClient::Append { .. }
            | FromClient::Seal { .. }
            | FromClient::Cancel { .. }
            | FromClient::CancelTasks { .. }
            | FromClient::Fetched { .. } => return,
            FromClient::Offer { blobs } => return self.offered(session, &owner, &blobs, out),
            FromClient::Withdraw { blobs } => return self.blobs.remove_offers(session, &blobs),
            FromClient::WantBlob { blob } => return self.session_wants(session, blob, out),
            FromClient::UnwantBlob { blob } => {
                return self.blobs.remove_session_want(session, blob);
            }
            FromClient::Await(of) => return self.client_awaits(state, session, of),
            FromClient::Unawait(of) => return self.client_unawaits(state, session, &of),
            FromClient::Keep { blobs, all } => return self.keep(session, blobs, all),
            FromClient::LetGo { blobs } => return self.let_go(session, &blobs),
            FromClient::Needs { batch, first, needs } if mine(&batch) => {
                return self.needs_said(state, session, (batch, first), needs);
            }
            FromClient::Needs { .. } => return,
            FromClient::Detach => Command::CloseSession { session },
        };
        out.push(Action::Propose(command));
    }

    fn attach(
        &mut self,
        state: &State,
        session: SessionId,
        owner: String,
        client: Client,
        out: &mut Vec<Action>,
    ) {
        let known = state.sessions.get(&session);
        if known.is_none() && (!client.batches.is_empty() || client.low > RequestId(0)) {
            out.push(Action::Tell { session, message: ToClient::SessionExpired });
            return;
        }
        if known.is_some_and(|known| known.owner != owner) {
            let reason = "this session belongs to another identity".to_string();
            let message = ToClient::Refused { batch: None, request: None, reason };
            out.push(Action::Tell { session, message });
            return;
        }
        self.timers.set(client.last_heard + self.config.client_lease, Timer::Session(session));
        self.clients.insert(session, client);
        // It says anew what it offers, wants and awaits.
        self.blobs.remove_session(session);
        self.forget_awaited(session);
        self.doubt_keeps(session);
        if known.is_none() {
            out.push(Action::Propose(Command::OpenSession { session, owner }));
            return;
        }
        self.welcome_client(state, session, out);
    }

    /// The session is in the state: its client can go on where it was.
    pub(super) fn session_opened(
        &mut self,
        state: &State,
        session: SessionId,
        out: &mut Vec<Action>,
    ) {
        let message =
            ToClient::Attached { term: self.config.term, batches: Vec::new(), slots: self.slots };
        self.tell(session, message, out);
        self.name_workers(state, session, out);
    }

    /// Tells a client what the workers are called.
    fn name_workers(&mut self, state: &State, session: SessionId, out: &mut Vec<Action>) {
        let mut roster = state.workers.iter().map(|(id, record)| (*id, record.short_name()));
        loop {
            let names: Vec<_> = roster.by_ref().take(NAMES_MAX).collect();
            if names.is_empty() {
                return;
            }
            self.tell(session, ToClient::Workers(names), out);
        }
    }

    /// Tells all clients what a worker that has joined is called.
    pub(super) fn name_worker(&mut self, state: &State, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(record) = state.workers.get(&worker) else { return };
        let sessions: Vec<SessionId> = self.clients.keys().copied().collect();
        for session in sessions {
            let names = vec![(worker, record.short_name())];
            self.tell(session, ToClient::Workers(names), out);
        }
    }

    fn welcome_client(&mut self, state: &State, session: SessionId, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        let named: BTreeMap<BatchId, u32> = client.batches.drain(..).collect();
        let theirs = |id: &BatchId| {
            let batch = state.batches.get(id)?;
            state.job_of(batch).filter(|job| job.session == session).map(|_| batch)
        };
        let batches: Vec<(BatchId, u32)> =
            named.keys().filter_map(|id| Some((*id, theirs(id)?.tasks))).collect();
        let message = ToClient::Attached { term: self.config.term, batches, slots: self.slots };
        self.tell(session, message, out);
        self.name_workers(state, session, out);
        // Nothing follows from a batch that is not named: this may be an old connection's greeting,
        // come late. Who is done with a batch says so, over each connection.
        for (id, received) in named.iter().filter(|(id, _)| theirs(id).is_some()) {
            self.redeliver(state, *id, *received, out);
            self.tell_appended(state, *id, 0);
        }
    }

    /// Looks whether a client was silent too long.
    pub(super) fn check_lease(&mut self, now: Instant, session: SessionId, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get(&session) else { return };
        let ends = client.last_heard + self.config.client_lease;
        if ends > now {
            self.timers.set(ends, Timer::Session(session));
        } else {
            out.push(Action::Propose(Command::CloseSession { session }));
            self.timers.set(now + self.config.client_lease, Timer::Session(session));
        }
    }

    /// Says something to a client, if it is there.
    pub(super) fn tell(&mut self, session: SessionId, message: ToClient, out: &mut Vec<Action>) {
        if self.clients.get(&session).is_some_and(|client| client.attached) {
            self.spoken_to.insert(session);
            out.push(Action::Tell { session, message });
        }
    }

    /// Has a client told how much of a batch is committed, `bytes` of arguments more than before.
    pub(super) fn tell_appended(&mut self, state: &State, batch: BatchId, bytes: u64) {
        let known = state.batches.get(&batch).filter(|batch| batch.depth() == 0);
        let Some(job) = known.and_then(|batch| state.job_of(batch)) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&job.session) {
            client.notices.batches.insert(batch);
            client.notices.bytes += bytes;
            self.noticed.insert(job.session);
        }
    }

    /// Sends the notices that have company or have waited long enough. Of a batch whose end was told
    /// there is nothing more to say.
    pub(super) fn flush_notices(&mut self, now: Instant, state: &State, out: &mut Vec<Action>) {
        let mut waiting = BTreeSet::new();
        let company = core::mem::take(&mut self.spoken_to);
        for session in core::mem::take(&mut self.noticed) {
            let Some(client) = self.clients.get_mut(&session) else { continue };
            let notices = &mut client.notices;
            let due = *notices.due.get_or_insert(now + NOTICE_PATIENCE);
            if !company.contains(&session) && notices.bytes < NOTICE_BYTES && now < due {
                self.timers.set(due, Timer::Send);
                waiting.insert(session);
                continue;
            }
            let batches = core::mem::take(notices).batches.into_iter();
            let told = |id: &BatchId| self.deliveries.get(id).is_some_and(|d| d.end_is_told());
            let appended: Vec<Appended> = batches
                .filter(|id| !told(id))
                .filter_map(|id| state.batches.get(&id).map(|known| appended(id, known)))
                .collect();
            if !appended.is_empty() && client.attached {
                out.push(Action::Tell { session, message: ToClient::Appended(appended) });
            }
        }
        self.noticed = waiting;
    }
}

/// How much of a batch is committed. A stopped one takes nothing more: its client need not keep what it
/// would append.
fn appended(batch: BatchId, known: &Batch) -> Appended {
    let stopped = known.stopped().is_some();
    let tasks = if stopped { u32::MAX } else { known.tasks };
    Appended { batch, tasks, sealed: known.sealed || stopped }
}

/// Why a batch of this kind can never be accepted.
fn refusal(spec: &allhands_common::policy::BatchSpec) -> Option<String> {
    let policy = &spec.policy;
    if policy.n_jobs == 0 {
        return Some("n_jobs is 0: give the number of tasks that may run at once, or -1".into());
    }
    if policy.batch_size == Some(0) {
        return Some("batch_size is 0: give a number of tasks, or leave it adaptive".into());
    }
    if policy.resources.cpus == 0 {
        return Some("the tasks need 0 cpus: a task occupies at least one slot".into());
    }
    if spec.functions.is_empty() {
        return Some("the batch names no function".into());
    }
    None
}
