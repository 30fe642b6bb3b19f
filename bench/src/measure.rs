//! What a measurement is written as, and the limits that ours are compared with.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use tempfile::TempDir;

/// First argument of the other end of the bare round trip.
pub(crate) const AS_PEER: &str = "as-peer";

/// Bytes of a bare round trip: about what a call of one number is with its header.
const PING_BYTES: usize = 64;

/// One line of output.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    /// `allhands`, or the limit it is compared with.
    pub(crate) system: String,
    pub(crate) workload: String,
    pub(crate) n: u64,
    pub(crate) rep: u32,
    pub(crate) seconds: f64,
    pub(crate) per_task_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_task: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_s: Option<f64>,
    /// Which of several runs, where a workload has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// Memory of all processes together, beside the length of the array that they share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pss_ratio: Option<f64>,
    /// Workers, where it is a matter of the measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<u32>,
    /// What a range costs the core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_range_us: Option<f64>,
    /// Bytes that one node sent, beside the length of the blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_ratio: Option<f64>,
    /// Bytes that one node received, beside the length of the blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) received_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_sent_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) received_ratio_max: Option<f64>,
    /// Bytes that all nodes received, beside the length of the blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wire_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) travelled_ratio: Option<f64>,
    /// Chunks that are not what they were, beside all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changed_ratio: Option<f64>,
}

impl Line {
    pub(crate) fn new(system: &str, workload: &str, n: u64, rep: u32, took: Duration) -> Self {
        Self {
            system: system.into(),
            workload: workload.into(),
            n,
            rep,
            seconds: took.as_secs_f64(),
            per_task_us: took.as_secs_f64() * 1e6 / n.max(1) as f64,
            ..Self::default()
        }
    }

    /// Adds the distribution of single times.
    pub(crate) fn spread(mut self, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times.get(place.min(times.len() - 1)).map(|time| time.as_secs_f64() * 1e6)
        };
        self.p50_us = at(0.5);
        self.p99_us = at(0.99);
        self.max_us = at(1.0);
        self
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)?;
        out.flush()?;
        Ok(())
    }
}

/// Says on standard error what went wrong, with its causes.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody can be told when standard error is gone.
    _ = writeln!(std::io::stderr(), "allhands-bench: {error:#}");
}

/// The other end of a bare round trip: a process that sends back what comes.
struct Peer {
    process: Child,
    /// Where its socket is; goes with it.
    _folder: TempDir,
}

impl Peer {
    /// Starts it, and listens for it.
    fn spawn() -> anyhow::Result<(Self, UnixListener)> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        let process = Command::new(std::env::current_exe()?)
            .args([AS_PEER.as_ref(), path.as_os_str()])
            .spawn()
            .context("cannot start the other end")?;
        Ok((Self { process, _folder: folder }, listener))
    }
}

/// Bare round trips of 64 bytes between two processes over a Unix socket, its ends on different cores.
pub(crate) fn bare_round_trips(count: u64) -> anyhow::Result<Vec<Duration>> {
    let (mut peer, listener) = Peer::spawn()?;
    // A thread of its own: the pin must not outlive the measurement.
    let measured = std::thread::spawn(move || -> anyhow::Result<Vec<Duration>> {
        pin(0)?;
        let (mut stream, _) = listener.accept()?;
        let mut bytes = [0; PING_BYTES];
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            times.push(begun.elapsed());
        }
        Ok(times)
    });
    let times = measured.join().map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?;
    peer.process.wait()?;
    times
}

/// The same through a thread in between, which waits for the caller and for the other process at once:
/// caller to thread to process to thread to caller, with nothing done on the way.
pub(crate) fn relayed_round_trips(count: u64) -> anyhow::Result<Vec<Duration>> {
    let (mut peer, listener) = Peer::spawn()?;
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
    let (answered, answers) = mpsc::channel();
    let rung = Arc::clone(&bell);
    let relay = std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = [0; PING_BYTES];
        for _ in 0..count {
            rustix::io::read(&*rung, &mut bytes[..8])?;
            stream.write_all(&bytes)?;
            let mut ready =
                [PollFd::new(&stream, PollFlags::IN), PollFd::new(&*rung, PollFlags::IN)];
            poll(&mut ready, None)?;
            stream.read_exact(&mut bytes)?;
            answered.send(())?;
        }
        Ok(())
    });
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        rustix::io::write(&*bell, &1u64.to_le_bytes())?;
        answers.recv()?;
        times.push(begun.elapsed());
    }
    relay.join().map_err(|_| anyhow::anyhow!("the relaying thread panicked"))??;
    peer.process.wait()?;
    Ok(times)
}

/// The other end: sends back what comes, until nothing does.
pub(crate) fn be_peer(words: &[String]) -> ExitCode {
    let echo = || -> anyhow::Result<()> {
        pin(1)?;
        let path = words.first().context("no socket given")?;
        let mut stream = UnixStream::connect(path)?;
        let mut bytes = [0; PING_BYTES];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    };
    match echo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn pin(core: usize) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(core % cores);
    sched_setaffinity(None, &set).context("cannot pin a thread to a core")
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
