//! `allhands worker`: arguments into a configuration, and a worker until it has drained.
//!
//! ```text
//! DIR/worker-id    63 random bits: who this worker is, for as long as the directory lives
//! DIR/lock         locked while a worker runs there
//! DIR/programs/    executables by their hash
//! DIR/blobs/       the chunk store
//! ```
//!
//! Sockets and scratch directories of executors lie among the system's temporary files, because a
//! socket's path must be short.

mod bulk;

use std::fs;
use std::path::{Path, PathBuf};

use allhands_common::id::{BootId, WorkerId};
use allhands_common::net::access::Role;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::identity::Identity;
use allhands_common::net::{local, place, random};
use allhands_common::resources::Resources;
use allhands_scheduler::AgentConfig;
use allhands_store::scratch::Directory;
use allhands_worker::blobs::Blobs;
use allhands_worker::fetch::{self, Plane};
use allhands_worker::pool::{Launch, Stored, output};
use allhands_worker::{Config, Coordinators, platform};
use anyhow::{Context, ensure};
use rustix::system::{sysinfo, uname};

use crate::args::{Resource, User, Worker};
use crate::directory::{self, PASSABLE, PRIVATE};
use crate::shutdown;

pub(crate) fn run(command: &Worker) -> anyhow::Result<()> {
    command.tether.tie()?;
    let identity = Identity::load(&command.identity).context("the identity cannot be used")?;
    let own = identity.own();
    ensure!(
        own.role == Role::Worker,
        "{} is the identity of {own}, not of a worker: `allhands init DIR --add worker:NAME` issues one",
        command.identity.display()
    );
    // An executor that runs as somebody else must reach its program and its socket.
    let mode = if command.user.is_some() { PASSABLE } else { PRIVATE };
    directory::make(&command.dir.join("programs"), mode)?;
    let _lock = directory::lock(&command.dir, "lock", "a worker")?;
    let unmade = "no scratch directory can be made";
    let scratch = Directory::temporary().context(unmade)?;
    if command.user.is_some() {
        scratch.let_others_pass().context(unmade)?;
    }
    let places = place::resolve(&command.coordinators.join(","))?;
    let command = command.clone();
    // One loop, one thread: executors use the others.
    local::run(async move {
        let shutdown = shutdown::on_signals()?;
        let bulk = bulk::open(&command, &identity, &places).context("chunks cannot be served")?;
        let store = bulk.store.clone();
        let (fetcher, plane) = fetch::start(bulk);
        let blobs = Blobs::of_worker(store, fetcher);
        let config = config(&command, scratch.path(), (blobs, plane))?;
        tracing::info!(worker = %config.agent.worker, name = config.agent.name, "starts");
        let endpoint = Endpoint::bind_to_dial(identity, &places)?;
        let coordinators = Coordinators::Remote { endpoint, places };
        Ok(allhands_worker::run(config, coordinators, shutdown).await?)
    })?
}

fn config(
    command: &Worker,
    scratch: &Path,
    (blobs, plane): (Blobs, Plane),
) -> anyhow::Result<Config> {
    let boot = BootId(random::bytes().context("the system gives no random bytes")?);
    let agent = AgentConfig {
        worker: worker_id(&command.dir.join("worker-id"))?,
        boot,
        name: command.name.clone().unwrap_or_else(host_name),
        resources: resources(command),
        platform: platform::of_this_machine(),
    };
    let stored = Stored {
        programs: command.dir.join("programs"),
        helper: helper(command.user)?,
        user: command.user.map(|user| (user.id, user.group)),
        variables: Vec::new(),
    };
    if command.user.is_none() && rustix::process::geteuid().is_root() {
        tracing::warn!("tasks run as root: --user UID:GID makes them run as somebody else");
    }
    let output = output::to_log().context("the thread that logs executors' output cannot start")?;
    let (launch, scratch) = (Launch::Stored(stored), scratch.join("x"));
    Ok(Config { agent, launch, scratch, output, blobs, plane: Some(plane) })
}

/// What an executor's process begins as. The link stays right when a build replaces the file, but who
/// has just become another user may not follow it.
fn helper(user: Option<User>) -> anyhow::Result<PathBuf> {
    match user {
        None => Ok("/proc/self/exe".into()),
        Some(_) => std::env::current_exe().context("this program has no path"),
    }
}

fn resources(command: &Worker) -> Resources {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let slots = command.slots.unwrap_or_else(|| u32::try_from(cores()).unwrap_or(u32::MAX));
    let whole = Resources::cpus(slots).memory(sysinfo().totalram);
    command.resources.iter().fold(whole, |all, one| match one {
        Resource::Memory(bytes) => all.memory(*bytes),
        Resource::Counted(name, count) => all.with(name.clone(), *count),
    })
}

fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// Who the worker of this directory is.
fn worker_id(file: &Path) -> anyhow::Result<WorkerId> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let random = random::bytes().context("the system gives no random bytes")?;
            let id = WorkerId(u64::from_le_bytes(random) >> 1);
            let failed = || format!("{} cannot be written", file.display());
            let new = file.with_extension("new");
            fs::write(&new, format!("{id}\n")).with_context(failed)?;
            fs::rename(&new, file).with_context(failed)?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}
