//! The embedded cluster: a coordinator and a worker on the session's own thread, with links that stay
//! inside the process. Executors are real processes of this very program.
//!
//! Nothing survives the process, and nothing needs to: an acknowledgement means applied.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use allhands_common::id::{BootId, WorkerId};
use allhands_common::net::link::Link;
use allhands_common::resources::Resources;
use allhands_scheduler::AgentConfig;
use allhands_worker::pool::{ExecutorCommand, Launch, output};
use allhands_worker::{Config, Coordinators, platform};
use tokio::task::{JoinHandle, spawn_local};

use crate::cluster::EmbeddedConfig;
use crate::error::Error;
use crate::session::link::ClientLink;
use crate::session::thread::random_id;

/// Frames that a link inside the process holds: an entry's worth of small ones.
const LINK_FRAMES: usize = 256;

/// What ends with the cluster.
#[derive(Debug)]
pub(crate) struct Guard {
    tasks: Vec<JoinHandle<()>>,
    _scratch: Scratch,
}

impl Drop for Guard {
    /// The worker's pool kills its executors when its task is dropped.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A directory that is removed with this.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let random = u32::from_le_bytes(first(random_id()?));
        let name = format!("allhands-{}-{random:08x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies in the system's temporary directory, which is cleaned by the system.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts a cluster on this thread's `LocalSet`; the client's link to its coordinator.
///
/// # Errors
/// The temporary directory cannot be written, or the pool's thread cannot be started.
pub(crate) fn start(config: EmbeddedConfig) -> Result<(ClientLink, Guard), Error> {
    let failed = |error: io::Error| Error::embedded(&error);
    let scratch = Scratch::make().map_err(failed)?;
    let (entrance, core) = allhands_coordinator::embedded(&scratch.path().join("segments"))
        .map_err(|error| Error::embedded(&error))?;
    let boot = random_id().map_err(failed)?;
    let memory_bytes = rustix::system::sysinfo().totalram;
    let worker = Config {
        agent: AgentConfig {
            worker: WorkerId(u64::from(u32::from_le_bytes(first(boot)))),
            boot: BootId(boot),
            name: "embedded".into(),
            resources: Resources::cpus(config.slots).memory(memory_bytes),
            platform: platform::of_this_machine(),
        },
        launch: Launch::Own(ExecutorCommand::own(config.arguments)),
        scratch: scratch.path().join("executors"),
        output: output::to_own().map_err(failed)?,
    };
    let (client, clients_end) = Link::pair(LINK_FRAMES);
    let (workers_link, workers_end) = Link::pair(LINK_FRAMES);
    let tasks = vec![
        spawn_local(core),
        spawn_local(entrance.clone().client("embedded".into(), clients_end)),
        spawn_local(entrance.worker(workers_end)),
        spawn_local(async {
            let never = std::future::pending();
            let run = allhands_worker::run(worker, Coordinators::Embedded(workers_link), never);
            if let Err(error) = run.await {
                tracing::error!(error = crate::error::chain(&error), "the embedded worker is gone");
            }
        }),
    ];
    Ok((client, Guard { tasks, _scratch: scratch }))
}

fn first(bytes: [u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = bytes;
    [a, b, c, d]
}
