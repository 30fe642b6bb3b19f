//! Long results that this process lacks: who has them is asked once, again when that did not help, and of each new
//! leader.

use allhands_common::id::BlobId;
use allhands_common::wire::client::FromClient;

use super::{Action, Core, Peer};

impl Core {
    pub(super) fn want(&mut self, blob: BlobId, out: &mut Vec<Action>) {
        self.wanted.insert(blob);
        if let Some(peer) = self.leader {
            self.say(peer, FromClient::WantBlob { blob }, out);
        }
    }

    pub(super) fn unwant(&mut self, blob: BlobId, out: &mut Vec<Action>) {
        if self.wanted.remove(&blob)
            && let Some(peer) = self.leader
        {
            self.say(peer, FromClient::UnwantBlob { blob }, out);
        }
    }

    /// A leader that has taken the session has been asked nothing.
    pub(super) fn want_all(&mut self, peer: Peer, out: &mut Vec<Action>) {
        let blobs: Vec<BlobId> = self.wanted.iter().copied().collect();
        if !blobs.is_empty() {
            out.push(Action::AskedAnew);
        }
        for blob in blobs {
            self.say(peer, FromClient::WantBlob { blob }, out);
        }
    }
}
