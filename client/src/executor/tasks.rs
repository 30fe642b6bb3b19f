//! What a task that runs here may ask of the cluster: to run others, and for what has become of them.
//!
//! A task that waits *blocks*: what has ended of its load is sent, the rest of the load is closed, the worker is
//! told, and its thread gives its lane away (`deck`). Its outcome comes later, apart from its load. From the
//! first block on a thread of its own reads what the worker says, because nobody else may have the time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use allhands_common::execution::{Awaited, Mention};
use allhands_common::id::{AttemptId, BatchId, JobId, TaskId};
use allhands_common::policy::BatchSpec;
use allhands_common::wire::executor::{Begun, FromExecutor, Submitted};
use allhands_common::wire::note::Line;
use allhands_store::cell::Running;
use allhands_store::cell::monotonic_us;
use bytes::Bytes;

use super::deck::Shift;
use super::lanes::Crew;

/// Calls of this process that are not known to be committed, at most: beyond it who calls waits.
const CALLS_MAX: u32 = 1024;

/// Who runs the tasks of this process.
static CREW: OnceLock<Arc<Crew>> = OnceLock::new();

/// Told when an outcome is there, as a segment of one row.
pub(crate) type Told = Box<dyn FnOnce(Bytes) + Send>;

/// What tasks of this process wait for.
#[derive(Default)]
pub(super) struct Asked {
    state: Mutex<State>,
    /// A call was committed.
    committed: Condvar,
    /// How many tasks were cancelled, or await that.
    marked: AtomicUsize,
}

#[derive(Default)]
struct State {
    outcomes: BTreeMap<Awaited, Vec<Told>>,
    /// Calls that are not known to be committed.
    calls: u32,
    /// Tasks that have begun and were cancelled.
    cancelled: BTreeSet<Begun>,
    /// Whom to wake when one is.
    parked: BTreeMap<Begun, Wake>,
    /// The same, of tasks that await it.
    wakers: BTreeMap<Begun, Vec<Waker>>,
}

/// The task of a thread.
pub(super) struct Current {
    shift: Arc<Shift>,
    lane: Cell<u32>,
    place: Cell<u32>,
    /// Whether it has waited, and so has left its load.
    waited: Cell<bool>,
    /// How often it has made each call.
    calls: RefCell<BTreeMap<[u8; 32], u32>>,
    /// What it has asked for.
    asked: RefCell<Vec<Awaited>>,
    /// Whether its future is being polled, by somebody who has it wait for what it asks for.
    polled: Cell<bool>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Current>>> = const { RefCell::new(None) };
}

/// From now on tasks of this process may ask.
pub(super) fn open(crew: &Arc<Crew>) {
    _ = CREW.set(Arc::clone(crew));
}

impl Current {
    /// Tasks of `shift` are going to run on this thread, in `lane`.
    pub(super) fn enter(shift: &Arc<Shift>, lane: u32) -> Rc<Self> {
        let current = Rc::new(Self {
            shift: Arc::clone(shift),
            lane: Cell::new(lane),
            place: Cell::new(0),
            waited: Cell::new(false),
            calls: RefCell::default(),
            asked: RefCell::default(),
            polled: Cell::new(false),
        });
        CURRENT.set(Some(Rc::clone(&current)));
        current
    }

    /// The task at `place` of the load begins.
    #[inline]
    pub(super) fn begin(&self, place: u32) {
        self.place.set(place);
        let mut calls = self.calls.borrow_mut();
        if !calls.is_empty() {
            calls.clear();
        }
        drop(calls);
        let mut asked = self.asked.borrow_mut();
        if !asked.is_empty() {
            asked.clear();
        }
    }

    /// Calls `poll`, which polls the future of its task.
    pub(super) fn polling<R>(&self, poll: impl FnOnce() -> R) -> R {
        /// What it was before, also after a panic.
        struct Before<'a>(&'a Cell<bool>, bool);
        impl Drop for Before<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let _before = Before(&self.polled, self.polled.replace(true));
        poll()
    }

    /// The lane that its thread has.
    pub(super) fn lane(&self) -> u32 {
        self.lane.get()
    }

    /// Whether the task that ends has waited.
    #[inline]
    pub(super) fn has_waited(&self) -> bool {
        self.waited.get()
    }

    pub(super) fn begun(&self) -> Begun {
        Begun { sequence: self.shift.load.sequence, place: self.place.get() }
    }

    /// Of which load it is.
    pub(super) const fn shift(&self) -> &Arc<Shift> {
        &self.shift
    }

    fn task(&self) -> TaskId {
        self.shift.load.task(self.place.get())
    }

    /// When its time is over: the worker looks at the same clock.
    fn deadline(&self) -> Option<Instant> {
        let timeout_ms = self.shift.load.timeout_ms()?;
        let started_us = CREW.get()?.cell.started_us(self.lane());
        let ran = Duration::from_micros(monotonic_us().saturating_sub(started_us));
        Instant::now().checked_add(Duration::from_millis(timeout_ms).saturating_sub(ran))
    }
}

