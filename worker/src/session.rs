//! Links to the coordinators, and which of them leads.
//!
//! A worker keeps one link to *every* coordinator, so that news of a leader comes at once over
//! whichever still stands: waiting until a dead one's connection times out would take longer than
//! the cluster may stand still. It registers with the leader of the highest term alone.

mod follow;
mod link;

use std::collections::BTreeMap;
use std::time::Duration;

use allhands_common::chain::chain;
use allhands_common::net::dial::Event;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::link::Link;
use allhands_common::net::place::Place;
use allhands_common::wire::worker::{FromWorker, ToWorker};
use allhands_scheduler::AgentEvent;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use follow::{Follow, Turn};
use link::LinkEvent;

/// News from links that may wait for the worker's loop; beyond it the links wait.
const NEWS_MAX: usize = 256;

/// How long links may take to end in order.
const END_MAX: Duration = Duration::from_secs(1);

/// The worker's end of a link.
pub type WorkerLink = Link<FromWorker, ToWorker>;

/// Where the coordinators are.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a worker has one, and moves it once")]
pub enum Coordinators {
    /// Out there.
    Remote {
        /// Who we are.
        endpoint: Endpoint,
        /// All of them.
        places: Vec<Place>,
    },
    /// In this process: a cluster of one.
    Embedded(WorkerLink),
}

/// One of the links, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer(pub(crate) usize);

/// All links.
#[derive(Debug)]
pub(crate) struct Session {
    follow: Follow,
    /// What is put in is sent. Unbounded, but what a worker says is bounded by what the leader has
    /// given it: heartbeats, and one report for each outcome that it still keeps.
    outs: BTreeMap<Peer, UnboundedSender<FromWorker>>,
    events: mpsc::Receiver<LinkEvent>,
    /// How many links there are.
    peers: usize,
    /// Coordinators that do not take this worker, and will not if they are asked again: why.
    refusals: BTreeMap<Peer, String>,
    /// The links' tasks, which are aborted with this.
    tasks: JoinSet<()>,
}

/// What the session tells the worker's loop.
#[derive(Debug)]
pub(crate) enum News {
    /// There is a leader to register with, or not any more.
    Turn(Turn),
    /// The leader said this.
    Said(ToWorker),
    /// No coordinator takes this worker, for these reasons, and to go on trying cannot help.
    Refused(Vec<String>),
}

impl Session {
    /// Starts the links.
    pub(crate) fn start(coordinators: Coordinators) -> Self {
        let (news, events) = mpsc::channel(NEWS_MAX);
        let mut tasks = JoinSet::new();
        match coordinators {
            Coordinators::Embedded(own) => {
                tasks.spawn(link::serve(Peer(0), own, news));
            }
            Coordinators::Remote { endpoint, places } => {
                for (number, place) in places.into_iter().enumerate() {
                    tasks.spawn(link::keep(Peer(number), endpoint.clone(), place, news.clone()));
                }
            }
        }
        Self {
            follow: Follow::default(),
            outs: BTreeMap::new(),
            events,
            peers: tasks.len(),
            refusals: BTreeMap::new(),
            tasks,
        }
    }

    /// What happens next; `None` once all links have ended for good. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            let event = self.events.recv().await?;
            if let Some(news) = self.hear(event) {
                return Some(news);
            }
        }
    }

    /// What has happened already, if anything has.
    pub(crate) fn try_next(&mut self) -> Option<News> {
        loop {
            let event = self.events.try_recv().ok()?;
            if let Some(news) = self.hear(event) {
                return Some(news);
            }
        }
    }

    /// Says `message` to the leader. Without one it is lost: everything of weight is said again to
    /// the next, in its registration or after it.
    pub(crate) fn send(&self, message: FromWorker) {
        let out = self.follow.current().and_then(|peer| self.outs.get(&peer));
        if out.is_some_and(|out| out.send(message).is_err()) {
            tracing::debug!("the link to the leader is ending");
        }
    }

    /// Whether there is a leader to talk to.
    pub(crate) fn has_leader(&self) -> bool {
        self.follow.current().is_some()
    }

    /// Ends the links in order: what was said still arrives, where somebody reads it.
    pub(crate) async fn end(self) {
        let Self { outs, events, mut tasks, .. } = self;
        drop((outs, events));
        _ = timeout(END_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    }

    fn hear(&mut self, (peer, event): LinkEvent) -> Option<News> {
        let turn = match event {
            Event::Up { coordinator, out } => {
                self.refusals.remove(&peer);
                self.outs.insert(peer, out);
                self.follow.up(peer, coordinator)
            }
            Event::Down(down) => {
                self.outs.remove(&peer);
                if down.retry_can_help() {
                    self.refusals.remove(&peer);
                } else {
                    self.refusals.insert(peer, chain(&down));
                }
                if self.refusals.len() == self.peers {
                    return Some(News::Refused(self.refusals.values().cloned().collect()));
                }
                self.follow.down(peer)
            }
            Event::Said(ToWorker::Leader { term, leader }) => self.follow.leader(term, leader),
            Event::Said(message) => {
                return (self.follow.current() == Some(peer)).then_some(News::Said(message));
            }
        };
        turn.map(News::Turn)
    }
}

impl From<Turn> for AgentEvent {
    fn from(turn: Turn) -> Self {
        match turn {
            Turn::Connected(term) => Self::Connected { term },
            Turn::Disconnected => Self::Disconnected,
        }
    }
}
