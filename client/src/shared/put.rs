//! `put`: an array into the store that is nearest: in a task that of its worker, elsewhere that of the cluster.

use std::cell::RefCell;

use bytemuck::Pod;

use super::Shared;
use super::whole;
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{self, loans, tasks};

thread_local! {
    /// The cluster that a call runs on whose tasks run on this thread, inline.
    static INLINE: RefCell<Option<Cluster>> = const { RefCell::new(None) };
}

/// Where this thread puts arrays.
pub(super) enum Place {
    /// With the worker that has given it this task.
    Worker((allhands_common::id::BatchId, u32)),
    /// Into a cluster of this process.
    Cluster(Cluster),
}

impl Place {
    pub(super) fn here() -> Result<Self> {
        if executor::is_executor() {
            let this = tasks::this().ok_or_else(|| Error::new(ErrorKind::NoTask))?;
            return Ok(Self::Worker((this.task.batch, this.task.index)));
        }
        match INLINE.with_borrow(Clone::clone) {
            Some(cluster) => Ok(Self::Cluster(cluster)),
            None => Ok(Self::Cluster(Cluster::from_env()?)),
        }
    }
}

/// Runs a task inline of a call that names `cluster`, if it names one.
pub(crate) fn inline_on<R>(cluster: Option<&Cluster>, run: impl FnOnce() -> R) -> R {
    struct Before(Option<Cluster>);
    impl Drop for Before {
        fn drop(&mut self) {
            INLINE.set(self.0.take());
        }
    }
    let Some(cluster) = cluster else { return run() };
    let _before = Before(INLINE.replace(Some(cluster.clone())));
    run()
}

/// Copies an array to where others can map it, and gives a handle on it.
///
/// In a task it stays with the worker, as [a result](Shared#as-a-result): return the handle, or put it somewhere into
/// what is returned. An array of which no handle is returned goes with its task's outcome. Elsewhere this is
/// [`Cluster::put`], on the cluster of [`Cluster::from_env`]; for a task that `n_jobs(1)` runs in the caller's thread,
/// on the one that the call names.
///
/// For an array that is not in memory as a whole there is [`ArrayWriter`](crate::ArrayWriter).
///
/// ```no_run
/// use allhands::prelude::*;
///
/// fn numbers(n: u64) -> Shared<[u64]> {
///     let numbers: Vec<u64> = (0..n).collect();
///     allhands::put(&numbers).expect("the worker has room")
/// }
///
/// let arrays = Parallel::new().run((1..9).map(|n| delayed(numbers)(n << 20)))?;
/// // They lie with the workers that made them; this fetches eight bytes' chunk of one.
/// println!("{}", arrays[3].slice(7..8)[0]);
/// # Ok::<(), allhands::RunError>(())
/// ```
///
/// # Errors
/// There is no room for it; no cluster can be had; or it is called in an executor on a thread on which no task runs.
pub fn put<T: Pod>(elements: &[T]) -> Result<Shared<[T]>> {
    match Place::here()? {
        Place::Cluster(cluster) => cluster.put(elements),
        Place::Worker(task) => {
            let bytes = bytemuck::cast_slice(elements);
            let left = loans::deposit(task, bytes).and_then(whole::made);
            Shared::new(left.map_err(Error::blob)?, 0, &[elements.len() as u64])
        }
    }
}
