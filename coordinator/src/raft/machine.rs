//! openraft's view of the replicated state: forwards what is committed to the core loop, and turns the core's images
//! into snapshots.
//!
//! Keeps nothing but the place in the log. After a restart openraft installs the last snapshot through here and applies
//! the committed entries behind it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::config::Durability;
use super::core::{
    APPLY_BYTES_MAX, APPLY_ENTRIES_MAX, Applied, AppliedPayload, CoreRequest, SnapshotImage,
};
use super::snapshot::{SnapshotHandle, Snapshots};
use super::types::{
    Entry, LogId, Payload, Proposal, SnapshotMeta, StoredMembership, TypeConfig, Written,
};
use crate::segments::{Check, Linked, Segments, read_linked};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>;

/// The state machine that openraft drives.
#[derive(Debug)]
pub struct Machine {
    core: mpsc::Sender<CoreRequest>,
    segments: Segments,
    snapshots: Snapshots,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The adapter with snapshots in `snapshots`, driving `core`.
    pub fn open(
        core: mpsc::Sender<CoreRequest>,
        segments: Segments,
        snapshots: &Path,
        durability: Durability,
    ) -> io::Result<Self> {
        Ok(Self::new(core, segments, Snapshots::open(snapshots, durability)?))
    }

    pub(crate) fn new(
        core: mpsc::Sender<CoreRequest>,
        segments: Segments,
        snapshots: Snapshots,
    ) -> Self {
        let membership = StoredMembership::default();
        Self { core, segments, snapshots, applied: None, membership }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> CoreRequest,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let stopped = || io::Error::other("the core loop has stopped");
        self.core.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn apply_part(&mut self, part: &mut Part) -> io::Result<()> {
        let Part { entries, responders, last, membership, .. } = std::mem::take(part);
        let Some(last) = last else { return Ok(()) };
        self.ask(|done| CoreRequest::Apply { entries, done }).await?;
        self.applied = Some(last);
        if let Some(membership) = membership {
            self.membership = membership;
        }
        for (index, responder) in responders {
            responder.send(Written { index });
        }
        Ok(())
    }
}

/// Entries on their way to the core.
#[derive(Default)]
struct Part {
    entries: Vec<Applied>,
    responders: Vec<(u64, ApplyResponder<TypeConfig>)>,
    bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
}

impl Part {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<TypeConfig>>) {
        let id = entry.log_id;
        let payload = match entry.payload {
            Payload::Blank => AppliedPayload::Blank,
            Payload::Normal(Proposal(bytes)) => {
                self.bytes += bytes.len();
                AppliedPayload::Proposal(bytes)
            }
            Payload::Membership(membership) => {
                self.membership = Some(StoredMembership::new(Some(id), membership.clone()));
                AppliedPayload::Membership(membership)
            }
        };
        self.entries.push(Applied { index: id.index, leader: id.leader_id, payload });
        self.responders.extend(responder.map(|responder| (id.index, responder)));
        self.last = Some(id);
    }

    fn is_full(&self) -> bool {
        self.bytes >= APPLY_BYTES_MAX || self.entries.len() >= APPLY_ENTRIES_MAX
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut part = Part::default();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            part.push(entry, responder);
            if part.is_full() {
                self.apply_part(&mut part).await?;
            }
        }
        self.apply_part(&mut part).await
    }

    /// Takes the image and links its segments before the next entry is applied; the rest is the builder's.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let image = self.ask(|reply| CoreRequest::Snapshot { reply }).await;
        let segments = self.segments.clone();
        let snapshots = self.snapshots.clone();
        let staged = match image {
            Ok(image) => blocking(move || stage(&segments, &snapshots, &image)).await,
            Err(error) => Err(error),
        };
        Builder {
            meta,
            staged: Some(staged),
            segments: self.segments.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        let ours = self.snapshots.owns(&snapshot);
        let (segments, snapshots) = (self.segments.clone(), self.snapshots.clone());
        let stored = meta.clone();
        let image = blocking(move || import(&segments, &snapshots, &stored, &snapshot)).await?;
        let live: BTreeSet<_> = image.segments.iter().copied().collect();
        let applied = meta.last_log_id;
        self.ask(|done| CoreRequest::Install { image, applied, done }).await?;
        if !ours {
            // At start the log behind the snapshot still needs what it has appended; the core retains when it is done.
            let segments = self.segments.clone();
            blocking(move || segments.retain(&live).map_err(io::Error::other)).await?;
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.newest().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot on its way to the disk, beside the entries that are applied meanwhile.
#[derive(Debug)]
pub struct Builder {
    meta: SnapshotMeta,
    staged: Option<io::Result<Staged>>,
    segments: Segments,
    snapshots: Snapshots,
}

#[derive(Debug)]
struct Staged {
    state: Bytes,
    scratch: PathBuf,
    linked: Linked,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let staged =
            self.staged.take().ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        let Staged { state, scratch, linked } = staged?;
        let (segments, snapshots) = (self.segments.clone(), self.snapshots.clone());
        let meta = self.meta.clone();
        let snapshot = blocking(move || {
            segments.sync().map_err(io::Error::other)?;
            let places = linked.places().map_err(io::Error::other)?;
            snapshots.publish(&scratch, meta, &state, &places)
        })
        .await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

fn stage(segments: &Segments, snapshots: &Snapshots, image: &SnapshotImage) -> io::Result<Staged> {
    let scratch = snapshots.scratch("building")?;
    let linked = segments.link_into(&scratch, &image.segments).map_err(io::Error::other)?;
    Ok(Staged { state: image.state.clone(), scratch, linked })
}

/// Brings a snapshot's segments into the store and, if it is not ours, the snapshot among ours; all synced.
fn import(
    segments: &Segments,
    snapshots: &Snapshots,
    meta: &SnapshotMeta,
    handle: &SnapshotHandle,
) -> io::Result<SnapshotImage> {
    let file = handle.read()?;
    let heads: Vec<_> = file.places.iter().map(|place| place.head).collect();
    let check = if snapshots.owns(handle) { Check::Header } else { Check::Bytes };
    let missing: BTreeSet<_> =
        segments.missing(&heads, check).map_err(io::Error::other)?.into_iter().collect();
    for place in file.places.iter().filter(|place| missing.contains(&place.head.id)) {
        let bytes = read_linked(&handle.dir, *place).map_err(io::Error::other)?;
        segments.append(place.head.id, &bytes).map_err(io::Error::other)?;
    }
    let ids: Vec<_> = heads.iter().map(|head| head.id).collect();
    let image = SnapshotImage { state: file.state, segments: ids };
    if !snapshots.owns(handle) {
        let staged = stage(segments, snapshots, &image)?;
        segments.sync().map_err(io::Error::other)?;
        let places = staged.linked.places().map_err(io::Error::other)?;
        snapshots.publish(&staged.scratch, meta.clone(), &staged.state, &places)?;
    }
    Ok(image)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
