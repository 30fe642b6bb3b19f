//! A client as the protocol wants it: named requests, repeated over each new connection until they
//! are answered; a cursor for each batch; and the oracle looks at everything that comes.

mod absence;
mod detached;
mod keeping;
mod visit;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use allhands_common::execution::Awaited;
use allhands_common::id::{BatchId, ClusterId, JobId, RequestId, SessionId, TaskId, Term};
use allhands_common::program::Program;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::segment::Segment;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient, ToClient};
use bytes::Bytes;

use super::Violation;
use super::climate::{Climate, MS};
use super::connection::{ConnectionId, End, Message, Peer};
use super::graph::mentions;
use super::rng::Rng;
use super::workload::{Plan, arguments, needs, program};
use super::world::{Happening, World};
use detached::Opens;
use keeping::{forwards, make_graphs};
use visit::Visit;

/// A client process.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: SessionId,
    pub(super) owner: String,
    connection: Option<ConnectionId>,
    told: Term,
    attached: bool,
    jobs: Vec<Job>,
    batches: Vec<Batch>,
    /// What it waits for beyond its batches' outcomes, whether that is there for sure, and whether it was said.
    awaiting: BTreeMap<Awaited, (bool, bool)>,
    /// Whether its tasks name others whatever their order.
    pub(super) wild: bool,
    /// What its one job is, if that goes on without it.
    opens: Option<Opens>,
    /// What it wants of another's job, if it is there for one.
    visit: Option<Visit>,
    /// When it leaves, once it has all that it wanted; it looks then whether anything is left of that.
    leaves_at: Option<u64>,
    /// When a leader last heard it, and the longest that none did.
    pub(super) last_heard: Option<u64>,
    pub(super) longest_silence: u64,
    /// Until when it says and hears nothing, and what waits for it.
    silent_until: u64,
    waiting: VecDeque<ToClient>,
    /// Whether it has what it wanted, or is gone.
    pub(super) left: bool,
}

#[derive(Debug)]
struct Job {
    program: Program,
    id: Option<JobId>,
    sent: bool,
}

/// A batch as its client sees it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) sequence: u32,
    /// Number of the first batch of its call.
    call: u32,
    job: usize,
    plan: Rc<Plan>,
    /// Whether it was ever sent: it is named on attaching from then on.
    begun: bool,
    /// On this connection.
    opened: bool,
    appends_sent: usize,
    seal_sent: bool,
    cancel_sent: bool,
    unwanted_sent: bool,
    /// Outcome segments received and acknowledged.
    pub(super) received: u32,
    acknowledged: u32,
    done: RangeSet,
    counted: u32,
    over: bool,
    /// Whether it lets go of a kept batch as soon as nobody will name it any more, and whether it has.
    drops_early: bool,
    dropped: bool,
}

impl Batch {
    fn is_kept(&self) -> bool {
        !self.plan.nodes.is_empty()
    }

    /// Its tasks, if others may name them.
    fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        let tasks = if self.is_kept() { self.plan.tasks() } else { 0 };
        (0..tasks).map(|index| TaskId { batch: self.id, index })
    }
}

