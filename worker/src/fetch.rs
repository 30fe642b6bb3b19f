//! Blobs of other machines: who has the chunks that are missing here, and getting them.
//!
//! ```text
//!             Fetcher::fetch            ask, hear            the leader's directory
//! executors' ───────────────► wants ◄───────────── shell ◄──────────────────────────►
//!  arguments        │           │ holders
//!                   ▼           ▼
//!                chunk store ◄─ Transfer ◄══ bulk endpoint ══► workers, clients
//!                   │
//!                   └─ survey: what has come and gone ─► shell ─► the leader's directory
//! ```
//!
//! [`start`] makes two things: the [`Fetcher`], for whoever needs bytes, and the [`Plane`], by which the
//! worker's loop speaks for it with the leader. Wants are said again to each new leader; who waits for one
//! gives up after a time ([`FetchError`]), and not before.
//!
//! After a crash the store has what had come, and the next registration says so.

mod error;
mod survey;
mod wants;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use allhands_common::blob::{BlobId, chunks_of};
use allhands_common::chain::chain;
use allhands_common::net::endpoint::Endpoint;
use allhands_common::wire::data::{ADDRESSES_MAX, Holder};
use allhands_common::wire::worker::{Depot, FromWorker};
use allhands_store::blobs::Store;
use allhands_transfer::exchange::Config;
use allhands_transfer::inquiry::{ROUNDS_MAX, WITHIN};
use allhands_transfer::node::{Fetch, FetchError as Unfetched, Options, Report, Transfer};
use allhands_transfer::store::Hold;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use error::FetchError;
use survey::Survey;
use wants::Wants;

/// What is to be said to the leader and waits for the worker's loop, at most.
const WORDS_MAX: usize = 256;

/// What a worker gives and takes chunks with.
#[derive(Debug)]
pub struct Bulk {
    /// Best bound with [`Endpoint::bind_bulk`].
    pub endpoint: Endpoint,
    /// Where others may dial it: at most [`ADDRESSES_MAX`] are announced.
    pub addresses: Vec<SocketAddr>,
    /// Where chunks are kept.
    pub store: Store,
}

/// Gets blobs into the chunk store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    transfer: Transfer,
    store: Store,
    wants: Wants,
    survey: Survey,
}

/// What the worker's loop does for the fetchers: it speaks for them with the leader.
#[derive(Debug)]
pub struct Plane {
    fetcher: Fetcher,
    addresses: Vec<SocketAddr>,
    words: mpsc::Receiver<FromWorker>,
    /// Aborted with this.
    _tasks: JoinSet<()>,
}

