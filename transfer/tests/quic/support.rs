//! Nodes of one cluster on loopback, each with a store in memory that can be told to misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its cluster fails")]
#![expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use allhands_common::blob::{BlobId, CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::wire::data::{ChunkRange, ChunkSet, Holder, Node};
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, FetchError, Options, Report, Transfer};
use allhands_transfer::store::{ChunkStore, StoreError, Verified};
use bytes::Bytes;
use tokio::sync::mpsc;

/// Nothing here should take a tenth of that; nothing may hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How a store misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// What it gives is not what it should be.
    pub(crate) lies: bool,
    /// After so many chunks it gives none until it is released.
    pub(crate) hangs_after: Option<usize>,
    /// After so many chunks it takes none.
    pub(crate) full_after: Option<usize>,
}

type Held = (Arc<Manifest>, BTreeMap<u32, Bytes>);

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    blobs: Mutex<BTreeMap<BlobId, Held>>,
    fault: Fault,
    pub(crate) reads: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    released: Mutex<bool>,
    release: Condvar,
}

impl MemoryStore {
    pub(crate) fn with(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, ..Self::default() })
    }

    /// Puts a blob in; gives its id.
    pub(crate) fn put(&self, bytes: &Bytes) -> BlobId {
        let manifest = Arc::new(Manifest::of(bytes).unwrap());
        let chunks = (0..).zip(bytes.chunks(CHUNK_BYTES as usize));
        let chunks = chunks.map(|(at, chunk)| (at, bytes.slice_ref(chunk))).collect();
        let id = manifest.id();
        self.blobs.lock().unwrap().insert(id, (manifest, chunks));
        id
    }

    /// All of a blob's bytes; panics if one is missing.
    pub(crate) fn bytes(&self, blob: BlobId) -> Vec<u8> {
        let blobs = self.blobs.lock().unwrap();
        let (manifest, chunks) = &blobs[&blob];
        (0..manifest.chunks().len() as u32).flat_map(|at| chunks[&at].iter().copied()).collect()
    }

    pub(crate) fn chunks(&self, blob: BlobId) -> Vec<u32> {
        self.blobs.lock().unwrap()[&blob].1.keys().copied().collect()
    }

    pub(crate) fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

impl ChunkStore for MemoryStore {
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError> {
        Ok(self.blobs.lock().unwrap().get(&blob).map(|(manifest, _)| Arc::clone(manifest)))
    }

    fn open(&self, blob: BlobId, manifest: &Arc<Manifest>) -> Result<(), StoreError> {
        let mut blobs = self.blobs.lock().unwrap();
        blobs.entry(blob).or_insert_with(|| (Arc::clone(manifest), BTreeMap::new()));
        Ok(())
    }

    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError> {
        let blobs = self.blobs.lock().unwrap();
        let chunks = blobs.get(&blob).into_iter().flat_map(|(_, chunks)| chunks.keys());
        Ok(chunks.map(|chunk| ChunkRange::new(*chunk, chunk + 1)).collect())
    }

    fn read(&self, blob: BlobId, chunk: u32) -> Result<Option<Bytes>, StoreError> {
        let found = {
            let blobs = self.blobs.lock().unwrap();
            blobs.get(&blob).and_then(|(_, chunks)| chunks.get(&chunk)).cloned()
        };
        let Some(found) = found else { return Ok(None) };
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fault.hangs_after.is_some_and(|after| reads >= after) {
            let mut released = self.released.lock().unwrap();
            while !*released {
                released = self.release.wait(released).unwrap();
            }
        }
        Ok(Some(if self.fault.lies { vec![0xee; found.len()].into() } else { found }))
    }

    fn write(&self, blob: BlobId, chunk: u32, bytes: Verified) -> Result<(), StoreError> {
        let writes = self.writes.fetch_add(1, Ordering::SeqCst);
        if self.fault.full_after.is_some_and(|after| writes >= after) {
            let what = "the store is full".to_owned();
            return Err(StoreError { what, retry_can_help: true, source: None });
        }
        let mut blobs = self.blobs.lock().unwrap();
        let Some((_, chunks)) = blobs.get_mut(&blob) else { panic!("not open") };
        chunks.insert(chunk, bytes.bytes().clone());
        Ok(())
    }
}

/// Bytes that differ from chunk to chunk.
pub(crate) fn content(bytes: usize) -> Bytes {
    let mut state = 7u64;
    let words = core::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32
    });
    let mut content: Vec<u8> = words.take(bytes.div_ceil(4)).flat_map(u32::to_le_bytes).collect();
    content.truncate(bytes);
    content.into()
}

pub(crate) struct Cluster(Authority);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self(Authority::create(ClusterId([1; 16])).unwrap())
    }

    pub(crate) fn endpoint(&self, role: Role, name: &str) -> Endpoint {
        let validity = Validity::days(SystemTime::now(), 1);
        let files = self.0.issue(role, name, validity, PathBuf::from(name)).unwrap();
        let identity = Identity::verify(&files, SystemTime::now()).unwrap();
        Endpoint::bind_bulk(identity, LOOPBACK).unwrap()
    }

    pub(crate) fn worker(&self, name: &str, store: &Arc<MemoryStore>) -> TestNode {
        self.node(Role::Worker, name, store, Config::default())
    }

    pub(crate) fn node(
        &self,
        role: Role,
        name: &str,
        store: &Arc<MemoryStore>,
        config: Config,
    ) -> TestNode {
        let endpoint = self.endpoint(role, name);
        let addresses = vec![endpoint.local_address().unwrap()];
        let place = name.bytes().map(u64::from).sum();
        let dialled = if role == Role::Client { Vec::new() } else { addresses.clone() };
        let options = Options { addresses: dialled, config: Config { place, ..config } };
        let (transfer, reports) = Transfer::start(endpoint.clone(), store.clone(), options);
        let node = Node { role, name: name.to_owned() };
        TestNode { transfer, endpoint, reports, holder: Holder { node, addresses } }
    }
}

pub(crate) struct TestNode {
    pub(crate) transfer: Transfer,
    pub(crate) endpoint: Endpoint,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) holder: Holder,
}

impl TestNode {
    pub(crate) async fn fetch(
        &self,
        blob: BlobId,
        holders: &[&Self],
    ) -> Result<Arc<Manifest>, FetchError> {
        let holders = holders.iter().map(|node| node.holder.clone()).collect();
        fetch(self.transfer.clone(), blob, holders).await
    }
}

pub(crate) async fn fetch(
    transfer: Transfer,
    blob: BlobId,
    holders: Vec<Holder>,
) -> Result<Arc<Manifest>, FetchError> {
    let holders = holders.into_iter().map(|holder| (holder, true)).collect();
    transfer.fetch(Fetch { blob, bytes: None, holders, within: DEADLINE }).await
}
