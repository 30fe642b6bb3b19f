//! A client that has come to another's detached job: as `client::session::core::visit` does it, it asks for the job
//! until it is answered, reads a few batches at a time, each from where it was, and says over each new connection
//! what it reads.

use std::collections::{BTreeMap, VecDeque};

use allhands_common::failure::Failed;
use allhands_common::id::{BatchId, JobId, RequestId, SessionId};
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::Segment;
use allhands_common::wire::admin::JobSummary;
use allhands_common::wire::client::{FromClient, JobBatch};
use bytes::Bytes;

use super::keeping::forwards;
use crate::sim::Violation;
use crate::sim::climate::{Climate, MS, SECOND};
use crate::sim::connection::End;
use crate::sim::oracle::broken;
use crate::sim::rng::{Rng, mix};
use crate::sim::world::World;

/// What brings a client to a job of another, and how far it is.
#[derive(Debug)]
pub(in crate::sim) struct Visit {
    /// Who has opened it.
    of: usize,
    comes: Comes,
    goes: Goes,
    /// After how many outcome segments it does.
    after: u32,
    /// Batches that it reads at a time.
    window: usize,
    request: RequestId,
    /// Its requests below are answered, in this stay.
    pub(super) low: RequestId,
    asked: bool,
    /// When it asks (again), at the earliest.
    asks_at: u64,
    /// What it is attached to.
    job: Option<JobId>,
    begun: bool,
    waiting: VecDeque<BatchId>,
    reading: BTreeMap<BatchId, Reading>,
    /// Outcome segments that it has.
    taken: u32,
}

/// When it asks for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Now,
    /// About when it is to be forgotten: so long before.
    Due {
        ahead: u64,
    },
    /// When it is.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// When it has read all.
    Last,
    /// Before it has.
    Leaves,
    /// Without waiting for an answer.
    AtOnce,
    Dies,
    /// It ends the job, and reads what there is.
    Cancels,
    /// Its connection breaks, and it reads on.
    IsCut,
}

/// What came of a batch.
#[derive(Debug, Default)]
struct Reading {
    /// Segments handed on.
    received: u32,
    early: BTreeMap<u32, (TaskRange, Bytes)>,
    acknowledged: u32,
    done: RangeSet,
    counted: u32,
    end: Option<(u32, Option<Failed>)>,
}

impl Visit {
    pub(super) fn of(rng: &mut Rng, climate: &Climate, of: usize) -> Self {
        use Goes::{Cancels, Dies, IsCut, Last, Leaves};
        let comes = match rng.within(0..10) {
            0..5 => Comes::Now,
            // That its question and what forgets the job are on their way to the log together.
            5..9 => {
                let ahead = rng.within(0..climate.commit_max + 2 * climate.delay_max);
                Comes::Due { ahead }
            }
            _ => Comes::Late,
        };
        let hasty = matches!(comes, Comes::Due { .. }) && rng.chance(600);
        let goes = rng.pick(&[Last, Last, Last, IsCut, IsCut, Leaves, Dies, Cancels]);
        Self {
            of,
            comes,
            goes: if hasty { Goes::AtOnce } else { goes },
            after: rng.skewed(0..12) as u32,
            window: rng.within(1..4) as usize,
            request: RequestId(0),
            low: RequestId(0),
            asked: false,
            asks_at: 0,
            job: None,
            begun: false,
            waiting: VecDeque::new(),
            reading: BTreeMap::new(),
            taken: 0,
        }
    }

    fn has_all(&self) -> bool {
        self.begun && self.waiting.is_empty() && self.reading.is_empty()
    }
}

impl World {
    fn visit(&mut self, number: usize) -> Option<&mut Visit> {
        self.clients[number].visit.as_mut()
    }

    /// When a client that waits for the last moment looks whether it has come, or `at`.
    pub(super) fn visit_looks_at(&self, number: usize, at: u64) -> u64 {
        let Some(Visit { of, comes: Comes::Due { ahead }, asked: false, job: None, .. }) =
            self.clients[number].visit
        else {
            return at;
        };
        let due = self.forgotten_at(of).map(|due| due.saturating_sub(ahead));
        due.map_or(at, |due| at.min(due.max(self.now + MS)))
    }

    /// About when the job of client `of` will be forgotten, if nobody comes to it.
    fn forgotten_at(&self, of: usize) -> Option<u64> {
        let at = self.oracle.forgets_at(self.oracle.job_of_client(self.clients[of].session)?)?;
        let leader = self.leaders.last()?;
        let cluster = leader.dispatcher.cluster_time(leader.instant(self.now));
        Some(self.now + at.0.saturating_sub(cluster.0) * MS)
    }

