//! Blobs that sessions have handles on: which workers keep them for that.
//!
//! A task's result of which its client has a handle lies with the worker that made it. The session says so ([`Keep`]),
//! again after each attach, and the leader has workers keep it: that one, and others where more holders are wanted,
//! who fetch it from those that have it. A holder that is lost is replaced while anybody has all of it; one that
//! leaves in order is told to let go once another has it. A new leader is told by the sessions, and says it to the
//! workers anew, so that nothing of this is in the log.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use allhands_common::blob::BlobRef;
use allhands_common::id::{BlobId, SessionId, WorkerId};
use allhands_common::limit::{BLOB_NEWS_MAX, REPLICAS_MAX, SESSION_KEEPS_MAX};
use allhands_common::wire::client::Keep;
use allhands_common::wire::worker::Order;

use super::super::Dispatcher;
use super::{Blobs, after};

/// What a blob in an order may take of a message's head, see [`Dispatcher::order_of`].
const BLOB_BYTES: usize = 4 * 42;

/// A blob that is kept for sessions.
#[derive(Debug)]
pub(in super::super) struct Kept {
    pub(super) bytes: u64,
    /// For whom, and how many holders each of them wants.
    pub(super) by: BTreeMap<SessionId, u8>,
    /// Workers that were told to.
    pub(super) at: BTreeMap<WorkerId, Standing>,
    /// Workers that could not.
    pub(super) cannot: BTreeSet<WorkerId>,
}

/// How it stands with a worker that was told to keep a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has all of it.
    Has,
    /// It is to get it.
    Asked,
}

/// What workers are to be told.
#[derive(Debug, Default)]
struct Words {
    keep: BTreeMap<WorkerId, Vec<BlobRef>>,
    let_go: BTreeMap<WorkerId, Vec<BlobId>>,
}

impl Kept {
    fn wanted(&self) -> usize {
        usize::from(self.by.values().copied().max().unwrap_or(0).min(REPLICAS_MAX))
    }

    /// Workers that have all of it, as far as is known.
    pub(super) fn holders(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.at.iter().filter(|(_, standing)| **standing == Standing::Has).map(|(id, _)| *id)
    }
}

impl Blobs {
    /// Notes that a worker is to keep a blob.
    fn add_keeper(&mut self, worker: WorkerId, blob: BlobId, standing: Standing) {
        if let Some(kept) = self.kept.get_mut(&blob) {
            kept.at.insert(worker, standing);
            self.keepers.entry(worker).or_default().insert(blob);
        }
    }

    fn remove_keeper(&mut self, worker: WorkerId, blob: BlobId) {
        if let Some(kept) = self.kept.get_mut(&blob) {
            kept.at.remove(&worker);
        }
        if let Some(blobs) = self.keepers.get_mut(&worker) {
            blobs.remove(&blob);
            if blobs.is_empty() {
                self.keepers.remove(&worker);
            }
        }
    }

    /// A session keeps a blob no more; who is to be told, if nobody does.
    fn remove_keep(&mut self, session: SessionId, blob: BlobId) -> Vec<WorkerId> {
        if let Some(keeps) = self.keeps.get_mut(&session) {
            keeps.remove(&blob);
            if keeps.is_empty() {
                self.keeps.remove(&session);
            }
        }
        let Some(kept) = self.kept.get_mut(&blob) else { return Vec::new() };
        kept.by.remove(&session);
        if !kept.by.is_empty() {
            return Vec::new();
        }
        let at: Vec<WorkerId> = kept.at.keys().copied().collect();
        at.iter().for_each(|worker| self.remove_keeper(*worker, blob));
        self.kept.remove(&blob);
        self.short.remove(&blob);
        at
    }
}

