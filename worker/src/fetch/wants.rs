//! Blobs that somebody here waits for, and what the leader has said of who has them.
//!
//! Those who want the same blob share one question. It is asked when the first of them comes, of each new
//! leader, and again when those who were named did not help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allhands_common::blob::BlobId;
use allhands_common::limit::BLOB_PATIENCE_MS;
use allhands_common::wire::data::Holder;
use allhands_common::wire::worker::FromWorker;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::error::FetchError;
use super::survey::Survey;

/// How long somebody may take to have what nobody has.
const PATIENCE: Duration = Duration::from_millis(BLOB_PATIENCE_MS);

/// How long a leader may take to answer: longer than any failover.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);

/// Between two questions while nobody has it. The leader says of itself when somebody has; this is for a
/// leader that thinks that nobody waits any more.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Questions of this worker.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    open: Arc<Mutex<BTreeMap<BlobId, Open>>>,
    say: mpsc::Sender<FromWorker>,
}

#[derive(Debug)]
struct Open {
    /// How many wait.
    waiting: usize,
    news: watch::Sender<News>,
}

/// What the leader has said.
#[derive(Debug, Clone, Default)]
struct News {
    /// Nothing yet, to the question that was asked last.
    unanswered: bool,
    holders: Vec<(Holder, bool)>,
}

/// One who waits for a blob.
#[derive(Debug)]
pub(super) struct Want {
    blob: BlobId,
    wants: Wants,
    survey: Survey,
    news: watch::Receiver<News>,
}

impl Wants {
    pub(super) fn new(say: mpsc::Sender<FromWorker>) -> Self {
        Self { open: Arc::default(), say }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<BlobId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a blob, and asks who has it if nobody here has asked.
    pub(super) async fn want(&self, blob: BlobId, survey: &Survey) -> Result<Want, FetchError> {
        let (want, first) = {
            let mut open = self.open();
            let entry = open.entry(blob).or_insert_with(|| Open {
                waiting: 0,
                news: watch::Sender::new(News { unanswered: true, holders: Vec::new() }),
            });
            entry.waiting += 1;
            let news = entry.news.subscribe();
            let want = Want { blob, wants: self.clone(), survey: survey.clone(), news };
            (want, entry.waiting == 1)
        };
        if first {
            want.say().await?;
        }
        Ok(want)
    }

    /// All questions, for a leader that has not heard them.
    pub(super) fn all_again(&self) -> Vec<FromWorker> {
        let again = |(blob, open): (&BlobId, &Open)| {
            open.news.send_modify(|news| news.unanswered = true);
            FromWorker::WantBlob { blob: *blob }
        };
        self.open().iter().map(again).collect()
    }

    pub(super) fn answered(&self, blob: BlobId, holders: Vec<(Holder, bool)>) {
        if let Some(open) = self.open().get(&blob) {
            open.news.send_replace(News { unanswered: false, holders });
        }
    }
}

impl Want {
    async fn say(&self) -> Result<(), FetchError> {
        let word = FromWorker::WantBlob { blob: self.blob };
        let stopped = |_| FetchError::Stopped { blob: self.blob };
        self.wants.say.send(word).await.map_err(stopped)
    }

    /// Those who were named did not help.
    pub(super) async fn ask_again(&mut self) -> Result<(), FetchError> {
        if let Some(open) = self.wants.open().get(&self.blob) {
            open.news.send_modify(|news| news.unanswered = true);
        }
        self.say().await
    }

    /// Waits for an answer that names somebody.
    pub(super) async fn holders(&mut self) -> Result<Vec<(Holder, bool)>, FetchError> {
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
            let until = since.1 + waited;
            tokio::select! {
                changed = self.news.changed() => {
                    changed.map_err(|_| FetchError::Stopped { blob })?;
                }
                () = sleep_until(until) => return Err(match unanswered {
                    true => FetchError::Leaderless { blob, waited },
                    false => FetchError::NobodyHasIt { blob, waited },
                }),
                () = sleep_until(ask_at), if !unanswered => {
                    ask_at = Instant::now() + ASK_AGAIN;
                    self.say().await?;
                }
            }
        }
    }

    /// Waits for another answer, while the blob is fetched from those of the last one.
    pub(super) async fn more(&mut self) -> Vec<(Holder, bool)> {
        loop {
            if self.news.changed().await.is_err() {
                // The sender is in the map as long as this is there.
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
        let mut open = self.wants.open();
        if let Some(entry) = open.get_mut(&self.blob) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                open.remove(&self.blob);
                // The leader learns what became of it: that it is here, or that nobody waits any more.
                self.survey.look_at(self.blob);
            }
        }
    }
}
