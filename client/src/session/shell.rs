//! The session's loop: one event, one step of the core, its actions; again.

mod convoy;
mod naming;
mod results;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use allhands_common::id::BatchId;
use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use allhands_common::segment::{Segment, SegmentError};
use allhands_common::time::Instant;
use allhands_common::wire::client::FromClient;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Sleep;

use super::core::{Action, Config, Core, End, Event, Peer};
use super::deliveries::Deliveries;
use super::exchange::{Cut, Exchange, Place, Taken};
use super::fetching::Word;
use super::holdings::Received;
use super::link::LinkEvent;
use super::outcomes::Outcomes;
use super::program::Executable;
use super::{NoLink, Session};
use crate::data::Data;
use crate::notice::notice;
use convoy::{CONVOYS_MAX, Convoy, shared_spec};

/// After so long an open segment is sent although it is not full: half of the 5 ms after which a user
/// would notice, because it takes two beats to tell that it is old.
const BEAT: Duration = Duration::from_micros(2_500);

/// When nothing is to be done by itself.
const NEVER: Instant = Instant(u64::MAX);

/// What a session begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) config: Config,
    pub(crate) executable: Executable,
    pub(crate) data: Data,
    /// How many coordinators are dialled.
    pub(crate) peers: usize,
    pub(crate) links: UnboundedReceiver<LinkEvent>,
}

struct Shell {
    session: Arc<Session>,
    core: Core,
    executable: Executable,
    data: Data,
    started: tokio::time::Instant,
    out: BTreeMap<Peer, UnboundedSender<FromClient>>,
    batches: BTreeMap<BatchId, Opened>,
    /// Convoys that calls may join, oldest first.
    convoys: Vec<BatchId>,
    /// Outcomes that wait for results on other machines.
    deliveries: Deliveries<Arc<Received>>,
    /// Batches whose outcomes name what lies with workers.
    naming: BTreeSet<BatchId>,
    /// Batches whose open segment is looked at after a beat.
    watched: Vec<Arc<Exchange>>,
    beat: Option<Instant>,
    /// What has happened in the step that is being taken.
    events: Vec<Event>,
    actions: Vec<Action>,
    /// It is time to end, and callers are told this.
    end: Option<End>,
}

/// A batch that is not over.
enum Opened {
    /// All or part of one call; and outcome segments handed on to it, if it holds them all.
    Call(Arc<Exchange>, u32),
    /// Calls of one task each.
    Convoy(Convoy),
}

/// Speaks for `session` until it is closed. Whatever ends it, no caller is left waiting.
pub(crate) async fn run(session: Arc<Session>, beginning: Beginning) {
    let Beginning { config, executable, data, peers, mut links } = beginning;
    session.state().causes = vec![None; peers];
    session.begin_submits(config.cluster, config.session);
    let mut shell = Shell {
        core: Core::new(config, Instant(0)),
        executable,
        data,
        started: tokio::time::Instant::now(),
        out: BTreeMap::new(),
        batches: BTreeMap::new(),
        convoys: Vec::new(),
        deliveries: Deliveries::default(),
        naming: BTreeSet::new(),
        watched: Vec::new(),
        beat: None,
        events: Vec::new(),
        actions: Vec::new(),
        end: None,
        session,
    };
    let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    // When the alarm rings; an alarm that has rung would ring for ever, and is not listened to.
    let mut armed = Instant(0);
    while shell.end.is_none() {
        tokio::select! {
            () = shell.session.bell.notified() => {
                shell.look();
                shell.step();
            }
            Some(event) = links.recv() => {
                shell.link(event);
                while let Ok(event) = links.try_recv() {
                    shell.link(event);
                }
                shell.step();
            }
            () = &mut alarm, if armed != NEVER => {
                shell.pass_time();
                shell.step();
                armed = NEVER;
            }
        }
        // An alarm that rings early is put right when it rings: a deadline that only moves on costs
        // nothing.
        let next = shell.next_alarm();
        if next < armed {
            shell.set(alarm.as_mut(), next);
            armed = next;
        }
    }
}

impl Drop for Shell {
    /// The loop has ended, in order or not: nobody waits for what will not come.
    fn drop(&mut self) {
        let mut state = self.session.state();
        let end = state.ended.insert(self.end.take().unwrap_or(End::Closed)).clone();
        let notes = std::mem::take(&mut state.notes);
        drop(state);
        self.session.attached.notify_all();
        self.session.listeners.end();
        self.session.submits_ended(&end);
        self.session.visiting.ended(&end);
        for opened in std::mem::take(&mut self.batches).into_values() {
            opened.end(&end);
        }
        for exchange in notes {
            exchange.inbox.end(exchange.part, end.clone());
        }
    }
}

