//! What a session's batches are called: each is named before anything of it is said, in the thread of whoever
//! opens it.

use allhands_common::id::{BatchId, ClusterId, SessionId};

/// Gives names to the batches of one session, each once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    cluster: ClusterId,
    session: SessionId,
    /// How many were given.
    sequence: u32,
}

impl Names {
    pub(crate) const fn new(cluster: ClusterId, session: SessionId) -> Self {
        Self { cluster, session, sequence: 0 }
    }

    /// The name of the next batch, and its number.
    pub(crate) fn next(&mut self) -> (BatchId, u32) {
        let sequence = self.sequence;
        self.sequence += 1;
        (BatchId::of_session(self.cluster, self.session, sequence.into()), sequence)
    }

    /// Another stay begins. Numbers go on.
    pub(crate) const fn rename(&mut self, session: SessionId) {
        self.session = session;
    }
}