/// No task runs on this thread.
pub(super) fn leave() {
    CURRENT.set(None);
}

fn current() -> Option<Rc<Current>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Why a task cannot ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotHere {
    /// It is not the task's own thread that asks.
    #[error(
        "an execution is submitted and awaited on the thread of the task itself, and this is another: do it \
         before the work is spread over threads, or after it"
    )]
    AnotherThread,
    /// It was cancelled.
    #[error("the task was cancelled while it waited")]
    Cancelled,
    /// There is no thread to take its place.
    #[error("no thread can be started to run others while this task waits: raise `ulimit -u`")]
    NoThread,
}

/// Whether the task of this thread may be told later of an outcome that it awaits. `false`: what awaits it here is
/// polled by a runtime of the task's own, or was spawned on this thread, and nobody but the thread can wait for it.
///
/// # Errors
/// No task runs on this thread, or it was cancelled.
pub(crate) fn is_polled() -> Result<bool, NotHere> {
    match current() {
        None => Err(NotHere::AnotherThread),
        Some(current) if was_cancelled(current.begun()) => Err(NotHere::Cancelled),
        Some(current) => Ok(current.polled.get()),
    }
}

/// Whether a task was cancelled, as far as was heard.
fn was_cancelled(task: Begun) -> bool {
    CREW.get().is_some_and(|crew| {
        crew.asked.marked.load(Ordering::Relaxed) > 0
            && crew.asked.state().cancelled.contains(&task)
    })
}

/// Has `told` called with the outcome, when it is there. It comes while a task of this process waits for it.
pub(crate) fn ask(of: Awaited, told: Told) {
    if let Some(crew) = CREW.get() {
        crew.asked.state().outcomes.entry(of).or_default().push(told);
    }
    if let Some(current) = current() {
        current.asked.borrow_mut().push(of);
    }
}

/// Somebody does not ask for that outcome any more: forgotten is what nobody does.
pub(crate) fn unask(of: Awaited) {
    if let Some(crew) = CREW.get() {
        let mut state = crew.asked.state();
        if state.outcomes.get(&of).is_some_and(|told| told.len() == 1) {
            state.outcomes.remove(&of);
        }
    }
}

/// Ends a task, if it has not ended.
pub(crate) fn cancel(task: TaskId) {
    if let Some(crew) = CREW.get() {
        crew.outcomes.say(FromExecutor::Cancel { task });
    }
}

/// Calls a function from the task of this thread: `call` is the hash of functions and arguments; the batch that
/// it is.
///
/// # Errors
/// No task runs on this thread.
pub(crate) fn submit(
    call: [u8; 32],
    spec: BatchSpec,
    segment: Bytes,
    mentions: Vec<Mention>,
) -> Result<BatchId, NotHere> {
    let (Some(current), Some(crew)) = (current(), CREW.get()) else {
        return Err(NotHere::AnotherThread);
    };
    // What it has called in another round is something else.
    let call = match current.shift.load.round(current.place.get()) {
        Some(round) => *blake3::keyed_hash(&call, &round.to_le_bytes()).as_bytes(),
        None => call,
    };
    let number = {
        let mut calls = current.calls.borrow_mut();
        let number = calls.entry(call).or_insert(0);
        *number += 1;
        *number
    };
    let batch = BatchId::of_task(current.task(), &call, number);
    if !crew.asked.has_room() {
        crew.read_apart().map_err(|_| NotHere::NoThread)?;
        crew.asked.wait_for_room();
    }
    let spec = BatchSpec { env: current.shift.load.env().to_vec(), ..spec };
    let (parent, segment) = (current.begun(), segment.into());
    let submitted = Submitted { parent, batch, spec, segment, mentions };
    crew.outcomes.say(FromExecutor::Submit(Box::new(submitted)));
    Ok(batch)
}

/// The task that runs on this thread.
pub(crate) fn this() -> Option<Token> {
    current().map(|current| Token {
        begun: current.begun(),
        task: current.task(),
        attempt: current.shift.load.attempt(),
        job: current.shift.load.job(),
        deadline: current.deadline(),
    })
}