impl Client {
    pub(super) fn new(
        number: usize,
        rng: &mut Rng,
        climate: &Climate,
        biggest: &Resources,
        others: &[Self],
        opens: Option<Opens>,
    ) -> Self {
        let session = session(rng);
        let jobs = if opens.is_some() { 1 } else { rng.within(1..4) };
        let jobs: Vec<Job> = (0..jobs)
            .map(|_| Job { program: program(rng.within(1..3) as u8), id: None, sent: false })
            .collect();
        let mut batches: Vec<Batch> = (0..rng.within(1..6) as u32)
            .map(|sequence| Batch {
                id: BatchId::of_session(ClusterId([0; 16]), session, sequence.into()),
                sequence,
                call: sequence,
                job: rng.within(0..jobs.len() as u64) as usize,
                plan: Rc::new(Plan::of(rng, climate, biggest)),
                begun: false,
                opened: false,
                appends_sent: 0,
                seal_sent: false,
                cancel_sent: false,
                unwanted_sent: false,
                received: 0,
                acknowledged: 0,
                done: RangeSet::new(),
                counted: 0,
                over: false,
                drops_early: rng.chance(400),
                dropped: false,
            })
            .collect();
        let wild = rng.chance(200) && opens.is_none();
        if rng.chance(600) {
            make_graphs(rng, (climate, biggest), &mut batches, others, wild);
        }
        // Some are parts of one call, whose `n_jobs` they share.
        for sequence in 1..batches.len() {
            let part = rng.chance(250);
            if part && !batches[sequence].is_kept() && !batches[sequence - 1].is_kept() {
                let before = &batches[sequence - 1];
                let (call, job, n_jobs) = (before.call, before.job, before.plan.n_jobs());
                let batch = &mut batches[sequence];
                (batch.call, batch.job) = (call, job);
                Rc::make_mut(&mut batch.plan).set_n_jobs(n_jobs);
            }
        }
        Self { jobs, batches, wild, opens, ..Self::idle(session, number) }
    }

    /// One that wants something of another's job.
    fn visitor(owner: usize, rng: &mut Rng, visit: Visit) -> Self {
        Self { visit: Some(visit), ..Self::idle(session(rng), owner) }
    }

    fn idle(session: SessionId, number: usize) -> Self {
        Self {
            session,
            owner: format!("owner{}", number % 2),
            connection: None,
            told: Term(0),
            attached: false,
            jobs: Vec::new(),
            batches: Vec::new(),
            awaiting: BTreeMap::new(),
            wild: false,
            opens: None,
            visit: None,
            leaves_at: None,
            last_heard: None,
            longest_silence: 0,
            silent_until: 0,
            waiting: VecDeque::new(),
            left: false,
        }
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| !batch.over)
    }
}

fn session(rng: &mut Rng) -> SessionId {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&rng.next().to_le_bytes());
    SessionId(session)
}

impl World {
    fn say(&mut self, number: usize, message: FromClient) {
        if let Some(id) = self.clients[number].connection {
            self.trace.say(self.now, format_args!("client {number} says {message:?}"));
            self.send(id, End::Leader, Message::FromClient(message));
        }
    }

    /// The client does what there is to do, and plans when to look again.
    pub(super) fn client_acts(&mut self, number: usize) -> Result<(), Violation> {
        if self.clients[number].left || self.leaves_job(number) {
            return Ok(());
        }
        let silent_until = self.clients[number].silent_until;
        if silent_until > self.now {
            self.plan(silent_until, Happening::ClientActs(number));
            return Ok(());
        }
        for message in std::mem::take(&mut self.clients[number].waiting) {
            self.client_takes(number, message)?;
        }
        if self.clients[number].left {
            return Ok(());
        }
        match self.clients[number].connection {
            None => self.seek(number),
            Some(_) if self.clients[number].attached => self.work_on(number)?,
            Some(_) => {}
        }
        let at = self.now + self.rng.skewed(MS..250 * MS);
        self.plan(self.visit_looks_at(number, at), Happening::ClientActs(number));
        Ok(())
    }

    fn seek(&mut self, number: usize) {
        let newest = self.leaders.last().map_or(Term(0), |leader| leader.term);
        let there = |term: Term| term.0 > 0 && self.leaders[term.0 as usize - 1].alive;
        let client = &mut self.clients[number];
        if !there(client.told) {
            client.told = client.told.max(newest);
        }
        let term = client.told;
        if !there(term) {
            return;
        }
        let session = client.session;
        let named = client.batches.iter().filter(|batch| batch.begun && !batch.over);
        let batches = named.map(|batch| (batch.id, batch.received)).collect();
        let answered = client.jobs.iter().take_while(|job| job.id.is_some()).count();
        let low = client.visit.as_ref().map_or(RequestId(answered as u64), |visit| visit.low);
        let id = self.connect(Peer::Client(number), term);
        let client = &mut self.clients[number];
        client.connection = Some(id);
        client.attached = false;
        self.say(number, FromClient::Attach { session, low, batches });
    }

