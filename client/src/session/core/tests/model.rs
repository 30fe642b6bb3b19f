//! A cluster as small as the protocol allows, and faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use allhands_common::execution::Need;
use allhands_common::id::TaskId;
use allhands_common::range::RangeSet;
use proptest::prelude::*;

use super::*;
use crate::session::names::Names;

const COORDINATORS: usize = 3;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The client opens a batch.
    Open,
    /// The client appends to one of its batches.
    Append(usize),
    /// The client has given all of one of them.
    Seal(usize),
    /// The client drops one of them.
    Cancel(usize),
    /// The client wants no more of the last task of one of them, which would never end of itself.
    CancelTask(usize),
    /// The client takes what has come.
    Consume(usize),
    /// The client lets go of the executions of a kept batch.
    Release(usize),
    /// A coordinator reads a message; `true`: and will read it again.
    Read(usize, bool),
    /// The client reads a message; `true`: and will read it again.
    Hear(usize, bool),
    /// A worker ends some tasks of a batch.
    Run(usize),
    /// Another coordinator leads.
    Elect(usize),
    /// A link falls, or comes back.
    Flip(usize),
    /// Time passes.
    Tick,
}

impl Arbitrary for Step {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let who = 0..COORDINATORS;
        let which = 0..4usize;
        prop_oneof![
            1 => Just(Self::Open),
            4 => which.clone().prop_map(Self::Append),
            1 => which.clone().prop_map(Self::Seal),
            1 => which.clone().prop_map(Self::Cancel),
            1 => which.clone().prop_map(Self::CancelTask),
            3 => which.clone().prop_map(Self::Consume),
            1 => which.clone().prop_map(Self::Release),
            12 => (who.clone(), any::<bool>()).prop_map(|(who, twice)| Self::Read(who, twice)),
            12 => (who.clone(), any::<bool>()).prop_map(|(who, twice)| Self::Hear(who, twice)),
            6 => which.prop_map(Self::Run),
            1 => who.clone().prop_map(Self::Elect),
            1 => who.prop_map(Self::Flip),
            2 => Just(Self::Tick),
        ]
        .boxed()
    }
}

/// What is committed of a batch.
#[derive(Debug, Default)]
struct Committed {
    tasks: u32,
    sealed: Option<u32>,
    stopped: bool,
    outcomes: Vec<TaskRange>,
    ended: RangeSet,
    acknowledged: bool,
}

impl Committed {
    fn is_over(&self) -> bool {
        let ended = |tasks| tasks == 0 || self.ended.covers(TaskRange::new(0, tasks));
        self.stopped || self.sealed.is_some_and(ended)
    }
}

#[derive(Debug, Default)]
struct Link {
    up: bool,
    to: VecDeque<FromClient>,
    from: VecDeque<ToClient>,
}

/// What the client did and got.
#[derive(Debug, Default)]
struct Mine {
    given: u32,
    sealed: bool,
    cancelled: bool,
    unwanted: BTreeSet<u32>,
    got: BTreeSet<u32>,
    segments: u32,
    ended: bool,
    /// Its tasks are executions, ...
    kept: bool,
    /// ... of which the client has some.
    held: bool,
}

pub(super) struct Model {
    core: Core,
    names: Names,
    now: u64,
    links: Vec<Link>,
    leader: usize,
    term: Term,
    attached: bool,
    job: bool,
    opened: BTreeSet<u32>,
    batches: BTreeMap<BatchId, Committed>,
    mine: Vec<(BatchId, Mine)>,
    /// The last task of a kept batch that was given: the next ones name it.
    last: Option<TaskId>,
}

impl Model {
    pub(super) fn new(core: Core) -> Self {
        let links = (0..COORDINATORS).map(|_| Link::default()).collect();
        let Config { cluster, session, .. } = config();
        let names = Names::new(cluster, session);
        let mut model = Self {
            core,
            names,
            now: 0,
            links,
            leader: 0,
            term: Term(1),
            attached: false,
            job: false,
            opened: BTreeSet::new(),
            batches: BTreeMap::new(),
            mine: Vec::new(),
            last: None,
        };
        (0..COORDINATORS).for_each(|who| model.flip(who));
        model
    }

