//! A session: this process's stay at a cluster, and the thread that speaks for it.
//!
//! [`core`] decides what is said; the loop here ([`run`]) owns links and clocks and does it. It can be
//! spawned wherever `spawn_local` works: the embedded cluster shares its thread with it, because each wake of
//! another thread costs as much as everything else that a short call does. A caller hands a batch over
//! through its [`exchange`] and finds the outcomes in its [`inbox`]; what has changed is put into the
//! session's list, with one wake however many changes there are.
//!
//! Nothing here survives the process. What a client leaves behind ends with its lease.

pub(crate) mod core;
pub(crate) mod data;
mod deliveries;
pub(crate) mod exchange;
mod fetching;
pub(crate) mod holdings;
pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod listeners;
pub(crate) mod names;
pub(crate) mod needs;
pub(crate) mod outcomes;
pub(crate) mod program;
mod shell;
pub(crate) mod submits;
pub(crate) mod thread;
pub(crate) mod visiting;
mod workers;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use allhands_common::id::BlobId;
use allhands_common::limit::SESSION_KEEPS_MAX;
use allhands_common::wire::client::Keep;
use allhands_common::wire::data::Holder;
use tokio::sync::{Notify, mpsc};

use self::core::{End, Purpose};
use exchange::{Exchange, Note};
pub(crate) use fetching::CannotLoad;
use fetching::{FetchedResult, Word};
use listeners::Listeners;
pub(crate) use shell::{Beginning, run};
use visiting::Visiting;
use workers::Workers;

/// The callers' side of a session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    state: Mutex<State>,
    /// Calls that are submitted one by one.
    submits: submits::Submits,
    /// Wakes the session's loop.
    bell: Notify,
    /// Wakes who waits for the first attach, or for what there is instead.
    attached: Condvar,
    /// Slots of the cluster, as last heard.
    slots: AtomicU32,
    /// Results that workers keep for this process.
    handles: AtomicU32,
    workers: Mutex<Workers>,
    /// Who listens to what tasks say.
    pub(crate) listeners: Listeners,
    /// What it is there for, once it has begun.
    purpose: OnceLock<Purpose>,
    visiting: Visiting,
}

#[derive(Debug, Default)]
struct State {
    /// Batches with changes that the loop has not seen.
    notes: Vec<Arc<Exchange>>,
    /// Blobs that are offered (or, `false`, not any more) and the loop has not seen, in order.
    offers: Vec<(BlobId, bool)>,
    /// Who dials workers that want them.
    wanted: Option<mpsc::Sender<(BlobId, Holder)>>,
    /// Who fetches results from workers.
    fetching: Option<mpsc::UnboundedSender<Word>>,
    /// Blobs of which the leader is asked who has them (or, `false`, not any more), in order.
    wants: Vec<(BlobId, bool)>,
    /// Results on which there is one handle more, ...
    keeps: Vec<Keep>,
    /// ... or fewer.
    let_go: Vec<BlobId>,
    /// Results that have come, or cannot be had, and the loop has not seen.
    fetched: Vec<(BlobId, FetchedResult)>,
    /// The last handle is gone.
    closing: bool,
    /// Why the loop has ended: nobody will look at `notes` again.
    ended: Option<End>,
    /// A leader has taken the session, once.
    attached: bool,
    /// Why links are not there, by address.
    causes: Vec<Option<NoLink>>,
}

/// Why there is no link to an address.
#[derive(Debug, Clone)]
pub(crate) struct NoLink {
    /// For people.
    pub(crate) cause: String,
    /// Whether there may be one without anybody's doing.
    pub(crate) retry_can_help: bool,
}

impl State {
    /// No address will ever have a leader for this process, unless somebody does something.
    fn is_hopeless(&self) -> bool {
        let refused = |cause: &Option<NoLink>| cause.as_ref().is_some_and(|c| !c.retry_can_help);
        !self.causes.is_empty() && self.causes.iter().all(refused)
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the loop that a batch has changed, if it has to be told.
    #[inline]
    pub(crate) fn tell(&self, note: Note, exchange: &Arc<Exchange>) {
        if note == Note::Tell {
            self.note(exchange);
        }
    }

    /// What the workers are called.
    pub(crate) fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is there for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose.get().copied().unwrap_or(Purpose::Attached)
    }

    /// Puts a batch into the list of what the loop looks at.
    pub(crate) fn note(&self, exchange: &Arc<Exchange>) {
        let mut state = self.state();
        if let Some(end) = state.ended.clone() {
            drop(state);
            exchange.inbox.end(exchange.part, end);
            return;
        }
        state.notes.push(Arc::clone(exchange));
        drop(state);
        self.bell.notify_one();
    }

    /// Offers a blob to the cluster, or (`false`) does so no more.
    pub(crate) fn offer(&self, blob: BlobId, offered: bool) {
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        state.offers.push((blob, offered));
        drop(state);
        self.bell.notify_one();
    }

    /// From now on, whoever wants a blob that is offered is put into `wanted`.
    pub(crate) fn tell_wanted(&self, wanted: mpsc::Sender<(BlobId, Holder)>) {
        self.state().wanted = Some(wanted);
    }

    /// From now on, what there is to be fetched is put into `fetching`.
    fn tell_fetching(&self, fetching: mpsc::UnboundedSender<Word>) {
        self.state().fetching = Some(fetching);
    }

    /// Tells whoever fetches results; `false` if there is nobody.
    fn order(&self, word: Word) -> bool {
        let state = self.state();
        state.fetching.as_ref().is_some_and(|fetching| fetching.send(word).is_ok())
    }

    /// Asks the leader who has a blob, or (`false`) does so no more.
    fn want(&self, blob: BlobId, wanted: bool) {
        self.state().wants.push((blob, wanted));
        self.bell.notify_one();
    }

    /// There is one handle more on a blob that workers are to keep; `false` if that is one too many.
    pub(crate) fn keep(&self, keep: Keep) -> bool {
        if !self.may_keep() {
            return false;
        }
        self.state().keeps.push(keep);
        self.bell.notify_one();
        true
    }

    /// There is one handle fewer on a result that workers keep.
    pub(crate) fn let_go_of(&self, blob: BlobId) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        state.let_go.push(blob);
        drop(state);
        self.bell.notify_one();
    }

    /// One more handle on a result that workers keep, if that is not one too many.
    fn may_keep(&self) -> bool {
        let most = SESSION_KEEPS_MAX as u32;
        let one_more = |handles: u32| (handles < most).then_some(handles + 1);
        self.handles.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A result is here, or cannot be had.
    fn fetched(&self, blob: BlobId, result: FetchedResult) {
        self.state().fetched.push((blob, result));
        self.bell.notify_one();
    }

    /// The last handle is gone: detach and end.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.bell.notify_one();
    }

    /// Whether nothing will come of any call any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Slots of the cluster, as last heard.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// Waits for the first attach; else says why there is none, by address.
    ///
    /// # Errors
    /// No leader has taken the session in time, or none can.
    pub(crate) fn wait_attached(&self, patience: Duration) -> Result<(), Vec<Option<NoLink>>> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        while !state.attached && state.ended.is_none() && !state.is_hopeless() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.attached.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.attached { Ok(()) } else { Err(state.causes.clone()) }
    }
}
