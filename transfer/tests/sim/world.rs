//! Nodes, links between them, and time.
//!
//! Each node has one line up and one down, first come first served; each pair has a latency. What is said
//! costs the latency, a chunk the lines too. A node that dies is noticed 1.5 s later by those who deal with
//! it, as QUIC would.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::{ChunkRange, ChunkSet};
use allhands_transfer::exchange::{
    Action, Config, Event, Exchange, Peer, Refused, Request, Ticket, Unfetched, Want, Wanted,
};

pub(crate) const CHUNK: u64 = 1 << 20;
const ID: BlobId = BlobId([9; 32]);
const NOTICE: Duration = Duration::from_millis(1500);
const STEPS_MAX: u64 = 400_000;

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Who dies, and when: as soon as the source has sent that part of a copy.
    pub(crate) deaths: Vec<(usize, f64)>,
    /// Part of the requests that get lost.
    pub(crate) loss: f64,
    /// Who sends wrong bytes.
    pub(crate) liars: Vec<usize>,
    /// Who takes requests and never answers.
    pub(crate) stalls: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) chunks: u32,
    pub(crate) faults: Faults,
    pub(crate) config: Config,
}

#[derive(Debug, Clone)]
enum Message {
    Manifest(Request),
    Ask(Request, u32, Vec<Peer>),
    Cancel(Request),
    Follow,
    Unfollow,
    ManifestIs(Request),
    Chunk(Request, u32, bool),
    Redirect(Request, Peer),
    Refused(Request, Refused),
    Have(Vec<ChunkRange>, Vec<Peer>),
}

#[derive(Debug)]
enum Happening {
    Arrives { from: usize, to: usize, message: Message },
    Occurs { at: usize, event: Event },
    Dies(usize),
}

#[derive(Debug)]
struct Node {
    exchange: Exchange,
    alive: bool,
    has: BTreeSet<u32>,
    askers: BTreeSet<Peer>,
    up_free: u64,
    down_free: u64,
    up_bytes_per_s: u64,
    down_bytes_per_s: u64,
    sent: u64,
    received: u64,
    results: Vec<Result<(), Unfetched>>,
    reports: Vec<usize>,
}

pub(crate) struct World {
    setup: Setup,
    rng: u64,
    now: u64,
    nodes: Vec<Node>,
    latency: BTreeMap<(usize, usize), u64>,
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    wants: u64,
    lost: u64,
    /// When the last want ended.
    over: u64,
    steps: u64,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut world = Self {
            rng: setup.seed,
            now: 0,
            nodes: Vec::new(),
            latency: BTreeMap::new(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            wants: 0,
            lost: 0,
            over: 0,
            steps: 0,
            setup,
        };
        // 30 to 1,000 MB/s for all, and each node up to a third off that.
        let base = 30_000_000 + world.random(970_000_000);
        for _ in 0..world.setup.nodes {
            let config = Config { place: world.random(u64::MAX), ..world.setup.config.clone() };
            let up_bytes_per_s = base - world.random(base / 3);
            let down_bytes_per_s = base - world.random(base / 3);
            world.nodes.push(Node {
                exchange: Exchange::new(config),
                alive: true,
                has: BTreeSet::new(),
                askers: BTreeSet::new(),
                up_free: 0,
                down_free: 0,
                up_bytes_per_s,
                down_bytes_per_s,
                sent: 0,
                received: 0,
                results: Vec::new(),
                reports: Vec::new(),
            });
        }
        for one in 0..world.setup.nodes {
            for other in 0..one {
                let latency = 50 + world.random(950);
                world.latency.insert((one, other), latency);
                world.latency.insert((other, one), latency);
            }
        }
        world.fill(0);
        world
    }

    pub(crate) fn fill(&mut self, node: usize) {
        self.nodes[node].has = (0..self.setup.chunks).collect();
    }

    pub(crate) fn want(&mut self, node: usize, bytes: Option<Range<u64>>, holders: &[u32]) {
        self.want_within(node, bytes, holders, Duration::from_secs(3600));
    }

    pub(crate) fn want_within(
        &mut self,
        node: usize,
        bytes: Option<Range<u64>>,
        holders: &[u32],
        within: Duration,
    ) {
        let want = Want(self.wants);
        self.wants += 1;
        let holders = holders.iter().map(|holder| (Peer(*holder), true)).collect();
        let deadline = Instant(0) + within;
        let wanted = Wanted { blob: ID, bytes, holders, known: None, deadline, repair: false };
        let at = self.random(2_000);
        self.later(at, Happening::Occurs { at: node, event: Event::Want { want, wanted } });
    }

