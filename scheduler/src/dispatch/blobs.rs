//! Who has which blob: the leader's directory, by which workers find chunks.
//!
//! Soft, like everything here: workers say what their stores hold when they register and when it changes,
//! clients say what they offer after each attach, and whoever lacks chunks asks each new leader again. Sessions
//! ask as well: for long results, which lie where their tasks ran.
//!
//! A worker that asks is told of a few holders, in turns, so that a thousand who ask at once are sent to
//! many; whoever has asked counts among the holders for those who ask after it, because it will have chunks
//! soon. Where anybody has all of a blob, one who has is among those named: all others may lack just the
//! chunks that are wanted. Who was told that nobody has it is told as soon as somebody does.

mod check;
mod keeps;
mod results;
mod sessions;
mod spread;
mod view;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use allhands_common::id::{BatchId, BlobId, SessionId, WorkerId};
use allhands_common::limit::{
    HOLDERS_NAMED_MAX, SESSION_OFFERS_MAX, WORKER_BLOBS_MAX, WORKER_WANTS_MAX,
};
use allhands_common::role::Role;
use allhands_common::wire::client::ToClient;
use allhands_common::wire::data::{ADDRESSES_MAX, ChunkRange, Holder, Node};
use allhands_common::wire::worker::Depot;

use self::spread::Spread;
use super::Dispatcher;
use crate::{Action, State};
use keeps::Kept;

/// Of the holders that one is told of, so many at most have all of the blob.
const WHOLE_NAMED_MAX: usize = HOLDERS_NAMED_MAX / 2;

/// Where fewer workers than this have all of a blob, clients that offer it are named too.
const WHOLE_ENOUGH: usize = 2;

/// Clients that one is told of: each of them dials.
const CLIENTS_NAMED_MAX: usize = 2;

/// The directory.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    pub(super) known: BTreeMap<BlobId, Known>,
    /// Of every worker that is known.
    pub(super) places: BTreeMap<WorkerId, Place>,
    pub(super) offers: BTreeMap<SessionId, Offers>,
    /// What sessions want.
    pub(super) session_wants: BTreeMap<SessionId, BTreeSet<BlobId>>,
    /// Workers that have said that they keep results of a batch.
    pub(super) results: BTreeMap<BatchId, BTreeSet<WorkerId>>,
    /// What sessions have handles on.
    kept: BTreeMap<BlobId, Kept>,
    /// The same by session, and whether it was said since the session has attached.
    keeps: BTreeMap<SessionId, BTreeMap<BlobId, bool>>,
    /// The same by worker that was told to keep it.
    keepers: BTreeMap<WorkerId, BTreeSet<BlobId>>,
    /// Those that fewer workers keep than are wanted: looked at when one comes.
    short: BTreeSet<BlobId>,
    /// Who was told last to get something: the next one is told next.
    last_keeper: Option<WorkerId>,
    /// Which chunks went where with the tasks that need them.
    pub(super) spread: Spread,
}

/// What a session offers.
#[derive(Debug)]
pub(super) struct Offers {
    /// The name in its certificate, by which workers know its connections.
    pub(super) owner: String,
    pub(super) blobs: BTreeSet<BlobId>,
}

/// A blob that somebody has, offers or wants.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Workers that hold all of it.
    pub(super) whole: BTreeSet<WorkerId>,
    /// Workers that hold some of it.
    pub(super) part: BTreeSet<WorkerId>,
    /// Sessions that offer it.
    pub(super) offered: BTreeSet<SessionId>,
    /// Workers that want it, and whether they were told of somebody who has it.
    pub(super) wanting: BTreeMap<WorkerId, bool>,
    /// Sessions that want it, and the same.
    pub(super) awaited: BTreeMap<SessionId, bool>,
    /// Who was named last of those with all of it, with some of it, and of those who want it: the next ones
    /// are named next.
    named: [Option<WorkerId>; 3],
}

/// A worker's store.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) holder: Holder,
    pub(super) blobs: BTreeSet<BlobId>,
    pub(super) wants: BTreeSet<BlobId>,
    /// Batches of whose tasks it keeps results, by its registration.
    pub(super) results: BTreeSet<BatchId>,
}

impl Blobs {
    fn add_holder(&mut self, worker: WorkerId, blob: BlobId, whole: bool) -> bool {
        let Some(place) = self.places.get_mut(&worker) else { return false };
        if !place.blobs.contains(&blob) && place.blobs.len() >= WORKER_BLOBS_MAX {
            return false;
        }
        place.blobs.insert(blob);
        let known = self.known.entry(blob).or_default();
        known.remove_holder(worker);
        if whole {
            self.spread.forget(worker, blob);
            known.whole.insert(worker)
        } else {
            known.part.insert(worker)
        }
    }

