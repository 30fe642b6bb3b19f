//! An array that a task has left with a worker on another machine, and of which this process has a handle.
//!
//! As long as this is there, the session says so to the leader, who has workers keep the array. Nothing of it travels
//! before somebody reads it, and then only the chunks that are read; they stay in this process's own store for the
//! next one who does.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use allhands_common::blob::BlobRef;
use allhands_common::failure::Cause;
use allhands_common::id::{BatchId, ClusterId, WorkerId};
use allhands_store::map::{FileRange, Map};

use crate::error::chain;
use crate::session::data::Giving;
use crate::session::holdings::Received;
use crate::session::{CannotLoad, Session};

/// Which array, where from.
#[derive(Debug)]
pub(crate) struct Left {
    reference: BlobRef,
    maker: Maker,
    giving: Arc<Giving>,
    /// Keeps what was fetched of it in the store.
    received: Mutex<Option<Arc<Received>>>,
}

/// Who has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker {
    pub(crate) worker: WorkerId,
    pub(crate) batch: BatchId,
    pub(crate) task: u32,
}

impl Left {
    /// The session has been told that workers are to keep it.
    pub(crate) const fn new(reference: BlobRef, maker: Maker, giving: Arc<Giving>) -> Self {
        Self { reference, maker, giving, received: Mutex::new(None) }
    }

    pub(crate) const fn reference(&self) -> BlobRef {
        self.reference
    }

    /// In which cluster it lies.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.giving.cluster()
    }

    /// Who speaks for it.
    pub(super) fn session(&self) -> &Arc<Session> {
        self.giving.session()
    }

    /// The bytes `range`, fetched if they are not here.
    pub(super) fn load(&self, range: &Range<u64>) -> Result<Map, Cause> {
        self.with(range, |received| received.map(range.clone()))
    }

    /// The same, to be mapped otherwise.
    pub(super) fn file_range(&self, range: &Range<u64>) -> Result<FileRange, Cause> {
        self.with(range, |received| received.file_range(range.clone()))
    }

    fn with<T>(
        &self,
        range: &Range<u64>,
        find: impl Fn(&Received) -> Option<T>,
    ) -> Result<T, Cause> {
        let unlent = |error: &dyn std::error::Error| self.unlent(&chain(error));
        let received = self.received().map_err(|error| unlent(&error))?;
        if let Some(found) = find(&received) {
            return Ok(found);
        }
        match self.giving.load(self.reference, range.clone()) {
            Ok(_hold) => find(&received).ok_or_else(|| self.unlent("it came and is gone again")),
            Err(CannotLoad::Lost(why)) => Err(Cause::BlobLost {
                message: format!("{}, and {why}; call the task again", self.origin()),
            }),
            Err(CannotLoad::Now(why)) => Err(self.unlent(&why)),
        }
    }

    fn received(&self) -> crate::error::Result<Arc<Received>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(received) = &*received {
            return Ok(Arc::clone(received));
        }
        let new = Arc::new(self.giving.holdings()?.receive(self.reference.id));
        Ok(Arc::clone(received.insert(new)))
    }

    fn unlent(&self, why: &str) -> Cause {
        Cause::Unlent { message: format!("{}: {why}", self.origin()) }
    }

    /// What a user knows it by.
    fn origin(&self) -> String {
        let BlobRef { id, bytes } = self.reference;
        let Maker { worker, batch, task } = self.maker;
        let name = self.giving.session().workers().name(worker);
        let name = name.unwrap_or_else(|| worker.to_string());
        format!(
            "task {task} of batch {batch} has left blob {id} of {bytes} bytes with worker {name}"
        )
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.giving.session().let_go_of(self.reference.id);
    }
}
