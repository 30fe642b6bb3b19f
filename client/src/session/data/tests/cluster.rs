//! A cluster in one process: each coordinator on a runtime of its own, each worker on a thread of its own, so
//! that they can be killed; and sessions.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its cluster fails")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use allhands_common::id::{BlobId, BootId, ClusterId, CoordinatorId, WorkerId};
use allhands_common::net::access::Purpose;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::dial::Dialler;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::link::Link;
use allhands_common::net::local;
use allhands_common::net::place::{self, Place};
use allhands_common::resources::Resources;
use allhands_common::role::Role;
use allhands_common::wire::admin::{Answer, Blobs, Question};
use allhands_coordinator::Coordinator;
use allhands_coordinator::raft::config::Durability;
use allhands_scheduler::AgentConfig;
use allhands_store::blobs::Store;
use allhands_worker::blobs;
use allhands_worker::fetch::{self, Bulk, FetchError, Fetcher};
use allhands_worker::pool::{Launch, Stored, output};
use allhands_worker::{Coordinators, platform};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::cluster::Cluster;
use crate::data::Data;
use crate::session::holdings::Holdings;
use crate::session::thread::{Source, Stay, random_id, start};

const CLUSTER: ClusterId = ClusterId([3; 16]);

/// Nothing here should take a tenth of that; nothing may hang.
const DEADLINE: Duration = Duration::from_secs(60);

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

pub(super) struct TestCluster {
    authority: Authority,
    pub(super) dir: TempDir,
    places: Vec<Place>,
    coordinators: Vec<(Coordinator, Runtime)>,
}

pub(super) struct TestWorker {
    pub(super) fetcher: Fetcher,
    pub(super) store: Store,
    end: Option<oneshot::Sender<()>>,
    drain: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes that differ from chunk to chunk, and with the length.
pub(super) fn content(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32
    });
    let mut content: Vec<u8> = words.take(bytes.div_ceil(4)).flat_map(u32::to_le_bytes).collect();
    content.truncate(bytes);
    content
}

