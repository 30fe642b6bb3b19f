//! The thread of a session, and what it begins with: links to dial, or a cluster to start beside it.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use allhands_common::id::{ClusterId, SessionId};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::local;
use allhands_common::net::place::Place;
pub(crate) use allhands_common::net::random::bytes as random_id;
#[cfg(test)]
use allhands_common::wire::client::{FromClient, ToClient};
use tokio::sync::mpsc::unbounded_channel;

use super::core::{BATCHES_MAX, Config, Peer, Purpose};
use super::data::Giving;
use super::program::{Executable, program_name};
use super::{Beginning, Session, link, run};
use crate::cluster::EmbeddedConfig;
use crate::data::Data;
use crate::error::{Error, chain};

/// How long the last handle waits for the thread to say goodbye and end its executors.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where the coordinators are.
#[derive(Debug)]
pub(crate) enum Source {
    /// At these addresses, for the holder of this identity.
    Remote { identity: Identity, places: Vec<Place>, stay: Stay },
    /// In this process.
    Embedded(EmbeddedConfig),
}

/// What a session is there for.
#[derive(Debug)]
pub(crate) struct Stay {
    /// What its job is called: after the program, if nobody says.
    pub(crate) name: Option<String>,
    pub(crate) purpose: Purpose,
}

impl Stay {
    /// A job of its own.
    pub(crate) const ATTACHED: Self = Self { name: None, purpose: Purpose::Attached };
}

/// A session whose thread runs; dropping it ends both.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) session: Arc<Session>,
    /// What it keeps for tasks to map.
    pub(crate) data: Data,
    /// Closed when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// Starts a session on a thread of its own.
///
/// # Errors
/// What it begins with cannot be had. That coordinators do not answer is not one: see
/// [`Session::wait_attached`].
pub(crate) fn start(source: Source, patience: Duration) -> Result<Running, Error> {
    let session = Arc::new(Session::default());
    let (begun, begins) = mpsc::sync_channel(1);
    let (alive, ended) = mpsc::sync_channel(1);
    let own = Arc::clone(&session);
    std::thread::Builder::new()
        .name("allhands-session".into())
        .spawn(move || {
            live(own, source, patience, begun);
            drop(alive);
        })
        .map_err(Error::thread)?;
    match begins.recv() {
        Ok(begun) => begun.map(|data| Running { session, data, ended: Mutex::new(ended) }),
        Err(mpsc::RecvError) => Err(Error::thread(std::io::Error::other("it panicked"))),
    }
}

impl Running {
    /// Ends it, however many handles there are, and waits for that; not for ever.
    pub(crate) fn end(&self) {
        self.session.close();
        // Closed or too late: in neither case is there anything left to do.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        _ = ended.recv_timeout(GOODBYE);
        drop(ended);
        self.data.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn live(
    session: Arc<Session>,
    source: Source,
    patience: Duration,
    begun: mpsc::SyncSender<Result<Data, Error>>,
) {
    let tell = begun.clone();
    let lived = local::run(async move {
        match source {
            Source::Remote { identity, places, stay } => {
                remote(session, identity, (places, stay), patience, &begun).await;
            }
            Source::Embedded(config) => embedded(session, config, patience, &begun).await,
        }
    });
    if let Err(error) = lived {
        // Too late for one that has begun: nobody listens any more.
        _ = tell.try_send(Err(Error::thread(error)));
    }
}

async fn remote(
    session: Arc<Session>,
    identity: Identity,
    (places, stay): (Vec<Place>, Stay),
    patience: Duration,
    begun: &mpsc::SyncSender<Result<Data, Error>>,
) {
    let prepared =
        config(identity.own().cluster, stay, patience, Executable::hashed()).and_then(|prepared| {
            let giving = Giving::new(Arc::clone(&session), identity.clone(), places.clone());
            let data = Data::Elsewhere(Arc::new(giving));
            let bound = Endpoint::bind_to_dial(identity, &places);
            Ok((prepared, data, bound.map_err(|error| Error::socket(chain(&error)))?))
        });
    let ((config, executable), data, endpoint) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            _ = begun.send(Err(error));
            return;
        }
    };
    session.purpose.get_or_init(|| config.purpose);
    let (events, links) = unbounded_channel();
    let peers = places.len();
    let keepers: Vec<_> = places
        .into_iter()
        .enumerate()
        .map(|(number, place)| {
            let keeper = link::keep(Peer(number), endpoint.clone(), place, events.clone());
            tokio::task::spawn_local(keeper)
        })
        .collect();
    drop(events);
    session.begin_submits(config.cluster, config.session);
    _ = begun.send(Ok(data.clone()));
    run(session, Beginning { config, executable, data, peers, links }).await;
    // The session is gone; what its links still had to say is sent, then they end.
    for keeper in keepers {
        _ = tokio::time::timeout(Duration::from_millis(500), keeper).await;
    }
    _ = tokio::time::timeout(Duration::from_millis(500), endpoint.close("the client is done"))
        .await;
}