    fn client(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.now += 1;
        self.core.handle(Instant(self.now), [event], &mut actions);
        for action in actions {
            match action {
                Action::Send { peer, message } => {
                    if self.links[peer.0].up {
                        self.links[peer.0].to.push_back(message);
                    }
                }
                Action::Deliver { batch, range, .. } => {
                    let mine = self.find(batch);
                    assert!(!mine.cancelled && !mine.ended, "an outcome after the end");
                    mine.segments += 1;
                    for task in range.start..range.end {
                        assert!(mine.got.insert(task), "task {task} was handed on twice");
                    }
                }
                Action::End { batch, end } => {
                    let mine = self.find(batch);
                    assert_eq!(end, End::Complete { rest: None });
                    assert!(!mine.ended && !mine.cancelled, "a second end");
                    mine.ended = true;
                }
                Action::Committed { .. }
                | Action::Slots(_)
                | Action::Workers(_)
                | Action::Said(_) => {}
                Action::NoWorkers => unreachable!("there are two slots"),
                Action::SendProgram { .. } => unreachable!("nobody asks for the program"),
                Action::Wanted { .. } => unreachable!("nothing is offered"),
                Action::Holders { .. } | Action::AskedAnew => unreachable!("nothing is wanted"),
                Action::JobOpen(_)
                | Action::ProgramHeld(_)
                | Action::JobRefused(_)
                | Action::JobSeen(_) => {
                    unreachable!("the job is the session's own")
                }
                Action::Given(_) | Action::Renamed(_) => unreachable!("nothing is awaited"),
            }
        }
    }

    fn find(&mut self, batch: BatchId) -> &mut Mine {
        &mut self.mine.iter_mut().find(|(id, _)| *id == batch).unwrap().1
    }