/// An address at which nobody answers: whatever is served there does not speak QUIC.
pub(super) fn nobody_listens() -> SocketAddr {
    (LOOPBACK, 9).into()
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn identity(authority: &Authority, role: Role, name: &str) -> Identity {
    let now = SystemTime::now();
    let files = authority.issue(role, name, Validity::days(now, 1), PathBuf::from(name)).unwrap();
    Identity::verify(&files, now).unwrap()
}

/// Free ports outside the range from which the system gives ports to everybody who asks for any.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    let first = u16::from_le_bytes(allhands_common::net::random::bytes().unwrap());
    let candidates = (0..10_000).map(|step| 20_000 + first.wrapping_add(step) % 10_000);
    let held: Vec<UdpSocket> =
        candidates.filter_map(|port| UdpSocket::bind((LOOPBACK, port)).ok()).take(count).collect();
    held.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

impl TestCluster {
    pub(super) fn start(coordinators: usize) -> Self {
        let (authority, dir) = (Authority::create(CLUSTER).unwrap(), tempfile::tempdir().unwrap());
        let addresses = free_ports(coordinators);
        let ids = (1..).map(CoordinatorId);
        let members: Vec<_> = ids.zip(addresses.iter().copied()).collect();
        let running = members.iter().map(|(id, listen)| {
            let name = format!("coordinator-{id}");
            let config = allhands_coordinator::Config {
                id: *id,
                identity: identity(&authority, Role::Coordinator, &name),
                listen: *listen,
                dir: dir.path().join(name),
                members: members.clone(),
                durability: Durability::Process,
            };
            for part in ["raft", "segments", "programs"] {
                std::fs::create_dir_all(config.dir.join(part)).unwrap();
            }
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.unwrap();
            let coordinator = runtime.block_on(allhands_coordinator::run(config)).unwrap();
            (coordinator, runtime)
        });
        let coordinators = running.collect();
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let places = place::resolve(&names.join(",")).unwrap();
        Self { authority, dir, places, coordinators }
    }

    /// The process of the leader is gone: no word of farewell.
    pub(super) fn kill_leader(&mut self) {
        let leads = |running: &Coordinator| running.leadership().borrow().am_leader;
        let leader =
            eventually(async || self.coordinators.iter().position(|(running, _)| leads(running)));
        let (coordinator, runtime) = self.coordinators.remove(leader);
        runtime.shutdown_background();
        drop(coordinator);
    }

    /// Waits until the leader knows that so many workers want the blob.
    pub(super) fn until_wanted(&self, blob: BlobId, by: u32) {
        eventually(async || {
            let known = self.blobs().await?.blobs.into_iter().find(|known| known.blob == blob)?;
            (known.wanted_by == by).then_some(())
        });
    }

    /// Waits until the leader knows of so many workers that have all of the blob.
    pub(super) fn until_held(&self, blob: BlobId, by: usize) {
        eventually(async || {
            let known = self.blobs().await?.blobs.into_iter().find(|known| known.blob == blob)?;
            (known.workers.iter().filter(|(_, whole)| *whole).count() == by).then_some(())
        });
    }

    /// Waits until so many workers take tasks.
    pub(super) fn until_workers(&self, many: usize) {
        eventually(async || {
            let Answer::Status(status) = self.ask(Question::Status).await? else { return None };
            (status.workers.len() == many).then_some(())
        });
    }

    /// What the leader knows of blobs, as an operator asks it.
    async fn blobs(&self) -> Option<Blobs> {
        match self.ask(Question::Blobs).await? {
            Answer::Blobs(blobs) => Some(blobs),
            _ => None,
        }
    }

    async fn ask(&self, question: Question) -> Option<Answer> {
        let identity = identity(&self.authority, Role::Admin, "admin");
        let endpoint = Endpoint::bind_to_dial(identity, &self.places).unwrap();
        for place in self.places.clone() {
            let (endpoint, purpose) = (endpoint.clone(), Purpose::Admin);
            let dialler = Dialler { endpoint, place, purpose, build: "test" };
            let dialled: Result<(Link<Question, Answer>, _), _> = dialler.dial().await;
            let Ok((link, _connection)) = dialled else { continue };
            let (mut sender, mut receiver) = link.split();
            sender.say(question.clone()).await.unwrap();
            sender.flush().await.unwrap();
            match receiver.hear().await {
                Ok(Some(Answer::NotLeader { .. })) | Ok(None) | Err(_) => {}
                Ok(Some(answer)) => return Some(answer),
            }
        }
        None
    }

    pub(super) fn worker(&self, name: &str) -> TestWorker {
        self.worker_with(name, Vec::new(), 1 << 30)
    }

    /// A worker that says that it can be dialled there; nowhere: where it can.
    pub(super) fn worker_announced_at(&self, name: &str, at: Vec<SocketAddr>) -> TestWorker {
        self.worker_with(name, at, 1 << 30)
    }

    /// The same, whose store may take so many bytes.
    pub(super) fn worker_with(
        &self,
        name: &str,
        at: Vec<SocketAddr>,
        quota_bytes: u64,
    ) -> TestWorker {
        let dir = self.dir.path().join(name);
        for part in ["programs", "blobs", "scratch"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let identity = identity(&self.authority, Role::Worker, name);
        let (places, name) = (self.places.clone(), name.to_owned());
        let store = Store::open(&dir.join("blobs"), CLUSTER, quota_bytes).unwrap();
        let (begun, begins) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let (drain, drains) = oneshot::channel::<()>();
        let kept = store.clone();
        let thread = std::thread::spawn(move || {
            local::run(async move {
                let endpoint = Endpoint::bind_bulk(identity.clone(), (LOOPBACK, 0).into()).unwrap();
                let own = endpoint.local_address().unwrap();
                let addresses = if at.is_empty() { vec![own] } else { at };
                let bulk = Bulk { endpoint, addresses, store: kept.clone() };
                let (fetcher, plane) = fetch::start(bulk);
                let blobs = blobs::Blobs::of_worker(kept, fetcher.clone());
                begun.send(fetcher).unwrap();
                let config = config(&name, &dir, blobs, plane);
                let endpoint = Endpoint::bind_to_dial(identity, &places).unwrap();
                let coordinators = Coordinators::Remote { endpoint, places };
                let told = async {
                    if drains.await.is_err() {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    run = allhands_worker::run(config, coordinators, told) => run.unwrap(),
                    _ = ended => {}
                }
            })
            .unwrap();
        });
        let fetcher = begins.recv().unwrap();
        let (end, drain) = (Some(end), Some(drain));
        TestWorker { fetcher, store, end, drain, thread: Some(thread) }
    }

    pub(super) fn client(&self) -> Cluster {
        let identity = identity(&self.authority, Role::Client, "client");
        let source = Source::Remote { identity, places: self.places.clone(), stay: Stay::ATTACHED };
        let running = start(source, DEADLINE).unwrap();
        running.session.wait_attached(DEADLINE).unwrap();
        Cluster::of(running)
    }
}

/// What `look` finds, sooner or later.
pub(super) fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, found).await.unwrap() })
}

