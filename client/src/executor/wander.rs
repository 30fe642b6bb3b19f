//! Tasks that are futures: while one waits for others it has neither lane nor thread.
//!
//! A lane's thread begins it and polls it. When it is not ready because it waits for executions, it is set aside: its
//! worker is told as of any task that blocks (`tasks`), and the thread goes on with something else. What wakes it puts it
//! into the `deck`, where the next free lane goes on with it, in whichever thread. When it waits for something else, a
//! timer or a socket, it runs as far as the cluster is concerned: the thread waits with it, in its lane.
//!
//! What a task finds in its thread (`context()`, its arrays, its place in a trace of panics) is put there for each poll.
//! Timers and sockets are driven by the runtime of the process, on a thread of its own.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use allhands_common::execution::Awaited;
use allhands_common::failure::Cause;

use super::call::{self, Call, Ended};
use super::deck::Shift;
use super::fill::Filled;
use super::lanes::Crew;
use super::panics;
use super::tasks::{Current, NotHere, Own, Pause};
use crate::entry::{CallFuture, CallStatus};
use crate::execution::named::{self, Named};
use crate::function::local;
use crate::payload::Codec;
use crate::shared::mention;
use crate::shared::task::Carried;

/// A task that is a future, and has not ended.
pub(super) struct Wanderer {
    future: CallFuture,
    seat: Arc<Seat>,
    shift: Arc<Shift>,
    codec: Codec,
    arrays: Carried,
    /// What it takes from thread to thread.
    own: Own,
    /// Since when it waits.
    pause: Pause,
}

/// Where a future is, for whoever wakes it.
struct Seat {
    crew: Arc<Crew>,
    place: Mutex<Place>,
}

enum Place {
    /// A thread polls it, or waits with it; whether it is to be polled again.
    Held { thread: Thread, woken: bool },
    /// It waits without one.
    Aside(Box<Wanderer>),
    /// It waits for a lane.
    Due,
}

/// Begins a task on this thread; how it ended. `None`: it waits for others, and is on nobody's mind here any more.
pub(super) fn begin(
    current: &Current,
    call: Call<'_>,
    crew: &Arc<Crew>,
    (out, names): (&mut Vec<u8>, &mut Vec<u8>),
) -> Option<Ended> {
    let codec = call.codec;
    // What an earlier task has written elsewhere is none of its result.
    drop(mention::take());
    match Wanderer::new(current, call, crew) {
        Ok(wanderer) => Box::new(wanderer).drive(current, (out, names)),
        Err(cause) => Some(conclude(current, codec, (Err(cause), Vec::new()), (out, names))),
    }
}

fn conclude(
    current: &Current,
    codec: Codec,
    answer: (Result<CallStatus, Cause>, Vec<Named>),
    (out, names): (&mut Vec<u8>, &mut Vec<u8>),
) -> Ended {
    let load = &current.shift().load;
    names.clear();
    call::conclude(load.functions(), codec.byte(), load.identity(), answer, (out, names))
}

impl Wanderer {
    fn new(current: &Current, call: Call<'_>, crew: &Arc<Crew>) -> Result<Self, Cause> {
        let Call { begin, codec, strings, arity, stand_ins } = call;
        let filled = match stand_ins {
            0 => None,
            _ => {
                let given = current.shift().load.given();
                Some(Filled::of(&strings[..arity], stand_ins, codec, given)?)
            }
        };
        let (blobs, strings) = match &filled {
            None => (Vec::new(), strings),
            Some(filled) => (filled.blobs(), filled.strings(&strings[..arity])),
        };
        let mut arrays = Carried::new(blobs);
        let begin = || panics::catch(|| begin.call(codec, &strings[..arity]));
        Ok(Self {
            future: arrays.during(begin)?,
            seat: Arc::new(Seat { crew: Arc::clone(crew), place: Mutex::new(Place::Due) }),
            shift: Arc::clone(current.shift()),
            codec,
            arrays,
            own: Own::default(),
            pause: Pause::default(),
        })
    }

    /// Of which load it was.
    pub(super) const fn shift(&self) -> &Arc<Shift> {
        &self.shift
    }

    pub(super) const fn codec(&self) -> u8 {
        self.codec.byte()
    }

    /// From now on this thread, which has `lane`, runs it.
    pub(super) fn enter(&mut self, lane: u32) -> Rc<Current> {
        Current::go_on(&self.shift, lane, std::mem::take(&mut self.own))
    }

