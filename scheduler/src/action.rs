//! Actions: everything a leader can ask its shell for.

use alloc::vec::Vec;

use allhands_common::execution::Awaited;
use allhands_common::id::{BatchId, BlobId, SessionId, WorkerId};
use allhands_common::wire::client::ToClient;
use allhands_common::wire::data::Holder;
use allhands_common::wire::worker::Order;

use crate::{Command, OutcomeSegment};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Have this in the log. It counts when it comes back as an effect, not before.
    Propose(Command),
    /// Send these orders to a worker, as one message. The shell puts the bytes in: of a `Run`, its
    /// argument segments (`Batch::arguments_of`, sliced to the range); of a `Batch`, its context.
    Order {
        /// To whom.
        worker: WorkerId,
        /// Number of the message in the registration.
        number: u64,
        /// What.
        orders: Vec<Order>,
    },
    /// Take a worker's registration: tell it so, before any order.
    Welcome {
        /// Whom.
        worker: WorkerId,
    },
    /// Tell a worker who has a blob that it wants (`ToWorker::Holders`).
    Holders {
        /// Whom.
        worker: WorkerId,
        /// Which blob.
        blob: BlobId,
        /// Who, and whether all of it.
        holders: Vec<(Holder, bool)>,
    },
    /// Say this to a client.
    Tell {
        /// To whom.
        session: SessionId,
        /// What.
        message: ToClient,
    },
    /// Give a client outcomes that it awaits: the shell finds them (`State::locate`) and reads the bytes. In
    /// the same way it fills in the `given` of a `Run`, and an `Order::Give`.
    Give {
        /// To whom.
        session: SessionId,
        /// Which.
        of: Vec<Awaited>,
    },
    /// Send outcomes to a client: the shell reads and slices the bytes.
    Deliver {
        /// To whom.
        session: SessionId,
        /// Of which batch.
        batch: BatchId,
        /// Their place in the order of commit.
        sequence: u32,
        /// Where they are.
        outcome: OutcomeSegment,
        /// Whether the batch is over with them.
        last: bool,
    },
}
