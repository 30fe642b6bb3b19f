//! A chunk that turned out to be damaged when somebody asked for it is fetched again.
//!
//! Whoever asked wants it, and will have it from another holder soon: it is asked for it. Where that does not
//! help the report says so, and whoever reads it may know other holders ([`Transfer::fetch`](super::Transfer)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::blob::BlobId;
use allhands_common::chain::chain;
use allhands_common::wire::data::Holder;
use tokio::sync::{mpsc, oneshot};

use super::jobs::{self, Store};
use super::shell::{Input, NewWant};
use super::{Fetch, Numbers};

/// Chunks that are being repaired at a time; others are when they are asked for again.
const REPAIRS_MAX: usize = 64;

/// Times that it is asked for, a second apart: who asked has to get it first.
const TRIES_MAX: u32 = 10;

const PAUSE: Duration = Duration::from_secs(1);

/// How long one try may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Those that are being repaired.
#[derive(Debug, Default)]
pub(super) struct Repairs(BTreeSet<(BlobId, u32)>);

impl Repairs {
    /// Whether it is to be repaired, and nobody does so yet.
    pub(super) fn begin(&mut self, blob: BlobId, chunk: u32) -> bool {
        self.0.len() < REPAIRS_MAX && self.0.insert((blob, chunk))
    }

    pub(super) fn end(&mut self, blob: BlobId, chunk: u32) {
        self.0.remove(&(blob, chunk));
    }
}

/// Fetches one chunk from `holder`, and says when that is over.
pub(super) async fn run(
    (blob, chunk): (BlobId, u32),
    holder: Holder,
    store: Store,
    numbers: Numbers,
    inputs: mpsc::Sender<Input>,
) {
    for _ in 0..TRIES_MAX {
        match fetch((blob, chunk), holder.clone(), store.clone(), &numbers, &inputs).await {
            Ok(()) => {
                tracing::info!(%blob, chunk, "a damaged chunk was fetched again");
                break;
            }
            Err(error) => {
                let error = chain(&*error);
                tracing::warn!(%blob, chunk, error, "a damaged chunk was not fetched again");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    // A loop that has ended repairs nothing.
    let _ = inputs.send(Input::Repaired { blob, chunk }).await;
}

async fn fetch(
    (blob, chunk): (BlobId, u32),
    holder: Holder,
    store: Store,
    numbers: &Numbers,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(manifest) = jobs::manifest(Arc::clone(&store), blob).await? else { return Ok(()) };
    let bytes = manifest.range_of(chunk);
    let known = jobs::known(store, blob, bytes.clone()).await?;
    let (done, outcome) = oneshot::channel();
    let length = manifest.bytes();
    let fetch = Fetch { blob, length, bytes, holders: vec![(holder, false)], within: WITHIN };
    let new = NewWant { want: numbers.next(), fetch, known, repair: true, done };
    inputs.send(Input::Want(Box::new(new))).await?;
    outcome.await??;
    Ok(())
}