    fn pick(&mut self, which: usize) -> Option<(BatchId, &mut Mine)> {
        let at = self.mine.len().checked_sub(1 + which)?;
        let (id, mine) = &mut self.mine[at];
        (!mine.cancelled).then_some((*id, mine))
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Open => {
                let (batch, sequence) = self.names.next();
                // Every other one.
                let kept = sequence % 2 == 1;
                self.mine.push((batch, Mine { kept, held: kept, ..Mine::default() }));
                self.client(Event::Open {
                    batch,
                    sequence,
                    call: sequence,
                    spec: spec().into(),
                    context: Bytes::new(),
                    kept,
                });
            }
            Step::Append(which) => {
                if let Some((batch, mine)) = self.pick(which)
                    && !mine.sealed
                {
                    let (index, kept) = (mine.given, mine.kept);
                    mine.given += 2;
                    let segment = Bytes::from_static(b"ab");
                    let named = self.last.into_iter();
                    let mentions = named.map(|on| Mention { index, on, need: Need::Value });
                    let mentions = mentions.collect();
                    if kept {
                        self.last = Some(TaskId { batch, index: index + 1 });
                    }
                    self.client(Event::Append { batch, tasks: 2, segment, mentions, needs: None });
                }
            }
            Step::Seal(which) => {
                if let Some((batch, mine)) = self.pick(which)
                    && !mine.sealed
                {
                    mine.sealed = true;
                    self.client(Event::Seal { batch });
                }
            }
            Step::Cancel(which) => {
                if let Some((batch, mine)) = self.pick(which)
                    && !mine.kept
                {
                    mine.cancelled = true;
                    self.client(Event::Cancel { batch, reason: "unwanted".into() });
                }
            }
            Step::CancelTask(which) => {
                if let Some((batch, mine)) = self.pick(which)
                    && let Some(task) = mine.given.checked_sub(1)
                    && !mine.got.contains(&task)
                {
                    mine.unwanted.insert(task);
                    let range = TaskRange::new(task, task + 1);
                    self.client(Event::CancelTasks { batch, range });
                }
            }
            Step::Consume(which) => {
                if let Some((batch, mine)) = self.pick(which) {
                    let segments = mine.segments;
                    self.client(Event::Consumed { batch, segments });
                }
            }
            Step::Release(which) => {
                if let Some((batch, mine)) = self.pick(which)
                    && mine.sealed
                    && std::mem::replace(&mut mine.held, false)
                {
                    self.client(Event::Release { batch });
                }
            }
            Step::Read(who, twice) => self.read(who, twice),
            Step::Hear(who, twice) => {
                let queue = &mut self.links[who].from;
                let said = if twice { queue.front().cloned() } else { queue.pop_front() };
                if let Some(message) = said {
                    self.client(Event::Said { peer: Peer(who), message });
                }
            }
            Step::Run(which) => {
                let at = self.mine.len().checked_sub(1 + which);
                if let Some(batch) = at.map(|at| self.mine[at].0) {
                    self.run(batch);
                }
            }
            Step::Elect(who) => {
                self.leader = who;
                self.term.0 += 1;
                self.attached = false;
                let news = ToClient::Leader { term: self.term, leader: CoordinatorId(who as u64) };
                for link in self.links.iter_mut().filter(|link| link.up) {
                    link.from.push_back(news.clone());
                }
            }
            Step::Flip(who) => self.flip(who),
            Step::Tick => {
                self.now += 300_000;
                self.client(Event::Tick);
            }
        }
    }

    fn flip(&mut self, who: usize) {
        let up = !self.links[who].up;
        self.links[who] = Link { up, ..Link::default() };
        let peer = Peer(who);
        if up {
            let coordinator = Some(CoordinatorId(who as u64));
            self.client(Event::LinkUp { peer, coordinator });
        } else {
            self.attached &= who != self.leader;
            self.client(Event::LinkDown { peer });
        }
    }

    /// A coordinator reads.
    fn read(&mut self, who: usize, twice: bool) {
        let queue = &mut self.links[who].to;
        let Some(message) = (if twice { queue.front().cloned() } else { queue.pop_front() }) else {
            return;
        };
        if who != self.leader {
            // A follower drops what is not for it, and says who leads.
            let leader = CoordinatorId(self.leader as u64);
            self.links[who].from.push_back(ToClient::Leader { term: self.term, leader });
            return;
        }
        if !self.attached && !matches!(message, FromClient::Attach { .. }) {
            return;
        }
        self.lead(message);
    }

    fn say(&mut self, message: ToClient) {
        self.links[self.leader].from.push_back(message);
    }

    fn lead(&mut self, message: FromClient) {
        match message {
            FromClient::Attach { batches, .. } => {
                self.attached = true;
                let known =
                    |(id, _): &(BatchId, u32)| self.batches.get(id).map(|batch| (*id, batch.tasks));
                let view = batches.iter().filter_map(known).collect();
                self.say(ToClient::Attached { term: self.term, batches: view, slots: 2 });
                for (id, received) in batches {
                    self.deliver(id, received);
                    self.tell_end(id);
                }
            }
            FromClient::OpenJob { request, .. } => {
                self.job = true;
                self.say(ToClient::JobOpened { request, job: JobId(1) });
            }
            FromClient::OpenBatch { batch, sequence, tasks, sealed, mentions, .. } => {
                assert!(self.job, "a batch without a job");
                self.check_mentions(batch, &mentions);
                if self.opened.insert(sequence) {
                    let sealed = sealed.then_some(tasks);
                    self.batches.insert(batch, Committed { tasks, sealed, ..Committed::default() });
                }
                self.tell_appended(batch);
                self.tell_end(batch);
            }
            FromClient::Append { batch, first, tasks, mentions, .. } => {
                self.check_mentions(batch, &mentions);
                if let Some(known) = self.batches.get_mut(&batch)
                    && known.tasks == first
                    && !known.stopped
                {
                    known.tasks += tasks;
                }
                self.tell_appended(batch);
            }
            FromClient::Seal { batch, tasks } => {
                if let Some(known) = self.batches.get_mut(&batch)
                    && known.tasks == tasks
                {
                    known.sealed = Some(tasks);
                }
                self.tell_appended(batch);
                self.tell_end(batch);
            }
            FromClient::Acknowledge(batches) => {
                for (batch, segments) in batches {
                    self.acknowledge(batch, segments);
                }
            }
            FromClient::Cancel { batch, .. } => {
                if let Some(known) = self.batches.get_mut(&batch) {
                    known.stopped = true;
                }
                self.tell_end(batch);
            }
            FromClient::CancelTasks { batch, range } => {
                let known = self.batches.get(&batch).map_or(0, |known| known.tasks);
                for task in range.start..range.end.min(known) {
                    self.finish(batch, task);
                }
            }
            FromClient::Alive
            | FromClient::Offer { .. }
            | FromClient::Withdraw { .. }
            | FromClient::WantBlob { .. }
            | FromClient::UnwantBlob { .. }
            | FromClient::Await(_)
            | FromClient::Unawait(_)
            | FromClient::Keep { .. }
            | FromClient::LetGo { .. }
            | FromClient::Fetched { .. }
            | FromClient::Needs { .. }
            | FromClient::Detach => {}
            FromClient::AttachJob { .. }
            | FromClient::Program(_)
            | FromClient::Read(_)
            | FromClient::LookAtJob(_)
            | FromClient::CancelJob { .. }
            | FromClient::CancelGroup { .. } => {
                unreachable!("the job is the session's own")
            }
            FromClient::ProgramChunk { .. } => unreachable!("nobody asked"),
        }
    }

    /// Whom tasks name is known before them.
    fn check_mentions(&self, batch: BatchId, mentions: &[Mention]) {
        for Mention { on, .. } in mentions {
            let known = self.batches.get(&on.batch).is_some_and(|known| known.tasks > on.index);
            assert!(known || on.batch == batch, "{on} is named before it is known");
        }
    }

    fn acknowledge(&mut self, batch: BatchId, segments: u32) {
        let held = self.mine.iter().any(|(id, mine)| *id == batch && mine.held);
        assert!(segments != DONE_WITH_BATCH || !held, "somebody has executions of it");
        let Some(known) = self.batches.get_mut(&batch) else {
            return;
        };
        let done = segments == DONE_WITH_BATCH;
        let there = if done { known.is_over() } else { segments as usize <= known.outcomes.len() };
        assert!(there, "more than there is");
        known.acknowledged |= done;
    }

    fn tell_appended(&mut self, batch: BatchId) {
        if let Some(known) = self.batches.get(&batch) {
            self.say(appended(batch, known.tasks, known.sealed.is_some()));
        }
    }

    fn deliver(&mut self, batch: BatchId, from: u32) {
        let Some(known) = self.batches.get(&batch) else {
            return;
        };
        let ranges: Vec<_> = (0u32..).zip(known.outcomes.clone()).skip(from as usize).collect();
        for (sequence, range) in ranges {
            self.say(outcomes(batch, sequence, range));
        }
    }

    fn tell_end(&mut self, batch: BatchId) {
        if let Some(known) = self.batches.get(&batch)
            && known.is_over()
        {
            let segments = known.outcomes.len() as u32;
            self.say(ToClient::Ended { batch, segments, rest: None });
        }
    }

    /// The first task of a batch that can end of itself does.
    fn run(&mut self, batch: BatchId) {
        let Some(known) = self.batches.get(&batch) else {
            return;
        };
        let gaps = known.ended.gaps(TaskRange::new(0, known.tasks));
        let mut open = gaps.collect::<Vec<_>>().into_iter();
        let unwanted =
            self.mine.iter().find(|(id, _)| *id == batch).map(|(_, mine)| &mine.unwanted);
        let ends = |task: &u32| unwanted.is_none_or(|unwanted| !unwanted.contains(task));
        let task = open.find_map(|gap| (gap.start..gap.end).find(ends));
        if let Some(task) = task {
            self.finish(batch, task);
        }
    }

    fn finish(&mut self, batch: BatchId, task: u32) {
        let Some(known) = self.batches.get_mut(&batch) else {
            return;
        };
        if known.stopped || known.ended.contains(task) {
            return;
        }
        let range = TaskRange::new(task, task + 1);
        known.ended.insert(range);
        known.outcomes.push(range);
        let sequence = known.outcomes.len() as u32 - 1;
        let over = known.is_over();
        if self.attached && self.links[self.leader].up {
            let mut outcomes = outcomes(batch, sequence, range);
            if let ToClient::Outcomes { last, .. } = &mut outcomes {
                *last = over;
            }
            self.say(outcomes);
        }
    }

    /// No more faults: everything comes to its end.
    pub(super) fn settle(&mut self) {
        for who in 0..COORDINATORS {
            if !self.links[who].up {
                self.flip(who);
            }
        }
        for which in 0..self.mine.len() {
            self.step(Step::Seal(which));
        }
        for which in 0..self.mine.len() {
            self.step(Step::Release(which));
        }
        for _ in 0..2_000 {
            let before =
                (self.links.iter().all(|l| l.to.is_empty() && l.from.is_empty()), self.is_done());
            if before == (true, true) {
                return;
            }
            for who in 0..COORDINATORS {
                self.step(Step::Read(who, false));
                self.step(Step::Hear(who, false));
            }
            for which in 0..self.mine.len() {
                self.step(Step::Run(which));
                self.step(Step::Consume(which));
            }
            if before.0 {
                self.step(Step::Tick);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.core.batches.is_empty()
    }

    pub(super) fn verify(&self) {
        for (batch, mine) in &self.mine {
            if mine.cancelled {
                continue;
            }
            let all: BTreeSet<u32> = (0..mine.given).collect();
            assert_eq!(mine.got, all, "outcomes of {batch}: {:?}", self.batches.get(batch));
            assert!(mine.ended, "{batch} has no end: {:?}", self.batches.get(batch));
        }
        assert!(self.is_done(), "left: {:?}", self.core.batches);
        for (id, known) in &self.batches {
            assert!(known.acknowledged, "{id} is not acknowledged: {known:?}");
        }
        assert_eq!((self.core.said_bytes, self.core.open_batches), (0, 0));
    }
}