/// Starts to serve what is in the store. Must be called inside a tokio runtime.
pub fn start(bulk: Bulk) -> (Fetcher, Plane) {
    let Bulk { endpoint, mut addresses, store } = bulk;
    addresses.truncate(ADDRESSES_MAX);
    let place = blake3::hash(endpoint.identity().own().name.as_bytes());
    let place = place.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let config = Config { place, ..Config::default() };
    let options = Options { addresses: addresses.clone(), config };
    let (transfer, reports) = Transfer::start(endpoint, Arc::new(store.clone()), options);
    let (say, words) = mpsc::channel(WORDS_MAX);
    let (wants, survey) = (Wants::new(say.clone()), Survey::default());
    let fetcher = Fetcher { transfer, store: store.clone(), wants, survey: survey.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(survey.run(store, say));
    tasks.spawn(mend(fetcher.clone(), reports));
    (fetcher.clone(), Plane { fetcher, addresses, words, _tasks: tasks })
}

impl Fetcher {
    /// Waits until these bytes of a blob, which is `length` bytes long by its handle, are in the store and
    /// stay there for as long as what is returned. Dropped, it wants nothing any more.
    ///
    /// # Errors
    /// Nobody has them, or whoever had does not give them; the length is another one; the store cannot keep
    /// them; nobody leads who could be asked.
    pub async fn fetch(
        &self,
        blob: BlobId,
        length: u64,
        range: Range<u64>,
    ) -> Result<Hold, FetchError> {
        let fetch = Fetch { blob, length, bytes: Some(range), holders: Vec::new(), within: WITHIN };
        if self.is_here(&fetch).await {
            match self.transfer.fetch(fetch.clone()).await {
                Ok(fetched) => return Ok(fetched.hold),
                // A disk has spoilt what was here.
                Err(Unfetched::BlobLost { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut want = self.wants.want(blob, &self.survey).await?;
        let mut round = 1;
        loop {
            let holders = want.holders().await?;
            match self.fetch_from(&fetch, holders, &mut want).await {
                Ok(hold) => return Ok(hold),
                Err(error @ Unfetched::BlobLost { .. }) if round < ROUNDS_MAX => {
                    tracing::debug!(%blob, error = chain(&error), "the leader is asked again");
                    round += 1;
                    want.ask_again().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn fetch_from(
        &self,
        fetch: &Fetch,
        holders: Vec<(Holder, bool)>,
        want: &mut wants::Want,
    ) -> Result<Hold, Unfetched> {
        let mut fetching = std::pin::pin!(self.transfer.fetch(Fetch { holders, ..fetch.clone() }));
        loop {
            tokio::select! {
                fetched = &mut fetching => return fetched.map(|fetched| fetched.hold),
                more = want.more() => self.transfer.holders(fetch.blob, more).await,
            }
        }
    }

    /// Whether all that is wanted seems to be in the store.
    async fn is_here(&self, fetch: &Fetch) -> bool {
        let (store, blob) = (self.store.clone(), fetch.blob);
        let chunks = chunks_of(fetch.bytes.clone().unwrap_or(0..fetch.length));
        let here = tokio::task::spawn_blocking(move || {
            let Some(blob) = store.get(&blob) else { return false };
            chunks.is_empty()
                || blob
                    .present()
                    .iter()
                    .any(|run| run.start <= chunks.start && run.end >= chunks.end)
        });
        here.await.unwrap_or(false)
    }

    /// Tells the leader at once that a blob is here.
    pub(crate) fn announce(&self, blob: BlobId) {
        self.survey.look_at(blob);
    }

    /// Says something to the leader.
    pub(crate) async fn say(&self, word: FromWorker) {
        // A loop that has ended says nothing any more.
        _ = self.wants.say(word).await;
    }

    /// What this node has sent and received.
    pub fn traffic(&self) -> allhands_transfer::node::Traffic {
        self.transfer.traffic()
    }
}

impl Plane {
    /// The next thing to be said to the leader.
    pub(crate) async fn next(&mut self) -> FromWorker {
        match self.words.recv().await {
            Some(word) => word,
            // It holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// What a registration says of the store; of results the pool knows more.
    pub(crate) fn depot(&self) -> Depot {
        let (addresses, blobs) = (self.addresses.clone(), self.fetcher.survey.register());
        // The coordinator knows the name, by the certificate.
        Depot { node: String::new(), addresses, blobs, results: Vec::new() }
    }

    /// A new leader has taken the registration: what has changed since that was made, and what to ask.
    pub(crate) fn registered(&self) -> Vec<FromWorker> {
        let mut words = self.fetcher.survey.registered();
        words.extend(self.fetcher.wants.all_again());
        words
    }

    /// The leader has answered.
    pub(crate) fn heard(&self, blob: BlobId, holders: Vec<(Holder, bool)>) {
        self.fetcher.wants.answered(blob, holders);
    }
}

/// Fetches again what the disk has spoilt, from whoever has it.
async fn mend(fetcher: Fetcher, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        let (blob, chunk) = match report {
            Report::Damaged { blob, chunk } => (blob, chunk),
            // The log has them.
            Report::Wrong { .. } | Report::OtherLength { .. } => continue,
        };
        let store = fetcher.store.clone();
        let manifest = tokio::task::spawn_blocking(move || {
            store.get(&blob).map(|blob| Arc::clone(blob.manifest()))
        });
        let Ok(Some(manifest)) = manifest.await else { continue };
        let Some(range) = manifest.range_of(chunk) else { continue };
        if let Err(error) = fetcher.fetch(blob, manifest.bytes(), range).await {
            let error = chain(&error);
            tracing::warn!(%blob, chunk, error, "a damaged chunk was not fetched again");
        }
    }
}