    pub(crate) fn run(&mut self) {
        loop {
            let happening = self.queue.peek().map(|next| next.0.0);
            let deadlines = self.nodes.iter().enumerate().filter(|(_, node)| node.alive);
            let deadline = deadlines
                .filter_map(|(at, node)| Some((node.exchange.next_deadline()?.0, at)))
                .min();
            match (happening, deadline) {
                (None, None) => return,
                (Some(at), due) if due.is_none_or(|(due, _)| at <= due) => {
                    self.now = at;
                    let Some(std::cmp::Reverse((_, number))) = self.queue.pop() else { return };
                    let Some(happening) = self.happenings.remove(&number) else { return };
                    self.happen(happening);
                }
                (_, Some((due, at))) => {
                    self.now = self.now.max(due);
                    self.step(at, Event::Tick);
                }
                (Some(_), None) => unreachable!("the arm above takes it"),
            }
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "it does not end, seed {}", self.setup.seed);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Occurs { at, event } => self.step(at, event),
            Happening::Arrives { from, to, message } => self.arrive(from, to, message),
            Happening::Dies(node) => {
                self.nodes[node].alive = false;
                let at = self.now + NOTICE.as_micros() as u64;
                let peer = Peer(node as u32);
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    let event = Event::HolderGone { peer };
                    self.later(at, Happening::Occurs { at: other, event });
                    if self.nodes[other].askers.contains(&peer) {
                        let event = Event::AskerGone { peer };
                        self.later(at, Happening::Occurs { at: other, event });
                    }
                }
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        let peer = Peer(from as u32);
        if !self.nodes[to].alive {
            return;
        }
        if matches!(message, Message::Ask(..) | Message::Manifest(_) | Message::Follow)
            && self.nodes[to].askers.insert(peer)
        {
            self.step(to, Event::AskerCame { peer, reachable: true });
        }
        let stalls = self.setup.faults.stalls.contains(&to);
        let blob = ID;
        let event = match message {
            Message::Manifest(_) | Message::Ask(..) if stalls => return,
            Message::Manifest(request) => {
                self.say(to, from, Message::ManifestIs(request));
                return;
            }
            Message::Ask(Request(request), chunk, failed) => {
                let ticket = Ticket { peer, request };
                Event::Asked { ticket, blob, chunk, failed }
            }
            Message::Cancel(Request(request)) => {
                Event::Withdrawn { ticket: Ticket { peer, request } }
            }
            Message::Follow => Event::Followed { peer, blob },
            Message::Unfollow => Event::Unfollowed { peer, blob },
            Message::ManifestIs(request) => {
                let bytes = u64::from(self.setup.chunks) * CHUNK;
                Event::ManifestCame { request, blob, bytes, present: self.present(to) }
            }
            Message::Chunk(request, chunk, right) => {
                self.nodes[to].received += CHUNK;
                if right {
                    self.nodes[to].has.insert(chunk);
                    Event::Stored { request, blob, chunk }
                } else {
                    Event::Wrong { request }
                }
            }
            Message::Redirect(request, holder) => Event::Redirected { request, to: holder },
            Message::Refused(request, why) => Event::Refused { request, why },
            Message::Have(chunks, others) => Event::Have { peer, blob, chunks, others },
        };
        self.step(to, event);
    }

    fn present(&self, node: usize) -> ChunkSet {
        self.nodes[node].has.iter().map(|chunk| ChunkRange::new(*chunk, chunk + 1)).collect()
    }

