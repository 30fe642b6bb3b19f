//! Connections between a leader and a worker or client, and what they may do to messages.
//!
//! One connection is one QUIC stream each way: in order, nothing lost, nothing twice, until it
//! breaks; then what is under way is gone, each side learns of it in its own time, and nothing of a
//! dead connection is heard any more. That is all that the client link has to bear: requests are
//! named and repeated over the next connection.
//!
//! The worker link is built to bear more, so that a mistake in a shell costs a range and not a hang:
//! orders and heartbeats are numbered, so here they are also lost, repeated and overtaken *within* a
//! connection. Registrations and reports are not: they are the first message of a connection, and
//! what a worker repeats after each registration.

use allhands_common::id::Term;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, ToWorker};

use super::world::{Happening, World};

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(pub(super) usize);

/// Who talks to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Worker(usize),
    Client(usize),
}

/// The two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Leader,
    Peer,
}

/// A connection to the leader of `term`.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) term: Term,
    /// Whether each end still believes in it.
    pub(super) leader_open: bool,
    pub(super) peer_open: bool,
    /// Whether nothing that is sent arrives any more.
    cut: bool,
    /// When the last message in each direction arrives.
    last: [u64; 2],
}

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Message {
    FromWorker(FromWorker),
    ToWorker(ToWorker),
    FromClient(FromClient),
    ToClient(ToClient),
}

impl World {
    pub(super) fn connect(&mut self, peer: Peer, term: Term) -> ConnectionId {
        let id = ConnectionId(self.connections.len());
        self.connections.push(Connection {
            peer,
            term,
            leader_open: true,
            peer_open: true,
            cut: false,
            last: [0; 2],
        });
        id
    }

    /// Sends `message` to the end `to`.
    pub(super) fn send(&mut self, id: ConnectionId, to: End, message: Message) {
        self.stats.count("messages");
        let connection = &self.connections[id.0];
        let sender_open = match to {
            End::Leader => connection.peer_open,
            End::Peer => connection.leader_open,
        };
        if connection.cut || !sender_open {
            self.stats.count("fault: messages lost with their connection");
            return;
        }
        let numbered = matches!(
            message,
            Message::ToWorker(ToWorker::Orders { .. })
                | Message::FromWorker(FromWorker::Heartbeat { .. })
        );
        let calm = self.now >= self.climate.faults_end;
        let delay = self.rng.skewed(20..self.climate.delay_max);
        if numbered && !calm {
            if self.rng.chance(self.climate.lose) {
                self.stats.count("fault: messages lost");
                return;
            }
            if self.rng.chance(self.climate.repeat) {
                self.stats.count("fault: messages repeated");
                let later = self.now + delay + self.rng.skewed(1..500_000);
                self.plan(later, Happening::Deliver(id, to, message.clone()));
            }
            if self.rng.chance(self.climate.overtake) {
                self.stats.count("fault: messages overtaken");
                let later = self.now + delay + self.rng.skewed(1..500_000);
                self.plan(later, Happening::Deliver(id, to, message));
                return;
            }
        }
        let last = &mut self.connections[id.0].last[usize::from(to == End::Peer)];
        *last = (*last + 1).max(self.now + delay);
        let at = *last;
        self.plan(at, Happening::Deliver(id, to, message));
    }

    /// The connection is dead; both ends will learn of it.
    pub(super) fn cut(&mut self, id: ConnectionId) {
        if std::mem::replace(&mut self.connections[id.0].cut, true) {
            return;
        }
        for end in [End::Leader, End::Peer] {
            let at = self.now + self.rng.skewed(1..1_500_000);
            self.plan(at, Happening::Broken(id, end));
        }
    }

    /// One end hears of nothing more over a connection; the other learns in its time.
    pub(super) fn close(&mut self, id: ConnectionId, end: End) {
        let connection = &mut self.connections[id.0];
        match end {
            End::Leader => connection.leader_open = false,
            End::Peer => connection.peer_open = false,
        }
        self.cut(id);
    }

    pub(super) fn is_open(&self, id: ConnectionId, end: End) -> bool {
        let connection = &self.connections[id.0];
        match end {
            End::Leader => connection.leader_open,
            End::Peer => connection.peer_open,
        }
    }
}
