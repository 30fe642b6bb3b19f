//! The embedded cluster: a coordinator and a worker on the session's own thread, with links that stay
//! inside the process. Executors are real processes of this very program.
//!
//! Nothing survives the process, and nothing needs to: an acknowledgement means applied.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use allhands_common::id::{BootId, WorkerId};
use allhands_common::net::link::Link;
use allhands_common::resources::Resources;
use allhands_scheduler::AgentConfig;
use allhands_store::scratch::Directory;
use allhands_worker::blobs::{Blobs, StorePlace};
use allhands_worker::pool::{ExecutorCommand, Launch, output};
use allhands_worker::{Config, Coordinators, platform};
use tokio::task::{JoinHandle, spawn_local};

use crate::cluster::EmbeddedConfig;
use crate::error::{Error, chain};
use crate::session::link::ClientLink;
use crate::session::thread::random_id;

/// Frames that a link inside the process holds: an entry's worth of small ones.
const LINK_FRAMES: usize = 256;

/// How long executors may take to be gone: what the worker itself grants them, and its own end.
const END_MAX: Duration = Duration::from_millis(2_300);

/// Why a cluster ended of itself: known before its link ends.
pub(crate) type Why = Rc<OnceCell<String>>;

/// A cluster on this thread.
#[derive(Debug)]
pub(crate) struct Embedded {
    coordinator: JoinHandle<()>,
    worker: JoinHandle<()>,
    blobs: Blobs,
    _scratch: Directory,
}

impl Embedded {
    /// What its tasks map.
    pub(crate) fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }

    /// Ends it: executors first, then what they wrote to.
    pub(crate) async fn end(self) {
        // Its links end with it, and a worker whose links have ended ends its executors.
        self.coordinator.abort();
        if !self.worker.is_finished() {
            _ = tokio::time::timeout(END_MAX, self.worker).await;
        }
    }
}

/// Starts a cluster as tasks of this thread (`spawn_local`); with the client's link to its coordinator.
///
/// # Errors
/// The temporary directory cannot be written.
pub(crate) fn start(config: EmbeddedConfig) -> Result<(Embedded, ClientLink, Why), Error> {
    let failed = |error: io::Error| Error::embedded(chain(&error));
    let scratch = Directory::temporary().map_err(|error| {
        let folder = std::env::temp_dir();
        Error::embedded(format!("no directory can be made in {}: {error}", folder.display()))
    })?;
    let (entrance, core) = allhands_coordinator::embedded(&scratch.path().join("segments"))
        .map_err(|error| Error::embedded(chain(&error)))?;
    let boot = random_id().map_err(failed)?;
    let memory_bytes = rustix::system::sysinfo().totalram;
    let store = scratch.path().join("blobs");
    let store = StorePlace::with_half_of_the_disk(store, config.cluster).map_err(failed)?;
    let blobs = Blobs::embedded(store);
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
        blobs: blobs.clone(),
        plane: None,
    };
    let (client, clients_end) = Link::pair(LINK_FRAMES);
    let (workers_link, workers_end) = Link::pair(LINK_FRAMES);
    let why = Why::default();
    let coordinators = Rc::clone(&why);
    let coordinator = spawn_local(async move {
        if let Err(error) = core.await {
            _ = coordinators.set(chain(&error));
        }
    });
    spawn_local(entrance.clone().client("embedded".into(), clients_end));
    let core = coordinator.abort_handle();
    spawn_local(async move {
        entrance.worker(workers_end).await;
        // Without its worker nothing would ever run.
        core.abort();
    });
    let workers = Rc::clone(&why);
    let worker = spawn_local(async move {
        let never = std::future::pending();
        let run = allhands_worker::run(worker, Coordinators::Embedded(workers_link), never);
        if let Err(error) = run.await {
            _ = workers.set(chain(&error));
        }
    });
    Ok((Embedded { coordinator, worker, blobs, _scratch: scratch }, client, why))
}

fn first(bytes: [u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = bytes;
    [a, b, c, d]
}
