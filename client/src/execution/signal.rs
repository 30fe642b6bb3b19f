//! How a thread waits for outcomes: on a condition variable of its own, never in a runtime.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant;

/// What wakes one thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    given: Mutex<bool>,
    bell: Condvar,
}

thread_local! {
    /// This thread's, kept so that what is left of it in a slot is left once.
    static OWN: (Arc<Signal>, Waker) = {
        let signal = Arc::<Signal>::default();
        let waker = Waker::from(Arc::clone(&signal));
        (signal, waker)
    };
}

impl Signal {
    /// Calls `wait` with this thread's signal, and what gives it.
    pub(crate) fn with_own<R>(wait: impl FnOnce(&Arc<Self>, &Waker) -> R) -> R {
        let (signal, waker) = OWN.with(|(signal, waker)| (Arc::clone(signal), waker.clone()));
        wait(&signal, &waker)
    }

    /// Gives it.
    pub(crate) fn give(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_one();
    }

    /// Waits until it is given, and takes it; `false` when `deadline` has passed before.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        while !*given {
            given = match deadline {
                None => self.bell.wait(given).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.bell.wait_timeout(given, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *given = false;
        true
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.give();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.give();
    }
}