    /// An attached client goes on with its visit.
    pub(super) fn visit_on(&mut self, number: usize) {
        let (now, session) = (self.now, self.clients[number].session);
        let Some(visit) = self.visit(number) else { return };
        let Some(job) = visit.job else { return self.ask_for_job(number) };
        let acknowledged: Vec<(BatchId, u32)> = visit
            .reading
            .iter_mut()
            .filter(|(_, reading)| reading.received > reading.acknowledged)
            .map(|(id, reading)| {
                reading.acknowledged = reading.received;
                (*id, reading.received)
            })
            .collect();
        let (goes, enough, all) = (visit.goes, visit.taken >= visit.after, visit.has_all());
        if !acknowledged.is_empty() && self.rng.chance(500) {
            self.say(number, FromClient::Acknowledge(acknowledged));
        }
        if self.rng.chance(50) {
            self.say(number, FromClient::LookAtJob(job));
        }
        match goes {
            Goes::Leaves if enough => return self.end_visit(number, "visits: left early"),
            Goes::Dies if enough => {
                self.stats.count("visits: died");
                self.clients[number].left = true;
                if let Some(id) = self.clients[number].connection
                    && self.rng.chance(500)
                {
                    self.cut(id);
                }
                return;
            }
            Goes::IsCut if enough && self.rng.chance(300) => {
                self.greet_again(number);
            }
            Goes::IsCut if enough => {
                self.stats.count("visits: cut off");
                if let Some(id) = self.clients[number].connection {
                    self.cut(id);
                }
            }
            Goes::Cancels if enough => {
                self.stats.count("visits: cancelled the job");
                self.oracle.job_cancelled(job);
                self.say(number, FromClient::CancelJob { job, reason: "enough".into() });
            }
            Goes::Last | Goes::AtOnce | Goes::Leaves | Goes::Dies | Goes::IsCut | Goes::Cancels => {
                if all && self.clients[number].awaiting.is_empty() {
                    self.end_visit(number, "visits: read to the end");
                }
                return;
            }
        }
        self.trace.say(now, format_args!("{session} has done what it came for"));
        if let Some(visit) = self.visit(number) {
            visit.goes = Goes::Last;
        }
    }

    fn end_visit(&mut self, number: usize, how: &'static str) {
        self.stats.count(how);
        self.say(number, FromClient::Detach);
        self.clients[number].left = true;
    }

    /// A client may say twice who it is, and be greeted twice: it says everything again then.
    fn greet_again(&mut self, number: usize) {
        let session = self.clients[number].session;
        let Some(visit) = self.visit(number) else { return };
        let (low, batches) = (visit.low, Vec::new());
        self.say(number, FromClient::Attach { session, low, batches });
    }

    fn ask_for_job(&mut self, number: usize) {
        let (now, session) = (self.now, self.clients[number].session);
        let owner = self.clients[number].owner.clone();
        let Some(visit) = self.visit(number).filter(|visit| !visit.asked) else { return };
        let Visit { of, comes, goes, request, asks_at, .. } = *visit;
        if asks_at > now {
            return;
        }
        let Some(job) = self.oracle.job_of_client(self.clients[of].session) else {
            if self.clients[of].left {
                self.end_visit(number, "visits: there was no job");
            }
            return;
        };
        let comes = match comes {
            Comes::Now => true,
            Comes::Due { ahead } => {
                self.oracle.is_forgotten(job)
                    || self.forgotten_at(of).is_some_and(|at| at <= now + ahead)
            }
            Comes::Late => self.oracle.is_forgotten(job),
        };
        if !comes {
            return;
        }
        if let Some(visit) = self.visit(number) {
            (visit.asked, visit.comes) = (true, Comes::Now);
        }
        self.oracle.visits(session, job, &owner);
        self.say(number, FromClient::AttachJob { request, job });
        if self.rng.chance(400) {
            self.greet_again(number);
        }
        if !self.oracle.may_visit(job, &owner) {
            // Who may not have it tries what it can; nothing comes of it.
            let batches = self.oracle.batches_of_job(job);
            let read = batches.keys().map(|batch| (*batch, 0)).collect();
            let reason: String = "not mine".into();
            self.say(number, FromClient::Read(read));
            self.say(number, FromClient::LookAtJob(job));
            self.say(number, FromClient::CancelJob { job, reason: reason.clone() });
            for batch in batches.into_keys() {
                self.say(number, FromClient::Cancel { batch, reason: reason.clone() });
            }
        }
        if goes == Goes::AtOnce {
            self.end_visit(number, "visits: left at once");
        }
    }

