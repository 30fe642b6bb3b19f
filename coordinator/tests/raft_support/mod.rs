//! Three coordinators' logs in one process: real stores in temporary directories, a transport that can be cut and that
//! lets calls overtake each other, and a core that applies a tiny language.
//!
//! `+text` stores the text as a segment under the entry's index; `-index` discards that segment; anything else is only
//! remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allhands_common::id::{ClusterId, SegmentId};
use allhands_coordinator::raft::config::{Compaction, Config, Durability};
use allhands_coordinator::raft::core::{
    Applied, AppliedPayload, CORE_REQUESTS_MAX, CoreRequest, SnapshotImage,
};
use allhands_coordinator::raft::error::{ProposeError, StartError};
use allhands_coordinator::raft::message::{PeerReply, PeerRequest};
use allhands_coordinator::raft::node::Node;
use allhands_coordinator::raft::transport::{Lane, PeerError, PeerTransport};
use allhands_coordinator::raft::types::{LeaderId, Member, NodeId};
use allhands_coordinator::segments::Segments;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Nothing here takes long; a test that waits this long hangs.
const HANG: Duration = Duration::from_secs(60);

/// What a core has applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) lines: Vec<(u64, Bytes)>,
    pub(crate) segments: BTreeSet<u64>,
}

impl Book {
    fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        for (index, line) in &self.lines {
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&(line.len() as u64).to_le_bytes());
            out.extend_from_slice(line);
        }
        out.into()
    }

    fn decode(mut bytes: Bytes, segments: &[SegmentId]) -> Self {
        let number =
            |bytes: &mut Bytes| u64::from_le_bytes(bytes.split_to(8).as_ref().try_into().unwrap());
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let index = number(&mut bytes);
            let length = number(&mut bytes) as usize;
            lines.push((index, bytes.split_to(length)));
        }
        Self { lines, segments: segments.iter().map(|id| id.0).collect() }
    }

    fn apply(&mut self, segments: &Segments, Applied { index, payload, .. }: Applied) {
        let AppliedPayload::Proposal(line) = payload else {
            return;
        };
        match line.split_first() {
            Some((b'+', _)) => {
                segments.append(SegmentId(index), &line.slice(1..)).unwrap();
                self.segments.insert(index);
            }
            Some((b'-', at)) => {
                let at = std::str::from_utf8(at).unwrap().parse().unwrap();
                segments.discard(SegmentId(at));
                self.segments.remove(&at);
            }
            _ => {}
        }
        self.lines.push((index, line));
    }
}

async fn core(
    mut requests: mpsc::Receiver<CoreRequest>,
    segments: Segments,
    book: watch::Sender<Book>,
    installs: Arc<AtomicU64>,
) {
    while let Some(request) = requests.recv().await {
        match request {
            CoreRequest::Apply { entries, done } => {
                book.send_modify(|book| {
                    for entry in entries {
                        book.apply(&segments, entry);
                    }
                });
                done.send(()).ok();
            }
            CoreRequest::Snapshot { reply } => {
                let book = book.borrow().clone();
                let ids = book.segments.iter().map(|id| SegmentId(*id)).collect();
                reply.send(SnapshotImage { state: book.encode(), segments: ids }).ok();
            }
            CoreRequest::Install { image, done, .. } => {
                installs.fetch_add(1, Ordering::Relaxed);
                book.send_replace(Book::decode(image.state, &image.segments));
                done.send(()).ok();
            }
        }
    }
}

/// The wires between the nodes.
#[derive(Debug, Default)]
struct Net {
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Makes appends wait up to so many milliseconds, each another time.
    jitter_ms: AtomicU64,
    calls: AtomicU64,
    pub(crate) overtaken: AtomicU64,
}

struct Wire {
    from: NodeId,
    net: Arc<Net>,
}

impl PeerTransport for Wire {
    async fn call(
        &self,
        target: NodeId,
        lane: Lane,
        request: PeerRequest,
        bulk: Bytes,
        _ttl: Duration,
    ) -> Result<PeerReply, PeerError> {
        let call = self.net.calls.fetch_add(1, Ordering::Relaxed);
        let jitter = self.net.jitter_ms.load(Ordering::Relaxed);
        if lane == Lane::Append && jitter > 0 {
            let wait = call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            tokio::time::sleep(Duration::from_millis(wait % jitter)).await;
        }
        let reachable = || {
            let cut = self.net.cut.lock().unwrap();
            !cut.contains(&self.from) && !cut.contains(&target)
        };
        let unreachable =
            || PeerError::Unreachable { node: target, cause: "cut by the test".to_owned() };
        let node = self.net.nodes.lock().unwrap().get(&target).cloned();
        let node = node.filter(|_| reachable()).ok_or_else(unreachable)?;
        let reply = node.serve(request, bulk).await;
        if matches!(&reply, PeerReply::Refused(_)) {
            self.net.overtaken.fetch_add(1, Ordering::Relaxed);
        }
        // A reply may be cut off too: the call was carried out all the same.
        if reachable() { Ok(reply) } else { Err(unreachable()) }
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) book: watch::Receiver<Book>,
    pub(crate) segments: Segments,
    pub(crate) installs: Arc<AtomicU64>,
}

