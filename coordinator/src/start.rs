//! Puts a coordinator together, of a cluster or of one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use allhands_common::id::CoordinatorId;
use allhands_common::net::endpoint::{BindError, Endpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::links::Entrance;
use crate::peers::{Desk, QuicPeers, name_of};
use crate::programs::{Others, Programs};
use crate::raft::config::{Compaction, Config as RaftConfig, Durability};
use crate::raft::core::CORE_REQUESTS_MAX;
use crate::raft::error::{MembershipError, StartError, StoppedError};
use crate::raft::leadership::Leadership;
use crate::raft::node::Node;
use crate::raft::types::Member;
use crate::segments::{AppendError, CACHE_BYTES, OpenSegmentsError, Segments};
use crate::shell::{Ears, Log, NEWS_MAX, Shell};

/// Why a coordinator does not run, or runs no more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its address cannot be listened on.
    #[error("cannot listen")]
    Bind(#[from] BindError),
    /// The certificate is another coordinator's.
    #[error("the identity is of `{name}`, this is {expected}: give it the folder of {expected}")]
    Identity {
        /// Whose certificate it is.
        name: String,
        /// Whose it should be.
        expected: String,
    },
    /// Its segment files cannot be opened.
    #[error("cannot open the segment files")]
    Segments(#[from] OpenSegmentsError),
    /// Its programs cannot be looked at.
    #[error("cannot open the folder of programs {dir}")]
    Programs {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The log cannot be opened or joined.
    #[error("cannot start the replicated log")]
    Raft(#[from] StartError),
    /// A new cluster cannot be made of these members.
    #[error("cannot make the cluster")]
    Members(#[from] MembershipError),
    /// What an entry carries was not stored.
    #[error("the coordinator cannot go on")]
    Store(#[from] AppendError),
    /// It had to stop.
    #[error(
        "the coordinator had to stop. What it acknowledged is in {dir}: if that disk is full, free space on it, \
         then start the coordinator again"
    )]
    Stopped {
        /// Its data.
        dir: PathBuf,
        /// Why it stopped.
        source: StoppedError,
    },
}

/// A coordinator that runs.
#[derive(Debug)]
pub struct Coordinator {
    endpoint: Endpoint,
    node: Node,
    tasks: Vec<JoinHandle<()>>,
    address: SocketAddr,
    dir: PathBuf,
}

/// Starts a coordinator of a cluster.
///
/// # Errors
/// When its address, directory or identity are not what they should be.
pub async fn run(config: Config) -> Result<Coordinator, RunError> {
    let own = config.identity.own().clone();
    let expected = name_of(config.id.0);
    if own.name != expected {
        return Err(RunError::Identity { name: own.name, expected });
    }
    let endpoint = Endpoint::bind(config.identity.clone(), config.listen)?;
    let address = endpoint.local_address()?;
    let segments = Segments::open(&config.dir.join("segments"), config.durability, CACHE_BYTES)?;
    let programs_dir = config.dir.join("programs");
    let addresses: BTreeMap<u64, SocketAddr> =
        config.members.iter().map(|(id, address)| (id.0, *address)).collect();
    let peers = Arc::new(QuicPeers::new(endpoint.clone(), addresses.clone()));
    let others = addresses.keys().copied().filter(|node| *node != config.id.0).collect();
    let others = Others::new(Arc::clone(&peers), others);
    let programs = Programs::open(Some(programs_dir.clone()), Some(others))
        .map_err(|source| RunError::Programs { dir: programs_dir.clone(), source })?;
    let (core, core_requests) = mpsc::channel(CORE_REQUESTS_MAX);
    let (news, news_received) = mpsc::channel(NEWS_MAX);
    let raft = RaftConfig {
        cluster: own.cluster,
        node: config.id.0,
        dir: config.dir.join("raft"),
        durability: config.durability,
        compaction: Compaction::default(),
    };
    // The log is restored through the loop, so the loop starts first and gets the log when it is up.
    let (up, is_up) = tokio::sync::oneshot::channel();
    let (id, store) = (config.id, segments.clone());
    let shell = tokio::spawn(async move {
        crate::shell::start(id, store, programs, core_requests, news_received, is_up).await;
    });
    let node = Node::start(raft, segments, peers, core).await?;
    // Whoever does not wait for it has stopped, which `Coordinator::stopped` tells.
    let _ = up.send(node.clone());
    let members = addresses
        .iter()
        .map(|(id, address)| (*id, Member { name: name_of(*id), addresses: vec![*address] }))
        .collect();
    node.initialize(members).await?;
    let entrance = Entrance::new(news);
    let desk = Desk { node: node.clone(), programs: programs_dir.into() };
    let accepting = tokio::spawn(entrance.serve(endpoint.clone(), desk));
    let (tasks, dir) = (vec![shell, accepting], config.dir);
    Ok(Coordinator { endpoint, node, tasks, address, dir })
}

impl Coordinator {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who leads, as far as it knows.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leader()
    }

    /// All coordinators that its log names, and where each is reached.
    ///
    /// # Errors
    /// When it has stopped.
    pub async fn members(&self) -> Result<Vec<(CoordinatorId, Vec<SocketAddr>)>, RunError> {
        let membership = self.node.membership().await;
        let membership =
            membership.map_err(|source| RunError::Stopped { source, dir: self.dir.clone() })?;
        let members = membership.nodes();
        Ok(members.map(|(id, member)| (CoordinatorId(*id), member.addresses.clone())).collect())
    }

    /// Waits until it has to stop of itself.
    pub async fn stopped(&self) -> RunError {
        RunError::Stopped { source: self.node.stopped().await, dir: self.dir.clone() }
    }

    /// Ends it. What it acknowledged is on disk already.
    pub async fn stop(self) {
        self.endpoint.close("the coordinator is shutting down").await;
        self.node.stop().await;
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The coordinator of a cluster in one process: alone, without a disk to survive on, with links that
/// stay inside. Its loop is the future that is returned, which ends of itself only when it cannot go on;
/// `scratch` holds what does not fit into memory and is the caller's to remove.
///
/// # Errors
/// When `scratch` cannot be written.
pub fn embedded(
    scratch: &Path,
) -> Result<(Entrance, impl Future<Output = Result<(), RunError>> + Send + use<>), RunError> {
    let segments = Segments::open(scratch, Durability::Process, CACHE_BYTES)?;
    let programs = Programs::open(None, None)
        .map_err(|source| RunError::Programs { dir: scratch.to_owned(), source })?;
    let (news, news_received) = mpsc::channel(NEWS_MAX);
    let (_, core) = mpsc::channel(1);
    let (_, leadership) = watch::channel(Leadership { leader: None, am_leader: false });
    let mut shell = Shell::new(CoordinatorId(1), segments, programs, Log::Direct);
    shell.lead_alone();
    let ears = Ears { news: news_received, core, leadership };
    Ok((Entrance::new(news), async { Ok(shell.run(ears).await?) }))
}