impl Dispatcher {
    /// A session has handles on these; `all`: since it has attached it has said everything.
    pub(in super::super) fn keep(&mut self, session: SessionId, blobs: Vec<Keep>, all: bool) {
        let mut words = Words::default();
        for Keep { blob: BlobRef { id, bytes }, replicas, at } in blobs {
            let keeps = self.blobs.keeps.entry(session).or_default();
            if !keeps.contains_key(&id) && keeps.len() >= SESSION_KEEPS_MAX {
                continue;
            }
            keeps.insert(id, true);
            let new = || {
                let (by, at, cannot) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
                Kept { bytes, by, at, cannot }
            };
            let kept = self.blobs.kept.entry(id).or_insert_with(new);
            kept.by.insert(session, replicas.max(1));
            if let Some(worker) = at
                && !kept.at.contains_key(&worker)
            {
                kept.cannot.remove(&worker);
                self.blobs.add_keeper(worker, id, Standing::Has);
                words.keep.entry(worker).or_default().push(BlobRef { id, bytes });
            }
            self.plan(id, &mut words);
        }
        if all {
            let stale = self.blobs.keeps.get(&session).into_iter().flatten();
            let stale: Vec<BlobId> = stale.filter(|(_, said)| !**said).map(|(id, _)| *id).collect();
            self.end_keeps(session, &stale, &mut words);
        }
        self.say(words);
    }

    /// A session has let go of these.
    pub(in super::super) fn let_go(&mut self, session: SessionId, blobs: &[BlobId]) {
        let mut words = Words::default();
        self.end_keeps(session, blobs, &mut words);
        self.say(words);
    }

    /// A session has attached: it says anew what it keeps.
    pub(in super::super) fn doubt_keeps(&mut self, session: SessionId) {
        let keeps = self.blobs.keeps.get_mut(&session).into_iter().flatten();
        keeps.for_each(|(_, said)| *said = false);
    }

    /// A session is gone.
    pub(in super::super) fn end_all_keeps(&mut self, session: SessionId) {
        let blobs = self.blobs.keeps.get(&session).into_iter().flatten();
        let blobs: Vec<BlobId> = blobs.map(|(blob, _)| *blob).collect();
        self.let_go(session, &blobs);
    }

    fn end_keeps(&mut self, session: SessionId, blobs: &[BlobId], words: &mut Words) {
        for blob in blobs {
            for worker in self.blobs.remove_keep(session, *blob) {
                words.let_go.entry(worker).or_default().push(*blob);
            }
            // Fewer holders may be wanted.
            self.plan(*blob, words);
        }
    }

    /// A worker has registered: it is told what it keeps, and what too few keep.
    pub(super) fn keeps_again(&mut self, worker: WorkerId) {
        let mut words = Words::default();
        let short: Vec<BlobId> = self.blobs.short.iter().copied().collect();
        for blob in short {
            if let Some(kept) = self.blobs.kept.get_mut(&blob) {
                kept.cannot.remove(&worker);
            }
            self.plan(blob, &mut words);
        }
        let told: BTreeSet<BlobId> =
            words.keep.get(&worker).into_iter().flatten().map(|blob| blob.id).collect();
        for blob in self.kept_at(worker) {
            if let Some(kept) = self.blobs.kept.get(&blob).filter(|_| !told.contains(&blob)) {
                let bytes = kept.bytes;
                words.keep.entry(worker).or_default().push(BlobRef { id: blob, bytes });
            }
            self.plan(blob, &mut words);
        }
        self.say(words);
    }

    /// A worker has come, gone or begun to drain: others may have to keep what it keeps.
    pub(in super::super) fn keepers_changed(&mut self, worker: WorkerId) {
        let mut words = Words::default();
        self.kept_at(worker).into_iter().for_each(|blob| self.plan(blob, &mut words));
        self.say(words);
    }

    /// A worker has all of a blob.
    pub(super) fn keeper_has(&mut self, worker: WorkerId, blob: BlobId) {
        let Some(kept) = self.blobs.kept.get_mut(&blob) else { return };
        if let Some(standing) = kept.at.get_mut(&worker) {
            *standing = Standing::Has;
        }
        let mut words = Words::default();
        self.plan(blob, &mut words);
        self.say(words);
    }