    /// Goes on with it; how it ended, as [`begin`].
    pub(super) fn go_on(
        self: Box<Self>,
        current: &Current,
        io: (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Option<Ended> {
        // One that was cancelled learns it where it waits.
        _ = current.resume(&self.seat.crew, current.lane(), self.pause);
        self.drive(current, io)
    }

    /// Polls it until it has ended, or waits for others.
    fn drive(
        mut self: Box<Self>,
        current: &Current,
        (out, names): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Option<Ended> {
        let codec = self.codec;
        self.seat.hold();
        let mut was_told = false;
        loop {
            if let Some(answer) = self.poll(current, out) {
                return Some(conclude(current, codec, answer, (out, names)));
            }
            let on = current.awaits(&self.seat.crew);
            if on.is_empty() {
                self.seat.wait();
                continue;
            }
            if self.seat.was_woken() {
                continue;
            }
            let (future, why) = match self.set_aside(current, on) {
                Ok(()) => return None,
                Err(refused) => refused,
            };
            // It is polled once more, so that it can end in its own way.
            if why == NotHere::Cancelled && !was_told {
                (self, was_told) = (future, true);
                continue;
            }
            let answer = (Err(future.end(why)), Vec::new());
            return Some(conclude(current, codec, answer, (out, names)));
        }
    }

    fn poll(
        &mut self,
        current: &Current,
        out: &mut Vec<u8>,
    ) -> Option<(Result<CallStatus, Cause>, Vec<Named>)> {
        let waker = Waker::from(Arc::clone(&self.seat));
        let mut context = Context::from_waker(&waker);
        let Self { future, arrays, codec, .. } = self;
        let functions = current.shift().load.functions();
        let (answer, named) = named::gather(|| {
            let poll = || {
                let _runtime = local::driver().enter();
                current.polling(|| future.as_mut().poll(&mut context))
            };
            let ended = match arrays.during(|| panics::catch(poll)) {
                Ok(Poll::Pending) => return None,
                Ok(Poll::Ready((status, bytes))) => {
                    *out = bytes;
                    Ok(status)
                }
                Err(cause) => Err(cause),
            };
            let ended = arrays.end(ended, call::is_refused);
            Some(ended.flatten().and_then(|status| functions.value_of(*codec, status, out)))
        });
        Some((answer?, named))
    }

    /// It waits for `on`, without a thread.
    ///
    /// # Errors
    /// It was cancelled, or nobody would hear of what it waits for.
    fn set_aside(
        mut self: Box<Self>,
        current: &Current,
        on: Vec<Awaited>,
    ) -> Result<(), (Box<Self>, NotHere)> {
        let seat = Arc::clone(&self.seat);
        let crew = &seat.crew;
        let wakes = Arc::clone(&seat);
        match current.set_aside(crew, on, Box::new(move || wakes.wake_by_ref())) {
            Ok((pause, own)) => (self.pause, self.own) = (pause, own),
            Err(why) => return Err((self, why)),
        }
        seat.leave(self);
        Ok(())
    }

    /// Drops it where it waits.
    fn end(self: Box<Self>, why: NotHere) -> Cause {
        let drops = || {
            let _runtime = local::driver().enter();
            drop(self);
        };
        match (panics::catch(drops), why) {
            (Err(panicked), _) => panicked,
            (Ok(()), NotHere::Cancelled) => Cause::Cancelled { reason: why.to_string() },
            (Ok(()), NotHere::AnotherThread | NotHere::NoThread) => {
                Cause::Program { message: why.to_string() }
            }
        }
    }
}

impl Seat {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread has it.
    fn hold(&self) {
        *self.place() = Place::Held { thread: thread::current(), woken: false };
    }

    /// Whether it was woken since it was polled.
    fn was_woken(&self) -> bool {
        match &mut *self.place() {
            Place::Held { woken, .. } => std::mem::take(woken),
            Place::Aside(_) | Place::Due => false,
        }
    }

    /// Waits in this thread, which has it, until it is woken.
    fn wait(&self) {
        while !self.was_woken() {
            thread::park();
        }
    }

    /// The thread that has it goes on to something else.
    fn leave(&self, future: Box<Wanderer>) {
        let mut place = self.place();
        if matches!(*place, Place::Held { woken: true, .. }) {
            *place = Place::Due;
            drop(place);
            self.crew.deck.wake(future);
        } else {
            *place = Place::Aside(future);
        }
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut place = self.place();
        if let Place::Held { thread, woken } = &mut *place {
            *woken = true;
            thread.unpark();
        } else if let Place::Aside(future) = std::mem::replace(&mut *place, Place::Due) {
            drop(place);
            self.crew.deck.wake(future);
        }
    }
}
