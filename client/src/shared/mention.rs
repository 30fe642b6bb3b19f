//! Which handles the arguments of a call hold: noted while they are written, so that the call keeps what they
//! name until its tasks have ended.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::whole::Whole;

/// Whether this process has ever had a handle. While it has not, a call pays nothing.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether arguments are being written.
    static WRITING: Cell<bool> = const { Cell::new(false) };
    /// What they have named so far.
    static NAMED: RefCell<Vec<Named>> = const { RefCell::new(Vec::new()) };
}

/// What a handle looks at, and which bytes of it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) whole: Arc<Whole>,
    /// From the first byte of a handle on it to the last: with several handles, also what lies between.
    pub(crate) bytes: Range<u64>,
}

/// From now on there may be something to note.
pub(super) fn begin() {
    ANY.store(true, Ordering::Relaxed);
}

/// Whether there may be something to note.
#[inline]
pub(super) fn is_needed() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// A handle on the bytes `range` of `whole` is being written.
pub(super) fn note(whole: &Arc<Whole>, range: &Range<u64>) {
    if !WRITING.get() {
        return;
    }
    NAMED.with_borrow_mut(|named| {
        match named.iter_mut().find(|there| Arc::ptr_eq(&there.whole, whole)) {
            Some(Named { bytes, .. }) => {
                *bytes = bytes.start.min(range.start)..bytes.end.max(range.end);
            }
            None => named.push(Named { whole: Arc::clone(whole), bytes: range.clone() }),
        }
    });
}

/// Runs `write`, which writes an argument.
#[inline]
pub(crate) fn during<R>(write: impl FnOnce() -> R) -> R {
    // A value whose `Serialize` makes another call writes that one's arguments meanwhile.
    let _before = is_needed().then(|| Writing(WRITING.replace(true)));
    write()
}

/// What it was before, also after a panic of a user's `Serialize`.
struct Writing(bool);

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.set(self.0);
    }
}

/// What the arguments named that this thread has written since this was asked last.
#[inline]
pub(crate) fn take() -> Vec<Named> {
    if is_needed() { NAMED.take() } else { Vec::new() }
}
