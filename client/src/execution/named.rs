//! Which executions are named by what is being written: noted by `Execution`'s `Serialize`, and by arguments that are
//! made of outcomes, so that the call (or the result) says whom it needs, and keeps them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use allhands_common::execution::{Mention, Need};

use super::slot::Slot;

/// Whether this process has ever had an execution. While it has not, a call pays nothing.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Which argument is being written, if one is.
    static WRITING: Cell<Option<u8>> = const { Cell::new(None) };
    /// What was named so far.
    static NAMED: RefCell<Vec<Named>> = const { RefCell::new(Vec::new()) };
}

/// An execution that an argument or a result names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) slot: Arc<Slot>,
    pub(crate) need: Need,
    /// Which argument names it, from 0.
    pub(crate) place: u8,
}

impl Named {
    /// What is said of it to the cluster, of task `index` of a batch.
    pub(crate) fn mention(&self, index: u32) -> Mention {
        Mention { index, on: self.slot.of().task, need: self.need }
    }
}

/// From now on there may be something to note.
pub(crate) fn begin() {
    ANY.store(true, Ordering::Relaxed);
}

/// Whether there may be something to note.
#[inline]
pub(crate) fn is_needed() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// A handle is being written.
pub(super) fn note(slot: &Arc<Slot>) {
    if let Some(place) = WRITING.get() {
        add(slot, Need::Handle, place);
    }
}

/// The argument at `place` needs this of an execution.
pub(super) fn add(slot: &Arc<Slot>, need: Need, place: u8) {
    NAMED.with_borrow_mut(|named| named.push(Named { slot: Arc::clone(slot), need, place }));
}

/// Runs `write`, which writes the argument at `place`, or a result.
#[inline]
pub(crate) fn during<R>(place: u8, write: impl FnOnce() -> R) -> R {
    // A value whose `Serialize` makes another call writes that one's arguments meanwhile.
    let _before = is_needed().then(|| Writing(WRITING.replace(Some(place))));
    write()
}

/// What it was before, also after a panic of a user's `Serialize`.
struct Writing(Option<u8>);

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.set(self.0);
    }
}

/// Runs `write`, which writes a call or a result; with what was named meanwhile, each once. What the value around it
/// has named, if its `Serialize` makes this call, stays that one's.
#[inline]
pub(crate) fn gather<R>(write: impl FnOnce() -> R) -> (R, Vec<Named>) {
    // One call of `write`, so that it is part of its caller: this is run for every task.
    let outer = is_needed().then(|| NAMED.take());
    let written = write();
    let named = match outer {
        Some(outer) => sorted(NAMED.replace(outer)),
        // The first execution of the process may have been made by it.
        None if is_needed() => sorted(NAMED.take()),
        None => Vec::new(),
    };
    (written, named)
}

/// What was named is written anew.
pub(crate) fn begin_anew() {
    if is_needed() {
        NAMED.take();
    }
}

fn sorted(mut named: Vec<Named>) -> Vec<Named> {
    if named.len() > 1 {
        let key = |named: &Named| (named.slot.of().task, named.need, named.place);
        named.sort_by_key(key);
        named.dedup_by_key(|named| key(named));
    }
    named
}
