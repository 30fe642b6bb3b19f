//! What this node has asked for: what must come, and what has come of a manifest.

use std::collections::{BTreeMap, VecDeque};

use allhands_common::blob::{BlobId, ChunkId};
use bytes::Bytes;

use crate::exchange::{Peer, Request};

/// Cancelled requests whose answer is still good if it comes, at most: twice what may be asked for.
const LATE_MAX: usize = 128;

/// One request.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) peer: Peer,
    pub(super) blob: BlobId,
    pub(super) part: Part,
}

#[derive(Debug)]
pub(super) enum Part {
    Chunk { chunk: u32, id: ChunkId },
    Manifest(Pages),
}

/// A manifest that is coming in.
#[derive(Debug, Default)]
pub(super) struct Pages {
    bytes: Option<u64>,
    ids: Vec<ChunkId>,
}

/// What a page has made of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Paged {
    /// The next page starts here.
    More(u32),
    Whole(u64, Vec<ChunkId>),
    /// It does not fit what came before.
    Wrong,
}

impl Pages {
    pub(super) fn add(&mut self, bytes: u64, first: u32, page: &Bytes) -> Paged {
        let wanted = bytes.div_ceil(allhands_common::blob::CHUNK_BYTES.into());
        let fits = *self.bytes.get_or_insert(bytes) == bytes
            && self.ids.len() == first as usize
            && page.len().is_multiple_of(32)
            && (self.ids.len() + page.len() / 32) as u64 <= wanted
            && (wanted == 0 || !page.is_empty());
        if !fits {
            return Paged::Wrong;
        }
        let (ids, _) = page.as_chunks::<32>();
        self.ids.extend(ids.iter().map(|id| ChunkId(*id)));
        if self.ids.len() as u64 == wanted {
            return Paged::Whole(bytes, core::mem::take(&mut self.ids));
        }
        u32::try_from(self.ids.len()).map_or(Paged::Wrong, Paged::More)
    }
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: BTreeMap<Request, Pending>,
    late: VecDeque<Request>,
}

impl Requests {
    pub(super) fn insert(&mut self, request: Request, pending: Pending) {
        self.pending.insert(request, pending);
    }

    /// The request that `peer` answers with this number, if it was made to `peer`.
    pub(super) fn take(&mut self, peer: Peer, request: u64) -> Option<Pending> {
        let request = Request(request);
        self.pending.get(&request).is_some_and(|pending| pending.peer == peer).then_some(())?;
        self.pending.remove(&request)
    }

    /// An answer is not needed any more; if it comes nevertheless, it is used.
    pub(super) fn cancel(&mut self, request: Request) {
        self.late.push_back(request);
        if self.late.len() > LATE_MAX
            && let Some(oldest) = self.late.pop_front()
        {
            self.pending.remove(&oldest);
        }
    }

    /// Nothing will come from `peer` any more.
    pub(super) fn gone(&mut self, peer: Peer) {
        self.pending.retain(|_, pending| pending.peer != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ids(count: usize) -> Bytes {
        (0..count).flat_map(|at| [at as u8; 32]).collect::<Vec<_>>().into()
    }

    #[test]
    fn pages_become_a_manifest() {
        let mut pages = Pages::default();
        assert_eq!(pages.add(3 * MIB, 0, &ids(2)), Paged::More(2));
        let whole =
            Paged::Whole(3 * MIB, vec![ChunkId([0; 32]), ChunkId([1; 32]), ChunkId([0; 32])]);
        assert_eq!(pages.add(3 * MIB, 2, &ids(1)), whole);
        assert_eq!(Pages::default().add(0, 0, &Bytes::new()), Paged::Whole(0, Vec::new()));
    }

    #[test]
    fn pages_that_do_not_fit_are_wrong() {
        let after_two = |bytes, first, page: Bytes| {
            let mut pages = Pages::default();
            assert_eq!(pages.add(3 * MIB, 0, &ids(2)), Paged::More(2));
            pages.add(bytes, first, &page)
        };
        for (bytes, first, page) in [
            (3 * MIB, 2, ids(2)),
            (3 * MIB, 2, Bytes::new()),
            (3 * MIB, 1, ids(1)),
            (4 * MIB, 2, ids(1)),
            (3 * MIB, 2, ids(1).slice(1..)),
        ] {
            assert_eq!(after_two(bytes, first, page.clone()), Paged::Wrong, "{first} {page:?}");
        }
    }
}