    /// An attached client says what it has to say.
    fn work_on(&mut self, number: usize) -> Result<(), Violation> {
        self.say(number, FromClient::Alive);
        for request in 0..self.clients[number].jobs.len() {
            let job = &mut self.clients[number].jobs[request];
            if job.id.is_none() && !std::mem::replace(&mut job.sent, true) {
                let program = job.program.clone();
                let request = RequestId(request as u64);
                let detached = self.clients[number].opens.map(|opens| opens.retention_ms);
                self.say(
                    number,
                    FromClient::OpenJob { request, program, name: "job".into(), detached },
                );
            }
        }
        for at in 0..self.clients[number].batches.len() {
            self.work_on_batch(number, at);
        }
        self.await_others(number);
        if self.clients[number].visit.is_some() {
            self.visit_on(number);
            return Ok(());
        }
        self.drop_kept(number);
        self.leave_if_done(number)
    }

    fn work_on_batch(&mut self, number: usize, at: usize) {
        let (eager, whole) = (self.rng.chance(500), self.rng.chance(500));
        let steps = self.rng.within(1..4);
        let client = &mut self.clients[number];
        let batch = &client.batches[at];
        let Some(job) = client.jobs[batch.job].id.filter(|_| !batch.over) else { return };
        let before = client.batches[..at].iter().filter(|batch| batch.is_kept());
        let waits = !before.clone().all(|batch| batch.begun);
        let batch = &mut client.batches[at];
        if batch.plan.at > self.now || batch.is_kept() && waits {
            return;
        }
        let (id, plan) = (batch.id, batch.plan.clone());
        let mut say = Vec::new();
        if !batch.opened {
            (batch.opened, batch.begun) = (true, true);
            self.oracle.submit(self.now, id, &plan, (client.session, batch.call));
            let (sequence, call, spec) = (batch.sequence, batch.call, plan.spec.clone());
            let context = plan.context.clone().into();
            // As much as comes along at once: nothing, the first tasks, or all of a short call.
            let (mut tasks, mut segment, mut sealed) = (0, Bytes::new(), false);
            if whole && let Some(first) = plan.appends.first() {
                batch.appends_sent = 1;
                (tasks, segment) = (*first, arguments(id, 0, *first));
                sealed = plan.appends.len() == 1;
                batch.seal_sent = sealed;
            }
            let (spec, segment) = (spec.into(), segment.into());
            let mentions = mentions(&plan.nodes, TaskRange::new(0, tasks));
            say.extend(needs(id, 0, tasks));
            say.push(FromClient::OpenBatch {
                batch: id,
                sequence,
                call,
                job,
                spec,
                context,
                tasks,
                segment,
                sealed,
                kept: !plan.nodes.is_empty(),
                mentions,
            });
        }
        for _ in 0..steps {
            if let Some(tasks) = plan.appends.get(batch.appends_sent).copied() {
                let first = plan.appends[..batch.appends_sent].iter().sum();
                let segment = arguments(id, first, tasks).into();
                batch.appends_sent += 1;
                let mentions = mentions(&plan.nodes, TaskRange::new(first, first + tasks));
                say.extend(needs(id, first, tasks));
                say.push(FromClient::Append { batch: id, first, tasks, segment, mentions });
            } else if !std::mem::replace(&mut batch.seal_sent, true) {
                say.push(FromClient::Seal { batch: id, tasks: plan.tasks() });
            }
        }
        let enough = plan.cancel_after.is_some_and(|after| batch.done.len() >= after);
        if enough && !std::mem::replace(&mut batch.cancel_sent, true) {
            self.oracle.cancels(id);
            say.push(FromClient::Cancel { batch: id, reason: "enough".into() });
        }
        if let Some(range) = plan.unwanted
            && batch.seal_sent
            && !batch.unwanted_sent
            && batch.done.len() >= plan.unwanted_after
        {
            batch.unwanted_sent = true;
            self.oracle.unwanted(id, range);
            say.push(FromClient::CancelTasks { batch: id, range });
        }
        if eager && batch.received > batch.acknowledged {
            batch.acknowledged = batch.received;
            say.push(FromClient::Acknowledge(vec![(id, batch.received)]));
        }
        say.into_iter().for_each(|message| self.say(number, message));
    }

