//! How fast one blob goes over one connection: a raw quinn stream and ours, between the same two endpoints.
//!
//! ```text
//! cargo run --release -p allhands-transfer --example throughput -- [MIB] [ROUNDS] [SYSTEM]
//! ```
//!
//! Prints one JSON line per system and round: `tcp` (plain, for the scale), `quinn` (one bare stream, whose
//! bytes are dropped), and `allhands` (every chunk verified, then dropped); then the ratio of the
//! medians of `allhands` and `quinn`. Each round has fresh endpoints; handshakes are not counted.
#![expect(clippy::print_stdout, reason = "figures are its product")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use allhands_common::blob::{BlobId, CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::identity::Identity;
use allhands_common::wire::data::{ChunkRange, ChunkSet, Holder, Node};
use allhands_transfer::node::{Fetch, Options, Transfer};
use allhands_transfer::store::{ChunkStore, StoreError, Verified};
use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (mib, rounds) = (number(256)?, number(3)?);
    let only = arguments.next();
    let content = Bytes::from_iter((0..mib * MIB).map(|at| (at / 7) as u8));
    // As between two processes: each side has its own runtime, and they share both cores.
    let (near, far) = (Runtime::new()?, Runtime::new()?);
    let mut speeds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (system, run) in [
            ("tcp", tcp as fn(&Runtime, &Runtime, &Bytes) -> anyhow::Result<Duration>),
            ("quinn", quinn_raw),
            ("allhands", allhands),
        ] {
            if only.as_ref().is_some_and(|only| only != system) {
                continue;
            }
            let seconds = run(&near, &far, &content)?.as_secs_f64();
            let speed = content.len() as f64 / seconds;
            println!(
                "{{\"workload\":\"transfer\",\"system\":\"{system}\",\"mib\":{mib},\"bytes_per_s\":{speed:.0}}}"
            );
            speeds.entry(system).or_default().push(speed);
        }
    }
    let median = |system: &str| {
        let mut all = speeds.get(system).cloned().unwrap_or_default();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!("{{\"ratio_to_quinn\":{:.3}}}", median("allhands") / median("quinn"));
    Ok(())
}

fn tcp(near: &Runtime, far: &Runtime, content: &Bytes) -> anyhow::Result<Duration> {
    let listener = far.block_on(tokio::net::TcpListener::bind(LOOPBACK))?;
    let address = listener.local_addr()?;
    let sent = content.clone();
    let sending = far.spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(&sent).await
    });
    let start = Instant::now();
    near.block_on(async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let mut buffer = vec![0; MIB];
        while stream.read(&mut buffer).await? > 0 {}
        anyhow::Ok(())
    })?;
    let took = start.elapsed();
    far.block_on(sending)??;
    Ok(took)
}

/// Who serves, and who fetches: endpoints of one cluster, each on its own runtime.
struct Pair {
    near: Endpoint,
    far: Endpoint,
}

const EXPECTED: Expected<'static> = Expected { role: Role::Worker, name: Some("far") };

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
    fn new(near: &Runtime, far: &Runtime) -> anyhow::Result<Self> {
        let authority = Authority::create(ClusterId([1; 16]))?;
        let bind = |runtime: &Runtime, name: &str| {
            let validity = Validity::days(SystemTime::now(), 1);
            let files = authority.issue(Role::Worker, name, validity, PathBuf::from(name))?;
            let identity = Identity::verify(&files, SystemTime::now())?;
            let _inside = runtime.enter();
            anyhow::Ok(Endpoint::bind_bulk(identity, LOOPBACK)?)
        };
        Ok(Self { near: bind(near, "near")?, far: bind(far, "far")? })
    }
}

/// One bare stream over an established connection of bulk endpoints.
fn quinn_raw(near: &Runtime, far: &Runtime, content: &Bytes) -> anyhow::Result<Duration> {
    let pair = Pair::new(near, far)?;
    let (endpoint, sent) = (pair.far.clone(), content.clone());
    let sending = far.spawn(async move {
        let arriving = endpoint.accept().await.context("the endpoint is closed")?;
        let connection = arriving.establish().await?;
        let (mut stream, mut asked) = connection.quinn().accept_bi().await?;
        asked.read_to_end(1).await?;
        for chunk in sent.chunks(CHUNK_BYTES as usize) {
            stream.write_chunk(sent.slice_ref(chunk)).await?;
        }
        stream.finish()?;
        stream.stopped().await?;
        anyhow::Ok(())
    });
    let address = pair.far.local_address()?;
    let connection = near.block_on(pair.near.connect(address, EXPECTED, DEADLINE))?;
    let bytes = content.len();
    let took = near.block_on(async {
        let start = Instant::now();
        let (mut ask, mut stream) = connection.quinn().open_bi().await?;
        ask.write_all(b"?").await?;
        ask.finish()?;
        let (mut received, mut pieces) = (0, [const { Bytes::new() }; 32]);
        while let Some(read) = stream.read_chunks(&mut pieces).await? {
            received += pieces[..read].iter().map(Bytes::len).sum::<usize>();
        }
        anyhow::ensure!(received == bytes, "{received} of {bytes} bytes have come");
        Ok(start.elapsed())
    })?;
    far.block_on(sending)??;
    Ok(took)
}

