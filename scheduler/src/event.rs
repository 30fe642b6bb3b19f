//! Events: everything that can happen to a leader.

use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::id::{SessionId, WorkerId};
use allhands_common::wire::admin::Question;
use allhands_common::wire::client::FromClient;
use allhands_common::wire::worker::FromWorker;

use crate::Effect;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A deadline passed; see `Dispatcher::next_deadline`.
    Tick,
    /// An entry was applied to the state, with these consequences.
    Applied(Vec<Effect>),
    /// A client said something. Its connection has said `Attach` to this very leader before, or this
    /// is it.
    Client {
        /// Its stay.
        session: SessionId,
        /// The name in its certificate.
        owner: String,
        /// What.
        message: FromClient,
    },
    /// A client's connection broke. Its lease runs on.
    ClientGone {
        /// Its stay.
        session: SessionId,
    },
    /// A worker said something. Its connection has said `Register` to this very leader before, or
    /// this is it.
    Worker {
        /// Who.
        worker: WorkerId,
        /// What.
        message: FromWorker,
    },
    /// A worker's connection broke. It counts as lost when it does not come back in time.
    WorkerGone {
        /// Who.
        worker: WorkerId,
    },
    /// An operator orders something; only the orders among the questions come here.
    Operator {
        /// The name in the certificate.
        name: String,
        /// What.
        question: Question,
    },
}
