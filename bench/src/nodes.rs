//! Processes of this very program that each have a chunk store, an address on loopback and a
//! [`Transfer`](allhands_transfer::node::Transfer), and are told over their standard input what to do.
//!
//! They measure the crates `store` and `transfer` alone, without a cluster.

mod child;
mod raw;

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use allhands_common::blob::{BlobId, CHUNK_BYTES};
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::Authority;
use allhands_common::wire::data::{Holder, Node as Name};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub(crate) use child::{be_node, content};

/// First argument that makes this program a node.
pub(crate) const AS_NODE: &str = "as-node";

/// Longest time that one blob may take.
const FETCH_MAX: Duration = Duration::from_secs(120);

/// What a node is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    /// Store content of `bytes` bytes, every `changed`-th chunk of which is another one; 0: none.
    Put { bytes: u64, changed: u64 },
    /// Fetch, and say how long it took.
    Fetch { blob: BlobId, length: u64, range: Option<(u64, u64)>, holders: Vec<Holder> },
    /// Hash what is under the range again, as it is mapped.
    Verify { blob: BlobId, length: u64, range: Option<(u64, u64)>, changed: u64 },
    /// Say what was sent and received so far.
    Traffic,
    /// Send so many bytes from memory to whoever comes, once.
    Serve { raw: Raw, bytes: u64 },
    /// Take them, and say how long it took.
    Take { raw: Raw, address: SocketAddr, bytes: u64 },
}

/// A stream without chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Raw {
    /// One QUIC stream between bulk endpoints.
    Quinn,
    /// The same, and what arrives is hashed in chunks and written to a file: the least that keeping it takes.
    Kept,
    /// TLS over TCP.
    Tls,
}

/// What a node says.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Reply {
    Here { address: SocketAddr },
    Put { blob: BlobId, length: u64 },
    Took { seconds: f64 },
    Verified,
    Traffic { sent_bytes: u64, received_bytes: u64 },
    Failed { error: String },
}

/// A blob that a node has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    pub(crate) blob: BlobId,
    pub(crate) length: u64,
    changed: u64,
}

/// Bytes that a node's links have carried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// The nodes of one measurement, and the folder in which they have their stores.
#[derive(Debug)]
pub(crate) struct Nodes {
    folder: TempDir,
    started: u8,
}

impl Nodes {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        Authority::create(ClusterId([1; 16]))?.save(&folder.path().join("authority"))?;
        Ok(Self { folder, started: 0 })
    }

    /// Starts the next one, on an address of its own.
    pub(crate) fn start(&mut self) -> anyhow::Result<Node> {
        self.started += 1;
        let (number, name) = (self.started, format!("node-{}", self.started));
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 1, number));
        Node::start(self.folder.path(), name, ip)
    }
}

/// One process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    orders: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
    holder: Holder,
}

impl Node {
    fn start(folder: &Path, name: String, ip: IpAddr) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([AS_NODE.as_ref(), folder.as_os_str()])
            .args([name.clone(), ip.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a node")?;
        let orders = child.stdin.take().context("a node has no standard input")?;
        let out = child.stdout.take().context("a node has no standard output")?;
        let node = Name { role: Role::Worker, name };
        let holder = Holder { node, addresses: Vec::new() };
        let mut node = Self { child, orders, replies: BufReader::new(out).lines(), holder };
        let Reply::Here { address } = node.hear()? else { bail!("a node says something else") };
        node.holder.addresses.push(address);
        Ok(node)
    }

    fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.orders, order)?;
        self.orders.write_all(b"\n")?;
        Ok(self.orders.flush()?)
    }

    fn hear(&mut self) -> anyhow::Result<Reply> {
        let name = &self.holder.node.name;
        let line = self.replies.next().with_context(|| format!("{name} has ended"))??;
        match serde_json::from_str(&line)? {
            Reply::Failed { error } => bail!("{name}: {error}"),
            reply => Ok(reply),
        }
    }

    /// Stores content, with every `changed`-th chunk another one than without.
    pub(crate) fn put(&mut self, bytes: u64, changed: u64) -> anyhow::Result<Put> {
        self.order(&Order::Put { bytes, changed })?;
        let Reply::Put { blob, length } = self.hear()? else { bail!("a put ends otherwise") };
        Ok(Put { blob, length, changed })
    }

    /// Begins to fetch a blob, or these bytes of it, from a node that has all.
    pub(crate) fn begin_fetch(
        &mut self,
        put: Put,
        range: Option<(u64, u64)>,
        from: &[&Holder],
    ) -> anyhow::Result<()> {
        let holders = from.iter().map(|holder| (*holder).clone()).collect();
        self.order(&Order::Fetch { blob: put.blob, length: put.length, range, holders })
    }

    /// Waits until what was begun is done; how long it took there.
    pub(crate) fn took(&mut self) -> anyhow::Result<Duration> {
        loop {
            match self.hear()? {
                Reply::Took { seconds } => return Ok(Duration::from_secs_f64(seconds)),
                // Asked for before that.
                Reply::Traffic { .. } => {}
                other => bail!("{other:?} instead of how long it took"),
            }
        }
    }

    /// Compares every byte with what was put.
    pub(crate) fn verify(&mut self, put: Put, range: Option<(u64, u64)>) -> anyhow::Result<()> {
        let Put { blob, length, changed } = put;
        self.order(&Order::Verify { blob, length, range, changed })?;
        anyhow::ensure!(matches!(self.hear()?, Reply::Verified), "a check ends otherwise");
        Ok(())
    }

    pub(crate) fn traffic(&mut self) -> anyhow::Result<Traffic> {
        self.order(&Order::Traffic)?;
        match self.hear()? {
            Reply::Traffic { sent_bytes, received_bytes } => {
                Ok(Traffic { sent_bytes, received_bytes })
            }
            other => bail!("{other:?} instead of the traffic"),
        }
    }

    /// Sends `bytes` bytes of memory to `to`, as one stream; how long that took there.
    pub(crate) fn stream(
        &mut self,
        raw: Raw,
        bytes: u64,
        to: &mut Self,
    ) -> anyhow::Result<Duration> {
        self.order(&Order::Serve { raw, bytes })?;
        let Reply::Here { address } = self.hear()? else { bail!("no address to stream from") };
        to.order(&Order::Take { raw, address, bytes })?;
        to.took()
    }

    /// Where others may fetch from it.
    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Chunks of a blob of so many bytes.
pub(crate) const fn chunks(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BYTES as u64)
}