/// A task of this process, for as long as it runs.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    begun: Begun,
    pub(crate) task: TaskId,
    pub(crate) attempt: AttemptId,
    pub(crate) job: JobId,
    /// When it is ended if it still runs, as things are.
    pub(crate) deadline: Option<Instant>,
}

impl Token {
    /// It says a line to people.
    pub(crate) fn log(&self, line: Line) {
        if let Some(crew) = CREW.get() {
            crew.notes.line(crew, self.begun, line);
        }
    }

    /// It says how far it is.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        if let Some(crew) = CREW.get() {
            crew.notes.progress(crew, self.begun, done, total);
        }
    }

    /// Whether it was cancelled; from now on this process hears of it.
    pub(crate) fn is_cancelled(&self) -> bool {
        if let Some(crew) = CREW.get() {
            crew.listen();
        }
        was_cancelled(self.begun)
    }

    /// The same; if it was not, `waker` is woken when it is.
    pub(crate) fn wake_when_cancelled(&self, waker: &Waker) -> bool {
        let Some(crew) = CREW.get() else { return false };
        crew.listen();
        let mut state = crew.asked.state();
        if state.cancelled.contains(&self.begun) {
            return true;
        }
        let wakers = state.wakers.entry(self.begun).or_default();
        if !wakers.iter().any(|there| there.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        crew.asked.count(&state);
        false
    }
}

/// Lets the task of this thread wait for outcomes: calls `wait` while it is blocked. `wake` ends that, and is
/// called when the task is cancelled.
///
/// # Errors
/// It cannot wait, or was cancelled.
pub(crate) fn block<R>(
    on: Vec<Awaited>,
    wake: Wake,
    wait: impl FnOnce() -> R,
) -> Result<R, NotHere> {
    let blocked = Blocked::begin(on, wake)?;
    let waited = wait();
    blocked.resume()?;
    Ok(waited)
}

/// Ends the wait of a blocked task.
pub(crate) type Wake = Box<dyn Fn() + Send>;

/// When a task that waits was begun, by the cell's clock, and when it began to wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pause {
    started_us: u64,
    since_us: u64,
}

/// What a task takes along that goes from thread to thread.
#[derive(Default)]
pub(super) struct Own {
    place: u32,
    calls: BTreeMap<[u8; 32], u32>,
    asked: Vec<Awaited>,
}

impl Current {
    /// A task that has waited goes on in this thread, in `lane`.
    pub(super) fn go_on(shift: &Arc<Shift>, lane: u32, own: Own) -> Rc<Self> {
        let current = Self::enter(shift, lane);
        let Own { place, calls, asked } = own;
        current.place.set(place);
        current.waited.set(true);
        current.calls.replace(calls);
        current.asked.replace(asked);
        current
    }

    /// The outcomes that its task has asked for and that are not there.
    pub(super) fn awaits(&self, crew: &Crew) -> Vec<Awaited> {
        let mut asked = self.asked.borrow_mut();
        if !asked.is_empty() {
            let state = crew.asked.state();
            asked.retain(|of| state.outcomes.contains_key(of));
        }
        asked.clone()
    }

    /// Its task is to wait. `wake` ends that, and is called when the task is cancelled.
    fn pause(&self, crew: &Crew, wake: Wake) -> Result<Pause, NotHere> {
        let task = self.begun();
        let mut state = crew.asked.state();
        if state.cancelled.contains(&task) {
            return Err(NotHere::Cancelled);
        }
        state.parked.insert(task, wake);
        drop(state);
        let started_us = crew.cell.started_us(self.lane.get());
        Ok(Pause { started_us, since_us: monotonic_us() })
    }

    /// Its task waits for `on`, and leaves this thread, which keeps its lane; with what it takes along.
    ///
    /// # Errors
    /// It was cancelled, or nobody would hear of the outcomes.
    pub(super) fn set_aside(
        &self,
        crew: &Arc<Crew>,
        on: Vec<Awaited>,
        wake: Wake,
    ) -> Result<(Pause, Own), NotHere> {
        let (task, lane) = (self.begun(), self.lane.get());
        let pause = self.pause(crew, wake)?;
        if crew.set_aside(&self.shift, lane, self.waited.get(), (task, on)).is_err() {
            crew.asked.state().parked.remove(&task);
            return Err(NotHere::NoThread);
        }
        self.waited.set(true);
        let (calls, asked) = (self.calls.take(), self.asked.take());
        Ok((pause, Own { place: task.place, calls, asked }))
    }

