//! Giving chunks to workers, and [getting](super::fetching) long results from them: a bulk endpoint that dials
//! them, and a thread for it, so that calls never wait for bulk. Both start with the first blob that is offered,
//! or named as a result.
//!
//! Nobody dials a client. A worker that wants one of its blobs is told by the leader that this client has it,
//! this client is told who wants it ([`ToClient::Wanted`](allhands_common::wire::client::ToClient::Wanted)),
//! dials, and is asked on its own connection. One connection a worker, and one more to fetch from it if it was
//! not dialled before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::Duration;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::id::ClusterId;
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{ConnectError, Endpoint, Expected};
use allhands_common::net::identity::Identity;
use allhands_common::net::local;
use allhands_common::net::place::Place;
use allhands_common::wire::data::{ADDRESSES_MAX, Holder};
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Options, Transfer};
use allhands_transfer::store::Hold;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Session;
use super::fetching::{CannotLoad, Fetching, Word};
use super::holdings::Holdings;
use crate::error::{Error, ErrorKind};
use crate::notice::notice;
use crate::shared::whole;

/// How long one address of a worker may take to answer; a live one takes a few milliseconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Workers that are being dialled at a time.
const DIALS_MAX: usize = 64;

/// Workers that wait to be dialled; one beyond it asks again.
const WANTED_MAX: usize = 1024;

/// How long the thread may take to take its leave.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a session gives to workers: nothing, until something is offered.
#[derive(Debug)]
pub(crate) struct Giving {
    session: Arc<Session>,
    /// Who it is and where its cluster is, for a second socket.
    identity: Identity,
    places: Vec<Place>,
    started: Mutex<Option<(Holdings, Node)>>,
}

/// The thread that gives chunks; it ends with this.
#[derive(Debug)]
struct Node {
    stop: Option<oneshot::Sender<()>>,
    ended: blocking::Receiver<()>,
}

impl Giving {
    pub(super) fn new(session: Arc<Session>, identity: Identity, places: Vec<Place>) -> Self {
        whole::let_leave();
        Self { session, identity, places, started: Mutex::new(None) }
    }

    /// Who it is and where its cluster is.
    pub(crate) fn place(&self) -> (Identity, Vec<Place>) {
        (self.identity.clone(), self.places.clone())
    }