    fn remove_holder(&mut self, worker: WorkerId, blob: BlobId) {
        if let Some(place) = self.places.get_mut(&worker) {
            place.blobs.remove(&blob);
        }
        self.spread.forget(worker, blob);
        self.change(blob, |known| known.remove_holder(worker));
    }

    /// A worker is given tasks that need these chunks.
    pub(super) fn sent(&mut self, worker: WorkerId, blob: BlobId, chunks: ChunkRange) {
        let is_whole = self.known.get(&blob).is_some_and(|known| known.whole.contains(&worker));
        if !is_whole && self.places.contains_key(&worker) {
            self.spread.send(worker, blob, chunks);
        }
    }

    /// How many of these chunks a worker has, as far as is known. Of one that says that it has a part, of which
    /// nothing was seen: half.
    pub(super) fn has(&self, worker: WorkerId, blob: &BlobId, chunks: ChunkRange) -> u32 {
        let known = self.known.get(blob);
        if known.is_some_and(|known| known.whole.contains(&worker)) {
            return chunks.len();
        }
        let half = || match known.is_some_and(|known| known.part.contains(&worker)) {
            true => chunks.len().div_ceil(2),
            false => 0,
        };
        self.spread.count(worker, blob, chunks).unwrap_or_else(half)
    }

    /// Workers that may have some of these chunks: who was given them last, a few of those that have all of the
    /// blob, and of those that say that they have a part of it.
    pub(super) fn holders(
        &self,
        blob: BlobId,
        chunks: ChunkRange,
    ) -> impl Iterator<Item = WorkerId> + '_ {
        const OF_EACH_MAX: usize = 2;
        let known = self.known.get(&blob);
        let whole = known.into_iter().flat_map(|known| known.whole.iter().take(OF_EACH_MAX));
        let part = known.into_iter().flat_map(|known| known.part.iter().take(OF_EACH_MAX));
        let last = self.spread.last_of(blob, chunks).take(OF_EACH_MAX);
        last.chain(whole.chain(part).copied())
    }

    fn add_want(&mut self, worker: WorkerId, blob: BlobId, told: bool) {
        let Some(place) = self.places.get_mut(&worker) else { return };
        if !place.wants.contains(&blob) && place.wants.len() >= WORKER_WANTS_MAX {
            return;
        }
        place.wants.insert(blob);
        self.known.entry(blob).or_default().wanting.insert(worker, told);
    }

    fn remove_want(&mut self, worker: WorkerId, blob: BlobId) {
        if let Some(place) = self.places.get_mut(&worker) {
            place.wants.remove(&blob);
        }
        self.change(blob, |known| _ = known.wanting.remove(&worker));
    }

    /// A worker is gone, with all that it held and wanted.
    pub(super) fn remove_worker(&mut self, worker: WorkerId) {
        let Some(place) = self.places.remove(&worker) else { return };
        for blob in place.blobs {
            self.change(blob, |known| known.remove_holder(worker));
        }
        for blob in place.wants {
            self.change(blob, |known| _ = known.wanting.remove(&worker));
        }
        for batch in place.results {
            self.remove_results(worker, batch);
        }
    }

    fn add_offer(&mut self, session: SessionId, owner: &str, blob: BlobId) -> bool {
        let new = || Offers { owner: owner.into(), blobs: BTreeSet::new() };
        let offers = self.offers.entry(session).or_insert_with(new);
        if !offers.blobs.contains(&blob) && offers.blobs.len() >= SESSION_OFFERS_MAX {
            return false;
        }
        offers.blobs.insert(blob);
        self.known.entry(blob).or_default().offered.insert(session);
        true
    }

    pub(super) fn remove_offers(&mut self, session: SessionId, blobs: &[BlobId]) {
        let Some(offers) = self.offers.get_mut(&session) else { return };
        blobs.iter().for_each(|blob| _ = offers.blobs.remove(blob));
        if offers.blobs.is_empty() {
            self.offers.remove(&session);
        }
        for blob in blobs {
            self.change(*blob, |known| _ = known.offered.remove(&session));
        }
    }

    /// A session is gone, or says anew what it offers and wants.
    pub(super) fn remove_session(&mut self, session: SessionId) {
        self.forget_session_wants(session);
        let Some(offers) = self.offers.remove(&session) else { return };
        for blob in offers.blobs {
            self.change(blob, |known| _ = known.offered.remove(&session));
        }
    }

    /// Changes what is known of a blob, and forgets it with the last one who has to do with it.
    fn change(&mut self, blob: BlobId, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.known.get_mut(&blob) else { return };
        change(known);
        if known.is_empty() {
            self.known.remove(&blob);
        }
    }
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty()
            && self.part.is_empty()
            && self.offered.is_empty()
            && self.wanting.is_empty()
            && self.awaited.is_empty()
    }

    fn remove_holder(&mut self, worker: WorkerId) {
        self.whole.remove(&worker);
        self.part.remove(&worker);
    }
}

