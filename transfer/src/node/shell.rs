//! The loop: it takes in what has happened, lets the exchange decide, and does what that says.

mod act;
mod expected;
mod hear;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use allhands_common::blob::BlobId;
use allhands_common::chain::chain;
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::time;
use allhands_common::wire::data::{Ask, Holder};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::expected::Expected;
use super::asking::{Heard, Unasked};
use super::error::FetchError;
use super::jobs::{Kept, Opened, Store};
use super::peers::Peers;
use super::pending::Requests;
use super::repair::Repairs;
use super::serving::{self, Outgoing};
use super::traffic::Counter;
use super::{Fetch, Fetched, Numbers, Options, Report};
use crate::exchange::{Action, Event, Exchange, Peer, Request, Ticket, Want};
use crate::store::{Found, StoreError};

type Outcome = Result<Fetched, FetchError>;

/// A want that has just come.
#[derive(Debug)]
pub(super) struct NewWant {
    pub(super) want: Want,
    pub(super) fetch: Fetch,
    pub(super) known: Option<Opened>,
    /// Of a chunk that was here and is damaged.
    pub(super) repair: bool,
    pub(super) done: oneshot::Sender<Outcome>,
}

/// What the loop takes in.
#[derive(Debug)]
pub(super) enum Input {
    Want(Box<NewWant>),
    Unwant(Want),
    Holders { blob: BlobId, holders: Vec<(Holder, bool)> },
    Connected(Connection),
    Disconnected(Peer),

    Answered { peer: Peer, link: u64, answer: Heard },
    AskingEnded { peer: Peer, link: u64, why: Unasked },
    ChunkKept { request: Request, blob: BlobId, chunk: u32, kept: Kept<()> },
    ManifestKept { request: Request, blob: BlobId, kept: Kept<Opened> },

    Asked { peer: Peer, ask: Ask, answers: mpsc::Sender<Outgoing> },
    AskerEnded { peer: Peer, answers: mpsc::Sender<Outgoing> },
    ChunkRead { ticket: Ticket, blob: BlobId, chunk: u32, found: Found },
    ManifestRead { ticket: Ticket, first: u32, page: Option<(u64, Bytes)> },
    Repaired { blob: BlobId, chunk: u32 },
    Happened(Event),
}

/// A link to ask on.
#[derive(Debug)]
struct Asking {
    link: u64,
    asks: mpsc::Sender<Ask>,
    task: AbortHandle,
}

/// A blob that somebody here waits for.
#[derive(Debug, Default)]
struct Awaited {
    /// What it consists of, kept in the store until nobody waits any more.
    fetched: Option<Fetched>,
    waiters: BTreeMap<Want, Waiter>,
    /// Who says that it is how long, other than those who wait.
    lengths: BTreeMap<Peer, u64>,
    /// Why the store cannot keep it.
    failure: Option<Arc<StoreError>>,
    /// Clients that were named as holders, who may come yet.
    expected: Expected,
}

/// Somebody who waits for a blob.
#[derive(Debug)]
struct Waiter {
    /// How long the blob is, as its handle says.
    length: u64,
    bytes: Option<Range<u64>>,
    done: oneshot::Sender<Outcome>,
}

impl Awaited {
    /// What has to be in the store: all that anybody wants, and maybe what lies between.
    fn hull(&self) -> Option<Range<u64>> {
        let mut hull: Option<Range<u64>> = None;
        for waiter in self.waiters.values() {
            let bytes = waiter.bytes.clone()?;
            let so_far = hull.unwrap_or_else(|| bytes.clone());
            hull = Some(so_far.start.min(bytes.start)..so_far.end.max(bytes.end));
        }
        hull
    }
}

#[derive(Debug)]
pub(super) struct Shell {
    endpoint: Endpoint,
    store: super::Shared,
    options: Options,
    inputs: mpsc::Sender<Input>,
    reports: mpsc::Sender<Report>,
    start: Instant,
    exchange: Exchange,
    peers: Peers,
    requests: Requests,
    blobs: BTreeMap<BlobId, Awaited>,
    asking: BTreeMap<Peer, Asking>,
    askers: BTreeMap<Peer, mpsc::Sender<Outgoing>>,
    links: u64,
    repairs: Repairs,
    numbers: Numbers,
    counter: Counter,
    /// Manifests that are being read for others.
    manifests_read: usize,
    tasks: JoinSet<()>,
    /// What the exchange wants done, and what it has to be told; both empty between steps.
    out: Vec<Action>,
}

impl Shell {
    pub(super) fn new(
        (endpoint, store, options): (Endpoint, Store, Options),
        (inputs, reports): (mpsc::Sender<Input>, mpsc::Sender<Report>),
        (numbers, counter): (Numbers, Counter),
    ) -> Self {
        Self {
            exchange: Exchange::new(options.config.clone()),
            endpoint,
            store: super::Shared(store),
            options,
            inputs,
            reports,
            start: Instant::now(),
            peers: Peers::default(),
            requests: Requests::default(),
            blobs: BTreeMap::new(),
            asking: BTreeMap::new(),
            askers: BTreeMap::new(),
            links: 0,
            repairs: Repairs::default(),
            numbers,
            counter,
            manifests_read: 0,
            tasks: JoinSet::new(),
            out: Vec::new(),
        }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Input>, stop: CancellationToken) {
        // Whoever cannot be dialled is not.
        if !self.options.addresses.is_empty() {
            self.tasks.spawn(serving::accept(self.endpoint.clone(), self.inputs.clone()));
        }
        loop {
            let due = self.exchange.next_deadline();
            let due = due.map(|due| self.start + due.since(time::Instant(0)));
            tokio::select! {
                input = queue.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => {
                    self.tell(Event::Tick);
                }
                () = stop.cancelled() => break,
            }
            while let Some(ended) = self.tasks.try_join_next() {
                if let Err(error) = ended
                    && !error.is_cancelled()
                {
                    tracing::error!(%error, "a transfer task ended in an unexpected way");
                }
            }
        }
        self.endpoint.close("the node no longer transfers").await;
    }

    fn now(&self) -> time::Instant {
        time::Instant(0) + self.start.elapsed()
    }

    /// Tells the exchange, and does what it says.
    fn tell(&mut self, event: Event) {
        let now = self.now();
        self.exchange.handle(now, event, &mut self.out);
        // What cannot be done is told in turn, and the exchange decides again, after what it decided first.
        let mut failed = Vec::new();
        for action in core::mem::take(&mut self.out) {
            self.act(action, &mut failed);
        }
        for event in failed {
            self.tell(event);
        }
    }

    fn asking_ended(&mut self, peer: Peer, link: u64, why: &Unasked) {
        if self.asking.get(&peer).is_some_and(|asking| asking.link == link) {
            let node = self.peers.node(peer).map(ToString::to_string).unwrap_or_default();
            tracing::debug!(node, why = chain(why), "a holder cannot be asked");
            self.asking.remove(&peer);
            self.requests.gone(peer);
            self.tell(Event::HolderGone { peer });
        }
    }
}
