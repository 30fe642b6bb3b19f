//! Nodes of one cluster on loopback, each with a store in a temporary directory that can be told to misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its cluster fails")]
#![expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::wire::data::{ChunkSet, Holder, Node};
use allhands_store::blobs::Store;
use allhands_store::map::Map;
use allhands_transfer::exchange::Config;
use allhands_transfer::node::{Fetch, FetchError, Fetched, Options, Report, Transfer};
use allhands_transfer::store::{ChunkStore, Found, Hold, StoreError, Verified};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Nothing here should take a tenth of that; nothing may hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);

/// No test reaches it that does not mean to.
pub(crate) const AMPLE: u64 = 1 << 30;

/// How a store misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// What it gives is not what it should be.
    pub(crate) lies: bool,
    /// After so many chunks it gives none until it is released.
    pub(crate) hangs_after: Option<usize>,
    /// The manifest that it gives is of another blob.
    pub(crate) other_manifest: Option<Arc<Manifest>>,
}

/// A real store in a directory of its own, with what may be wrong with it put before.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) disk: Store,
    pub(crate) dir: TempDir,
    fault: Fault,
    pub(crate) reads: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    released: Mutex<bool>,
    release: Condvar,
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Fault::default())
    }

    pub(crate) fn with(fault: Fault) -> Arc<Self> {
        Self::of(fault, AMPLE)
    }

    /// One that may take so many bytes.
    pub(crate) fn small(quota_bytes: u64) -> Arc<Self> {
        Self::of(Fault::default(), quota_bytes)
    }

    fn of(fault: Fault, quota_bytes: u64) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Store::open(dir.path(), CLUSTER, quota_bytes).unwrap();
        let (reads, writes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (released, release) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { disk, dir, fault, reads, writes, released, release })
    }

    /// Puts a blob in.
    pub(crate) fn put(&self, bytes: &Bytes) -> Put {
        let blob = self.disk.put_bytes(bytes).unwrap();
        Put { blob: blob.id(), length: bytes.len() as u64 }
    }

    /// All of a blob's bytes, as they are mapped; panics if one is missing.
    pub(crate) fn bytes(&self, blob: BlobId) -> Map {
        let blob = self.disk.get(&blob).unwrap();
        blob.map(0..blob.manifest().bytes()).unwrap()
    }

    pub(crate) fn chunks(&self, blob: BlobId) -> Vec<u32> {
        self.disk.get(&blob).into_iter().flat_map(|blob| blob.present()).flatten().collect()
    }

    /// Flips a bit of a blob's file, as a disk would.
    pub(crate) fn flip(&self, blob: BlobId, at: u64) {
        flip(self.dir.path(), blob, at);
    }

    pub(crate) fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

pub(crate) fn flip(dir: &Path, blob: BlobId, at: u64) {
    let path = dir.join("blobs").join(format!("{blob}.bytes"));
    // It is sealed against whoever is not root.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

impl ChunkStore for TestStore {
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError> {
        match &self.fault.other_manifest {
            Some(other) => Ok(Some(Arc::clone(other))),
            None => ChunkStore::manifest(&self.disk, blob),
        }
    }

    fn open(&self, manifest: &Manifest) -> Result<Hold, StoreError> {
        self.disk.open(manifest)
    }

    fn gather(&self, blob: BlobId, bytes: Range<u64>) -> Result<ChunkSet, StoreError> {
        self.disk.gather(blob, bytes)
    }

    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError> {
        self.disk.present(blob)
    }

    fn read(&self, blob: BlobId, chunk: u32) -> Result<Found, StoreError> {
        let found = match self.disk.read(blob, chunk)? {
            Found::Whole(found) => found,
            other => return Ok(other),
        };
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fault.hangs_after.is_some_and(|after| reads >= after) {
            let mut released = self.released.lock().unwrap();
            while !*released {
                released = self.release.wait(released).unwrap();
            }
        }
        let lie = self.fault.lies.then(|| vec![0xee; found.len()].into());
        Ok(Found::Whole(lie.unwrap_or(found)))
    }

    fn write(&self, blob: BlobId, chunk: u32, bytes: &Verified) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.disk.write(blob, chunk, bytes)
    }
}

/// A blob that somebody has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    pub(crate) blob: BlobId,
    pub(crate) length: u64,
}

impl Put {
    pub(crate) fn fetch(self, holders: &[&TestNode]) -> Fetch {
        let holders = holders.iter().map(|node| (node.holder.clone(), true)).collect();
        let Self { blob, length } = self;
        Fetch { blob, length, bytes: None, holders, within: DEADLINE }
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

pub(crate) fn endpoint_of(authority: &Authority, role: Role, name: &str) -> Endpoint {
    let validity = Validity::days(SystemTime::now(), 1);
    let files = authority.issue(role, name, validity, PathBuf::from(name)).unwrap();
    let identity = Identity::verify(&files, SystemTime::now()).unwrap();
    Endpoint::bind_bulk(identity, LOOPBACK).unwrap()
}

pub(crate) struct Cluster(Authority);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self(Authority::create(CLUSTER).unwrap())
    }

    pub(crate) fn endpoint(&self, role: Role, name: &str) -> Endpoint {
        endpoint_of(&self.0, role, name)
    }

    /// Writes the authority down, for another process of the same cluster.
    pub(crate) fn save(&self, folder: &Path) {
        self.0.save(folder).unwrap();
    }

    pub(crate) fn worker(&self, name: &str, store: &Arc<TestStore>) -> TestNode {
        self.node(Role::Worker, name, store, Config::default())
    }

    pub(crate) fn node(
        &self,
        role: Role,
        name: &str,
        store: &Arc<TestStore>,
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
    pub(crate) async fn fetch(&self, put: Put, holders: &[&Self]) -> Result<Fetched, FetchError> {
        self.transfer.fetch(put.fetch(holders)).await
    }

    /// The same, by a task of its own.
    pub(crate) fn spawn_fetch(
        &self,
        put: Put,
        holders: &[&Self],
    ) -> tokio::task::JoinHandle<Result<Fetched, FetchError>> {
        let (transfer, fetch) = (self.transfer.clone(), put.fetch(holders));
        tokio::spawn(async move { transfer.fetch(fetch).await })
    }
}