    pub(super) fn client_hears(
        &mut self,
        number: usize,
        message: ToClient,
    ) -> Result<(), Violation> {
        let client = &mut self.clients[number];
        if client.silent_until > self.now || !client.waiting.is_empty() {
            client.waiting.push_back(message);
            return Ok(());
        }
        self.client_takes(number, message)
    }

    fn client_takes(&mut self, number: usize, message: ToClient) -> Result<(), Violation> {
        if self.clients[number].left {
            return Ok(());
        }
        match message {
            ToClient::Attached { batches, .. } => self.attached(number, &batches),
            ToClient::JobOpened { request, job } => {
                let known = &mut self.clients[number].jobs[request.0 as usize].id;
                if known.is_some_and(|known| known != job) {
                    let what = format!("request {request}: {known:?}, then {job}");
                    return Err(Violation { rule: "a request is answered alike", what });
                }
                *known = Some(job);
                Ok(())
            }
            ToClient::Outcomes { batch, sequence, range, segment, last } => {
                if self.clients[number].visit.is_some() {
                    let outcomes = (range, segment.bytes);
                    return self.visitor_receives(number, batch, sequence, outcomes, last);
                }
                self.receive(number, batch, sequence, range, segment.bytes)?;
                match last {
                    true => self.batch_ended(number, batch, sequence + 1, None),
                    false => Ok(()),
                }
            }
            ToClient::Ended { batch, segments, rest } => {
                if self.clients[number].visit.is_some() {
                    return self.visited_batch_ended(number, batch, (segments, rest));
                }
                self.batch_ended(number, batch, segments, rest)
            }
            ToClient::SessionExpired => self.expired(number),
            ToClient::Given(given) => self.client_is_given(number, given),
            ToClient::Refused { batch: None, request: Some(request), reason }
                if self.clients[number].visit.is_some() =>
            {
                self.visit_refused(number, request, &reason);
                Ok(())
            }
            ToClient::JobAttached { request, job, batches, .. } => {
                self.job_attached(number, (request, job), &batches)
            }
            ToClient::JobSeen(summary) => self.job_seen(number, &summary),
            ToClient::Refused { reason, .. } => {
                Err(Violation { rule: "nothing proper is refused", what: reason })
            }
            ToClient::SegmentUnreadable { reason, .. } => {
                Err(Violation { rule: "everything can be read", what: reason })
            }
            ToClient::Appended(_)
            | ToClient::Leader { .. }
            | ToClient::WantProgram { .. }
            | ToClient::Slots { .. }
            | ToClient::Workers(_)
            | ToClient::Wanted { .. }
            | ToClient::Said(_)
            | ToClient::HasProgram(_)
            | ToClient::Holders { .. } => Ok(()),
        }
    }