#[cfg(feature = "embedded")]
async fn embedded(
    session: Arc<Session>,
    embedded: EmbeddedConfig,
    patience: Duration,
    begun: &mpsc::SyncSender<Result<Data, Error>>,
) {
    let prepared = config(embedded.cluster, Stay::ATTACHED, patience, Executable::named())
        .and_then(|prepared| Ok((prepared, crate::embedded::start(embedded)?)));
    let ((config, executable), (cluster, client, why)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            _ = begun.send(Err(error));
            return;
        }
    };
    let data = Data::Embedded(config.cluster, cluster.blobs());
    session.begin_submits(config.cluster, config.session);
    _ = begun.send(Ok(data.clone()));
    beside(session, (config, executable, data), client, why).await;
    cluster.end().await;
}

/// Speaks with a coordinator on this thread, which says why before it ends of itself.
#[cfg(any(feature = "embedded", test))]
async fn beside(
    session: Arc<Session>,
    (config, executable, data): (Config, Executable, Data),
    client: link::ClientLink,
    why: std::rc::Rc<std::cell::OnceCell<String>>,
) {
    let (events, links) = unbounded_channel();
    let served = tokio::task::spawn_local(async move {
        if let Some(link_ended) = link::serve(Peer(0), client, &events).await {
            let cause = why.get().cloned().unwrap_or(link_ended);
            _ = events.send(link::LinkEvent::Lost { cause });
        }
    });
    run(session, Beginning { config, executable, data, peers: 1, links }).await;
    _ = tokio::time::timeout(Duration::from_millis(500), served).await;
}

/// A session beside a coordinator that a test plays.
#[cfg(test)]
pub(crate) fn start_beside<F: Future<Output = ()> + 'static>(
    coordinator: impl FnOnce(allhands_common::net::link::Link<ToClient, FromClient>) -> F
    + Send
    + 'static,
) -> Running {
    use allhands_common::net::link::Link;

    let session = Arc::new(Session::default());
    let (alive, ended) = mpsc::sync_channel(1);
    let own = Arc::clone(&session);
    // Handles find their cluster by its id: no two tests have the same.
    let cluster = ClusterId(random_id().unwrap());
    std::thread::spawn(move || {
        local::run(async move {
            let (client, theirs) = Link::pair(64);
            tokio::task::spawn_local(coordinator(theirs));
            let patience = Duration::from_secs(30);
            let executable = Executable::hashed();
            let (config, executable) =
                config(cluster, Stay::ATTACHED, patience, executable).unwrap();
            beside(own, (config, executable, Data::Nowhere(cluster)), client, Default::default())
                .await;
        })
        .unwrap();
        drop(alive);
    });
    Running { session, data: Data::Nowhere(cluster), ended: Mutex::new(ended) }
}

#[cfg(not(feature = "embedded"))]
async fn embedded(
    _session: Arc<Session>,
    _embedded: EmbeddedConfig,
    _patience: Duration,
    begun: &mpsc::SyncSender<Result<Data, Error>>,
) {
    _ = begun.send(Err(Error::no_embedded()));
}

pub(super) fn config(
    cluster: ClusterId,
    stay: Stay,
    patience: Duration,
    executable: std::io::Result<Executable>,
) -> Result<(Config, Executable), Error> {
    let executable = executable.map_err(Error::executable)?;
    let session = SessionId(random_id().map_err(Error::thread)?);
    let program = executable.program.clone();
    let Stay { name, purpose } = stay;
    let (name, batches_max) = (name.unwrap_or_else(program_name), BATCHES_MAX);
    let config = Config { cluster, session, program, name, purpose, patience, batches_max };
    Ok((config, executable))
}
