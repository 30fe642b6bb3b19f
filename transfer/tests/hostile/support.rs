//! Honest nodes with real stores, and what a hostile one needs to get as far as a link.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its cluster fails")]
#![expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::frame::{Header, Kind};
use allhands_common::id::ClusterId;
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::cause::Cause;
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::handshake::{Hello, Welcome};
use allhands_common::net::identity::Identity;
use allhands_common::wire::data::{Holder, Node};
use allhands_store::blobs::Store;
use allhands_store::map::Map;
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, FetchError, Fetched, Options, Transfer};
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const CLUSTER: ClusterId = ClusterId([1; 16]);

/// What this process may ever have resident: some 40 MiB of code and threads and the blobs of honest nodes, and
/// not a hundredth of what hostile ones announce.
pub(crate) const PEAK_BYTES_MAX: u64 = 256 << 20;

/// The most that this process ever had resident, in bytes.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Fails the test rather than hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A deterministic stream of bytes without any order in it.
pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

pub(crate) fn content(bytes: usize) -> Vec<u8> {
    noise(bytes as u64).take(bytes).collect()
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    blob: BlobId,
    length: u64,
}

impl Put {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { blob: Manifest::of(bytes).unwrap().id(), length: bytes.len() as u64 }
    }
}

pub(crate) struct Cluster(Authority);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self(Authority::create(CLUSTER).unwrap())
    }

    pub(crate) fn endpoint(&self, role: Role, name: &str) -> Endpoint {
        let validity = Validity::days(SystemTime::now(), 1);
        let files = self.0.issue(role, name, validity, PathBuf::from(name)).unwrap();
        Endpoint::bind_bulk(Identity::verify(&files, SystemTime::now()).unwrap(), LOOPBACK).unwrap()
    }

    /// An honest node.
    pub(crate) fn node(&self, name: &str) -> Honest {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), CLUSTER, 1 << 30).unwrap();
        let endpoint = self.endpoint(Role::Worker, name);
        let addresses = vec![endpoint.local_address().unwrap()];
        let ms = Duration::from_millis;
        let (grace, backoff) = (ms(50), ms(10));
        let config = Config { grace, backoff, redials_max: 0, ..Config::default() };
        let options = Options { addresses: addresses.clone(), config };
        let (transfer, _) = Transfer::start(endpoint, Arc::new(store.clone()), options);
        let node = Node { role: Role::Worker, name: name.to_owned() };
        Honest { transfer, store, holder: Holder { node, addresses }, _dir: dir }
    }
}

pub(crate) struct Honest {
    transfer: Transfer,
    store: Store,
    holder: Holder,
    _dir: TempDir,
}

impl Honest {
    pub(crate) fn put(&self, bytes: &[u8]) -> Put {
        self.store.put_bytes(bytes).unwrap();
        Put::of(bytes)
    }

    pub(crate) fn holder(&self) -> Holder {
        self.holder.clone()
    }

    pub(crate) fn bytes(&self, put: Put) -> Map {
        self.store.get(&put.blob).unwrap().map(0..put.length).unwrap()
    }

    pub(crate) async fn fetch(&self, put: Put, from: &[Holder]) -> Result<Fetched, FetchError> {
        self.fetch_bytes(put, None, from).await
    }

    pub(crate) async fn fetch_chunk(
        &self,
        put: Put,
        chunk: u64,
        from: &[Holder],
    ) -> Result<Fetched, FetchError> {
        self.fetch_bytes(put, Some(chunk << 20..(chunk + 1) << 20), from).await
    }

    async fn fetch_bytes(
        &self,
        put: Put,
        bytes: Option<std::ops::Range<u64>>,
        from: &[Holder],
    ) -> Result<Fetched, FetchError> {
        let holders = from.iter().map(|holder| (holder.clone(), true)).collect();
        let Put { blob, length } = put;
        self.transfer.fetch(Fetch { blob, length, bytes, holders, within: DEADLINE }).await
    }

    /// A connection that somebody else has made to it.
    pub(crate) async fn dialled_by(&self, endpoint: &Endpoint) -> Connection {
        let expected = Expected { role: Role::Worker, name: Some(&self.holder.node.name) };
        endpoint.connect(self.holder.addresses[0], expected, DEADLINE).await.unwrap()
    }
}

/// Opens a link for chunks, and gives its bare stream.
pub(crate) async fn raw_hello(connection: &Connection) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, mut receive) = connection.quinn().open_bi().await.unwrap();
    let hello = Hello { cluster: CLUSTER, purpose: Purpose::Chunks, build: String::new() };
    write_frame(&mut send, Kind::Hello, &hello).await;
    let mut header = [0; 16];
    soon(receive.read_exact(&mut header)).await.unwrap();
    assert_eq!(Header::decode(&header).unwrap().kind(), Kind::Welcome);
    (send, receive)
}

/// Welcomes the first link of every connection, answers with `bytes`, and says how the first ended.
pub(crate) async fn answer_with(endpoint: Endpoint, bytes: Vec<u8>) -> Cause {
    let connection = endpoint.accept().await.unwrap().establish().await.unwrap();
    let (mut send, _receive) = connection.quinn().accept_bi().await.unwrap();
    write_frame(&mut send, Kind::Welcome, &Welcome { build: String::new() }).await;
    // The other side may stop the stream before all is written.
    let _ = send.write_all(&bytes).await;
    let _ = send.finish();
    connection.closed().await
}

async fn write_frame<T: serde::Serialize>(send: &mut quinn::SendStream, kind: Kind, message: &T) {
    let mut head = Vec::new();
    allhands_common::codec::encode(message, &mut head).unwrap();
    send.write_all(&Header::new(kind, head.len(), 0).unwrap().encode()).await.unwrap();
    send.write_all(&head).await.unwrap();
}