impl Shell {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn next_alarm(&self) -> Instant {
        let deadline = self.core.next_deadline().into_iter();
        let idle = self.convoys.iter().filter_map(|batch| self.convoy(batch)?.idle_at());
        let submits = self.session.submits_idle_at();
        deadline.chain(self.beat).chain(idle).chain(submits).min().unwrap_or(NEVER)
    }

    fn set(&self, alarm: std::pin::Pin<&mut Sleep>, at: Instant) {
        alarm.reset(self.started + Duration::from_micros(at.0));
    }

    /// Takes what has happened through the core, and what follows from that.
    fn step(&mut self) {
        while !self.events.is_empty() {
            let now = self.now();
            self.core.handle(now, self.events.drain(..), &mut self.actions);
            self.act();
        }
    }

    /// Looks at what callers have changed.
    fn look(&mut self) {
        let now = self.now();
        let mut state = self.session.state();
        let notes = std::mem::take(&mut state.notes);
        let offers = std::mem::take(&mut state.offers);
        let wants = std::mem::take(&mut state.wants);
        let fetched = std::mem::take(&mut state.fetched);
        let keeps = std::mem::take(&mut state.keeps);
        let let_go = std::mem::take(&mut state.let_go);
        let closing = state.closing;
        drop(state);
        // Before the batches of the notes, which may name executions.
        self.events.extend(self.session.take_submits(now));
        self.events.extend(self.session.visiting.take_events());
        for some in offers.chunk_by(|(_, one), (_, next)| one == next) {
            let blobs = some.iter().map(|(blob, _)| *blob).collect();
            self.events.push(match some.first() {
                Some((_, true)) => Event::Offer { blobs },
                _ => Event::Withdraw { blobs },
            });
        }
        for (blob, wanted) in wants {
            self.events.push(match wanted {
                true => Event::Want { blob },
                false => Event::Unwant { blob },
            });
        }
        if !keeps.is_empty() {
            self.events.push(Event::Keep { blobs: keeps });
        }
        if !let_go.is_empty() {
            self.events.push(Event::LetGo { blobs: let_go });
        }
        self.take_results(fetched);
        for exchange in notes {
            let taken = exchange.take();
            self.take(exchange, taken);
        }
        for at in 0..self.convoys.len() {
            self.cut(self.convoys[at]);
        }
        if closing {
            self.events.push(Event::Detach);
            self.end = Some(End::Closed);
        }
    }

    fn take(&mut self, exchange: Arc<Exchange>, taken: Taken) {
        if taken.watched && !exchange.is_beating() {
            exchange.set_beating(true);
            self.watched.push(Arc::clone(&exchange));
            let beat = self.now() + BEAT;
            self.beat.get_or_insert(beat);
        }
        if let Some(spec) = shared_spec(&exchange, &taken).filter(|_| self.core.has_leader()) {
            return self.board(exchange, spec, taken.segments);
        }
        if let Some((spec, context)) = taken.open {
            let Some((batch, sequence)) = self.session.submits.name_batch() else { return };
            exchange.set_place(Place::Whole(batch));
            self.batches.insert(batch, Opened::Call(Arc::clone(&exchange), 0));
            let (spec, call) = (Arc::new(spec), exchange.inbox.number_call(sequence));
            let kept = false;
            self.events.push(Event::Open { batch, sequence, call, spec, context, kept });
        }
        let batch = match exchange.place() {
            Some(Place::Whole(batch)) => batch,
            Some(Place::Task(batch, task)) => {
                if taken.cancel.is_some() {
                    self.unboard(batch, task);
                }
                return;
            }
            None => return,
        };
        for cut in taken.segments {
            self.append(batch, cut);
        }
        if taken.sealed {
            self.events.push(Event::Seal { batch });
        }
        if taken.consumed > 0 {
            self.events.push(Event::Consumed { batch, segments: taken.consumed });
        }
        if let Some(reason) = taken.cancel {
            self.forget(&batch);
            self.events.push(Event::Cancel { batch, reason });
        }
    }

    fn append(&mut self, batch: BatchId, cut: Cut) {
        let Cut { tasks, segment, mentions, needs } = cut;
        self.events.push(Event::Append { batch, tasks, segment, mentions, needs });
    }

