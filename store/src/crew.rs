//! The same work on several threads of this process: hashing and copying take a core each.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

/// Threads that work on one blob, at most: four cores hash and copy faster than a network or a disk gives.
pub(crate) const THREADS_MAX: usize = 4;

/// Runs `work` on this thread and on others, as many as there are cores but not more than `parts`, until all have
/// returned. The first error that was noted.
pub(crate) fn run<E: Send>(parts: usize, work: impl Fn() -> Result<(), E> + Sync) -> Result<(), E> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let others = cores.min(THREADS_MAX).min(parts).saturating_sub(1);
    if others == 0 {
        return work();
    }
    let failed = Mutex::new(None);
    let note = |result: Result<(), E>| {
        if let Err(error) = result
            && let Ok(mut failed) = failed.lock()
        {
            failed.get_or_insert(error);
        }
    };
    thread::scope(|scope| {
        for _ in 0..others {
            // A thread that cannot be had is one fewer.
            _ = thread::Builder::new().spawn_scoped(scope, || note(work()));
        }
        note(work());
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        // `note` does not panic.
        Err(_) => Ok(()),
    }
}