    /// A coordinator does not let a client have a job: the oracle knows whether it may not.
    pub(super) fn visit_refused(&mut self, number: usize, request: RequestId, reason: &str) {
        let at = self.now + self.rng.within(50 * MS..2 * SECOND);
        let Some(visit) = self.visit(number) else { return };
        if request != visit.request || !visit.asked {
            return;
        }
        visit.request.0 += 1;
        (visit.asked, visit.asks_at, visit.low) = (false, at, visit.request);
        match reason.contains("attached to another client") {
            true => self.stats.count("visits: somebody was there"),
            false => self.end_visit(number, "visits: refused for good"),
        }
    }

    pub(super) fn job_attached(
        &mut self,
        number: usize,
        (request, job): (RequestId, JobId),
        batches: &[JobBatch],
    ) -> Result<(), Violation> {
        let Some(visit) = self.visit(number) else {
            return Err(broken("only who asks is attached", format!("client {number}: {job}")));
        };
        if request != visit.request || !visit.asked {
            self.stats.count("visits: answered again");
            return Ok(());
        }
        visit.request.0 += 1;
        (visit.asked, visit.job, visit.low) = (false, Some(job), visit.request);
        if !std::mem::replace(&mut visit.begun, true) {
            visit.waiting.extend(batches.iter().map(|named| named.batch));
        }
        let named: BTreeMap<BatchId, u32> =
            batches.iter().map(|named| (named.batch, named.tasks)).collect();
        let there = self.oracle.batches_of_job(job);
        if named != there {
            let what = format!("{job}: {named:?}, there are {there:?}");
            return Err(broken("who attaches is told of all batches", what));
        }
        self.stats.count("visits");
        self.visit_again(number);
        self.read_more(number);
        Ok(())
    }

    /// Another leader, another connection or another stay: what is read is said again.
    pub(super) fn visit_again(&mut self, number: usize) {
        let Some(visit) = self.visit(number) else { return };
        if visit.job.is_none() {
            if std::mem::take(&mut visit.asked) {
                self.ask_for_job(number);
            }
            return;
        }
        let open = visit.reading.iter().map(|(id, reading)| (*id, reading.received));
        let open: Vec<(BatchId, u32)> = open.collect();
        if !open.is_empty() {
            self.stats.count("reads again");
            self.say(number, FromClient::Read(open));
        }
    }

    fn read_more(&mut self, number: usize) {
        let Some(visit) = self.visit(number) else { return };
        let room = visit.window - visit.reading.len().min(visit.window);
        let some = room.min(visit.waiting.len());
        let more: Vec<(BatchId, u32)> = visit.waiting.drain(..some).map(|id| (id, 0)).collect();
        if more.is_empty() {
            return;
        }
        visit.reading.extend(more.iter().map(|(id, _)| (*id, Reading::default())));
        self.stats.count("reads");
        self.say(number, FromClient::Read(more));
    }

    /// Outcomes of a batch that it reads, perhaps before those that they follow: what came before was on its way
    /// over the connection before this.
    pub(super) fn visitor_receives(
        &mut self,
        number: usize,
        id: BatchId,
        sequence: u32,
        (range, bytes): (TaskRange, Bytes),
        last: bool,
    ) -> Result<(), Violation> {
        self.oracle.note_read(id, sequence, range, &bytes)?;
        let Some(visit) = self.visit(number) else { return Ok(()) };
        if visit.job.is_none() {
            let what = format!("client {number}: outcomes {sequence} of {id}");
            return Err(broken("only who is attached reads", what));
        }
        if visit.waiting.contains(&id) {
            let what = format!("client {number}: outcomes {sequence} of {id}");
            return Err(broken("nobody is sent what he does not read (yet)", what));
        }
        let Some(reading) = visit.reading.get_mut(&id) else { return Ok(()) };
        if sequence >= reading.received {
            reading.early.insert(sequence, (range, bytes));
        }
        if last {
            reading.end = Some((sequence + 1, None));
        }
        while let Some((range, bytes)) = self.next_of(number, id) {
            self.visitor_takes(number, id, range, bytes)?;
        }
        self.settle_reading(number, id)
    }

    fn next_of(&mut self, number: usize, id: BatchId) -> Option<(TaskRange, Bytes)> {
        let reading = self.visit(number)?.reading.get_mut(&id)?;
        let next = reading.early.remove(&reading.received)?;
        reading.received += 1;
        Some(next)
    }

