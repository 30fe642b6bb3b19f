//! The follower's side of a snapshot transfer. One at a time: a new one ends the one before.
//!
//! The state file goes to a scratch directory, segments straight into the live store, where they wait unknown to the
//! state. Installing checks, syncs and publishes everything before openraft is told. A crash before that loses the
//! transfer, not what the node had.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use super::machine::Machine;
use super::message::{MISSING_SEGMENTS_MAX, PeerReply, Refusal, malformed};
use super::snapshot::{SnapshotFile, SnapshotHandle, Snapshots};
use super::types::{NodeId, TypeConfig, Vote};
use crate::segments::{Check, SegmentHead, Segments};

type Raft = openraft::Raft<TypeConfig, Machine>;

/// Longest state file that is taken: 64 B for each of 64 million descriptors.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// The transfer in progress.
#[derive(Debug)]
pub(crate) struct Receiver {
    segments: Segments,
    snapshots: Snapshots,
    transfer: Mutex<Option<Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    number: u64,
    scratch: PathBuf,
    file: Arc<File>,
    file_bytes: u64,
    received: u64,
    /// Parsed when the file is complete.
    heads: Option<Arc<Vec<SegmentHead>>>,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // After a restart nothing unpublished is left either; until then it only costs space.
        if let Err(error) = fs::remove_dir_all(&self.scratch) {
            tracing::warn!(scratch = ?self.scratch, %error, "a snapshot transfer leaves its files");
        }
    }
}

impl Receiver {
    pub(crate) fn new(segments: Segments, snapshots: Snapshots) -> Self {
        Self { segments, snapshots, transfer: Mutex::new(None) }
    }

    pub(crate) async fn begin(
        &self,
        from: NodeId,
        number: u64,
        file_bytes: u64,
    ) -> Result<PeerReply, Refusal> {
        if file_bytes > FILE_BYTES_MAX {
            return Err(malformed(format!("a state file of {file_bytes} bytes")));
        }
        let mut current = self.transfer.lock().await;
        *current = None;
        let scratch = self.snapshots.scratch("incoming").map_err(stopped)?;
        let file =
            File::options().read(true).write(true).create_new(true).open(scratch.join("file"));
        let file = Arc::new(file.map_err(stopped)?);
        *current =
            Some(Transfer { from, number, scratch, file, file_bytes, received: 0, heads: None });
        Ok(PeerReply::Stored)
    }

    pub(crate) async fn part(
        &self,
        from: NodeId,
        number: u64,
        offset: u64,
        bulk: Bytes,
    ) -> Result<PeerReply, Refusal> {
        let mut current = self.current(from, number).await?;
        let transfer = of(&mut current)?;
        let end = offset + bulk.len() as u64;
        if offset != transfer.received || end > transfer.file_bytes {
            return Err(malformed("a part out of place"));
        }
        let file = Arc::clone(&transfer.file);
        blocking(move || file.write_all_at(&bulk, offset)).await?;
        transfer.received = end;
        Ok(PeerReply::Stored)
    }

    pub(crate) async fn missing(&self, from: NodeId, number: u64) -> Result<PeerReply, Refusal> {
        let mut current = self.current(from, number).await?;
        let heads = self.heads(of(&mut current)?).await?;
        let segments = self.segments.clone();
        let missing =
            blocking(move || segments.missing(&heads, Check::Bytes).map_err(io::Error::other));
        let mut missing = missing.await?;
        missing.truncate(MISSING_SEGMENTS_MAX);
        Ok(PeerReply::Missing(missing))
    }

    pub(crate) async fn segments(
        &self,
        from: NodeId,
        number: u64,
        heads: Vec<SegmentHead>,
        mut bulk: Bytes,
    ) -> Result<PeerReply, Refusal> {
        let current = self.current(from, number).await?;
        let segments = self.segments.clone();
        let stored = spawn_blocking(move || {
            for head in heads {
                let length = head.length as usize;
                if length > bulk.len() {
                    return Err(malformed("segments are longer than the bulk"));
                }
                let bytes = bulk.split_to(length);
                if !head.matches(&bytes) {
                    return Err(malformed(format!(
                        "segment {} has other bytes than its head",
                        head.id
                    )));
                }
                segments.append(head.id, &bytes).map_err(io::Error::other).map_err(stopped)?;
            }
            if bulk.is_empty() {
                Ok(PeerReply::Stored)
            } else {
                Err(malformed("bulk is left over"))
            }
        });
        let reply = stored.await.map_err(io::Error::other).map_err(stopped)?;
        drop(current);
        reply
    }

    /// Installs what was received; openraft decides whether it is still wanted.
    pub(crate) async fn install(
        &self,
        raft: &Raft,
        from: NodeId,
        number: u64,
        vote: Vote,
    ) -> Result<PeerReply, Refusal> {
        let mut current = self.current(from, number).await?;
        let transfer = of(&mut current)?;
        let heads = self.heads(transfer).await?;
        let handle = SnapshotHandle { dir: transfer.scratch.clone() };
        let (segments, read) = (self.segments.clone(), handle.clone());
        let checked = blocking(move || {
            let missing = segments.missing(&heads, Check::Bytes).map_err(io::Error::other)?;
            Ok((missing.is_empty(), read.read()?.meta))
        });
        let (complete, meta) = checked.await?;
        if !complete {
            return Err(malformed("segments are still missing"));
        }
        let snapshot = openraft::alias::SnapshotOf::<TypeConfig, _> { meta, snapshot: handle };
        let response = raft.install_full_snapshot(vote, snapshot).await;
        *current = None;
        response.map(|response| PeerReply::Installed(response.vote)).map_err(stopped)
    }

    async fn current(
        &self,
        from: NodeId,
        number: u64,
    ) -> Result<MutexGuard<'_, Option<Transfer>>, Refusal> {
        let current = self.transfer.lock().await;
        let is_it = |transfer: &Transfer| transfer.from == from && transfer.number == number;
        if current.as_ref().is_some_and(is_it) { Ok(current) } else { Err(overtaken()) }
    }

    /// What the complete file says; it is checked and gets its final name.
    async fn heads(&self, transfer: &mut Transfer) -> Result<Arc<Vec<SegmentHead>>, Refusal> {
        if let Some(heads) = &transfer.heads {
            return Ok(Arc::clone(heads));
        }
        if transfer.received != transfer.file_bytes {
            return Err(malformed("the state file is not complete"));
        }
        let handle = SnapshotHandle { dir: transfer.scratch.clone() };
        fs::rename(transfer.scratch.join("file"), handle.state_path()).map_err(stopped)?;
        let read = spawn_blocking(move || handle.read());
        let file: SnapshotFile = read
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| malformed(format!("the state file: {error}")))?;
        let heads = Arc::new(file.places.iter().map(|place| place.head).collect());
        transfer.heads = Some(Arc::clone(&heads));
        Ok(heads)
    }
}

fn of(current: &mut Option<Transfer>) -> Result<&mut Transfer, Refusal> {
    current.as_mut().ok_or_else(overtaken)
}

fn overtaken() -> Refusal {
    Refusal::Overtaken { what: "another snapshot transfer".to_owned() }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped { cause: error.to_string() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(io::Error::other).flatten().map_err(stopped)
}