fn config(
    name: &str,
    dir: &Path,
    blobs: blobs::Blobs,
    plane: fetch::Plane,
) -> allhands_worker::Config {
    let boot: [u8; 16] = random_id().unwrap();
    let [a, b, c, d, ..] = boot;
    allhands_worker::Config {
        agent: AgentConfig {
            worker: WorkerId(u64::from(u32::from_le_bytes([a, b, c, d]))),
            boot: BootId(boot),
            name: name.to_owned(),
            resources: Resources::cpus(1),
            platform: platform::of_this_machine(),
        },
        launch: Launch::Stored(Stored {
            programs: dir.join("programs"),
            helper: "/proc/self/exe".into(),
            user: None,
            variables: Vec::new(),
        }),
        scratch: dir.join("scratch").join("x"),
        output: output::to_own().unwrap(),
        blobs,
        plane: Some(plane),
    }
}

impl TestWorker {
    pub(super) fn fetch(&self, blob: BlobId, bytes: usize) -> Result<(), FetchError> {
        self.fetch_range(blob, bytes, 0..bytes as u64)
    }

    pub(super) fn fetch_range(
        &self,
        blob: BlobId,
        bytes: usize,
        range: Range<u64>,
    ) -> Result<(), FetchError> {
        wait(&self.fetcher, blob, bytes, range)
    }

    /// The same, meanwhile.
    pub(super) fn spawn_fetch(
        &self,
        blob: BlobId,
        bytes: usize,
    ) -> JoinHandle<Result<(), FetchError>> {
        let fetcher = self.fetcher.clone();
        std::thread::spawn(move || wait(&fetcher, blob, bytes, 0..bytes as u64))
    }

    /// All of a blob, as it is mapped; panics if something is missing.
    pub(super) fn bytes(&self, blob: BlobId) -> Vec<u8> {
        let blob = self.store.get(&blob).unwrap();
        blob.map(0..blob.manifest().bytes()).unwrap().to_vec()
    }

    /// Its process vanishes: no close, no reset, nothing more on its sockets.
    pub(super) fn kill(mut self) {
        self.stop();
    }

    /// It is told to stop, and does so in its own time.
    pub(super) fn drain(&mut self) {
        self.drain.take().unwrap().send(()).unwrap();
    }

    /// Waits for its end.
    pub(super) fn ended(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait(
    fetcher: &Fetcher,
    blob: BlobId,
    bytes: usize,
    range: Range<u64>,
) -> Result<(), FetchError> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fetch = fetcher.fetch(blob, bytes as u64, range);
        tokio::time::timeout(DEADLINE, fetch).await.unwrap().map(drop)
    })
}

/// What a session holds for its cluster.
pub(super) fn holdings(client: &Cluster) -> Holdings {
    match client.data() {
        Data::Elsewhere(giving) => giving.holdings().unwrap(),
        other => panic!("{other:?}"),
    }
}
