//! Something that comes once, and who waits for it.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

/// A value that is put in once. Whoever waits for it is told in no order.
#[derive(Debug)]
pub(super) struct Once<T> {
    value: OnceLock<T>,
    waiters: Mutex<Vec<Waiter>>,
}

/// What is done when the value comes.
pub(crate) enum Waiter {
    /// Somebody is woken.
    Wake(Waker),
    /// This runs, in the thread that brings it.
    Run(Box<dyn FnOnce() + Send>),
}

impl Waiter {
    fn go(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Run(run) => run(),
        }
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wake(_) => "Wake",
            Self::Run(_) => "Run",
        })
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), waiters: Mutex::default() }
    }
}

impl<T> Once<T> {
    fn waiters(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It, if it is here.
    #[inline]
    pub(super) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// It is here. A second one is dropped.
    pub(super) fn put(&self, value: T) {
        let mut waiters = self.waiters();
        if self.value.set(value).is_err() {
            return;
        }
        let told = std::mem::take(&mut *waiters);
        drop(waiters);
        told.into_iter().for_each(Waiter::go);
    }

    /// Leaves `waiter` until it is here; what is left when it is, goes at once.
    pub(super) fn tell(&self, waiter: Waiter) {
        let mut waiters = self.waiters();
        if self.value.get().is_some() {
            drop(waiters);
            return waiter.go();
        }
        let is_there = |there: &Waiter| match (there, &waiter) {
            (Waiter::Wake(there), Waiter::Wake(new)) => there.will_wake(new),
            _ => false,
        };
        if !waiters.iter().any(is_there) {
            waiters.push(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn who_waits_is_told_once_and_who_is_late_at_once() {
        let (once, told) = (Once::default(), Arc::new(AtomicU32::new(0)));
        let waiter = || {
            let told = Arc::clone(&told);
            Waiter::Run(Box::new(move || _ = told.fetch_add(1, Ordering::Relaxed)))
        };
        once.tell(waiter());
        once.tell(waiter());
        assert_eq!((once.get(), told.load(Ordering::Relaxed)), (None, 0));
        once.put(7);
        once.put(8);
        assert_eq!((once.get(), told.load(Ordering::Relaxed)), (Some(&7), 2));
        once.tell(waiter());
        assert_eq!(told.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn one_waker_is_left_once() {
        let (once, waker) = (Once::<u8>::default(), Waker::noop());
        once.tell(Waiter::Wake(waker.clone()));
        once.tell(Waiter::Wake(waker.clone()));
        assert_eq!(once.waiters().len(), 1);
    }
}
