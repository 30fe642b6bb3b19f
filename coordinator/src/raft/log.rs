//! The replicated log on disk: votes, entries, the committed mark. openraft drives it through `RaftLogStorage`.
//!
//! It is `raft-log` (a write-ahead log in 4 MiB chunks, decision 0001) behind our own record layout. Writes go in
//! order to one writer thread, which batches them and calls back after `fdatasync`; reads come from its cache
//! (4 MiB, or what the open chunk has) or from the chunk files.
//!
//! After a crash: everything whose callback was called is there; a torn last record is cut; damage anywhere else
//! refuses to open, because a node that forgets committed entries can lose them for the whole cluster. A failed
//! write or sync stops the node and is never retried (the kernel may have dropped the pages).

mod reader;
mod record;
mod sizes;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::oneshot;

pub use reader::LogReader;
use record::{Body, RecordId, RecordVote, Records, Synced};
use sizes::Sizes;

use super::config::Durability;
use super::types::{Entry, LogId, TypeConfig, Vote};

/// One chunk file: what a purge can free at once, and what the open chunk holds in RAM.
const CHUNK_BYTES: usize = 4 << 20;
/// Entries kept in RAM. Replication that lags more reads from the chunk files, which are in the kernel's cache.
const CACHE_BYTES_MAX: usize = 4 << 20;
/// Entries kept in RAM, by number: small entries cost their map node too.
const CACHE_ENTRIES_MAX: usize = 100_000;
/// Bytes handed to the writer thread and not yet written: 4 entries in flight and what replication sends.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Buffer for the sequential read at start.
const REPLAY_BYTES: usize = 1 << 20;
/// How long the writer looks for company before a sync: time to take what is queued already, and too short to go to
/// sleep, from which the system's timers would wake it some 50 µs late. (With zero it would not look.) Company comes
/// while the sync before is under way.
const BATCH_WAIT: Duration = Duration::from_nanos(50);

/// Why the log in a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The files cannot be read or written.
    #[error("the raft log in {dir} cannot be opened")]
    Io {
        /// Where the log is.
        dir: PathBuf,
        #[source]
        /// What the system said.
        source: io::Error,
    },
    /// Something other than a torn tail. Trying again cannot help.
    #[error(
        "the raft log in {dir} is damaged and must not be used: take this coordinator out of the membership, move \
         its data directory away, and let it join again under a new id; the other coordinators hold the data"
    )]
    Damaged {
        /// Where the log is.
        dir: PathBuf,
        #[source]
        /// What was found.
        source: io::Error,
    },
}

/// Handle to the log; clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    held: RwLock<Held>,
    durability: Durability,
}

#[derive(Debug)]
struct Held {
    log: RaftLog<Records>,
    sizes: Sizes,
}