    /// The leader has the session: what it does not have is sent again.
    fn attached(&mut self, number: usize, known: &[(BatchId, u32)]) -> Result<(), Violation> {
        let client = &mut self.clients[number];
        client.attached = true;
        client.jobs.iter_mut().for_each(|job| job.sent = false);
        client.awaiting.values_mut().for_each(|(_, said)| *said = false);
        for batch in &mut client.batches {
            let tasks = known.iter().find(|(id, _)| *id == batch.id).map(|(_, tasks)| *tasks);
            batch.opened = tasks.is_some();
            (batch.seal_sent, batch.cancel_sent, batch.unwanted_sent) = (false, false, false);
            let (mut count, mut sum) = (0, 0);
            while sum < tasks.unwrap_or(0) && count < batch.plan.appends.len() {
                sum += batch.plan.appends[count];
                count += 1;
            }
            if sum != tasks.unwrap_or(0) {
                let what = format!("batch {} has {tasks:?} tasks", batch.sequence);
                return Err(Violation { rule: "appends are taken whole", what });
            }
            batch.appends_sent = count;
        }
        let done = client.batches.iter().filter(|batch| batch.over);
        let done = done.filter(|batch| !batch.is_kept() || batch.dropped);
        let done: Vec<BatchId> = done.map(|batch| batch.id).collect();
        for batch in done {
            self.say(number, FromClient::Acknowledge(vec![(batch, DONE_WITH_BATCH)]));
        }
        self.visit_again(number);
        Ok(())
    }

    fn receive(
        &mut self,
        number: usize,
        id: BatchId,
        sequence: u32,
        range: TaskRange,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        let calm = self.climate.is_calm();
        let wrong =
            |rule, what: String| Err(Violation { rule, what: format!("batch {id}: {what}") });
        let client = &mut self.clients[number];
        let Some(batch) = client.batches.iter_mut().find(|batch| batch.id == id) else {
            return wrong("a client hears of its own batches", String::new());
        };
        if batch.over {
            return wrong("nothing comes after the end", format!("outcomes {sequence}"));
        }
        if sequence != batch.received {
            let what = format!("{sequence} after {} received", batch.received);
            return wrong("outcomes come once, in order of commit", what);
        }
        batch.received += 1;
        let parsed = Segment::parse(bytes).ok().filter(|segment| segment.tasks() == range.len());
        let Some(segment) = parsed else {
            return wrong("outcomes are a segment of their tasks", format!("{range}"));
        };
        if batch.done.intersection(range).next().is_some() {
            return wrong("a task has one outcome", format!("{range} of {:?}", batch.done));
        }
        batch.done.insert(range);
        batch.counted += self.oracle.judge(self.now, id, range, &segment, calm)?;
        forwards(&batch.plan.nodes, range, &segment).for_each(|(of, sure)| {
            client.awaiting.insert(of, (sure, false));
        });
        self.stats.add("tasks delivered", range.len().into());
        Ok(())
    }

    fn batch_ended(
        &mut self,
        number: usize,
        id: BatchId,
        segments: u32,
        rest: Option<allhands_common::failure::Failed>,
    ) -> Result<(), Violation> {
        let client = &mut self.clients[number];
        let Some(batch) = client.batches.iter_mut().find(|batch| batch.id == id) else {
            return Ok(());
        };
        let wrong =
            |rule, what: String| Err(Violation { rule, what: format!("batch {id}: {what}") });
        if batch.over {
            return wrong("nothing comes after the end", "another end".into());
        }
        if batch.received != segments {
            let what = format!("{} of {segments} segments came", batch.received);
            return wrong("the end comes after all outcomes", what);
        }
        batch.over = true;
        match rest {
            None if batch.done.covers(TaskRange::new(0, batch.plan.tasks())) => {}
            None => return wrong("every task has an outcome", format!("{:?}", batch.done)),
            Some(rest) => {
                self.oracle.judge_rest(self.now, id, &rest, batch.counted)?;
                self.stats.count("batches stopped");
            }
        }
        let kept = batch.is_kept();
        self.stats.count("batches ended");
        if !kept {
            self.say(number, FromClient::Acknowledge(vec![(id, DONE_WITH_BATCH)]));
        }
        Ok(())
    }
}
