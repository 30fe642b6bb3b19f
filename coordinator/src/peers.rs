//! Coordinator to coordinator over QUIC: three connections a peer, so that bulk never delays a
//! heartbeat, and on each as many links as there are calls in flight, one call a link at a time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use allhands_common::bulk::{Bulk, Carries};
use allhands_common::chain::chain;
use allhands_common::frame::{Kind, Message};
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::handshake::open_link;
use allhands_common::net::link::Link;
use allhands_common::program::ProgramId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::links::BUILD;
use crate::programs;
use crate::raft::message::{PeerReply, PeerRequest};
use crate::raft::node::Node;
use crate::raft::transport::{Lane, PeerError, PeerTransport};
use crate::raft::types::NodeId;
use crate::silence::Silence;

/// Longest wait for a connection to another coordinator.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// How long a chunk of a program may take.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(5);

/// What one coordinator asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerFrame {
    /// About the log.
    Log { request: PeerRequest, bulk: Bulk },
    /// A chunk of a program, from `offset` on.
    Program { program: ProgramId, offset: u64 },
}

/// The reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerFrameBack {
    Log(PeerReply),
    /// The chunk, empty behind the end; or the program is not here.
    Program(Option<Bulk>),
}

impl Message for PeerFrame {
    const KIND: Kind = Kind::PeerRequest;
}

impl Message for PeerFrameBack {
    const KIND: Kind = Kind::PeerReply;
}

impl Carries for PeerFrame {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Log { bulk, .. } => visit(bulk),
            Self::Program { .. } => {}
        }
    }
}

impl Carries for PeerFrameBack {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Program(Some(chunk)) => visit(chunk),
            Self::Program(None) | Self::Log(_) => {}
        }
    }
}

type PeerLink = Link<PeerFrame, PeerFrameBack>;

/// The name in a coordinator's certificate.
pub(crate) fn name_of(node: NodeId) -> String {
    format!("coordinator-{node}")
}

/// The links to the other coordinators.
#[derive(Debug)]
pub(crate) struct QuicPeers {
    endpoint: Endpoint,
    addresses: BTreeMap<NodeId, SocketAddr>,
    lanes: Mutex<BTreeMap<(NodeId, Lane), Way>>,
    /// Who does not answer: openraft asks ten times a second, and is not asked to log it.
    silence: Mutex<Silence>,
}

/// A connection of one lane, and its links that no call uses.
#[derive(Debug)]
struct Way {
    connection: Connection,
    idle: Vec<PeerLink>,
}

impl QuicPeers {
    pub(crate) fn new(endpoint: Endpoint, addresses: BTreeMap<NodeId, SocketAddr>) -> Self {
        Self { endpoint, addresses, lanes: Mutex::default(), silence: Mutex::default() }
    }

    /// Logs who does not answer, from time to time, and who does again.
    fn note(&self, node: NodeId, lane: Lane, answered: Result<(), &PeerError>) {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match answered {
            Ok(()) => {
                if silence.answered(node, lane, now) {
                    tracing::info!(coordinator = node, "answers again");
                }
            }
            Err(error) => {
                if silence.failed(node, lane, now) {
                    tracing::warn!(coordinator = node, cause = chain(error), "does not answer");
                }
            }
        }
    }

    /// A link that no call uses, old or new, and the connection that it is on.
    async fn link(&self, node: NodeId, lane: Lane) -> Result<(PeerLink, Connection), PeerError> {
        let unreachable = |cause: String| PeerError::Unreachable { node, cause };
        let known = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.get(&(node, lane)).is_some_and(|way| way.connection.close_cause().is_some()) {
                lanes.remove(&(node, lane));
            }
            lanes.get_mut(&(node, lane)).map(|way| (way.connection.clone(), way.idle.pop()))
        };
        let connection = match known {
            Some((connection, Some(link))) => return Ok((link, connection)),
            Some((connection, None)) => connection,
            None => {
                let address = self.addresses.get(&node).copied();
                let address = address.ok_or_else(|| unreachable("no address is known".into()))?;
                let name = name_of(node);
                let expected = Expected { role: Role::Coordinator, name: Some(&name) };
                let connecting = self.endpoint.connect(address, expected, CONNECT_DEADLINE);
                let connection = connecting.await.map_err(|error| unreachable(chain(&error)))?;
                let way = Way { connection: connection.clone(), idle: Vec::new() };
                let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                lanes.insert((node, lane), way);
                connection
            }
        };
        let (link, _) = open_link(&connection, Purpose::Peer, BUILD)
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        Ok((link, connection))
    }

    fn give_back(&self, node: NodeId, lane: Lane, link: PeerLink) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = lanes.get_mut(&(node, lane)) {
            way.idle.push(link);
        }
    }
}