    /// One step of a node, its invariants, and what it does.
    fn step(&mut self, at: usize, event: Event) {
        if !self.nodes[at].alive {
            return;
        }
        let mut out = Vec::new();
        let now = Instant(self.now);
        let shown = event.clone();
        let node = &mut self.nodes[at];
        node.exchange.handle(now, event, &mut out);
        if let Err(violation) = node.exchange.check() {
            panic!("{violation}, at {at} after {shown:?}, seed {}", self.setup.seed);
        }
        for action in out {
            self.act(at, action);
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        let index = |peer: Peer| peer.0 as usize;
        match action {
            Action::AskManifest { peer, request, .. } => {
                self.say(at, index(peer), Message::Manifest(request));
            }
            Action::Ask { peer, request, chunk, failed, .. } => {
                assert!(!self.nodes[at].has.contains(&chunk), "asked for what is here");
                self.say(at, index(peer), Message::Ask(request, chunk, failed));
            }
            Action::Cancel { peer, request } => self.say(at, index(peer), Message::Cancel(request)),
            Action::Follow { peer, .. } => self.say(at, index(peer), Message::Follow),
            Action::Unfollow { peer, .. } => self.say(at, index(peer), Message::Unfollow),
            Action::GiveUp { .. } => {}
            Action::Report { peer, .. } => self.nodes[at].reports.push(index(peer)),
            Action::Finish { result, .. } => {
                self.nodes[at].results.push(result);
                self.over = self.now;
            }
            Action::Serve { ticket, chunk, .. } => self.serve(at, ticket, chunk),
            Action::Redirect { ticket, to } => {
                assert_ne!(ticket.peer, to, "sent to itself");
                let message = Message::Redirect(Request(ticket.request), to);
                self.say(at, index(ticket.peer), message);
            }
            Action::Refuse { ticket, why } => {
                let message = Message::Refused(Request(ticket.request), why);
                self.say(at, index(ticket.peer), message);
            }
            Action::LookUp { blob, peer } => {
                let event = Event::Present { peer, blob, chunks: self.present(at) };
                self.later(self.now + 20, Happening::Occurs { at, event });
            }
            Action::Tell { peer, chunks, others, .. } => {
                self.say(at, index(peer), Message::Have(chunks, others));
            }
        }
    }

    fn serve(&mut self, at: usize, ticket: Ticket, chunk: u32) {
        let to = ticket.peer.0 as usize;
        let found = self.nodes[at].has.contains(&chunk);
        if !found {
            let event = Event::Served { ticket, found };
            self.later(self.now + 20, Happening::Occurs { at, event });
            return;
        }
        let micros = |bytes: u64, per_s: u64| bytes * 1_000_000 / per_s;
        let latency = self.latency[&(at, to)];
        let node = &mut self.nodes[at];
        let start = self.now.max(node.up_free);
        node.up_free = start + micros(CHUNK, node.up_bytes_per_s);
        node.sent += CHUNK;
        let sent = node.up_free;
        let down = &mut self.nodes[to];
        let taken = micros(CHUNK, down.down_bytes_per_s);
        down.down_free = (down.down_free.max(start + latency) + taken).max(sent + latency);
        let arrives = down.down_free;
        self.later(sent, Happening::Occurs { at, event: Event::Served { ticket, found } });
        let right = !self.setup.faults.liars.contains(&at);
        let message = Message::Chunk(Request(ticket.request), chunk, right);
        self.later(arrives, Happening::Arrives { from: at, to, message });
        if at == 0 {
            let part = self.nodes[0].sent as f64 / (self.setup.chunks as f64 * CHUNK as f64);
            let dying = self.setup.faults.deaths.iter().filter(|(_, when)| *when <= part);
            let dying: Vec<usize> = dying.map(|(node, _)| *node).collect();
            self.setup.faults.deaths.retain(|(_, when)| *when > part);
            dying.into_iter().for_each(|node| self.later(self.now, Happening::Dies(node)));
        }
    }

    fn say(&mut self, from: usize, to: usize, message: Message) {
        if matches!(message, Message::Ask(..)) {
            let lost = self.random(1_000_000) as f64 / 1e6 < self.setup.faults.loss;
            if lost {
                self.lost += 1;
                return;
            }
        }
        let mut at = self.now + self.latency[&(from, to)];
        if !self.nodes[to].alive {
            at = self.now + NOTICE.as_micros() as u64;
            let event = Event::HolderGone { peer: Peer(to as u32) };
            self.later(at, Happening::Occurs { at: from, event });
            return;
        }
        self.later(at, Happening::Arrives { from, to, message });
    }

    fn later(&mut self, at: u64, happening: Happening) {
        self.queue.push(std::cmp::Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
        self.next += 1;
    }

    /// Below `below`; splitmix64.
    fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.setup.seed
    }

    pub(crate) fn results(&self, node: usize) -> &[Result<(), Unfetched>] {
        &self.nodes[node].results
    }

    pub(crate) fn chunks_at(&self, node: usize) -> u32 {
        self.nodes[node].has.len() as u32
    }

    pub(crate) fn sent(&self, node: usize) -> u64 {
        self.nodes[node].sent
    }

    pub(crate) fn received(&self, node: usize) -> u64 {
        self.nodes[node].received
    }

    pub(crate) fn reports(&self, node: usize) -> &[usize] {
        &self.nodes[node].reports
    }

    pub(crate) fn died(&self, node: usize) -> bool {
        !self.nodes[node].alive
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// When the last want ended.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.over)
    }
}