/// The same through [`Transfer`], after a first small blob has set up the link.
fn allhands(near: &Runtime, far: &Runtime, content: &Bytes) -> anyhow::Result<Duration> {
    let pair = Pair::new(near, far)?;
    let (source, sink) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
    let (small, blob) = (source.put(Bytes::from_static(b"small"))?, source.put(content.clone())?);
    let start_node = |runtime: &Runtime, endpoint: &Endpoint, store: &Arc<MemoryStore>| {
        let addresses = vec![endpoint.local_address()?];
        let options = Options { addresses: addresses.clone(), ..Options::default() };
        let _inside = runtime.enter();
        let (transfer, _reports) = Transfer::start(endpoint.clone(), store.clone(), options);
        let name = endpoint.identity().own().name.clone();
        anyhow::Ok((transfer, Holder { node: Node { role: Role::Worker, name }, addresses }))
    };
    let (_serving, holder) = start_node(far, &pair.far, &source)?;
    let (fetching, _) = start_node(near, &pair.near, &sink)?;
    let fetch =
        |blob| Fetch { blob, bytes: None, holders: vec![(holder.clone(), true)], within: DEADLINE };
    near.block_on(fetching.fetch(fetch(small)))?;
    let start = Instant::now();
    near.block_on(fetching.fetch(fetch(blob)))?;
    let took = start.elapsed();
    let written = sink.1.load(std::sync::atomic::Ordering::Relaxed);
    anyhow::ensure!(written == content.len() + 5, "{written} bytes were written");
    Ok(took)
}

/// What a store does besides the disk. That of the sink keeps no bytes, as the bare stream keeps none.
#[derive(Debug, Default)]
struct MemoryStore(Mutex<BTreeMap<BlobId, Blob>>, std::sync::atomic::AtomicUsize);

#[derive(Debug)]
struct Blob {
    manifest: Arc<Manifest>,
    chunks: BTreeMap<u32, Bytes>,
}

impl MemoryStore {
    fn put(&self, bytes: Bytes) -> anyhow::Result<BlobId> {
        let manifest = Arc::new(Manifest::of(&bytes)?);
        let chunks = (0..).zip(bytes.chunks(CHUNK_BYTES as usize));
        let chunks = chunks.map(|(at, chunk)| (at, bytes.slice_ref(chunk))).collect();
        let id = manifest.id();
        self.with(|blobs| blobs.insert(id, Blob { manifest, chunks }));
        Ok(id)
    }

    fn with<T>(&self, job: impl FnOnce(&mut BTreeMap<BlobId, Blob>) -> T) -> T {
        job(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl ChunkStore for MemoryStore {
    fn manifest(&self, blob: BlobId) -> Result<Option<Arc<Manifest>>, StoreError> {
        Ok(self.with(|blobs| blobs.get(&blob).map(|blob| Arc::clone(&blob.manifest))))
    }

    fn open(&self, blob: BlobId, manifest: &Arc<Manifest>) -> Result<(), StoreError> {
        let new = || Blob { manifest: Arc::clone(manifest), chunks: BTreeMap::new() };
        self.with(|blobs| {
            blobs.entry(blob).or_insert_with(new);
        });
        Ok(())
    }

    fn present(&self, blob: BlobId) -> Result<ChunkSet, StoreError> {
        Ok(self.with(|blobs| {
            let chunks = blobs.get(&blob).into_iter().flat_map(|blob| blob.chunks.keys());
            chunks.map(|chunk| ChunkRange::new(*chunk, chunk + 1)).collect()
        }))
    }

    fn read(&self, blob: BlobId, chunk: u32) -> Result<Option<Bytes>, StoreError> {
        Ok(self.with(|blobs| blobs.get(&blob)?.chunks.get(&chunk).cloned()))
    }

    fn write(&self, blob: BlobId, chunk: u32, bytes: Verified) -> Result<(), StoreError> {
        self.with(|blobs| {
            if let Some(blob) = blobs.get_mut(&blob) {
                let length = bytes.bytes().len();
                self.1.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
                blob.chunks.insert(chunk, Bytes::new());
            }
        });
        Ok(())
    }
}