    fn visitor_takes(
        &mut self,
        number: usize,
        id: BatchId,
        range: TaskRange,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        let calm = self.climate.is_calm();
        let wrong = |rule, what: String| broken(rule, format!("read of {id}: {what}"));
        let parsed = Segment::parse(bytes).ok().filter(|segment| segment.tasks() == range.len());
        let segment = parsed
            .ok_or_else(|| wrong("outcomes are a segment of their tasks", format!("{range}")))?;
        let counted = self.oracle.judge(self.now, id, range, &segment, calm)?;
        let plan = self.oracle.plan_of(id);
        let client = &mut self.clients[number];
        let Some(visit) = &mut client.visit else { return Ok(()) };
        let Some(reading) = visit.reading.get_mut(&id) else { return Ok(()) };
        if reading.done.intersection(range).next().is_some() {
            let what = format!("{range} of {:?}", reading.done);
            return Err(wrong("a visit has each result once", what));
        }
        reading.done.insert(range);
        reading.counted += counted;
        visit.taken += 1;
        let nodes = plan.as_ref().map_or(&[][..], |plan| &plan.nodes);
        forwards(nodes, range, &segment).for_each(|(of, sure)| {
            client.awaiting.insert(of, (sure, false));
        });
        self.stats.add("tasks read", range.len().into());
        Ok(())
    }

    pub(super) fn visited_batch_ended(
        &mut self,
        number: usize,
        id: BatchId,
        end: (u32, Option<Failed>),
    ) -> Result<(), Violation> {
        let Some(visit) = self.visit(number) else { return Ok(()) };
        if let Some(reading) = visit.reading.get_mut(&id) {
            reading.end = Some(end);
        }
        self.settle_reading(number, id)
    }

    /// A batch has been read if this is its end.
    fn settle_reading(&mut self, number: usize, id: BatchId) -> Result<(), Violation> {
        let Some(visit) = self.visit(number) else { return Ok(()) };
        let Some(reading) = visit.reading.get(&id) else { return Ok(()) };
        let Some((segments, rest)) = reading.end.clone() else { return Ok(()) };
        let (received, counted) = (reading.received, reading.counted);
        if received < segments {
            return Ok(());
        }
        let wrong = |rule, what: String| Err(broken(rule, format!("read of {id}: {what}")));
        if received > segments {
            let what = format!("{received} of {segments} segments came");
            return wrong("the end comes after all outcomes", what);
        }
        let done = reading.done.clone();
        visit.reading.remove(&id);
        let tasks = self.oracle.tasks_of(id);
        match rest {
            None if done.covers(TaskRange::new(0, tasks)) => {}
            None => return wrong("every task has an outcome", format!("{done:?} of {tasks}")),
            Some(rest) => self.oracle.judge_rest(self.now, id, &rest, counted)?,
        }
        self.stats.count("batches read");
        self.say(number, FromClient::Acknowledge(vec![(id, received)]));
        self.read_more(number);
        Ok(())
    }

    pub(super) fn job_seen(
        &mut self,
        number: usize,
        summary: &JobSummary,
    ) -> Result<(), Violation> {
        self.stats.count("looks");
        let there = self.oracle.batches_of_job(summary.job);
        let tasks: u64 = there.values().map(|tasks| u64::from(*tasks)).sum();
        if self.visit(number).is_none_or(|visit| visit.job != Some(summary.job)) {
            let what = format!("client {number}: {summary:?}");
            return Err(broken("only who is attached looks", what));
        }
        let known = summary.batches >= there.len() as u64 && summary.tasks >= tasks;
        if !known || summary.ended > summary.tasks || summary.ended < summary.failed {
            let what = format!("{summary:?}, there are {there:?}");
            return Err(broken("who looks sees all there is", what));
        }
        Ok(())
    }

    /// Its lease has run out: a new stay begins, of another name, in which it reads on.
    pub(super) fn visitor_expired(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.visit.is_none() {
            return;
        }
        let mut name = [0; 8];
        name.copy_from_slice(&client.session.0[..8]);
        let mut session = [0; 16];
        session[..8].copy_from_slice(&mix(u64::from_le_bytes(name)).to_le_bytes());
        client.session = SessionId(session);
        (client.last_heard, client.longest_silence, client.attached) = (None, 0, false);
        if let Some(visit) = &mut client.visit {
            (visit.job, visit.asked, visit.low) = (None, false, RequestId(0));
        }
        if let Some(id) = client.connection.take() {
            self.close(id, End::Peer);
        }
    }

    /// What a visit waits for.
    pub(in crate::sim) fn visit_waits(&self, number: usize) -> String {
        self.clients[number].visit.as_ref().map_or(String::new(), |visit| format!("{visit:?}"))
    }
}