impl QuicPeers {
    /// A chunk of a program, from `offset` on: empty behind its end; `None` if `node` does not have it.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn program(
        &self,
        node: NodeId,
        program: ProgramId,
        offset: u64,
    ) -> Result<Option<Bytes>, PeerError> {
        let frame = PeerFrame::Program { program, offset };
        match self.exchange(node, Lane::Snapshot, frame, PROGRAM_DEADLINE).await? {
            PeerFrameBack::Program(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            PeerFrameBack::Log(_) => Err(unlike(node)),
        }
    }

    /// Says something and waits for the reply.
    async fn exchange(
        &self,
        node: NodeId,
        lane: Lane,
        frame: PeerFrame,
        ttl: Duration,
    ) -> Result<PeerFrameBack, PeerError> {
        let no_answer = |cause: String| PeerError::NoAnswer { node, cause };
        let exchange = async {
            let (link, _connection) = self.link(node, lane).await?;
            let (mut sender, mut receiver) = link.split();
            let said = async {
                sender.say(frame).await?;
                sender.flush().await?;
                receiver.hear().await
            };
            match said.await {
                Ok(Some(reply)) => {
                    self.give_back(node, lane, Link::join(sender, receiver));
                    Ok(reply)
                }
                Ok(None) => Err(no_answer("it ended the link".into())),
                Err(error) => Err(no_answer(chain(&error))),
            }
        };
        // A call that is given up takes its link along: no later call can read its reply.
        let answered = match tokio::time::timeout(ttl, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(no_answer(format!("nothing within {} ms", ttl.as_millis()))),
        };
        self.note(node, lane, answered.as_ref().map(|_| ()));
        answered
    }
}

fn unlike(node: NodeId) -> PeerError {
    PeerError::NoAnswer { node, cause: "it answers another question".into() }
}

impl PeerTransport for QuicPeers {
    async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        request: PeerRequest,
        bulk: Bytes,
        ttl: Duration,
    ) -> Result<PeerReply, PeerError> {
        let frame = PeerFrame::Log { request, bulk: bulk.into() };
        match self.exchange(node, lane, frame, ttl).await? {
            PeerFrameBack::Log(reply) => Ok(reply),
            PeerFrameBack::Program(_) => Err(unlike(node)),
        }
    }
}

/// What the calls of other coordinators are answered with.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) node: Node,
    /// The directory of its programs.
    pub(crate) programs: Arc<Path>,
}

impl Desk {
    /// Answers the calls of coordinator `peer` until its link ends.
    pub(crate) async fn answer(&self, link: Link<PeerFrameBack, PeerFrame>, peer: &str) {
        let (mut sender, mut receiver) = link.split();
        while let Ok(Some(frame)) = receiver.hear().await {
            let reply = match frame {
                PeerFrame::Log { request, .. } if name_of(request.from) != peer => {
                    tracing::warn!(
                        peer,
                        claims = request.from,
                        "a coordinator speaks for another one"
                    );
                    return;
                }
                PeerFrame::Log { request, bulk } => {
                    PeerFrameBack::Log(self.node.serve(request, bulk.bytes).await)
                }
                PeerFrame::Program { program, offset } => {
                    let dir = Arc::clone(&self.programs);
                    let read = spawn_blocking(move || programs::serve(&dir, program, offset));
                    // Whoever asks asks another one if this fails.
                    PeerFrameBack::Program(read.await.ok().flatten().map(Bulk::from))
                }
            };
            if sender.say(reply).await.is_err() || sender.flush().await.is_err() {
                return;
            }
        }
    }
}
