//! Sessions that want what tasks have left with their workers.
//!
//! A session that is away is told nothing and asks anew when it comes back, so its wants are forgotten with
//! its connection.

use alloc::vec::Vec;

use allhands_common::id::{BlobId, SessionId};
use allhands_common::limit::SESSION_WANTS_MAX;
use allhands_common::wire::client::ToClient;

use super::super::Dispatcher;
use super::{Blobs, Named};
use crate::Action;

impl Blobs {
    fn add_session_want(&mut self, session: SessionId, blob: BlobId, told: bool) {
        let wants = self.session_wants.entry(session).or_default();
        if !wants.contains(&blob) && wants.len() >= SESSION_WANTS_MAX {
            return;
        }
        wants.insert(blob);
        self.known.entry(blob).or_default().awaited.insert(session, told);
    }

    pub(in super::super) fn remove_session_want(&mut self, session: SessionId, blob: BlobId) {
        let Some(wants) = self.session_wants.get_mut(&session) else { return };
        wants.remove(&blob);
        if wants.is_empty() {
            self.session_wants.remove(&session);
        }
        self.change(blob, |known| _ = known.awaited.remove(&session));
    }

    pub(in super::super) fn forget_session_wants(&mut self, session: SessionId) {
        for blob in self.session_wants.remove(&session).unwrap_or_default() {
            self.change(blob, |known| _ = known.awaited.remove(&session));
        }
    }
}

impl Dispatcher {
    /// A session asks who has a blob.
    pub(in super::super) fn session_wants(
        &mut self,
        session: SessionId,
        blob: BlobId,
        out: &mut Vec<Action>,
    ) {
        let named = self.name_holders(None, blob);
        self.blobs.add_session_want(session, blob, named.is_some());
        self.answer_session(session, blob, named.unwrap_or_default(), out);
    }

    /// Somebody has a blob: sessions that were told that nobody has learn it.
    pub(super) fn serve_sessions(&mut self, blob: BlobId, out: &mut Vec<Action>) {
        let Some(known) = self.blobs.known.get(&blob) else { return };
        let waiting = known.awaited.iter().filter(|(_, told)| !**told);
        let waiting: Vec<SessionId> = waiting.map(|(session, _)| *session).collect();
        for session in waiting {
            if let Some(named) = self.name_holders(None, blob) {
                self.blobs.add_session_want(session, blob, true);
                self.answer_session(session, blob, named, out);
            }
        }
    }

    fn answer_session(
        &mut self,
        session: SessionId,
        blob: BlobId,
        named: Named,
        out: &mut Vec<Action>,
    ) {
        let holders = self.holders_of(&named.workers);
        self.tell(session, ToClient::Holders { blob, holders }, out);
    }
}
