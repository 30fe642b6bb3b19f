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
use allhands_common::limit::BLOB_PATIENCE_MS;
use allhands_common::wire::data::Holder;
use allhands_transfer::node::{Fetch, FetchError as Unfetched, Transfer};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::Session;
use super::holdings::{HoldError, Holdings, Received};

/// How long some worker may take to have what none has: one that has the result says so at once, and again to a
/// new leader.
const PATIENCE: Duration = Duration::from_millis(BLOB_PATIENCE_MS);

/// How long a leader may take to answer: longer than any failover.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);

/// Between two questions. The leader says of itself when somebody has it; this is for a leader that thinks that
/// nobody waits any more.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long one fetch may take, however much still comes.
const WITHIN: Duration = Duration::from_secs(3600);

/// Times that the leader is asked for other holders after those that it had named did not help.
const ROUNDS_MAX: u32 = 3;

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

/// What the leader has said.
#[derive(Debug, Clone)]
struct News {
    /// Nothing yet, to the question that was asked last.
    unanswered: bool,
    holders: Vec<(Holder, bool)>,
}

/// The results that are being fetched.
#[derive(Debug)]
pub(super) struct Fetching {
    transfer: Transfer,
    holdings: Holdings,
    session: Arc<Session>,
    open: BTreeMap<BlobId, (watch::Sender<News>, AbortHandle)>,
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
                if let Some((news, _)) = self.open.get(&blob) {
                    news.send_replace(News { unanswered: false, holders });
                }
            }
            Word::AskedAnew => {
                let news = self.open.values().map(|(news, _)| news);
                news.for_each(|news| news.send_modify(|news| news.unanswered = true));
            }
        }
    }

    fn fetch(&mut self, reference: BlobRef) {
        let blob = reference.id;
        let (tell, news) = watch::channel(News { unanswered: true, holders: Vec::new() });
        let received = self.holdings.receive(blob);
        let transfer = self.transfer.clone();
        let session = Arc::clone(&self.session);
        let task = self.running.spawn(async move {
            (blob, fetch(reference, received, transfer, session, news).await)
        });
        if let Some((_, before)) = self.open.insert(blob, (tell, task)) {
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
    news: watch::Receiver<News>,
}

async fn fetch(
    reference: BlobRef,
    received: Received,
    transfer: Transfer,
    session: Arc<Session>,
    news: watch::Receiver<News>,
) -> Result<Arc<Received>, FetchError> {
    let BlobRef { id: blob, bytes: length } = reference;
    let received = match complete(received).await? {
        Ok(received) => return Ok(received),
        Err(received) => received,
    };
    let mut want = Want { blob, session, news };
    let mut round = 1;
    let _hold = loop {
        // Also after a round: what those say who were named before counts no more.
        want.session.want(blob, true);
        let holders = want.holders().await?;
        let fetch = Fetch { blob, length, bytes: None, holders, within: WITHIN };
        let mut fetching = std::pin::pin!(transfer.fetch(fetch));
        let fetched = loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                more = want.more() => transfer.holders(blob, more).await,
            }
        };
        match fetched {
            Ok(fetched) => break fetched.hold,
            Err(error @ Unfetched::BlobLost { .. }) if round < ROUNDS_MAX => {
                tracing::debug!(%blob, error = chain(&error), "the leader is asked again");
                round += 1;
                want.news.borrow_and_update();
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
        // Since when it is as it is: nobody answers, or nobody has it.
        let mut since = (true, Instant::now());
        let mut ask_at = Instant::now() + ASK_AGAIN;
        loop {
            let News { unanswered, holders } = self.news.borrow_and_update().clone();
            if !unanswered && !holders.is_empty() {
                return Ok(holders);
            }
            if since.0 != unanswered {
                since = (unanswered, Instant::now());
            }
            let waited = if unanswered { LEADERLESS_MAX } else { PATIENCE };
            tokio::select! {
                changed = self.news.changed() => {
                    changed.map_err(|_| FetchError::Stopped { blob })?;
                }
                () = sleep_until(since.1 + waited) => return Err(match unanswered {
                    true => FetchError::Leaderless { blob, waited },
                    false => FetchError::NobodyHasIt { blob, waited },
                }),
                () = sleep_until(ask_at) => {
                    ask_at = Instant::now() + ASK_AGAIN;
                    self.session.want(blob, true);
                }
            }
        }
    }

    /// Waits for another answer, while the blob is fetched from those of the last one.
    async fn more(&mut self) -> Vec<(Holder, bool)> {
        loop {
            if self.news.changed().await.is_err() {
                // Whoever has the sender ends this task as well.
                std::future::pending().await
            }
            let News { unanswered, holders } = self.news.borrow_and_update().clone();
            if !unanswered && !holders.is_empty() {
                return holders;
            }
        }
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.session.want(self.blob, false);
    }
}