    /// Its task goes on, in `lane`.
    ///
    /// # Errors
    /// It was cancelled.
    pub(super) fn resume(&self, crew: &Crew, lane: u32, pause: Pause) -> Result<(), NotHere> {
        self.lane.set(lane);
        let task = self.begun();
        // The time that it has waited does not count.
        let started_us = match pause.started_us {
            0 => 0,
            started => started + (monotonic_us() - pause.since_us),
        };
        let Begun { sequence, place: index } = task;
        crew.cell.go_on(lane, Running { sequence, index, started_us });
        crew.outcomes.say(FromExecutor::Resumed { task });
        let mut state = crew.asked.state();
        state.parked.remove(&task);
        if state.cancelled.contains(&task) { Err(NotHere::Cancelled) } else { Ok(()) }
    }
}

/// The task of this thread has given its lane away.
struct Blocked {
    current: Rc<Current>,
    pause: Pause,
}

impl Blocked {
    fn begin(on: Vec<Awaited>, wake: Wake) -> Result<Self, NotHere> {
        let (Some(current), Some(crew)) = (current(), CREW.get()) else {
            return Err(NotHere::AnotherThread);
        };
        let pause = current.pause(crew, wake)?;
        let (task, lane) = (current.begun(), current.lane.get());
        let suspended = crew.suspend(&current.shift, lane, current.waited.get(), (task, on));
        suspended.map_err(|_| NotHere::NoThread)?;
        current.waited.set(true);
        Ok(Self { current, pause })
    }

    /// Waits for a lane, and goes on.
    fn resume(self) -> Result<(), NotHere> {
        let Some(crew) = CREW.get() else { return Err(NotHere::AnotherThread) };
        let lane = crew.deck.resume();
        self.current.resume(crew, lane, self.pause)
    }
}

/// The future of a task that stays with its thread. It blocks the task while it waits for outcomes: its thread goes on to
/// drive what else it waits for.
pub(crate) struct Yielding<F> {
    future: F,
    blocked: Option<Blocked>,
}

/// Makes `future`, which is all that a task does, one that lets go of the task's lane.
pub(crate) const fn yielding<F: Future>(future: F) -> Yielding<F> {
    Yielding { future, blocked: None }
}

impl<F: Future + Unpin> Future for Yielding<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(blocked) = self.blocked.take() {
            // One that is cancelled goes on: it looks for itself, and is ended if it does not.
            _ = blocked.resume();
        }
        let future = Pin::new(&mut self.future);
        let polled = match current() {
            Some(current) => current.polling(|| future.poll(context)),
            None => future.poll(context),
        };
        if polled.is_pending() {
            let on = CREW.get().zip(current()).map(|(crew, current)| current.awaits(crew));
            let waker = context.waker().clone();
            if let Some(on) = on.filter(|on| !on.is_empty()) {
                self.blocked = Blocked::begin(on, Box::new(move || waker.wake_by_ref())).ok();
            }
        }
        polled
    }
}

impl Asked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        self.marked.store(state.cancelled.len() + state.wakers.len(), Ordering::Relaxed);
    }

    /// An outcome has come.
    pub(super) fn give(&self, of: Awaited, outcome: &Bytes) {
        let told = self.state().outcomes.remove(&of);
        told.into_iter().flatten().for_each(|told| told(outcome.clone()));
    }

    /// So many calls are committed.
    pub(super) fn commit(&self, calls: u32) {
        let mut state = self.state();
        state.calls = state.calls.saturating_sub(calls);
        drop(state);
        self.committed.notify_all();
    }

    /// A task was cancelled.
    pub(super) fn cancel(&self, task: Begun) {
        let mut state = self.state();
        state.cancelled.insert(task);
        self.count(&state);
        if let Some(wake) = state.parked.get(&task) {
            wake();
        }
        let wakers = state.wakers.remove(&task);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// A task has ended.
    #[inline]
    pub(super) fn forget(&self, task: Begun) {
        if self.marked.load(Ordering::Relaxed) > 0 {
            let mut state = self.state();
            state.cancelled.remove(&task);
            state.wakers.remove(&task);
            self.count(&state);
        }
    }

    /// Takes room for a call, if there is some.
    fn has_room(&self) -> bool {
        let mut state = self.state();
        let room = state.calls < CALLS_MAX;
        state.calls += u32::from(room);
        room
    }

    fn wait_for_room(&self) {
        let mut state = self.state();
        while state.calls >= CALLS_MAX {
            state = self.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.calls += 1;
    }
}
