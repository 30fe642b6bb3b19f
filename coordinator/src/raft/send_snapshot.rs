//! The leader's side of a snapshot transfer: the state file in parts, then whatever segments the follower misses, then
//! the order to install. Every message is small enough to be answered within its ttl; a lost one fails the transfer and
//! openraft begins again, where the follower then misses less.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use allhands_common::id::SegmentId;
use bytes::Bytes;
use openraft::StorageError;
use openraft::errors::{NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use tokio::task::spawn_blocking;

use super::message::{self, PeerCall, PeerReply};
use super::network::{Peer, rpc_error, unexpected};
use super::snapshot::{SnapshotFile, SnapshotHandle};
use super::transport::{Lane, PeerTransport};
use super::types::{ENTRY_BYTES_MAX, TypeConfig, Vote};
use crate::segments::{ReadError, SegmentHead, SegmentPlace, read_linked};

/// State file bytes in one message, and segment bytes unless a single one is longer.
const PART_BYTES: usize = ENTRY_BYTES_MAX;

type Failed = StreamingError<TypeConfig>;

pub(crate) async fn send<T: PeerTransport>(
    peer: &Peer<T>,
    vote: Vote,
    snapshot: &SnapshotHandle,
    ttl: Duration,
) -> Result<SnapshotResponse<TypeConfig>, Failed> {
    let transfer = peer.next_number();
    let places = send_file(peer, transfer, snapshot, ttl).await?;
    // A follower that names what it has just stored would be asked for ever.
    let rounds_max = places.len() / message::MISSING_SEGMENTS_MAX + 2;
    for round in 1.. {
        if round > rounds_max {
            return Err(retry("the follower still misses segments after all were sent"));
        }
        let missing =
            match ask(peer, PeerCall::SnapshotMissing { transfer }, Bytes::new(), ttl).await? {
                PeerReply::Missing(missing) => missing,
                other => return Err(unexpected(&other).into()),
            };
        if missing.is_empty() {
            break;
        }
        for batch in batches(&places, &missing).ok_or_else(|| retry("it misses other segments"))? {
            send_segments(peer, transfer, snapshot, batch, ttl).await?;
        }
    }
    match ask(peer, PeerCall::SnapshotInstall { transfer, vote }, Bytes::new(), ttl).await? {
        PeerReply::Installed(vote) => Ok(SnapshotResponse::new(vote)),
        other => Err(unexpected(&other).into()),
    }
}

type Places = BTreeMap<SegmentId, SegmentPlace>;

/// The segments by message; `None` when one is not of this snapshot.
fn batches(places: &Places, missing: &[SegmentId]) -> Option<Vec<Vec<SegmentPlace>>> {
    let mut batches: Vec<Vec<SegmentPlace>> = Vec::new();
    let mut bytes = usize::MAX;
    for id in missing {
        let place = places.get(id)?;
        bytes = bytes.saturating_add(place.head.length as usize);
        match batches.last_mut() {
            Some(batch) if bytes <= PART_BYTES => batch.push(*place),
            _ => {
                bytes = place.head.length as usize;
                batches.push(vec![*place]);
            }
        }
    }
    Some(batches)
}

async fn send_file<T: PeerTransport>(
    peer: &Peer<T>,
    transfer: u64,
    snapshot: &SnapshotHandle,
    ttl: Duration,
) -> Result<Places, Failed> {
    let path = snapshot.state_path();
    let opened = blocking(move || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    });
    let (mut file, file_bytes) = opened.await?;
    stored(peer, PeerCall::SnapshotBegin { transfer, file_bytes }, Bytes::new(), ttl).await?;
    let mut offset = 0;
    while offset < file_bytes {
        let length = usize::try_from(file_bytes - offset).unwrap_or(PART_BYTES).min(PART_BYTES);
        let read = blocking(move || {
            let mut part = vec![0; length];
            file.read_exact_at(&mut part, offset)?;
            Ok((file, Bytes::from(part)))
        });
        let (back, part) = read.await?;
        file = back;
        stored(peer, PeerCall::SnapshotPart { transfer, offset }, part, ttl).await?;
        offset += length as u64;
    }
    let handle = snapshot.clone();
    let SnapshotFile { places, .. } = blocking(move || handle.read()).await?;
    Ok(places.into_iter().map(|place| (place.head.id, place)).collect())
}

async fn send_segments<T: PeerTransport>(
    peer: &Peer<T>,
    transfer: u64,
    snapshot: &SnapshotHandle,
    batch: Vec<SegmentPlace>,
    ttl: Duration,
) -> Result<(), Failed> {
    let heads: Vec<SegmentHead> = batch.iter().map(|place| place.head).collect();
    let dir = snapshot.dir.clone();
    let read = blocking(move || {
        let parts: Result<Vec<_>, _> =
            batch.into_iter().map(|place| read_linked(&dir, place)).collect();
        Ok(message::join(parts.map_err(ReadError::into_io)?))
    });
    let bulk = read.await?;
    stored(peer, PeerCall::SnapshotSegments { transfer, heads }, bulk, ttl).await
}

async fn stored<T: PeerTransport>(
    peer: &Peer<T>,
    call: PeerCall,
    bulk: Bytes,
    ttl: Duration,
) -> Result<(), Failed> {
    match ask(peer, call, bulk, ttl).await? {
        PeerReply::Stored => Ok(()),
        other => Err(unexpected(&other).into()),
    }
}

async fn ask<T: PeerTransport>(
    peer: &Peer<T>,
    call: PeerCall,
    bulk: Bytes,
    ttl: Duration,
) -> Result<PeerReply, Failed> {
    Ok(peer.call(Lane::Snapshot, call, bulk, ttl).await.map_err(rpc_error)?)
}

fn retry(cause: &str) -> Failed {
    StreamingError::Network(NetworkError::from_string(cause))
}

/// A snapshot that is gone was followed by two others: begin again. Otherwise the disk has failed: the node stops.
fn read_failed(error: io::Error) -> Failed {
    if error.kind() == io::ErrorKind::NotFound {
        return retry("the snapshot was replaced while it was sent");
    }
    StreamingError::StorageError(StorageError::from_io_error(
        openraft::ErrorSubject::Snapshot(None),
        openraft::ErrorVerb::Read,
        error,
    ))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failed> {
    spawn_blocking(work).await.map_err(io::Error::other).flatten().map_err(read_failed)
}