    fn convoy(&self, batch: &BatchId) -> Option<&Convoy> {
        match self.batches.get(batch)? {
            Opened::Convoy(convoy) => Some(convoy),
            Opened::Call(..) => None,
        }
    }

    fn convoy_mut(&mut self, batch: &BatchId) -> Option<&mut Convoy> {
        match self.batches.get_mut(batch)? {
            Opened::Convoy(convoy) => Some(convoy),
            Opened::Call(..) => None,
        }
    }

    /// A call of one task, of which these are the arguments, joins those of its specification.
    fn board(&mut self, exchange: Arc<Exchange>, spec: BatchSpec, segments: Vec<Cut>) {
        let cut = segments.into_iter().next();
        let parsed = cut.map(|cut| (Segment::parse(cut.segment), cut.needs));
        let Some((Ok(arguments), needs)) = parsed else {
            let end = End::Unreadable("its argument segment is damaged".into());
            return exchange.inbox.end(exchange.part, end);
        };
        let is_theirs =
            |batch: &BatchId| self.convoy(batch).is_some_and(|known| known.is_of(&spec));
        let batch = match self.convoys.iter().position(is_theirs) {
            Some(at) if self.convoy(&self.convoys[at]).is_some_and(Convoy::is_long) => {
                self.seal_convoy(at);
                self.open_convoy(spec)
            }
            Some(at) => Some(self.convoys[at]),
            None => self.open_convoy(spec),
        };
        // Names were given before links are listened to.
        let Some(batch) = batch else { return };
        if self.convoy(&batch).is_some_and(|convoy| convoy.is_full(&arguments)) {
            self.cut(batch);
        }
        if let Some(convoy) = self.convoy_mut(&batch) {
            let task = convoy.board(Arc::clone(&exchange), arguments, needs);
            exchange.set_place(Place::Task(batch, task));
        }
    }

    fn open_convoy(&mut self, spec: BatchSpec) -> Option<BatchId> {
        if self.convoys.len() >= CONVOYS_MAX {
            self.seal_convoy(0);
        }
        let (batch, sequence) = self.session.submits.name_batch()?;
        let (spec, now) = (Arc::new(spec), self.now());
        let convoy = Convoy::new(Arc::clone(&spec), now);
        self.batches.insert(batch, Opened::Convoy(convoy));
        self.convoys.push(batch);
        let (call, context) = (sequence, Bytes::new());
        let kept = false;
        self.events.push(Event::Open { batch, sequence, call, spec, context, kept });
        Some(batch)
    }

    /// Sends the tasks that have joined a convoy.
    fn cut(&mut self, batch: BatchId) {
        if let Some(cut) = self.convoy_mut(&batch).and_then(Convoy::cut) {
            self.append(batch, cut);
        }
    }

    /// Nobody joins the convoy in this place of the list any more.
    fn seal_convoy(&mut self, at: usize) {
        let batch = self.convoys.remove(at);
        self.cut(batch);
        self.events.push(Event::Seal { batch });
    }

    /// The caller of a task wants no more of it.
    fn unboard(&mut self, batch: BatchId, task: u32) {
        let now = self.now();
        if self.convoy_mut(&batch).and_then(|convoy| convoy.leave(task, now)).is_some() {
            let range = TaskRange::new(task, task + 1);
            self.events.push(Event::CancelTasks { batch, range });
        }
    }

