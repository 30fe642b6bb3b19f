//! Getting long results from the workers that keep them, on the thread that gives chunks to workers
//! ([`data`](super::data)).
//!
//! ```text
//! session's loop ── Word ──► Fetching ── fetch ──► Transfer ◄══► workers
//!       ▲                       │
//!       └─── wants, fetched ────┘
//! ```
//!
//! The loop says what to fetch, and what the leader answers; a fetch asks the leader by way of the loop. However
//! it ends, and however this thread ends, the loop is told: nobody waits for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::wire::data::Holder;
use allhands_transfer::inquiry::{Answers, Heard, Inquiry, ROUNDS_MAX, Unnamed, WITHIN};
use allhands_transfer::node::{Fetch, FetchError as Unfetched, Transfer};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};

use super::Session;
use super::holdings::{HoldError, Holdings, Received};

/// What is said to whoever fetches.
#[derive(Debug)]
pub(super) enum Word {
    /// Fetch all of it.
    Fetch(BlobRef),
    /// Nobody waits for it any more.
    Cancel(BlobId),
    /// The leader has answered.
    Holders { blob: BlobId, holders: Vec<(Holder, bool)> },
    /// A new leader was asked.
    AskedAnew,
}

/// A result that is here, or why it is not.
pub(super) type FetchedResult = Result<Arc<Received>, String>;

/// Why a result is not here.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(
        "no worker has blob {blob} (any more), and in {} s none came that has: the one that ran the task is \
         lost, or has lost its store",
        waited.as_secs()
    )]
    NobodyHasIt { blob: BlobId, waited: Duration },
    #[error("nobody says who has blob {blob}: no leader has answered for {} s", waited.as_secs())]
    Leaderless { blob: BlobId, waited: Duration },
    #[error(transparent)]
    Transfer(#[from] Unfetched),
    #[error(transparent)]
    Kept(#[from] HoldError),
    #[error("blob {blob} came and is gone again: is something removing files in {}?", std::env::temp_dir().display())]
    Gone { blob: BlobId },
    #[error("blob {blob} was not fetched: the session ends")]
    Stopped { blob: BlobId },
}

/// The results that are being fetched.
#[derive(Debug)]
pub(super) struct Fetching {
    transfer: Transfer,
    holdings: Holdings,
    session: Arc<Session>,
    open: BTreeMap<BlobId, (Inquiry, AbortHandle)>,
    running: JoinSet<(BlobId, Result<Arc<Received>, FetchError>)>,
}

impl Fetching {
    pub(super) fn new(transfer: Transfer, holdings: Holdings, session: Arc<Session>) -> Self {
        Self { transfer, holdings, session, open: BTreeMap::new(), running: JoinSet::new() }
    }

    pub(super) fn take(&mut self, word: Word) {
        match word {
            Word::Fetch(reference) => self.fetch(reference),
            Word::Cancel(blob) => {
                if let Some((_, task)) = self.open.remove(&blob) {
                    task.abort();
                }
            }
            Word::Holders { blob, holders } => {
                if let Some((inquiry, _)) = self.open.get(&blob) {
                    inquiry.answered(holders);
                }
            }
            Word::AskedAnew => {
                self.open.values().for_each(|(inquiry, _)| inquiry.asked_anew());
            }
        }
    }

    fn fetch(&mut self, reference: BlobRef) {
        let blob = reference.id;
        let inquiry = Inquiry::default();
        let answers = inquiry.answers();
        let received = self.holdings.receive(blob);
        let transfer = self.transfer.clone();
        let session = Arc::clone(&self.session);
        let task = self.running.spawn(async move {
            (blob, fetch(reference, received, transfer, session, answers).await)
        });
        if let Some((_, before)) = self.open.insert(blob, (inquiry, task)) {
            before.abort();
        }
    }

    /// Waits for the end of a fetch; for ever if there is none.
    pub(super) async fn next(&mut self) {
        loop {
            match self.running.join_next_with_id().await {
                Some(Ok((task, (blob, result)))) => {
                    if self.open.get(&blob).is_some_and(|(_, open)| open.id() == task) {
                        self.open.remove(&blob);
                        self.session.fetched(blob, result.map_err(|error| chain(&error)));
                    }
                }
                // Cancelled, or it has panicked: then somebody waits for it.
                Some(Err(error)) => {
                    let mut open = self.open.iter();
                    let found = open.find(|(_, (_, task))| task.id() == error.id());
                    if let Some(blob) = found.map(|(blob, _)| *blob) {
                        self.open.remove(&blob);
                        self.session.fetched(blob, Err(error.to_string()));
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        for blob in std::mem::take(&mut self.open).into_keys() {
            self.session.fetched(blob, Err(FetchError::Stopped { blob }.to_string()));
        }
    }
}

/// A question to the leader, for as long as this is there.
#[derive(Debug)]
struct Want {
    blob: BlobId,
    session: Arc<Session>,
    answers: Answers,
}

async fn fetch(
    reference: BlobRef,
    received: Received,
    transfer: Transfer,
    session: Arc<Session>,
    answers: Answers,
) -> Result<Arc<Received>, FetchError> {
    let BlobRef { id: blob, bytes: length } = reference;
    let received = match complete(received).await? {
        Ok(received) => return Ok(received),
        Err(received) => received,
    };
    let mut want = Want { blob, session, answers };
    let mut round = 1;
    let _hold = loop {
        // Also after a round that did not help.
        want.session.want(blob, true);
        let holders = want.holders().await?;
        let fetch = Fetch { blob, length, bytes: None, holders, within: WITHIN };
        let mut fetching = std::pin::pin!(transfer.fetch(fetch));
        let fetched = loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                more = want.answers.more() => transfer.holders(blob, more).await,
            }
        };
        match fetched {
            Ok(fetched) => break fetched.hold,
            Err(error @ Unfetched::BlobLost { .. }) if round < ROUNDS_MAX => {
                tracing::debug!(%blob, error = chain(&error), "the leader is asked again");
                round += 1;
                want.answers.anew();
            }
            Err(error) => return Err(error.into()),
        }
    };
    complete(received).await?.map_err(|_| FetchError::Gone { blob })
}

/// It, if all of it is here; or it again.
async fn complete(mut received: Received) -> Result<Result<Arc<Received>, Received>, FetchError> {
    let looked = spawn_blocking(move || {
        Ok(match received.complete()?.is_some() {
            true => Ok(Arc::new(received)),
            false => Err(received),
        })
    });
    match looked.await {
        Ok(looked) => looked,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Want {
    /// Waits for an answer that names somebody.
    async fn holders(&mut self) -> Result<Vec<(Holder, bool)>, FetchError> {
        let blob = self.blob;
        loop {
            match self.answers.next().await {
                Ok(Heard::Holders(holders)) => return Ok(holders),
                Ok(Heard::AskAgain) => self.session.want(blob, true),
                Err(Unnamed::Leaderless(waited)) => {
                    return Err(FetchError::Leaderless { blob, waited });
                }
                Err(Unnamed::NobodyHasIt(waited)) => {
                    return Err(FetchError::NobodyHasIt { blob, waited });
                }
                Err(Unnamed::Stopped) => return Err(FetchError::Stopped { blob }),
            }
        }
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.session.want(self.blob, false);
    }
}
