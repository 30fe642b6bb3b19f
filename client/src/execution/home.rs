//! Who brings the outcomes of executions: the session of a client with its cluster.
//!
//! What the rest of [`execution`](super) asks of it is all here, so that there may be another.

use std::sync::Arc;
use std::time::Instant;

use allhands_common::blob::BlobRef;
use allhands_common::execution::Awaited;
use allhands_common::id::{BatchId, ClusterId, TaskId};

use super::signal::Signal;
use super::slot::{Long, Settled, Slot};
use super::{Encoded, within};
use crate::cluster::Cluster;
use crate::enter;
use crate::error::{Error, ErrorKind, Result};
use crate::executor;
use crate::executor::tasks::{self, NotHere};
use crate::session::Session;
use crate::shared::whole;

/// Who brings the outcomes of executions.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// A session of this process.
    Client(Arc<Session>),
    /// The worker of this executor.
    Task,
    /// Nobody: a handle that was read where nothing is known of its cluster.
    Nowhere,
}

impl Home {
    /// Has the outcome of `slot` put into it when it is there. Said once of a slot.
    pub(super) fn ask(&self, slot: &Arc<Slot>) {
        match self {
            Self::Client(session) => session.await_outcome(slot),
            Self::Task => within::ask(slot),
            // Its cluster may have come since it was read.
            Self::Nowhere => match Cluster::known(slot.cluster()) {
                Some(cluster) => cluster.session().await_outcome(slot),
                None => slot.settle(Settled::Homeless(Arc::new(homeless(slot.cluster())))),
            },
        }
    }

    /// The slot that there is for an outcome; else whether one that is made for it is counted.
    pub(super) fn find(&self, of: Awaited) -> std::result::Result<Arc<Slot>, bool> {
        match self {
            Self::Client(session) => session.find(of),
            Self::Task | Self::Nowhere => Err(false),
        }
    }

    /// A slot that was asked for is gone without its outcome.
    pub(super) fn forget(&self, of: Awaited) {
        match self {
            Self::Client(session) => session.unawait(of),
            Self::Task => tasks::unask(of),
            Self::Nowhere => {}
        }
    }

    /// A slot that was counted for a batch is gone.
    pub(super) fn let_go(&self, batch: BatchId) {
        match self {
            Self::Client(session) => session.let_go_slot(batch),
            Self::Task | Self::Nowhere => {}
        }
    }

    /// Ends a task, if it has not ended.
    pub(super) fn cancel(&self, task: TaskId) {
        match self {
            Self::Client(session) => session.cancel_task(task),
            Self::Task => tasks::cancel(task),
            Self::Nowhere => {}
        }
    }
}

/// What an execution holds so that its outcome can come: the cluster, which ends with the last of its handles.
#[derive(Debug, Clone)]
pub(crate) struct Ties(Option<Cluster>);

impl Ties {
    /// To this cluster.
    pub(crate) const fn to(cluster: Cluster) -> Self {
        Self(Some(cluster))
    }

    /// To nothing.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) const fn cluster(&self) -> Option<&Cluster> {
        self.0.as_ref()
    }
}

/// The home of executions that are read here and name `cluster`, or nobody (zero).
pub(crate) fn of_read(cluster: ClusterId) -> (Home, Ties) {
    if executor::is_executor() {
        return (Home::Task, Ties::none());
    }
    match Cluster::known(cluster) {
        Some(known) => (Home::Client(Arc::clone(known.session())), Ties::to(known)),
        None => (Home::Nowhere, Ties::none()),
    }
}

/// Sends a call: to `on`, or where calls go that say nothing.
///
/// # Errors
/// It cannot be sent, or there is nobody to send it to.
pub(crate) fn submit(call: &Encoded<'_>, on: Option<&Cluster>) -> Result<(Arc<Slot>, Ties)> {
    if executor::is_executor() {
        return Ok((within::submit(call)?, Ties::none()));
    }
    let cluster = match on {
        Some(cluster) => cluster.clone(),
        None => Cluster::from_env()?,
    };
    let slot = cluster.session().submit(&cluster, call)?;
    Ok((slot, Ties::to(cluster)))
}

/// Has the long result that is the outcome of `slot` put into it.
pub(super) fn fetch(slot: &Arc<Slot>, reference: BlobRef) {
    if executor::is_executor() {
        let lent = whole::lend(reference).map(Long::Lent);
        return slot.put_long(lent.map_err(|cause| cause.to_string()));
    }
    match Cluster::known(slot.cluster()) {
        Some(cluster) => cluster.session().fetch_long(cluster.data(), slot, reference),
        None => slot.put_long(Err("the session with its cluster has ended".into())),
    }
}

/// Waits in this thread until `signal` is given, for one of `on`, or until `deadline` has passed: `false`.
///
/// # Errors
/// The task of this thread cannot wait, or was cancelled.
pub(super) fn park(
    signal: &Arc<Signal>,
    on: Vec<Awaited>,
    deadline: Option<Instant>,
) -> std::result::Result<bool, NotHere> {
    // What is on its way already comes without a word.
    if executor::is_executor() && !on.is_empty() {
        return within::park(signal, on, deadline);
    }
    Ok(signal.wait(deadline))
}

/// Whether what awaits an outcome on this thread, that is not here, is polled again when it is; else the thread is to
/// wait for it.
///
/// # Errors
/// It is a task that was cancelled, or, in an executor, no task.
pub(super) fn is_polled() -> std::result::Result<bool, NotHere> {
    if executor::is_executor() { tasks::is_polled() } else { Ok(true) }
}

/// Whoever is about to look whether the outcome of `slot` is there may have to ask for it first.
pub(super) fn glance(slot: &Arc<Slot>) {
    if executor::is_executor() {
        within::glance(slot);
    }
}

/// Why the outcome of an execution without a home cannot be had.
pub(super) fn homeless(cluster: ClusterId) -> Error {
    match enter::check() {
        Err(error) => error,
        Ok(_) => Error::new(ErrorKind::Homeless { cluster, others: Cluster::any_known() }),
    }
}