    fn pass_time(&mut self) {
        let now = self.now();
        for at in (0..self.convoys.len()).rev() {
            let idle = self.convoy(&self.convoys[at]).and_then(Convoy::idle_at);
            if idle.is_some_and(|idle| idle <= now) {
                self.seal_convoy(at);
            }
        }
        if self.session.submits_idle_at().is_some_and(|idle| idle <= now) {
            self.session.seal_idle_submits(now);
            self.events.extend(self.session.take_submits(now));
        }
        if self.beat.is_some_and(|beat| beat <= now) {
            for exchange in std::mem::take(&mut self.watched) {
                let taken = exchange.take_beat();
                exchange.set_beating(false);
                self.take(exchange, taken);
            }
            self.beat = (!self.watched.is_empty()).then(|| now + BEAT);
        }
        self.events.push(Event::Tick);
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, coordinator, out } => {
                self.out.insert(peer, out);
                self.note_cause(peer, None);
                self.events.push(Event::LinkUp { peer, coordinator });
            }
            LinkEvent::Said { peer, message } => self.events.push(Event::Said { peer, message }),
            LinkEvent::Down { peer, why } => {
                self.out.remove(&peer);
                self.note_cause(peer, Some(why));
                self.events.push(Event::LinkDown { peer });
            }
            LinkEvent::Lost { cause } => self.end = Some(End::Lost(cause)),
        }
    }

    fn note_cause(&self, peer: Peer, cause: Option<NoLink>) {
        let mut state = self.session.state();
        if let Some(place) = state.causes.get_mut(peer.0) {
            *place = cause;
        }
        drop(state);
        self.session.attached.notify_all();
    }

    fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { peer, message } => self.send(peer, message),
                Action::Deliver { batch, range, segment } => self.came(batch, range, segment),
                Action::Committed { batch, tasks } => {
                    match self.batches.get(&batch) {
                        Some(Opened::Call(exchange, _)) => {
                            exchange.inbox.commit(exchange.part, tasks);
                        }
                        // Who has one task does not wait for room for another.
                        Some(Opened::Convoy(_)) => {}
                        None => self.session.submits_committed(batch, tasks),
                    }
                }
                Action::End { batch, end } => self.end_in_order(batch, end),
                Action::Slots(slots) => {
                    self.session.slots.store(slots, Ordering::Relaxed);
                    let mut state = self.session.state();
                    if !state.attached {
                        state.attached = true;
                        self.session.attached.notify_all();
                    }
                }
                Action::Said(notes) => self.session.listeners.tell(notes),
                Action::Workers(names) => self.session.workers().learn(names),
                Action::Wanted { blob, by } => {
                    let wanted = self.session.state().wanted.clone();
                    // One that is lost, the worker asks for again.
                    _ = wanted.map(|wanted| wanted.try_send((blob, by)));
                }
                Action::Holders { blob, holders } => {
                    // Whoever fetches it has told the loop if it does no more.
                    _ = self.session.order(Word::Holders { blob, holders });
                }
                Action::Given(given) => self.given(given),
                Action::JobOpen(visited) => self.session.visiting.job_is(Ok(visited)),
                Action::ProgramHeld(by) => self.session.visiting.program_held(by),
                Action::JobRefused(reason) => self.session.visiting.job_is(Err(reason)),
                Action::JobSeen(summary) => self.session.visiting.job_seen(summary),
                Action::Renamed(session) => self.session.submits_renamed(session),
                Action::AskedAnew => _ = self.session.order(Word::AskedAnew),
                Action::NoWorkers => notice(
                    "no worker is there, so calls wait: start `allhands worker` on some machine \
                     (`allhands status` shows who has joined)",
                ),
                Action::SendProgram { peer, program, offset, bytes } => {
                    match self.executable.read(offset, bytes) {
                        Ok(chunk) => {
                            let chunk = chunk.into();
                            self.send(peer, FromClient::ProgramChunk { program, offset, chunk });
                        }
                        Err(error) => tracing::error!(%error, "the program's file cannot be read"),
                    }
                }
            }
        }
    }

    fn send(&self, peer: Peer, message: FromClient) {
        if let Some(out) = self.out.get(&peer) {
            // A link that is gone is told by its own event.
            _ = out.send(message);
        }
    }

    fn end(&mut self, batch: BatchId, end: End) {
        self.convoys.retain(|convoy| *convoy != batch);
        match self.forget(&batch) {
            Some(opened) => opened.end(&end),
            None => {
                self.session.visiting.end(batch, &end);
                self.session.submits_end(batch, &end);
            }
        }
    }
}

impl Opened {
    /// Hands outcomes on; how many segments count as consumed, if that is more than before.
    fn deliver(
        &mut self,
        range: TaskRange,
        outcomes: Outcomes,
        now: Instant,
    ) -> Result<Option<u32>, SegmentError> {
        match self {
            Self::Convoy(convoy) => {
                convoy.deliver(range, &outcomes, now)?;
                Ok(Some(convoy.held))
            }
            Self::Call(exchange, held) => {
                if exchange.inbox.deliver(exchange.part, range, outcomes) {
                    exchange.stop();
                }
                if !exchange.inbox.rules().hold {
                    return Ok(None);
                }
                *held += 1;
                Ok(Some(*held))
            }
        }
    }

    fn end(self, end: &End) {
        match self {
            Self::Convoy(convoy) => convoy.end(end),
            Self::Call(exchange, _) => {
                exchange.stop();
                exchange.inbox.end(exchange.part, end.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
