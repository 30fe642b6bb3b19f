//! What an operator is shown of the blobs.

use alloc::string::String;

use allhands_common::wire::admin::{
    BLOB_NAME_BYTES_MAX, BLOB_NAMES_SHOWN_MAX, BLOBS_SHOWN_MAX, BlobView, Blobs,
};

use super::super::Dispatcher;
use super::Known;

impl Dispatcher {
    /// Blobs that somebody has, offers or wants.
    pub fn blobs(&self) -> Blobs {
        let shown = self.blobs.known.iter().take(BLOBS_SHOWN_MAX);
        let more = self.blobs.known.len().saturating_sub(BLOBS_SHOWN_MAX) as u64;
        Blobs { blobs: shown.map(|(id, known)| self.blob(*id, known)).collect(), more }
    }

    fn blob(&self, blob: allhands_common::id::BlobId, known: &Known) -> BlobView {
        let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
        let whole = known.whole.iter().map(|id| (id, true));
        let part = known.part.iter().map(|id| (id, false));
        let workers = whole.chain(part).take(BLOB_NAMES_SHOWN_MAX).filter_map(|(id, whole)| {
            Some((short(&self.blobs.places.get(id)?.holder.node.name), whole))
        });
        let clients = known.offered.iter().take(BLOB_NAMES_SHOWN_MAX);
        let clients = clients.filter_map(|id| Some(short(&self.blobs.offers.get(id)?.owner)));
        let kept = self.blobs.kept.get(&blob);
        BlobView {
            blob,
            workers: workers.collect(),
            workers_count: count(known.whole.len() + known.part.len()),
            clients: clients.collect(),
            clients_count: count(known.offered.len()),
            wanted_by: count(known.wanting.len() + known.awaited.len()),
            bytes: kept.map(|kept| kept.bytes),
            kept_for: count(kept.map_or(0, |kept| kept.by.len())),
            kept_by: count(kept.map_or(0, |kept| kept.at.len())),
        }
    }
}

fn short(name: &str) -> String {
    name[..name.floor_char_boundary(BLOB_NAME_BYTES_MAX)].into()
}
