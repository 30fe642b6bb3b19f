//! Who of an executor's threads runs tasks: as many as it has lanes, however many wait for the outcomes of
//! others.
//!
//! A thread runs tasks while it has a *lane*. One whose task waits gives its lane away, and another thread
//! takes it: one that has nothing to do, or a new one. One whose task goes on has the next lane that is free,
//! before any task is begun: so a process runs no more tasks at once than it was told, and what has begun ends
//! first. Threads that are too many end. A task that is a future waits without a thread (`wander`): whichever thread
//! has the lane goes on with it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::load::{Load, Worked};
use super::wander::Wanderer;

/// Threads without work that are kept beyond one a lane, because many waits are short.
const SPARE_THREADS: u32 = 4;

/// Loads and lanes, and who waits for them.
pub(super) struct Deck {
    state: Mutex<State>,
    /// Somebody may begin a task, or goes on.
    changed: Condvar,
    /// Tasks that are to go on and wait for a lane.
    resuming: AtomicU32,
    lanes: u32,
}

struct State {
    /// Loads that have room for another lane.
    waiting: VecDeque<Arc<Shift>>,
    /// Futures that are to go on, in order.
    awake: VecDeque<Box<Wanderer>>,
    /// Lanes that nobody has.
    free: Vec<u32>,
    /// Threads that run a task or look for one.
    threads: u32,
    /// Of these, those that look.
    idle: u32,
}

/// What a thread that has a lane does in it.
pub(super) enum Work {
    /// It begins tasks of a load.
    Begin(Arc<Shift>),
    /// It goes on with a task that is a future.
    GoOn(Box<Wanderer>),
}

/// A load that is being worked off.
pub(super) struct Shift {
    pub(super) load: Load,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// Lanes inside.
    lanes: u32,
    /// Whether nothing is left to begin.
    exhausted: bool,
}

impl Shift {
    pub(super) fn new(load: Load) -> Arc<Self> {
        Arc::new(Self { load, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes in, if there may be something to begin.
    pub(super) fn enter(&self) -> bool {
        let mut inside = self.inside();
        inside.lanes += u32::from(!inside.exhausted);
        !inside.exhausted
    }

    /// Leaves; whether the load is over with that.
    pub(super) fn leave(&self, exhausted: bool) -> bool {
        let mut inside = self.inside();
        inside.lanes -= 1;
        inside.exhausted |= exhausted;
        inside.lanes == 0 && inside.exhausted
    }
}

impl Deck {
    /// All lanes are free, and no thread is there.
    pub(super) fn new(lanes: u32) -> Self {
        let free = (0..lanes).rev().collect();
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                awake: VecDeque::new(),
                free,
                threads: 0,
                idle: 0,
            }),
            changed: Condvar::new(),
            resuming: AtomicU32::new(0),
            lanes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread more looks for work.
    pub(super) fn join(&self) {
        self.state().threads += 1;
    }

    /// There is a load to work on.
    pub(super) fn announce(&self, shift: Arc<Shift>) {
        self.state().waiting.push_back(shift);
        self.changed.notify_all();
    }

    /// Waits for a lane and for something to do in it. `None`: this thread is one too many.
    pub(super) fn enter(&self) -> Option<(Work, u32)> {
        let mut state = self.state();
        state.idle += 1;
        loop {
            if !state.free.is_empty()
                && let Some(future) = state.awake.pop_front()
            {
                state.idle -= 1;
                let lane = state.free.pop().unwrap_or_default();
                self.has_resumed(state);
                return Some((Work::GoOn(future), lane));
            }
            let may_begin = self.resuming.load(Ordering::Relaxed) == 0 && !state.free.is_empty();
            let shift =
                may_begin.then(|| state.waiting.iter().find(|shift| shift.enter())).flatten();
            if let Some(shift) = shift.map(Arc::clone) {
                state.idle -= 1;
                // It is there: nobody else was let in.
                let lane = state.free.pop().unwrap_or_default();
                return Some((Work::Begin(shift), lane));
            }
            if state.threads > self.lanes + SPARE_THREADS {
                state.idle -= 1;
                state.threads -= 1;
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread is done with a load, for which it had `lane`.
    pub(super) fn leave(&self, shift: &Arc<Shift>, lane: u32, worked: Worked) {
        let mut state = self.state();
        let is_it = |other: &Arc<Shift>| Arc::ptr_eq(other, shift);
        match worked {
            // Nobody enters a load that has ended: its slot in the cell may hold another soon.
            Worked::Exhausted => state.waiting.retain(|other| !is_it(other)),
            Worked::Yielded if !state.waiting.iter().any(is_it) => {
                state.waiting.push_front(Arc::clone(shift));
            }
            Worked::Yielded | Worked::Waited => {}
        }
        state.free.push(lane);
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a lane for the thread that has them all to itself.
    pub(super) fn take_first(&self) -> u32 {
        self.state().free.pop().unwrap_or_default()
    }

    #[cfg(test)]
    fn give(&self, lane: u32) {
        self.state().free.push(lane);
    }

    /// The task of the thread that has `lane` waits. Where too few threads are left to take its place, `hire`
    /// makes one.
    ///
    /// # Errors
    /// No thread can be made: the lane is still the caller's.
    pub(super) fn suspend(
        &self,
        shift: &Arc<Shift>,
        lane: u32,
        hire: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.threads <= self.lanes {
            // The one that comes counts itself.
            hire()?;
        }
        state.threads -= 1;
        state.waiting.retain(|other| !Arc::ptr_eq(other, shift));
        state.free.push(lane);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The task of this thread goes on: waits for a lane, before any task is begun.
    pub(super) fn resume(&self) -> u32 {
        self.resuming.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let lane = loop {
            match state.free.pop() {
                Some(lane) => break lane,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.threads += 1;
        self.has_resumed(state);
        lane
    }

    /// Somebody who was to go on has a lane.
    fn has_resumed(&self, state: MutexGuard<'_, State>) {
        let left = self.resuming.fetch_sub(1, Ordering::Relaxed) - 1;
        drop(state);
        if left == 0 {
            self.changed.notify_all();
        }
    }

    /// A future is to go on, before any task is begun.
    pub(super) fn wake(&self, future: Box<Wanderer>) {
        self.resuming.fetch_add(1, Ordering::Relaxed);
        self.state().awake.push_back(future);
        self.changed.notify_all();
    }

    /// Nobody enters the load any more.
    pub(super) fn close(&self, shift: &Arc<Shift>) {
        self.state().waiting.retain(|other| !Arc::ptr_eq(other, shift));
    }

    /// Whether somebody waits for a lane whose task has begun before those that are left.
    #[inline]
    pub(super) fn somebody_resumes(&self) -> bool {
        self.resuming.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn one_that_goes_on_has_the_next_free_lane() {
        let deck = Arc::new(Deck::new(1));
        deck.join();
        let lane = deck.take_first();
        let resumed = Arc::new(AtomicBool::new(false));
        let waits = {
            let (deck, resumed) = (Arc::clone(&deck), Arc::clone(&resumed));
            thread::spawn(move || {
                let lane = deck.resume();
                resumed.store(true, Ordering::SeqCst);
                deck.give(lane);
            })
        };
        while !deck.somebody_resumes() {
            thread::yield_now();
        }
        assert!(!resumed.load(Ordering::SeqCst), "the only lane is taken");
        deck.give(lane);
        deck.changed.notify_all();
        waits.join().unwrap();
        assert!(resumed.load(Ordering::SeqCst) && !deck.somebody_resumes());
    }
}
