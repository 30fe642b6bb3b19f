//! Blobs that this process offers: said when they come and go, and all of them again after each attach.

use allhands_common::id::BlobId;
use allhands_common::limit::BLOB_NEWS_MAX;
use allhands_common::wire::client::FromClient;

use super::{Action, Core, Peer};

impl Core {
    pub(super) fn offer(&mut self, mut blobs: Vec<BlobId>, out: &mut Vec<Action>) {
        blobs.retain(|blob| self.offered.insert(*blob));
        if let Some(peer) = self.leader {
            self.say_some(peer, &blobs, |blobs| FromClient::Offer { blobs }, out);
        }
    }

    pub(super) fn withdraw(&mut self, mut blobs: Vec<BlobId>, out: &mut Vec<Action>) {
        blobs.retain(|blob| self.offered.remove(blob));
        if let Some(peer) = self.leader {
            self.say_some(peer, &blobs, |blobs| FromClient::Withdraw { blobs }, out);
        }
    }

    /// A leader that has taken the session knows of none.
    pub(super) fn offer_all(&mut self, peer: Peer, out: &mut Vec<Action>) {
        let blobs: Vec<BlobId> = self.offered.iter().copied().collect();
        self.say_some(peer, &blobs, |blobs| FromClient::Offer { blobs }, out);
    }

    fn say_some(
        &mut self,
        peer: Peer,
        blobs: &[BlobId],
        word: impl Fn(Vec<BlobId>) -> FromClient,
        out: &mut Vec<Action>,
    ) {
        for some in blobs.chunks(BLOB_NEWS_MAX) {
            self.say(peer, word(some.to_vec()), out);
        }
    }
}