    /// A worker that was told to keep a blob cannot.
    pub(in super::super) fn cannot_keep(&mut self, worker: WorkerId, blob: BlobId) {
        self.blobs.remove_keeper(worker, blob);
        if let Some(kept) = self.blobs.kept.get_mut(&blob) {
            kept.cannot.insert(worker);
        }
        let mut words = Words::default();
        self.plan(blob, &mut words);
        self.say(words);
    }

    fn kept_at(&self, worker: WorkerId) -> Vec<BlobId> {
        self.blobs.keepers.get(&worker).into_iter().flatten().copied().collect()
    }

    fn is_usable(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.usable())
    }

    fn is_draining(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.present && known.draining)
    }

    /// Sees to it that as many workers keep a blob as are wanted, and none for nothing.
    fn plan(&mut self, blob: BlobId, words: &mut Words) {
        let Some(kept) = self.blobs.kept.get(&blob) else { return };
        let wanted = kept.wanted();
        let mut keeping = kept.at.keys().filter(|id| self.is_usable(**id)).count();
        while keeping < wanted
            && let Some((worker, standing)) = self.another_keeper(blob)
        {
            let bytes = self.blobs.kept.get(&blob).map_or(0, |kept| kept.bytes);
            self.blobs.add_keeper(worker, blob, standing);
            words.keep.entry(worker).or_default().push(BlobRef { id: blob, bytes });
            keeping += 1;
        }
        match keeping < wanted {
            true => self.blobs.short.insert(blob),
            false => self.blobs.short.remove(&blob),
        };
        let Some(kept) = self.blobs.kept.get(&blob) else { return };
        let have: Vec<WorkerId> = kept.holders().filter(|id| self.is_usable(*id)).collect();
        let mut spare: Vec<WorkerId> = have.iter().skip(wanted).copied().collect();
        // Who leaves need not wait for others once they have it, nor if none ever will.
        if have.len() >= wanted || keeping == 0 {
            spare.extend(kept.at.keys().filter(|id| self.is_draining(**id)));
        }
        for worker in spare {
            self.blobs.remove_keeper(worker, blob);
            words.let_go.entry(worker).or_default().push(blob);
        }
    }

    /// A worker that could keep a blob as well: one that has it already, or one that can get it.
    fn another_keeper(&mut self, blob: BlobId) -> Option<(WorkerId, Standing)> {
        let kept = self.blobs.kept.get(&blob)?;
        let known = self.blobs.known.get(&blob);
        let may = |id: &WorkerId| {
            self.is_usable(*id) && !kept.at.contains_key(id) && !kept.cannot.contains(id)
        };
        if let Some(has) = known.and_then(|known| known.whole.iter().find(|id| may(id))) {
            return Some((*has, Standing::Has));
        }
        let present = |id: &WorkerId| self.workers.get(id).is_some_and(|known| known.present);
        let attached = |id: &SessionId| self.clients.get(id).is_some_and(|client| client.attached);
        let mut whole = known.into_iter().flat_map(|known| &known.whole);
        let mut offered = known.into_iter().flat_map(|known| &known.offered);
        let has_source =
            kept.holders().any(|id| present(&id)) || whole.any(present) || offered.any(attached);
        let places = &self.blobs.places;
        let can_be_reached =
            |id: &WorkerId| places.get(id).is_some_and(|place| !place.holder.addresses.is_empty());
        let mut others =
            after(self.blobs.last_keeper, |range| places.range(range).map(|(id, _)| id));
        let found = others.find(|id| has_source && may(id) && can_be_reached(id))?;
        self.blobs.last_keeper = Some(found);
        Some((found, Standing::Asked))
    }

    fn say(&mut self, words: Words) {
        for (worker, blobs) in words.keep {
            for some in blobs.chunks(BLOB_NEWS_MAX) {
                let order = Order::Keep { blobs: some.to_vec() };
                self.order_of(worker, order, some.len() * BLOB_BYTES);
            }
        }
        for (worker, blobs) in words.let_go {
            for some in blobs.chunks(BLOB_NEWS_MAX) {
                let order = Order::LetGo { blobs: some.to_vec() };
                self.order_of(worker, order, some.len() * BLOB_BYTES);
            }
        }
    }
}
