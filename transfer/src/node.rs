//! The shell: an [`Exchange`](crate::exchange::Exchange) with links, a store and a clock.
//!
//! ```text
//! fetch() ─► ┌──────────┐ ─► link to ask on, one a holder ─► its reader ─► back into the loop
//!            │ one loop │
//! askers ──► └──────────┘ ─► jobs on the blocking pool: read, or verify and write
//! ```
//!
//! One task owns the exchange and everything known about peers; it never waits for anybody.
//! Chunks are verified and written on the blocking pool while the next ones are received. What is in
//! memory is bounded by the exchange: so many chunks asked for, so many being sent. A reader waits when
//! the loop is behind, and QUIC then makes the sender wait.

mod asking;
mod error;
mod jobs;
mod peers;
mod pending;
mod repair;
mod serving;
mod shell;
mod traffic;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use allhands_common::blob::{BlobId, Manifest};
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::wire::data::{Holder, Node};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::error::FetchError;
use self::shell::{Input, NewWant, Shell};
use self::traffic::Counter;
pub use self::traffic::Traffic;
use crate::exchange::{Config, Want};
use crate::store::{ChunkStore, Hold};

/// Inputs that wait for the loop; each may hold a chunk, so this is 32 MiB at most.
const INPUTS_MAX: usize = 32;

/// Reports that nobody has read yet; what is beyond it is in the log only.
const REPORTS_MAX: usize = 64;

/// Release of this node, for the other side's log.
const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// What a node is told at its start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where others may dial this node's bulk endpoint. Nothing: nowhere, and nobody is let in (a client).
    pub addresses: Vec<SocketAddr>,
    /// Bounds and patience.
    pub config: Config,
}

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Of which blob.
    pub blob: BlobId,
    /// How long it is, in bytes, as its handle says: bounds what is taken of its manifest.
    pub length: u64,
    /// Which of its bytes; none: all.
    pub bytes: Option<Range<u64>>,
    /// Who has it, and whether all of it.
    pub holders: Vec<(Holder, bool)>,
    /// How long it may take.
    pub within: Duration,
}

/// What was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the blob consists of.
    pub manifest: Arc<Manifest>,
    /// Keeps it in the store; to be dropped when somebody pins it, or it is not needed any more.
    pub hold: Hold,
}

/// What the leader should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Somebody sent wrong bytes.
    Wrong {
        /// Who.
        node: Node,
        /// Of which blob.
        blob: BlobId,
    },
    /// Somebody says that a blob is longer or shorter than its handle does. One of them is wrong.
    OtherLength {
        /// Who.
        node: Node,
        /// Which blob.
        blob: BlobId,
        /// Its length in bytes, as they say.
        bytes: u64,
    },
    /// A chunk of this node's own is damaged on disk. Who asked for it is asked for it; who knows other
    /// holders should have it fetched from them.
    Damaged {
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
    },
}

/// Numbers for wants, each used once.
#[derive(Debug, Clone, Default)]
struct Numbers(Arc<AtomicU64>);

impl Numbers {
    fn next(&self) -> Want {
        Want(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Fetches chunks for this process and serves those of its store. Cheap to clone; it ends with the last
/// clone.
#[derive(Debug, Clone)]
pub struct Transfer {
    inputs: mpsc::Sender<Input>,
    store: Shared,
    numbers: Numbers,
    counter: Counter,
    _stop: Arc<DropGuard>,
}

#[derive(Clone)]
struct Shared(Arc<dyn ChunkStore>);

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ChunkStore")
    }
}

impl Transfer {
    /// Starts a node on `endpoint`, which is best bound with
    /// [`Endpoint::bind_bulk`]. Must be called inside a tokio runtime. The reports are for the leader.
    pub fn start(
        endpoint: Endpoint,
        store: Arc<dyn ChunkStore>,
        options: Options,
    ) -> (Self, mpsc::Receiver<Report>) {
        let (inputs, queue) = mpsc::channel(INPUTS_MAX);
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        let stop = CancellationToken::new();
        let (numbers, counter) = (Numbers::default(), Counter::default());
        let shell = Shell::new(
            (endpoint, Arc::clone(&store), options),
            (inputs.clone(), reports),
            (numbers.clone(), counter.clone()),
        );
        tokio::spawn(shell.run(queue, stop.clone()));
        let guard = Arc::new(stop.drop_guard());
        (Self { inputs, store: Shared(store), numbers, counter, _stop: guard }, reported)
    }

    /// Waits until the wanted bytes are in the store. Dropped, it wants nothing any more.
    ///
    /// # Errors
    /// No holder is left, the length is another one, it took too long, or the store cannot keep it.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, FetchError> {
        let blob = fetch.blob;
        let known = jobs::known(Arc::clone(&self.store.0), blob, fetch.bytes.clone())
            .await
            .map_err(|source| FetchError::Store { blob, source: Arc::new(source) })?;
        let want = self.numbers.next();
        let (done, outcome) = oneshot::channel();
        let (mut reply, replied) = oneshot::channel();
        let new = NewWant { want, fetch, known, repair: false, done };
        let stopped = |_| FetchError::Stopped { blob };
        self.inputs
            .send(Input::Want(Box::new(new)))
            .await
            .map_err(|_| FetchError::Stopped { blob })?;
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::select! {
                outcome = outcome => {
                    // Whoever asked may have gone in this moment.
                    let _ = reply.send(outcome);
                }
                () = reply.closed() => {
                    // A loop that has ended wants nothing any more.
                    let _ = inputs.send(Input::Unwant(want)).await;
                }
            }
        });
        replied.await.map_err(stopped)?.map_err(stopped)?
    }

    /// What has gone over this node's links since its start.
    pub fn traffic(&self) -> Traffic {
        self.counter.traffic()
    }

    /// The leader knows more holders of a blob that may be being fetched.
    pub async fn holders(&self, blob: BlobId, holders: Vec<(Holder, bool)>) {
        // A loop that has ended needs none.
        let _ = self.inputs.send(Input::Holders { blob, holders }).await;
    }

    /// Serves chunks on a connection of another endpoint's making, and asks on it.
    pub async fn adopt(&self, connection: Connection) {
        // A loop that has ended drops it.
        let _ = self.inputs.send(Input::Connected(connection)).await;
    }
}
