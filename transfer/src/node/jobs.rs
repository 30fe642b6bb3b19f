//! What blocks: the store's functions and the hashing, on the blocking pool.

use std::sync::Arc;

use allhands_common::blob::{BlobId, ChunkId, Manifest};
use allhands_common::wire::data::{ChunkSet, MANIFEST_PAGE_IDS_MAX};
use bytes::{BufMut, Bytes, BytesMut};

use crate::store::{ChunkStore, StoreError, Verified};

pub(super) type Store = Arc<dyn ChunkStore>;

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

/// The manifest and what is here, if the store knows the blob.
pub(super) async fn known(
    store: Store,
    blob: BlobId,
) -> Result<Option<(Arc<Manifest>, ChunkSet)>, StoreError> {
    blocking(move || {
        let Some(manifest) = store.manifest(blob)? else { return Ok(None) };
        store.open(blob, &manifest)?;
        Ok(Some((manifest, store.present(blob)?)))
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
        Some(verified) => store.write(blob, chunk, verified).map(Some),
        None => Ok(None),
    });
    match kept.await {
        Ok(Some(())) => Kept::Yes(()),
        Ok(None) => Kept::Wrong,
        Err(error) => Kept::Failed(error),
    }
}

/// Verifies a manifest and makes room for its blob.
pub(super) async fn keep_manifest(
    store: Store,
    blob: BlobId,
    bytes: u64,
    ids: Vec<ChunkId>,
) -> Kept<(Arc<Manifest>, ChunkSet)> {
    let kept = blocking(move || {
        let Ok(manifest) = Manifest::new(bytes, ids) else { return Ok(None) };
        if manifest.id() != blob {
            return Ok(None);
        }
        let manifest = Arc::new(manifest);
        store.open(blob, &manifest)?;
        Ok(Some((manifest, store.present(blob)?)))
    });
    match kept.await {
        Ok(Some(kept)) => Kept::Yes(kept),
        Ok(None) => Kept::Wrong,
        Err(error) => Kept::Failed(error),
    }
}

/// A chunk for somebody else. A store that cannot read it has not got it.
pub(super) async fn read_chunk(store: Store, blob: BlobId, chunk: u32) -> Option<Bytes> {
    let read = blocking(move || store.read(blob, chunk)).await;
    read.unwrap_or_else(|error| {
        tracing::warn!(%blob, chunk, %error, "a chunk cannot be read");
        None
    })
}

/// What somebody else may fetch of a blob from here.
pub(super) async fn present(store: Store, blob: BlobId) -> ChunkSet {
    blocking(move || store.present(blob)).await.unwrap_or_else(|error| {
        tracing::warn!(%blob, %error, "the store cannot say what it has");
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
        tracing::warn!(%blob, %error, "a manifest cannot be read");
        None
    })
}