    /// Whose cluster it is.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.identity.own().cluster
    }

    /// What this process holds for the cluster, to which it gives it from now on.
    ///
    /// # Errors
    /// There is no directory, socket or thread for it, or the session has ended.
    pub(crate) fn holdings(&self) -> Result<Holdings, Error> {
        if self.session.has_ended() {
            return Err(Error::new(ErrorKind::Closed));
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((holdings, _)) = &*started {
            return Ok(holdings.clone());
        }
        let opened = Holdings::open(self.cluster(), Arc::clone(&self.session));
        let holdings = opened.map_err(|error| Error::giving(chain(&error)))?;
        let node = Node::start(self, holdings.clone())?;
        Ok(started.insert((holdings, node)).0.clone())
    }

    /// Fetches a result; the session's loop is told when it is here, or cannot be had.
    ///
    /// # Errors
    /// As [`holdings`](Self::holdings).
    pub(super) fn fetch(&self, result: BlobRef) -> Result<(), Error> {
        self.holdings()?;
        match self.session.order(Word::Fetch(result)) {
            true => Ok(()),
            false => Err(Error::giving("its thread has ended".into())),
        }
    }

    /// Waits until the bytes `range` of what a task has left are in the store of this process. They stay there as long
    /// as what is returned, and after that for whoever [receives](Holdings::receive) them while there is room.
    ///
    /// # Errors
    /// Nobody has them, or they cannot be had now.
    pub(crate) fn load(&self, result: BlobRef, range: Range<u64>) -> Result<Hold, CannotLoad> {
        let ended = || CannotLoad::Now("the session has ended".into());
        self.holdings().map_err(|error| CannotLoad::Now(chain(&error)))?;
        let (tell, told) = blocking::sync_channel(1);
        if !self.session.order(Word::Load { result, range, tell }) {
            return Err(ended());
        }
        told.recv().unwrap_or_else(|blocking::RecvError| Err(ended()))
    }

    /// Whose it is.
    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Gives no more.
    pub(crate) fn end(&self) {
        drop(self.started.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Node {
    fn start(giving: &Giving, holdings: Holdings) -> Result<Self, Error> {
        let (wanted, wants) = mpsc::channel(WANTED_MAX);
        // Bounded by what the session has on its way: `deliveries::FETCHES_MAX` fetches, and what is said of them.
        let (orders, words) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (begun, begins) = blocking::sync_channel(1);
        let (alive, ended) = blocking::sync_channel(1);
        let (identity, places) = (giving.identity.clone(), giving.places.clone());
        let session = Arc::clone(&giving.session);
        std::thread::Builder::new()
            .name("allhands-data".into())
            .spawn(move || {
                let lived = local::run(async move {
                    match Endpoint::bind_bulk_to_dial(identity, &places) {
                        Ok(endpoint) => {
                            _ = begun.send(Ok(()));
                            live(endpoint, (holdings, session), (wants, words), stopped).await;
                        }
                        Err(error) => _ = begun.send(Err(Error::giving(chain(&error)))),
                    }
                });
                if let Err(error) = lived {
                    tracing::error!(%error, "the thread that gives data to workers has ended");
                }
                drop(alive);
            })
            .map_err(|error| Error::giving(error.to_string()))?;
        match begins.recv() {
            Ok(begun) => begun?,
            Err(blocking::RecvError) => {
                return Err(Error::giving("its thread does not start".into()));
            }
        }
        giving.session.tell_wanted(wanted);
        giving.session.tell_fetching(orders);
        Ok(Self { stop: Some(stop), ended })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Closed or too late: in neither case is there anything left to do.
        _ = self.ended.recv_timeout(GOODBYE);
    }
}

/// Serves until it is stopped.
async fn live(
    endpoint: Endpoint,
    (holdings, session): (Holdings, Arc<Session>),
    (mut wants, mut words): (mpsc::Receiver<(BlobId, Holder)>, mpsc::UnboundedReceiver<Word>),
    mut stopped: oneshot::Receiver<()>,
) {
    let options = Options { addresses: Vec::new(), config: Config::default() };
    // What the reports say, the log says too.
    let store = Arc::new(holdings.clone());
    let (transfer, _) = Transfer::start(endpoint.clone(), store, options);
    let mut fetching = Fetching::new(transfer.clone(), holdings, session);
    let mut dials = Dials::default();
    loop {
        tokio::select! {
            wanted = wants.recv(), if dials.running.len() < DIALS_MAX => match wanted {
                Some((blob, by)) => dials.dial(&endpoint, blob, by),
                None => break,
            },
            Some(Ok((worker, dialled))) = dials.running.join_next() => {
                if let Some(connection) = dials.ended(&worker, dialled) {
                    transfer.adopt(connection).await;
                }
            }
            Some(word) = words.recv() => fetching.take(word),
            () = fetching.next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(fetching);
    drop(transfer);
    _ = tokio::time::timeout(GOODBYE / 2, endpoint.close("the client is done")).await;
}

/// Why a worker cannot be reached: by address.
type Causes = Vec<String>;

/// Connections to workers.
#[derive(Debug, Default)]
struct Dials {
    standing: BTreeMap<String, Connection>,
    dialled: BTreeSet<String>,
    running: JoinSet<(String, Result<Connection, Causes>)>,
    /// Workers of which the user was told that they cannot be reached.
    complained: BTreeSet<String>,
}

impl Dials {
    fn dial(&mut self, endpoint: &Endpoint, blob: BlobId, by: Holder) {
        let Holder { node, mut addresses } = by;
        let worker = node.name;
        self.standing.retain(|_, connection| connection.close_cause().is_none());
        if self.standing.contains_key(&worker) || !self.dialled.insert(worker.clone()) {
            return;
        }
        tracing::debug!(worker, %blob, "is dialled");
        addresses.truncate(ADDRESSES_MAX);
        let endpoint = endpoint.clone();
        self.running.spawn(async move {
            let mut causes = Causes::new();
            if addresses.is_empty() {
                causes.push(chain(&ConnectError::Nowhere));
            }
            let expected = Expected { role: node.role, name: Some(&worker) };
            for address in addresses {
                match endpoint.connect(address, expected, CONNECT_DEADLINE).await {
                    Ok(connection) => return (worker, Ok(connection)),
                    Err(error) => causes.push(chain(&error)),
                }
            }
            (worker, Err(causes))
        });
    }

    fn ended(&mut self, worker: &str, dialled: Result<Connection, Causes>) -> Option<Connection> {
        self.dialled.remove(worker);
        match dialled {
            Ok(connection) => {
                self.complained.remove(worker);
                self.standing.insert(worker.to_owned(), connection.clone());
                Some(connection)
            }
            Err(causes) => {
                let causes = causes.join("; ");
                tracing::warn!(worker, causes, "a worker that wants data cannot be reached");
                if self.complained.insert(worker.to_owned()) {
                    notice(format_args!(
                        "worker {worker} wants data of this program and cannot be reached from here \
                         ({causes}): tasks there fail that need it. Let this machine send UDP to the \
                         worker's --data-listen, or give the worker a --data-address that it can reach"
                    ));
                }
                None
            }
        }
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests;
