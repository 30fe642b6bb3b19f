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
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use allhands_common::blob::{BlobId, BlobRef};
use allhands_common::chain::chain;
use allhands_common::wire::data::Holder;
use allhands_transfer::inquiry::{Answers, Heard, Inquiry, ROUNDS_MAX, Unnamed, WITHIN};
use allhands_transfer::node::{Fetch, FetchError as Unfetched, Transfer};
use allhands_transfer::store::Hold;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};

use super::Session;
use super::holdings::{HoldError, Holdings, Received};

/// What is said to whoever fetches.
#[derive(Debug)]
pub(super) enum Word {
    /// Fetch all of it.
    Fetch(BlobRef),
    /// Fetch these bytes of what a handle is on, and tell whoever waits for them.
    Load { result: BlobRef, range: Range<u64>, tell: SyncSender<Result<Hold, CannotLoad>> },
    /// Nobody waits for it any more.
    Cancel(BlobId),
    /// The leader has answered.
    Holders { blob: BlobId, holders: Vec<(Holder, bool)> },
    /// A new leader was asked.
    AskedAnew,
}

/// Why bytes of a result are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CannotLoad {
    /// They are nowhere any more.
    Lost(String),
    /// It may be tried again.
    Now(String),
}

impl From<FetchError> for CannotLoad {
    fn from(error: FetchError) -> Self {
        let why = chain(&error);
        match error {
            FetchError::NobodyHasIt { .. } | FetchError::Transfer(Unfetched::BlobLost { .. }) => {
                Self::Lost(why)
            }
            FetchError::Leaderless { .. }
            | FetchError::Transfer(_)
            | FetchError::Kept(_)
            | FetchError::Gone { .. }
            | FetchError::Stopped { .. } => Self::Now(why),
        }
    }
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
    open: Open,
    running: JoinSet<(BlobId, Result<Arc<Received>, FetchError>)>,
    /// Loads: several may be of one blob.
    loads: BTreeMap<(BlobId, u64), Inquiry>,
    loading: JoinSet<(BlobId, u64)>,
    next_load: u64,
}

impl Fetching {
    pub(super) fn new(transfer: Transfer, holdings: Holdings, session: Arc<Session>) -> Self {
        Self {
            transfer,
            holdings,
            session,
            open: BTreeMap::new(),
            running: JoinSet::new(),
            loads: BTreeMap::new(),
            loading: JoinSet::new(),
            next_load: 0,
        }
    }

    pub(super) fn take(&mut self, word: Word) {
        match word {
            Word::Fetch(reference) => self.fetch(reference),
            Word::Cancel(blob) => {
                if let Some((_, task)) = self.open.remove(&blob) {
                    task.abort();
                }
            }
            Word::Load { result, range, tell } => self.load(result, range, tell),
            Word::Holders { blob, holders } => {
                if let Some((inquiry, _)) = self.open.get(&blob) {
                    inquiry.answered(holders.clone());
                }
                for (_, inquiry) in self.loads.range((blob, 0)..=(blob, u64::MAX)) {
                    inquiry.answered(holders.clone());
                }
            }
            Word::AskedAnew => {
                self.open.values().for_each(|(inquiry, _)| inquiry.asked_anew());
                self.loads.values().for_each(Inquiry::asked_anew);
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

    fn load(
        &mut self,
        result: BlobRef,
        range: Range<u64>,
        tell: SyncSender<Result<Hold, CannotLoad>>,
    ) {
        let key = (result.id, self.next_load);
        self.next_load += 1;
        let inquiry = Inquiry::default();
        let want = Want {
            blob: result.id,
            session: Arc::clone(&self.session),
            answers: inquiry.answers(),
        };
        self.loads.insert(key, inquiry);
        let transfer = self.transfer.clone();
        self.loading.spawn(async move {
            let loaded = obtain(result, Some(range), transfer, want).await;
            // Whoever waits has room for one answer.
            _ = tell.try_send(loaded.map_err(CannotLoad::from));
            key
        });
    }

    /// Waits for the end of a fetch; for ever if there is none.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            () = next_of(&mut self.running, &mut self.open, &self.session) => {}
            Some(ended) = self.loading.join_next() => match ended {
                Ok(key) => _ = self.loads.remove(&key),
                // It has panicked, and whoever waits for it was told by that; its question is forgotten with this.
                Err(error) => tracing::error!(%error, "a load has ended"),
            },
        }
    }
}

/// Results that are being fetched whole.
type Open = BTreeMap<BlobId, (Inquiry, AbortHandle)>;

/// Waits for the end of the fetch of a whole result.
async fn next_of(
    running: &mut JoinSet<(BlobId, Result<Arc<Received>, FetchError>)>,
    open: &mut Open,
    session: &Session,
) {
    loop {
        match running.join_next_with_id().await {
            Some(Ok((task, (blob, result)))) => {
                if open.get(&blob).is_some_and(|(_, open)| open.id() == task) {
                    open.remove(&blob);
                    session.fetched(blob, result.map_err(|error| chain(&error)));
                }
            }
            // Cancelled, or it has panicked: then somebody waits for it.
            Some(Err(error)) => {
                let found = open.iter().find(|(_, (_, task))| task.id() == error.id());
                if let Some(blob) = found.map(|(blob, _)| *blob) {
                    open.remove(&blob);
                    session.fetched(blob, Err(error.to_string()));
                }
            }
            None => std::future::pending().await,
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
    let blob = reference.id;
    let received = match complete(received).await? {
        Ok(received) => return Ok(received),
        Err(received) => received,
    };
    let want = Want { blob, session, answers };
    let _hold = obtain(reference, None, transfer, want).await?;
    complete(received).await?.map_err(|_| FetchError::Gone { blob })
}

/// Has bytes of a blob, or all of it, in the store, from whoever the leader names.
async fn obtain(
    reference: BlobRef,
    bytes: Option<Range<u64>>,
    transfer: Transfer,
    mut want: Want,
) -> Result<Hold, FetchError> {
    let BlobRef { id: blob, bytes: length } = reference;
    let mut round = 1;
    loop {
        // Also after a round that did not help.
        want.session.want(blob, true);
        let holders = want.holders().await?;
        let fetch = Fetch { blob, length, bytes: bytes.clone(), holders, within: WITHIN };
        let mut fetching = std::pin::pin!(transfer.fetch(fetch));
        let fetched = loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                more = want.answers.more() => transfer.holders(blob, more).await,
            }
        };
        match fetched {
            Ok(fetched) => return Ok(fetched.hold),
            Err(error @ Unfetched::BlobLost { .. }) if round < ROUNDS_MAX => {
                tracing::debug!(%blob, error = chain(&error), "the leader is asked again");
                round += 1;
                want.answers.anew();
            }
            Err(error) => return Err(error.into()),
        }
    }
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
