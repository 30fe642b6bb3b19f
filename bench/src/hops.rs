//! The bare way of one call through three coordinators: the same processes, connections and fsyncs as the
//! cluster's, and nothing computed.
//!
//! ```text
//! client ─► leader ─► 2 followers ─► leader ─► worker ─► executor ─► worker ─► leader ─► 2 followers ─► leader ─► client
//!           fsync     fsync                                                    fsync     fsync
//! ```
//! Each is a process with one thread (the leader's disk has another, so that its fsync runs beside those of the
//! followers), with QUIC and mutual TLS between them and a Unix socket to the executor. What is sent has the
//! length of what the cluster sends. No system on this design can be quicker on this machine.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::identity::Identity;
use allhands_common::net::local;
use anyhow::{Context as _, bail};
use quinn::{RecvStream, SendStream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::measure::{AS_PEER, complain};

/// First argument of a process on the way.
pub(crate) const AS_HOP: &str = "as-hop";

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What is sent, in bytes: an entry with its head, an order, a report, and the same for the client.
const MESSAGE_BYTES: usize = 160;
/// What is written to the log.
const ENTRY_BYTES: usize = 168;
/// What the executor is given.
const PING_BYTES: usize = 64;

type Message = [u8; MESSAGE_BYTES];

/// A stream each way.
struct Way(SendStream, RecvStream);

impl Way {
    async fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        Ok(self.0.write_all(message).await?)
    }

    async fn hear(&mut self) -> anyhow::Result<Message> {
        let mut message = [0; MESSAGE_BYTES];
        self.1.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// The processes on the way, which end with this.
struct Hops {
    folder: TempDir,
    children: Vec<Child>,
}

impl Hops {
    fn start(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([AS_HOP.as_ref(), self.folder.path().as_os_str()])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process on the way")?;
        let out = child.stdout.take().context("it has no standard output")?;
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "{words:?} has ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Hops {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Goes the way `count` times.
pub(crate) fn bare_calls(count: u64) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    Authority::create(ClusterId([1; 16]))?.save(&folder.path().join("authority"))?;
    let mut hops = Hops { folder, children: Vec::new() };
    let one = hops.start(&["follower", "one"])?;
    let two = hops.start(&["follower", "two"])?;
    let worker = hops.start(&["worker", "three"])?;
    let leader: SocketAddr = hops.start(&["leader", "four", &one, &two, &worker])?.parse()?;
    let path = hops.folder.path().to_owned();
    local::run(async move {
        let endpoint = bind(&path, "client")?;
        let mut way = dial(&endpoint, leader).await?;
        let mut times = Vec::new();
        for number in 0..count + count / 10 {
            let begun = Instant::now();
            way.send(&[0; MESSAGE_BYTES]).await?;
            way.hear().await?;
            // The first ones find out how large windows and packets may be.
            if number >= count / 10 {
                times.push(begun.elapsed());
            }
        }
        Ok(times)
    })?
}

/// A process on the way.
pub(crate) fn be_hop(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = || -> anyhow::Result<()> {
        match words[..] {
            [folder, "follower", name] => follow(folder.into(), name.into()),
            [folder, "worker", name] => work(folder.into(), name.into()),
            [folder, "leader", name, one, two, worker] => {
                let addresses = [one.parse()?, two.parse()?, worker.parse()?];
                lead(folder.into(), name.into(), addresses)
            }
            _ => bail!("{words:?} is no process on the way"),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn bind(folder: &Path, name: &str) -> anyhow::Result<Endpoint> {
    let authority = Authority::load(&folder.join("authority"))?;
    let now = SystemTime::now();
    let files = authority.issue(Role::Worker, name, Validity::days(now, 1), PathBuf::from(name))?;
    let identity = Identity::verify(&files, now)?;
    Ok(Endpoint::bind(identity, (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into())?)
}

async fn dial(endpoint: &Endpoint, address: SocketAddr) -> anyhow::Result<Way> {
    let expected = Expected { role: Role::Worker, name: None };
    let connection = endpoint.connect(address, expected, CONNECT_MAX).await?;
    let (send, receive) = connection.quinn().open_bi().await?;
    Ok(Way(send, receive))
}

/// Says where it is, and waits for whoever comes.
async fn arrival(endpoint: &Endpoint) -> anyhow::Result<Way> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", endpoint.local_address()?)?;
    out.flush()?;
    let arriving = endpoint.accept().await.context("the endpoint is closed")?;
    let connection = arriving.establish().await?;
    let (send, receive) = connection.quinn().accept_bi().await?;
    Ok(Way(send, receive))
}

/// Writes what comes to a log, fsyncs it, and says so.
fn follow(folder: PathBuf, name: String) -> anyhow::Result<()> {
    let mut log = File::create_new(folder.join(&name))?;
    local::run(async move {
        let endpoint = bind(&folder, &name)?;
        let mut leader = arrival(&endpoint).await?;
        loop {
            let entry = leader.hear().await?;
            append(&mut log)?;
            leader.send(&entry).await?;
        }
    })?
}

fn append(log: &mut File) -> anyhow::Result<()> {
    log.write_all(&[7; ENTRY_BYTES])?;
    Ok(log.sync_data()?)
}

/// Has an executor do nothing, and says so.
fn work(folder: PathBuf, name: String) -> anyhow::Result<()> {
    let path = folder.join("executor");
    let listener = UnixListener::bind(&path)?;
    let mut executor = Command::new(std::env::current_exe()?)
        .args([AS_PEER.as_ref(), path.as_os_str()])
        .spawn()
        .context("cannot start the executor")?;
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let worked = local::run(async move {
        let endpoint = bind(&folder, &name)?;
        let mut socket = tokio::net::UnixStream::from_std(stream)?;
        let mut leader = arrival(&endpoint).await?;
        loop {
            let order = leader.hear().await?;
            let mut ping = [0; PING_BYTES];
            socket.write_all(&ping).await?;
            socket.read_exact(&mut ping).await?;
            leader.send(&order).await?;
        }
    })?;
    executor.wait()?;
    worked
}

/// What a call needs: a majority, the worker, a majority.
fn lead(folder: PathBuf, name: String, addresses: [SocketAddr; 3]) -> anyhow::Result<()> {
    let mut disk = File::create_new(folder.join(&name))?;
    local::run(async move {
        let endpoint = bind(&folder, &name)?;
        let [one, two, worker] = addresses;
        // One entry is on its way at a time, and three write it: no more than that waits in these.
        let (acknowledge, acknowledged) = mpsc::unbounded_channel();
        let (write, mut writes) = mpsc::unbounded_channel::<()>();
        let written = acknowledge.clone();
        std::thread::spawn(move || {
            while writes.blocking_recv().is_some() {
                if written.send((0, append(&mut disk))).is_err() {
                    return;
                }
            }
        });
        let mut followers = Vec::new();
        for (number, address) in [(1, one), (2, two)] {
            let Way(send, receive) = dial(&endpoint, address).await?;
            followers.push(send);
            tokio::task::spawn_local(listen(number, receive, acknowledge.clone()));
        }
        let mut log = Log { followers, write, acknowledged, index: 0, reached: [0; 3] };
        let mut worker = dial(&endpoint, worker).await?;
        let mut client = arrival(&endpoint).await?;
        loop {
            let call = client.hear().await?;
            log.commit(&call).await?;
            worker.send(&call).await?;
            let report = worker.hear().await?;
            log.commit(&report).await?;
            client.send(&report).await?;
        }
    })?
}

/// Who has written the next entry, or why not: 0 is the leader's own disk.
type Acknowledgement = (usize, anyhow::Result<()>);

async fn listen(
    number: usize,
    mut receive: RecvStream,
    acknowledge: mpsc::UnboundedSender<Acknowledgement>,
) {
    let mut message = [0; MESSAGE_BYTES];
    while receive.read_exact(&mut message).await.is_ok() {
        if acknowledge.send((number, Ok(()))).is_err() {
            return;
        }
    }
}

/// Three disks.
struct Log {
    followers: Vec<SendStream>,
    write: mpsc::UnboundedSender<()>,
    acknowledged: mpsc::UnboundedReceiver<Acknowledgement>,
    index: u64,
    /// How far each is.
    reached: [u64; 3],
}

impl Log {
    /// Waits until two of three have the entry.
    async fn commit(&mut self, entry: &Message) -> anyhow::Result<()> {
        self.index += 1;
        for follower in &mut self.followers {
            follower.write_all(entry).await?;
        }
        self.write.send(())?;
        while self.reached.iter().filter(|reached| **reached >= self.index).count() < 2 {
            let (number, written) = self.acknowledged.recv().await.context("nobody writes")?;
            written?;
            self.reached[number] += 1;
        }
        Ok(())
    }
}
