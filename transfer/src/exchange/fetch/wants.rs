//! Wants come, are met, and end.

use allhands_common::blob::BlobId;
use allhands_common::time::Instant;
use allhands_common::wire::data::ChunkSet;

use super::super::{Action, Config, Peer, Request, Want};
use super::blob::{Blob, Waiter, one};
use super::{Fetcher, Known, Part, Unfetched, Wanted};

impl Fetcher {
    pub(in super::super) fn want(
        &mut self,
        config: &Config,
        want: Want,
        wanted: Wanted,
        out: &mut Vec<Action>,
    ) {
        let id = wanted.blob;
        if !self.blobs.contains_key(&id) {
            self.order.insert(self.next, id);
            self.next += 1;
        }
        let blob = self.blobs.entry(id).or_insert_with(|| Blob::new(id));
        let chunks = Default::default();
        let Wanted { bytes, deadline, repair, .. } = wanted;
        let waiter = Waiter { bytes, deadline, chunks, left: 0, repair };
        blob.waiters.insert(want, waiter);
        blob.starved = None;
        for (peer, whole) in wanted.holders {
            blob.meet(config, peer, whole);
        }
        match (blob.bytes, wanted.known) {
            (None, Some(known)) => self.learn(config, id, known, out),
            (Some(_), _) => {
                blob.size_waiter(want);
                self.count_open(id);
                self.finish_met(id, out);
            }
            (None, None) => {}
        }
    }

    pub(in super::super) fn unwant(&mut self, want: Want, out: &mut Vec<Action>) {
        let holds = |blob: &Blob| blob.waiters.contains_key(&want);
        let Some(id) = self.blobs.values().find(|blob| holds(blob)).map(|blob| blob.id) else {
            return;
        };
        self.forget(id, &[want], out);
    }

    pub(in super::super) fn holders(
        &mut self,
        config: &Config,
        id: BlobId,
        holders: &[(Peer, bool)],
    ) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        holders.iter().for_each(|(peer, whole)| blob.meet(config, *peer, *whole));
    }

    pub(in super::super) fn store_failed(&mut self, id: BlobId, out: &mut Vec<Action>) {
        self.fail_all(id, &Unfetched::Store, out);
    }

    /// Everybody who waits for the blob learns why in vain.
    pub(super) fn fail_all(&mut self, id: BlobId, why: &Unfetched, out: &mut Vec<Action>) {
        let Some(blob) = self.blobs.get(&id) else { return };
        let wants: Vec<Want> = blob.waiters.keys().copied().collect();
        out.extend(
            wants.iter().map(|want| Action::Finish { want: *want, result: Err(why.clone()) }),
        );
        self.forget(id, &wants, out);
    }

    /// The length of a blob is known, and what is here of it.
    pub(super) fn learn(
        &mut self,
        config: &Config,
        id: BlobId,
        known: Known,
        out: &mut Vec<Action>,
    ) {
        let asked: Vec<Request> = self.manifest_requests(id);
        for request in asked {
            if let Some(taken) = self.take(request) {
                out.push(Action::Cancel { peer: taken.peer, request });
            }
        }
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        blob.bytes = Some(known.bytes);
        known.present.iter().for_each(|run| blob.here.insert(run));
        let chunks = u32::try_from(known.bytes.div_ceil(allhands_common::blob::CHUNK_BYTES.into()));
        blob.cursor = start_of(config.place, id, chunks.unwrap_or(u32::MAX));
        let wants: Vec<Want> = blob.waiters.keys().copied().collect();
        wants.into_iter().for_each(|want| blob.size_waiter(want));
        self.count_open(id);
        self.finish_met(id, out);
    }

    fn manifest_requests(&self, id: BlobId) -> Vec<Request> {
        let of = self
            .requests
            .iter()
            .filter(|(_, request)| request.blob == id && matches!(request.part, Part::Manifest));
        of.map(|(number, _)| *number).collect()
    }

    /// Ends the waits that are over.
    pub(super) fn finish_met(&mut self, id: BlobId, out: &mut Vec<Action>) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        let met: Vec<Want> = blob
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.left == 0)
            .map(|(want, _)| *want)
            .collect();
        out.extend(met.iter().map(|want| Action::Finish { want: *want, result: Ok(()) }));
        if !met.is_empty() {
            self.forget(id, &met, out);
        }
    }

    /// Removes wants, and with the last one the blob.
    pub(super) fn forget(&mut self, id: BlobId, wants: &[Want], out: &mut Vec<Action>) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        for want in wants {
            blob.waiters.remove(want);
        }
        let last = blob.waiters.is_empty();
        if last {
            let followed = blob.holders.iter().filter(|(_, view)| view.followed);
            out.extend(followed.map(|(peer, _)| Action::Unfollow { peer: *peer, blob: id }));
        }
        self.count_open(id);
        let needless: Vec<Request> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                request.blob == id
                    && (last
                        || matches!(request.part, Part::Chunk(chunk) if !self.is_coming(id, chunk)))
            })
            .map(|(number, _)| *number)
            .collect();
        for request in needless {
            if let Some(taken) = self.take(request) {
                out.push(Action::Cancel { peer: taken.peer, request });
            }
        }
        if last {
            self.blobs.remove(&id);
            self.order.retain(|_, other| *other != id);
        }
    }

    pub(super) fn count_open(&mut self, id: BlobId) {
        let asked: ChunkSet = self
            .requests
            .values()
            .filter_map(|request| match request.part {
                Part::Chunk(chunk) if request.blob == id => Some(one(chunk)),
                Part::Chunk(_) | Part::Manifest => None,
            })
            .collect();
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.count_open(&asked);
        }
    }

    /// Ends the waits whose deadline has passed.
    pub(super) fn too_late(&mut self, now: Instant, out: &mut Vec<Action>) {
        let late: Vec<(BlobId, Want, Option<u32>)> = self
            .blobs
            .values()
            .flat_map(|blob| blob.waiters.iter().map(move |(want, waiter)| (blob, want, waiter)))
            .filter(|(_, _, waiter)| waiter.deadline <= now)
            .map(|(blob, want, waiter)| (blob.id, *want, blob.bytes.map(|_| waiter.left)))
            .collect();
        for (id, want, missing) in late {
            out.push(Action::Finish { want, result: Err(Unfetched::Late { missing }) });
            self.forget(id, &[want], out);
        }
    }
}

/// Where a node starts in a blob: spread evenly, another place for each node and blob.
fn start_of(place: u64, id: BlobId, chunks: u32) -> u32 {
    let salt = id.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    scatter(place ^ salt, chunks)
}

/// A number below `below` (0 for 0) that looks random; splitmix64.
pub(super) fn scatter(seed: u64, below: u32) -> u32 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    u32::try_from(z % u64::from(below.max(1))).unwrap_or(0)
}
