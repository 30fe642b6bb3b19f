//! What this process has learned of a function: its task, the codec that serves it, where it was
//! delayed. One record per entry, kept for good: functions are few and live as long as the program.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::entry::Entry;
use crate::payload::Codec;
use crate::registry::{Task, task_of};

/// What is known of one function.
#[derive(Debug)]
pub(crate) struct Known {
    task: Option<&'static Task>,
    /// The codec's byte; 0 until the first call has been read back.
    codec: AtomicU8,
    result_checked: AtomicBool,
    place: OnceLock<&'static Location<'static>>,
}

impl Known {
    fn new(entry: &'static Entry) -> Self {
        Self {
            task: entry.own_task().or_else(|| task_of(entry.type_id())),
            codec: AtomicU8::new(0),
            result_checked: AtomicBool::new(false),
            place: OnceLock::new(),
        }
    }

    /// The `#[task]` on the function.
    pub(crate) const fn task(&self) -> Option<&'static Task> {
        self.task
    }

    /// The codec of its calls, once one has been read back.
    #[inline]
    pub(crate) fn codec(&self) -> Option<Codec> {
        Codec::from_byte(self.codec.load(Ordering::Relaxed))
    }

    /// From now on its calls are written in `codec`.
    pub(crate) fn set_codec(&self, codec: Codec) {
        self.codec.store(codec.byte(), Ordering::Relaxed);
    }

    /// Whether no result of it has been read back in this process; asked once, then `false`.
    #[inline]
    pub(crate) fn is_first_result(&self) -> bool {
        !self.result_checked.load(Ordering::Relaxed)
            && !self.result_checked.swap(true, Ordering::Relaxed)
    }

    /// Notes where `delayed` was called with it, the first time.
    #[inline]
    pub(crate) fn set_place(&self, place: &'static Location<'static>) {
        if self.place.get().is_none() {
            self.place.get_or_init(|| place);
        }
    }

    /// Where `delayed` was first called with it.
    pub(crate) fn place(&self) -> Option<&'static Location<'static>> {
        self.place.get().copied()
    }
}

thread_local! {
    /// The function that this thread used last.
    static LAST: Cell<Option<(&'static Entry, &'static Known)>> = const { Cell::new(None) };
}

/// What is known of `entry`'s function.
#[inline]
pub(crate) fn known(entry: &'static Entry) -> &'static Known {
    match LAST.get() {
        Some((last, known)) if std::ptr::eq(last, entry) => known,
        _ => look_up(entry),
    }
}

#[cold]
fn look_up(entry: &'static Entry) -> &'static Known {
    /// By address: one function may have an entry in several crates, each of which is complete.
    static ALL: RwLock<Option<HashMap<usize, &'static Known>>> = RwLock::new(None);
    let address = (&raw const *entry).addr();
    let find =
        |all: &Option<HashMap<_, _>>| all.as_ref().and_then(|all| all.get(&address).copied());

    let there = find(&ALL.read().unwrap_or_else(PoisonError::into_inner));
    let known = there.unwrap_or_else(|| {
        let made = Known::new(entry);
        let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default().entry(address).or_insert_with(|| Box::leak(Box::new(made)))
    });
    LAST.set(Some((entry, known)));
    known
}
