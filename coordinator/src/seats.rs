//! Who is connected: one seat a link, and what the loop knows of whoever sits there.

use std::collections::BTreeMap;

use allhands_common::id::{SessionId, Term, WorkerId};
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::worker::{FromWorker, ToWorker};
use tokio::sync::mpsc::UnboundedSender;

/// A link of this process, in the order of their coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeatId(pub(crate) u64);

/// A client's link.
#[derive(Debug)]
pub(crate) struct ClientSeat {
    /// The name in its certificate.
    pub(crate) owner: String,
    /// What is sent to it. Not bounded by count: deliveries keep within the credit of their batch,
    /// and answers within what the client itself may have under way.
    pub(crate) out: UnboundedSender<ToClient>,
    /// Its last `Attach`: kept for a leader that is not ready yet.
    pub(crate) attach: Option<FromClient>,
    /// Whose seat it is, once it has attached.
    pub(crate) session: Option<SessionId>,
    /// The term in which the leader took it; what it says counts in that term alone.
    pub(crate) term: Option<Term>,
}

/// A worker's link.
#[derive(Debug)]
pub(crate) struct WorkerSeat {
    /// The name in its certificate.
    pub(crate) node: String,
    /// What is sent to it: orders keep within the ranges that it has room for.
    pub(crate) out: UnboundedSender<ToWorker>,
    /// Its last `Register`.
    pub(crate) register: Option<FromWorker>,
    /// Who it is, once it has registered.
    pub(crate) worker: Option<WorkerId>,
    /// As in a client's seat.
    pub(crate) term: Option<Term>,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    pub(crate) clients: BTreeMap<SeatId, ClientSeat>,
    pub(crate) workers: BTreeMap<SeatId, WorkerSeat>,
    /// The seat through which each session, and each worker, is attached in this term.
    pub(crate) sessions: BTreeMap<SessionId, SeatId>,
    pub(crate) registered: BTreeMap<WorkerId, SeatId>,
}

impl Seats {
    /// Ends the links of all who were attached: they come back and attach anew, here or elsewhere.
    pub(crate) fn dismiss_attached(&mut self) {
        self.sessions.clear();
        self.registered.clear();
        self.clients.retain(|_, seat| seat.term.is_none());
        self.workers.retain(|_, seat| seat.term.is_none());
    }

    /// Sends to an attached client; nothing where there is none: it will ask again.
    pub(crate) fn tell(&self, session: SessionId, message: ToClient) {
        if let Some(seat) = self.sessions.get(&session).and_then(|seat| self.clients.get(seat)) {
            // A closed link is noticed by its reader.
            let _ = seat.out.send(message);
        }
    }

    /// Sends over a client's link, whoever leads.
    pub(crate) fn say(&self, seat: SeatId, message: ToClient) {
        if let Some(seat) = self.clients.get(&seat) {
            let _ = seat.out.send(message);
        }
    }

    /// Sends to a registered worker; nothing where there is none: its inventory will tell.
    pub(crate) fn order(&self, worker: WorkerId, message: ToWorker) {
        if let Some(seat) = self.registered.get(&worker).and_then(|seat| self.workers.get(seat)) {
            let _ = seat.out.send(message);
        }
    }
}