/// Some of a sorted list, from the one after `last` on, and then from its beginning.
fn after<'a, I: Iterator<Item = &'a WorkerId>>(
    last: Option<WorkerId>,
    from: impl Fn((Bound<WorkerId>, Bound<WorkerId>)) -> I,
) -> impl Iterator<Item = WorkerId> {
    let (behind, before) = match last {
        Some(last) => (Bound::Excluded(last), Bound::Included(last)),
        // All, and then none.
        None => (Bound::Unbounded, Bound::Excluded(WorkerId(0))),
    };
    from((behind, Bound::Unbounded)).chain(from((Bound::Unbounded, before))).copied()
}

/// Who is named to somebody who asks.
#[derive(Debug, Default)]
struct Named {
    workers: Vec<(WorkerId, bool)>,
    clients: Vec<SessionId>,
}

impl Dispatcher {
    /// A worker has registered: this is what its store holds, instead of what it held before.
    pub(super) fn take_depot(
        &mut self,
        state: &State,
        worker: WorkerId,
        depot: Depot,
        out: &mut Vec<Action>,
    ) {
        self.blobs.remove_worker(worker);
        let Depot { node, mut addresses, blobs, results } = depot;
        addresses.truncate(ADDRESSES_MAX);
        let holder = Holder { node: Node { role: Role::Worker, name: node }, addresses };
        let (blobs_of, wants) = (BTreeSet::new(), BTreeSet::new());
        let place = Place { holder, blobs: blobs_of, wants, results: BTreeSet::new() };
        self.blobs.places.insert(worker, place);
        self.take_results(state, worker, results);
        for (blob, whole) in blobs.into_iter().take(WORKER_BLOBS_MAX) {
            self.blobs.add_holder(worker, blob, whole);
            self.serve_waiting(blob, out);
        }
        self.keeps_again(worker);
        // What was seen of it before is true of what it still has.
        let Blobs { places, spread, .. } = &mut self.blobs;
        let there = places.get(&worker).map(|place| &place.blobs);
        spread.retain(worker, |blob| there.is_some_and(|there| there.contains(blob)));
    }

    /// A worker was given up and is heard again, over the connection that it had.
    pub(super) fn depot_is_back(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        self.keeps_again(worker);
        let Some(place) = self.blobs.places.get(&worker) else { return };
        let both: BTreeSet<BlobId> = place.blobs.union(&place.wants).copied().collect();
        both.into_iter().for_each(|blob| self.serve_waiting(blob, out));
    }

    /// A worker's connection is gone: it asks again when it comes back.
    pub(super) fn forget_wants(&mut self, worker: WorkerId) {
        let wants = self.blobs.places.get(&worker).map(|place| place.wants.clone());
        for blob in wants.unwrap_or_default() {
            self.blobs.remove_want(worker, blob);
        }
    }

    pub(super) fn blobs_changed(
        &mut self,
        worker: WorkerId,
        come: &[(BlobId, bool)],
        gone: &[BlobId],
        out: &mut Vec<Action>,
    ) {
        for blob in gone {
            self.blobs.remove_holder(worker, *blob);
            self.blobs.remove_want(worker, *blob);
        }
        for (blob, whole) in come {
            // Somebody gives it to this one, or it is here: it waits no more.
            self.blobs.remove_want(worker, *blob);
            if self.blobs.add_holder(worker, *blob, *whole) {
                self.serve_waiting(*blob, out);
            }
            if *whole {
                self.keeper_has(worker, *blob);
            }
        }
    }

    pub(super) fn offered(
        &mut self,
        session: SessionId,
        owner: &str,
        blobs: &[BlobId],
        out: &mut Vec<Action>,
    ) {
        for blob in blobs {
            if self.blobs.add_offer(session, owner, *blob) {
                self.serve_waiting(*blob, out);
            }
        }
    }

    /// A worker asks who has a blob.
    pub(super) fn want_blob(&mut self, worker: WorkerId, blob: BlobId, out: &mut Vec<Action>) {
        if !self.blobs.places.contains_key(&worker) {
            return;
        }
        let named = self.name_holders(Some(worker), blob);
        self.blobs.add_want(worker, blob, named.is_some());
        self.answer_want(worker, blob, named.unwrap_or_default(), out);
    }

