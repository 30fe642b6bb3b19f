//! Who may open what: the one table of roles, purposes and frame kinds.
//!
//! It is consulted once per link, when the accepting side has read the [`Hello`](super::handshake::Hello).
//! A link carries only the two kinds of its purpose, so nothing needs to be checked per message.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::Kind;
pub use crate::role::{ParseRoleError, Role};

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// Submit work and receive outcomes.
    Client,
    /// Change or inspect the cluster.
    Admin,
    /// Register as a worker, run ranges, report.
    Worker,
    /// Raft between coordinators.
    Peer,
    /// Ask for chunks.
    Chunks,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 5] = [Self::Client, Self::Admin, Self::Worker, Self::Peer, Self::Chunks];

    /// What the opener sends, and what it receives.
    pub const fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Client => (Kind::ClientToCoordinator, Kind::CoordinatorToClient),
            Self::Admin => (Kind::AdminRequest, Kind::AdminReply),
            Self::Worker => (Kind::WorkerToCoordinator, Kind::CoordinatorToWorker),
            Self::Peer => (Kind::PeerRequest, Kind::PeerReply),
            Self::Chunks => (Kind::ChunkRequest, Kind::ChunkReply),
        }
    }

    /// Whether `opener` may open a link of this purpose to `acceptor`.
    ///
    /// Chunks flow both ways on any connection (a client serves on the connections that it opened), so
    /// that purpose is refused only between two clients, who never meet.
    pub const fn allows(self, opener: Role, acceptor: Role) -> bool {
        use Role::{Admin, Client, Coordinator, Worker};
        match (self, acceptor) {
            (Self::Client, Coordinator) => matches!(opener, Client | Admin),
            (Self::Admin, Coordinator) => matches!(opener, Admin),
            (Self::Worker, Coordinator) => matches!(opener, Worker),
            (Self::Peer, Coordinator) => matches!(opener, Coordinator),
            (Self::Chunks, Coordinator | Worker) => true,
            (Self::Chunks, Client | Admin) => matches!(opener, Coordinator | Worker),
            (Self::Client | Self::Admin | Self::Worker | Self::Peer, Worker | Client | Admin) => {
                false
            }
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Admin => "admin",
            Self::Worker => "worker",
            Self::Peer => "peer",
            Self::Chunks => "chunk",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns: coordinator, worker, client, admin as opener.
    const AT_A_COORDINATOR: [(Purpose, [bool; 4]); 5] = [
        (Purpose::Client, [false, false, true, true]),
        (Purpose::Admin, [false, false, false, true]),
        (Purpose::Worker, [false, true, false, false]),
        (Purpose::Peer, [true, false, false, false]),
        (Purpose::Chunks, [true, true, true, true]),
    ];

    #[test]
    fn the_table_at_a_coordinator() {
        for (purpose, row) in AT_A_COORDINATOR {
            for (role, may) in Role::ALL.into_iter().zip(row) {
                assert_eq!(purpose.allows(role, Role::Coordinator), may, "{role} opens {purpose}");
            }
        }
    }

    #[test]
    fn everybody_else_serves_chunks_and_nothing_more() {
        for acceptor in [Role::Worker, Role::Client, Role::Admin] {
            for (opener, purpose) in
                Role::ALL.into_iter().flat_map(|role| Purpose::ALL.map(|purpose| (role, purpose)))
            {
                let stranger =
                    acceptor != Role::Worker && matches!(opener, Role::Client | Role::Admin);
                assert_eq!(
                    purpose.allows(opener, acceptor),
                    purpose == Purpose::Chunks && !stranger,
                    "{opener} opens {purpose} at {acceptor}"
                );
            }
        }
    }

    #[test]
    fn an_admin_may_do_whatever_a_client_may() {
        for (purpose, acceptor) in
            Purpose::ALL.into_iter().flat_map(|purpose| Role::ALL.map(|role| (purpose, role)))
        {
            assert!(
                !purpose.allows(Role::Client, acceptor) || purpose.allows(Role::Admin, acceptor)
            );
        }
    }

    #[test]
    fn no_kind_serves_two_purposes() {
        let mut kinds: Vec<_> = Purpose::ALL
            .into_iter()
            .flat_map(|purpose| <[Kind; 2]>::from(purpose.kinds()))
            .collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 2 * Purpose::ALL.len());
    }
}
