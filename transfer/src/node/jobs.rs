//! What blocks: the store's functions and the hashing, on the blocking pool.

use std::ops::Range;
use std::sync::Arc;

use allhands_common::blob::{BlobId, ChunkId, Manifest};
use allhands_common::chain::chain;
use allhands_common::wire::data::{ChunkSet, MANIFEST_PAGE_IDS_MAX};
use bytes::{BufMut, Bytes, BytesMut};

use crate::store::{ChunkStore, Found, Hold, StoreError, Verified};

pub(super) type Store = Arc<dyn ChunkStore>;

/// A blob that the store keeps, and what of it need not be fetched.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) manifest: Arc<Manifest>,
    pub(super) present: ChunkSet,
    pub(super) hold: Hold,
}

fn open(
    store: &dyn ChunkStore,
    manifest: Arc<Manifest>,
    bytes: Option<Range<u64>>,
) -> Result<Opened, StoreError> {
    let hold = store.open(&manifest)?;
    let bytes = bytes.unwrap_or_else(|| 0..manifest.bytes());
    let present = store.gather(manifest.id(), bytes)?;
    Ok(Opened { manifest, present, hold })
}

/// How keeping what came went.
#[derive(Debug)]
pub(super) enum Kept<T> {
    Yes(T),
    /// It is not what was asked for.
    Wrong,
    Failed(StoreError),
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|panic| {
        Err(StoreError {
            what: "the chunk store failed in an unexpected way".to_owned(),
            retry_can_help: false,
            source: Some(Box::new(panic)),
        })
    })
}

/// What the store knows a blob to consist of.
pub(super) async fn manifest(
    store: Store,
    blob: BlobId,
) -> Result<Option<Arc<Manifest>>, StoreError> {
    blocking(move || store.manifest(blob)).await
}

/// A blob that the store knows, with what is here of these bytes.
pub(super) async fn known(
    store: Store,
    blob: BlobId,
    bytes: Option<Range<u64>>,
) -> Result<Option<Opened>, StoreError> {
    blocking(move || {
        let Some(manifest) = store.manifest(blob)? else { return Ok(None) };
        open(&*store, manifest, bytes).map(Some)
    })
    .await
}

/// Joins the pieces of a chunk, verifies it and writes it.
pub(super) async fn keep_chunk(
    store: Store,
    (blob, chunk): (BlobId, u32),
    id: ChunkId,
    pieces: Vec<Bytes>,
) -> Kept<()> {
    let kept = blocking(move || match Verified::join(&pieces, &id) {
        Some(verified) => store.write(blob, chunk, &verified).map(Some),
        None => Ok(None),
    });
    match kept.await {
        Ok(Some(())) => Kept::Yes(()),
        Ok(None) => Kept::Wrong,
        Err(error) => Kept::Failed(error),
    }
}

/// Verifies a manifest and makes room for its blob, of which these bytes are wanted.
pub(super) async fn keep_manifest(
    store: Store,
    blob: BlobId,
    (bytes, ids): (u64, Vec<ChunkId>),
    wanted: Option<Range<u64>>,
) -> Kept<Opened> {
    let kept = blocking(move || {
        let Ok(manifest) = Manifest::new(bytes, ids) else { return Ok(None) };
        if manifest.id() != blob {
            return Ok(None);
        }
        open(&*store, Arc::new(manifest), wanted).map(Some)
    });
    match kept.await {
        Ok(Some(kept)) => Kept::Yes(kept),
        Ok(None) => Kept::Wrong,
        Err(error) => Kept::Failed(error),
    }
}

/// A chunk for somebody else. A store that cannot read it has not got it.
pub(super) async fn read_chunk(store: Store, blob: BlobId, chunk: u32) -> Found {
    let read = blocking(move || store.read(blob, chunk)).await;
    read.unwrap_or_else(|error| {
        tracing::warn!(%blob, chunk, error = chain(&error), "a chunk cannot be read");
        Found::Absent
    })
}

/// What somebody else may fetch of a blob from here.
pub(super) async fn present(store: Store, blob: BlobId) -> ChunkSet {
    blocking(move || store.present(blob)).await.unwrap_or_else(|error| {
        tracing::warn!(%blob, error = chain(&error), "the store cannot say what it has");
        ChunkSet::new()
    })
}

/// A page of a manifest for somebody else: the blob's length, and ids from `first` on.
pub(super) async fn manifest_page(store: Store, blob: BlobId, first: u32) -> Option<(u64, Bytes)> {
    let page = blocking(move || {
        let Some(manifest) = store.manifest(blob)? else { return Ok(None) };
        let ids = manifest.chunks().get(first as usize..).unwrap_or_default();
        let ids = &ids[..ids.len().min(MANIFEST_PAGE_IDS_MAX as usize)];
        let mut page = BytesMut::with_capacity(ids.len() * 32);
        ids.iter().for_each(|id| page.put_slice(&id.0));
        Ok(Some((manifest.bytes(), page.freeze())))
    });
    page.await.unwrap_or_else(|error| {
        tracing::warn!(%blob, error = chain(&error), "a manifest cannot be read");
        None
    })
}