    /// Somebody has a blob: whoever was told that nobody has learns it.
    fn serve_waiting(&mut self, blob: BlobId, out: &mut Vec<Action>) {
        let Some(known) = self.blobs.known.get(&blob) else { return };
        let there = |id| self.workers.get(id).is_some_and(|worker| worker.present);
        let waiting = known.wanting.iter().filter(|(id, told)| !**told && there(*id));
        let waiting: Vec<WorkerId> = waiting.map(|(worker, _)| *worker).collect();
        for worker in waiting {
            if let Some(named) = self.name_holders(Some(worker), blob) {
                self.blobs.add_want(worker, blob, true);
                self.answer_want(worker, blob, named, out);
            }
        }
        self.serve_sessions(blob, out);
    }

    fn answer_want(&mut self, worker: WorkerId, blob: BlobId, named: Named, out: &mut Vec<Action>) {
        let clients = named.clients.iter().filter_map(|session| {
            let name = self.blobs.offers.get(session)?.owner.clone();
            let node = Node { role: Role::Client, name };
            Some((Holder { node, addresses: Vec::new() }, true))
        });
        let mut holders = self.holders_of(&named.workers);
        holders.extend(clients);
        // Two clients of one name are one to whoever asks.
        holders.dedup();
        out.push(Action::Holders { worker, blob, holders });
        let by = self.blobs.places.get(&worker).map(|place| place.holder.clone());
        for session in named.clients {
            if let Some(by) = by.clone() {
                self.tell(session, ToClient::Wanted { blob, by }, out);
            }
        }
    }

    /// How workers are reached, and whether they have all of it.
    fn holders_of(&self, workers: &[(WorkerId, bool)]) -> Vec<(Holder, bool)> {
        let holders = workers.iter().filter_map(|(worker, whole)| {
            let place = self.blobs.places.get(worker)?;
            Some((place.holder.clone(), *whole))
        });
        holders.collect()
    }

    /// Holders of a blob that `worker`, or a client, can reach, if anybody has any of it.
    fn name_holders(&mut self, worker: Option<WorkerId>, blob: BlobId) -> Option<Named> {
        let nobody = Known::default();
        let known = self.blobs.known.get(&blob).unwrap_or(&nobody);
        let can_be_dialled = |id: &WorkerId| {
            self.blobs.places.get(id).is_some_and(|place| !place.holder.addresses.is_empty())
        };
        let usable = |id: &WorkerId| {
            Some(*id) != worker
                && can_be_dialled(id)
                && self.workers.get(id).is_some_and(|there| there.present)
        };
        let [last_whole, last_part, last_wanting] = known.named;
        let keepers: BTreeSet<WorkerId> =
            self.blobs.kept.get(&blob).into_iter().flat_map(Kept::holders).collect();
        // Who has been told to keep it has it, also where that is not among all that it says that it has.
        let kept = keepers.iter().copied().filter(usable);
        let whole = after(last_whole, |range| known.whole.range(range)).filter(usable);
        let whole = whole.filter(|id| !keepers.contains(id)).chain(kept);
        let whole: Vec<WorkerId> = whole.take(WHOLE_NAMED_MAX).collect();
        // A client dials, and is dialled by nobody: least of all by another.
        let attached =
            |session: &&SessionId| self.clients.get(session).is_some_and(|client| client.attached);
        let mut clients: Vec<SessionId> = Vec::new();
        if whole.len() < WHOLE_ENOUGH && worker.as_ref().is_some_and(can_be_dialled) {
            clients.extend(known.offered.iter().filter(attached).take(CLIENTS_NAMED_MAX));
        }
        let left = HOLDERS_NAMED_MAX - whole.len() - clients.len();
        let part = after(last_part, |range| known.part.range(range)).filter(usable);
        let part = part.filter(|id| !keepers.contains(id));
        let part: Vec<WorkerId> = part.take(left).collect();
        if whole.is_empty() && part.is_empty() && clients.is_empty() {
            return None;
        }
        let holds = |id: &WorkerId| {
            known.whole.contains(id) || known.part.contains(id) || keepers.contains(id)
        };
        let soon = after(last_wanting, |range| known.wanting.range(range).map(|(id, _)| id));
        let soon = soon.filter(|id| usable(id) && !holds(id)).take(left - part.len());
        let soon: Vec<WorkerId> = soon.collect();
        let last = [whole.last(), part.last(), soon.last()].map(Option::<&_>::copied);
        if let Some(known) = self.blobs.known.get_mut(&blob) {
            known.named = [0, 1, 2].map(|list| last[list].or(known.named[list]));
        }
        let whole = whole.into_iter().map(|id| (id, true));
        let partly = part.into_iter().chain(soon).map(|id| (id, false));
        Some(Named { workers: whole.chain(partly).collect(), clients })
    }
}