pub(crate) struct Cluster {
    dir: TempDir,
    net: Arc<Net>,
    pub(crate) compaction: Compaction,
    pub(crate) running: BTreeMap<NodeId, Running>,
}

impl Cluster {
    /// Nodes `1..=size`, initialized.
    pub(crate) async fn start(size: NodeId) -> Self {
        Self::start_with(size, Compaction::default()).await
    }

    pub(crate) async fn start_with(size: NodeId, compaction: Compaction) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, net: Arc::default(), compaction, running: BTreeMap::new() };
        for id in 1..=size {
            cluster.start_node(id).await;
        }
        let members = (1..=size).map(|id| (id, member(id))).collect();
        cluster.running[&1].node.initialize(members).await.unwrap();
        cluster
    }

    pub(crate) fn node_dir(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub(crate) async fn start_node(&mut self, id: NodeId) {
        let dir = self.node_dir(id);
        let segments = hang(async {
            Segments::open(&dir.join("segments"), Durability::Disk, 1 << 20).unwrap()
        })
        .await;
        let config = Config {
            cluster: CLUSTER,
            node: id,
            dir: dir.join("raft"),
            durability: Durability::Disk,
            compaction: self.compaction,
        };
        loop {
            let (sender, requests) = mpsc::channel(CORE_REQUESTS_MAX);
            let (writer, book) = watch::channel(Book::default());
            let installs = Arc::new(AtomicU64::new(0));
            tokio::spawn(core(requests, segments.clone(), writer, Arc::clone(&installs)));
            let wire = Arc::new(Wire { from: id, net: Arc::clone(&self.net) });
            match Node::start(config.clone(), segments.clone(), wire, sender).await {
                Ok(node) => {
                    self.net.nodes.lock().unwrap().insert(id, node.clone());
                    self.running.insert(id, Running { node, book, segments, installs });
                    return;
                }
                // A node of this process that was stopped lets go of its files when its last task has ended.
                Err(StartError::Claim(_) | StartError::Log(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("node {id} does not start: {other:?}"),
            }
        }
    }

    /// Stops a node without telling anyone.
    pub(crate) async fn stop_node(&mut self, id: NodeId) {
        self.net.nodes.lock().unwrap().remove(&id);
        let running = self.running.remove(&id).unwrap();
        hang(running.node.stop()).await;
    }

    pub(crate) fn cut(&self, id: NodeId) {
        self.net.cut.lock().unwrap().insert(id);
    }

    pub(crate) fn heal(&self) {
        self.net.cut.lock().unwrap().clear();
    }

    pub(crate) fn jitter(&self, ms: u64) {
        self.net.jitter_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.running[&id].node
    }

    /// The leader among `of`, once there is one that can commit.
    pub(crate) async fn leader_of(&self, of: &[NodeId]) -> (NodeId, LeaderId) {
        hang(async {
            loop {
                for id in of {
                    let now = *self.node(*id).leader().borrow();
                    if let (true, Some(leader)) = (now.am_leader, now.leader)
                        && self.node(*id).read_index().await.is_ok()
                    {
                        return (*id, leader);
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub(crate) async fn leader(&self) -> (NodeId, LeaderId) {
        let ids: Vec<_> = self.running.keys().copied().collect();
        self.leader_of(&ids).await
    }

    /// Proposes through whoever leads among `of` until it is committed. Retries only what was certainly not appended.
    pub(crate) async fn write_to(&self, of: &[NodeId], line: impl Into<Bytes>) -> u64 {
        let line = line.into();
        hang(async {
            loop {
                let (id, fence) = self.leader_of(of).await;
                match outcome(self.node(id), line.clone(), fence).await {
                    Ok(index) => return index,
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
        .await
    }

    pub(crate) async fn write(&self, line: impl Into<Bytes>) -> u64 {
        let ids: Vec<_> = self.running.keys().copied().collect();
        self.write_to(&ids, line).await
    }

    /// Waits until this node has applied entry `index`, and gives its book.
    pub(crate) async fn applied(&self, id: NodeId, index: u64) -> Book {
        let mut book = self.running[&id].book.clone();
        let reached = |book: &Book| book.lines.last().is_some_and(|(last, _)| *last >= index);
        hang(async { book.wait_for(reached).await.unwrap().clone() }).await
    }

    /// Waits until this node's log has an entry.
    pub(crate) async fn until(&self, id: NodeId, mut done: impl FnMut(&Node) -> bool) {
        hang(async {
            while !done(self.node(id)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub(crate) fn member(id: NodeId) -> Member {
    Member { name: format!("node-{id}"), addresses: Vec::new() }
}

pub(crate) async fn outcome(
    node: &Node,
    line: Bytes,
    fence: LeaderId,
) -> Result<u64, ProposeError> {
    node.propose(line, fence).await?.await
}

/// Waits; a test that hangs fails.
pub(crate) async fn hang<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("this hangs")
}