impl LogStore {
    /// Opens or makes the log in `dir`, which the caller has locked. Reads all of it once.
    pub fn open(dir: &Path, durability: Durability) -> Result<Self, OpenLogError> {
        let failed = |source: io::Error| {
            let dir = dir.to_owned();
            match source.kind() {
                io::ErrorKind::InvalidData
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidInput => OpenLogError::Damaged { dir, source },
                _ => OpenLogError::Io { dir, source },
            }
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.to_str().ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::Unsupported,
                "the path of the log is not valid UTF-8",
            ))
        })?;
        let mut config = raft_log::Config::new(path);
        config.wal.chunk_max_size = Some(CHUNK_BYTES);
        config.wal.read_buffer_size = Some(REPLAY_BYTES);
        config.wal.flush_batch_wait = Some(BATCH_WAIT);
        config.wal.flush_queue_max_bytes = Some(QUEUE_BYTES_MAX);
        config.wal.truncate_incomplete_record = Some(true);
        config.log_cache_capacity = Some(CACHE_BYTES_MAX);
        config.log_cache_max_items = Some(CACHE_ENTRIES_MAX);
        let log = RaftLog::<Records>::open(Arc::new(config)).map_err(failed)?;
        let mut sizes = Sizes::default();
        if let Some(purged) = log.log_state().purged() {
            sizes.purge(purged.0.index);
        }
        for entry in log.read(0, u64::MAX) {
            let (id, Body(payload)) = entry.map_err(failed)?;
            sizes.append(id.0.index, record::body_bytes(&payload));
        }
        Ok(Self { shared: Arc::new(Shared { held: RwLock::new(Held { log, sizes }), durability }) })
    }

    /// Bytes of the entries after `from` up to and with `to`.
    pub fn bytes_between(&self, from: Option<u64>, to: u64) -> io::Result<u64> {
        let start = from.map_or(0, |index| index + 1);
        Ok(self.shared.read()?.sizes.between(start, to.saturating_add(1)))
    }

    /// The last index that may be purged so that at most `budget_bytes` of log stay behind `last`.
    pub fn purgeable(&self, last: u64, budget_bytes: u64) -> io::Result<Option<u64>> {
        Ok(self.shared.read()?.sizes.purgeable(last, budget_bytes))
    }

    /// Waits until everything written so far is as durable as this log promises.
    async fn flush(&self) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        self.shared
            .write()?
            .log
            .flush(self.shared.durability.syncs(), Some(Synced::Waiter(done)))?;
        flushed.await.map_err(|_| io::Error::other("the writer of the raft log has stopped"))?
    }
}

impl Shared {
    fn read(&self) -> io::Result<RwLockReadGuard<'_, Held>> {
        self.held.read().map_err(poisoned)
    }

    fn write(&self) -> io::Result<RwLockWriteGuard<'_, Held>> {
        self.held.write().map_err(poisoned)
    }
}

/// A writer that panicked may have left half a step behind: the node must stop, as after a failed write.
fn poisoned<T>(_: PoisonError<T>) -> io::Error {
    io::Error::other("an earlier write to the raft log panicked")
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let held = self.shared.read()?;
        let state = held.log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().map(|id| id.0),
            last_log_id: state.last().map(|id| id.0),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.shared.write()?.log.save_vote(RecordVote(*vote))?;
        self.flush().await
    }

    /// Goes to the writer with the next append, because waking it for this alone would delay the entry that is about
    /// to be applied. Losing it only makes the next start wait for the leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut held = self.shared.write()?;
        let state = held.log.log_state();
        let known = state.committed().map(|id| id.0);
        let last = state.last().map(|id| id.0);
        // After a snapshot was installed the mark may lie beyond the log; the snapshot then covers it.
        let Some(committed) = committed.filter(|id| Some(*id) > known && Some(*id) <= last) else {
            return Ok(());
        };
        held.log.commit(RecordId(committed))?;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.read()?.log.log_state().committed().map(|id| id.0))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut held = self.shared.write()?;
        let Held { log, sizes } = &mut *held;
        for entry in entries {
            let (index, bytes) = (entry.log_id.index, record::body_bytes(&entry.payload));
            log.append([(RecordId(entry.log_id), Body(entry.payload))])?;
            sizes.append(index, bytes);
        }
        log.flush(self.shared.durability.syncs(), Some(Synced::Raft(callback)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut held = self.shared.write()?;
            let first_gone = last.map_or(0, |id| id.index + 1);
            // `raft-log` wants to keep an entry that it has; behind the last one there is nothing to do.
            if held.log.log_state().last().is_none_or(|last| first_gone > last.0.index) {
                return Ok(());
            }
            held.log.truncate(first_gone)?;
            held.sizes.truncate(first_gone);
        }
        self.flush().await
    }

    /// Chunk files are unlinked only behind a sync, so a purge always syncs, whatever the durability.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut held = self.shared.write()?;
        held.log.purge(RecordId(upto))?;
        held.sizes.purge(upto.index);
        held.log.flush(true, None)
    }
}
