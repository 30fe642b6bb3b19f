//! What all tasks of a batch share (`map_with`), lent to the task that runs on this thread.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use allhands_common::id::{BatchId, ClusterId, SessionId};
use bytes::Bytes;

thread_local! {
    /// The task that a worker has given to this thread.
    static TASK: Cell<Option<(BatchId, u32)>> = const { Cell::new(None) };
    static CONTEXT: RefCell<Option<(Bytes, BatchId)>> = const { RefCell::new(None) };
}

/// Hands `read` the encoded context of the running task's batch, and the batch's id, by which a
/// decoded one may be kept. `None` where no task runs on this thread.
pub(crate) fn with_context<T>(read: impl FnOnce(&Bytes, BatchId) -> T) -> Option<T> {
    let (bytes, batch) = CONTEXT.with_borrow(Clone::clone)?;
    Some(read(&bytes, batch))
}

/// Whether a task runs on this thread.
pub(crate) fn is_set() -> bool {
    CONTEXT.with_borrow(Option::is_some)
}

/// From now on tasks of `batch` run on this thread.
pub(super) fn set(bytes: &Bytes, batch: BatchId) {
    CONTEXT.with_borrow_mut(|context| match context {
        Some((_, there)) if *there == batch => {}
        _ => *context = Some((bytes.clone(), batch)),
    });
}

/// From now on this task of a batch runs on this thread.
#[inline]
pub(super) fn begin_task(batch: BatchId, task: u32) {
    TASK.set(Some((batch, task)));
}

/// The task that a worker has given to this thread: its batch, and which of it. Also while it runs others inline.
pub(crate) fn task() -> Option<(BatchId, u32)> {
    TASK.get()
}

/// No task runs on this thread.
pub(super) fn clear() {
    CONTEXT.set(None);
    TASK.set(None);
}

/// Puts another context in place of this thread's, for tasks that run inline; the one that was there.
pub(crate) fn swap(context: Option<(Bytes, BatchId)>) -> Option<(Bytes, BatchId)> {
    CONTEXT.replace(context)
}

/// A batch id for tasks that run inline, which no other batch of this process has.
pub(crate) fn name_batch() -> BatchId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    BatchId::of_session(ClusterId::default(), SessionId::default(), number)
}
