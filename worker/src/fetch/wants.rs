//! Blobs that somebody here waits for, and what the leader has said of who has them.
//!
//! Those who want the same blob share one question. It is asked when the first of them comes, of each new
//! leader, and again when those who were named did not help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allhands_common::blob::BlobId;
use allhands_common::wire::data::Holder;
use allhands_common::wire::worker::FromWorker;
use allhands_transfer::inquiry::{Answers, Heard, Inquiry, Unnamed};
use tokio::sync::mpsc;

use super::error::FetchError;
use super::survey::Survey;

/// Questions of this worker.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    open: Arc<Mutex<BTreeMap<BlobId, Open>>>,
    say: mpsc::Sender<FromWorker>,
}

#[derive(Debug, Default)]
struct Open {
    /// How many wait.
    waiting: usize,
    inquiry: Inquiry,
}

/// One who waits for a blob.
#[derive(Debug)]
pub(super) struct Want {
    blob: BlobId,
    wants: Wants,
    survey: Survey,
    answers: Answers,
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
            let entry = open.entry(blob).or_default();
            entry.waiting += 1;
            let answers = entry.inquiry.answers();
            let want = Want { blob, wants: self.clone(), survey: survey.clone(), answers };
            (want, entry.waiting == 1)
        };
        if first {
            want.say().await?;
        }
        Ok(want)
    }

    /// Says something else to the leader.
    pub(super) async fn say(
        &self,
        word: FromWorker,
    ) -> Result<(), mpsc::error::SendError<FromWorker>> {
        self.say.send(word).await
    }

    /// All questions, for a leader that has not heard them.
    pub(super) fn all_again(&self) -> Vec<FromWorker> {
        let again = |(blob, open): (&BlobId, &Open)| {
            open.inquiry.asked_anew();
            FromWorker::WantBlob { blob: *blob }
        };
        self.open().iter().map(again).collect()
    }

    pub(super) fn answered(&self, blob: BlobId, holders: Vec<(Holder, bool)>) {
        if let Some(open) = self.open().get(&blob) {
            open.inquiry.answered(holders);
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
        self.answers.anew();
        self.say().await
    }

    /// Waits for an answer that names somebody.
    pub(super) async fn holders(&mut self) -> Result<Vec<(Holder, bool)>, FetchError> {
        let blob = self.blob;
        loop {
            match self.answers.next().await {
                Ok(Heard::Holders(holders)) => return Ok(holders),
                Ok(Heard::AskAgain) => self.say().await?,
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

    /// Waits for another answer, while the blob is fetched from those of the last one.
    pub(super) async fn more(&mut self) -> Vec<(Holder, bool)> {
        self.answers.more().await
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
