//! The executor's loop: messages in, loads worked off, by one lane or by many.
//!
//! One lane runs on the main thread, which reads the next load only when it is done with the current
//! one: it waits in the socket's buffer, so no other thread is woken between them. Several lanes are
//! threads that take from the same load, and the main thread reads. It is the same with one lane as soon as a
//! task of this process has waited for another: then a thread reads that does nothing else.
//!
//! A lane that finds nothing left goes on to the next load while others still run tasks of the first; the last
//! one to leave a load ends it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allhands_common::execution::Awaited;
use allhands_common::id::WorkerId;
use allhands_common::wire::executor::{Begun, FromExecutor, ToExecutor};
use allhands_store::cell::Cell;
use rustix::process::Pid;

use super::collect::Collector;
use super::deck::{Deck, Shift, Work};
use super::link::{Link, Reader};
use super::load::{Batch, Batches, Load, Worked};
use super::notes::Notes;
use super::tasks::{self, Asked};
use super::{leave, panics, watch};
use crate::payload::forget_what_was_read;

/// Stack of a lane's thread, in bytes: what std gives.
const STACK_BYTES: usize = 2 << 20;

/// What the threads of an executor share.
pub(super) struct Crew {
    pub(super) cell: Cell,
    pub(super) outcomes: Collector,
    pub(super) deck: Deck,
    pub(super) asked: Asked,
    pub(super) notes: Notes,
    /// Whoever has it reads.
    desk: Mutex<Desk>,
    /// Whether a thread reads that does nothing else.
    apart: AtomicBool,
    several: bool,
    worker: WorkerId,
}

/// What comes from the worker.
struct Desk {
    reader: Reader,
    batches: Batches,
}

/// Runs loads until the worker says stop.
///
/// # Errors
/// When the worker is not what it should be.
pub(super) fn run(link: Link, worker: Pid) -> io::Result<()> {
    let Link { reader, writer, cell, worker: name, lanes } = link;
    watch::watch(worker, reader.socket()?)?;
    panics::install();
    let crew = Arc::new(Crew {
        cell,
        outcomes: Collector::start(writer)?,
        deck: Deck::new(lanes),
        asked: Asked::default(),
        notes: Notes::default(),
        desk: Mutex::new(Desk { reader, batches: Batches::new() }),
        apart: AtomicBool::new(lanes > 1),
        several: lanes > 1,
        worker: name,
    });
    tasks::open(&crew);
    if crew.several {
        (0..lanes).try_for_each(|_| crew.hire())?;
        return crew.read();
    }
    crew.deck.join();
    if crew.work_alone()? == Ended::Told {
        return Ok(());
    }
    crew.work_with_others();
    // The process ends with what the reading thread hears.
    loop {
        std::thread::park();
    }
}

/// Why the main thread does not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The worker said stop.
    Told,
    /// Another thread reads.
    Apart,
}

impl Crew {
    /// Whether several lanes work on one load.
    pub(super) const fn is_several(&self) -> bool {
        self.several
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, and works off what it reads, in this thread.
    fn work_alone(self: &Arc<Self>) -> io::Result<Ended> {
        let mut out = Vec::new();
        while !self.apart.load(Ordering::Relaxed) {
            let mut desk = self.desk();
            // What has ended waits for what is at hand, and for nothing else.
            if !desk.reader.has_frame() {
                self.outcomes.send();
            }
            let message = desk.next()?;
            if matches!(message, ToExecutor::Stop) {
                return Ok(Ended::Told);
            }
            let load = self.take(&mut desk, message)?;
            drop(desk);
            let Some(shift) = load else { continue };
            shift.enter();
            let lane = self.deck.take_first();
            self.work(&shift, lane, &mut out);
        }
        self.outcomes.send();
        Ok(Ended::Apart)
    }

    /// Works off what another thread reads, for as long as this one is needed.
    fn work_with_others(self: &Arc<Self>) {
        let mut out = Vec::new();
        while let Some((work, lane)) = self.deck.enter() {
            match work {
                Work::Begin(shift) => self.work(&shift, lane, &mut out),
                Work::GoOn(future) => {
                    let shift = Arc::clone(future.shift());
                    let lane = shift.load.go_on(future, lane, self);
                    self.deck.leave(&shift, lane, Worked::Waited);
                }
            }
        }
    }

    /// Works on a load that this thread has entered, in `lane`.
    fn work(self: &Arc<Self>, shift: &Arc<Shift>, lane: u32, out: &mut Vec<u8>) {
        let (worked, lane) = shift.load.work(shift, lane, out, self);
        let over = match worked {
            Worked::Exhausted => shift.leave(true),
            Worked::Yielded => shift.leave(false),
            // It has left the load when it began to wait.
            Worked::Waited => false,
        };
        self.deck.leave(shift, lane, worked);
        if over {
            // Who reads in this thread sends before it waits.
            let sends = !self.apart.load(Ordering::Relaxed);
            self.outcomes.finish(shift.load.sequence, sends);
        }
    }

    fn hire(self: &Arc<Self>) -> io::Result<()> {
        let crew = Arc::clone(self);
        let work = move || {
            crew.deck.join();
            crew.work_with_others();
        };
        let name = "allhands-lane".to_owned();
        std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(work)?;
        Ok(())
    }

    /// From now on a thread reads that does nothing else.
    pub(super) fn read_apart(self: &Arc<Self>) -> io::Result<()> {
        if self.apart.load(Ordering::Relaxed) {
            return Ok(());
        }
        let crew = Arc::clone(self);
        let read = move || match crew.read() {
            Ok(()) => leave(0, ""),
            Err(error) => leave(super::BROKEN, &format!("an executor lost its worker: {error}")),
        };
        std::thread::Builder::new().name("allhands-read".into()).spawn(read)?;
        self.apart.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A task wants to know what the worker says while it runs. Where no thread can be made, it learns it later.
    pub(super) fn listen(self: &Arc<Self>) {
        if let Err(error) = self.read_apart() {
            tracing::warn!(%error, "no thread can be made to hear what the worker says");
        }
    }

    /// Reads until the worker says stop.
    fn read(self: &Arc<Self>) -> io::Result<()> {
        let mut desk = self.desk();
        loop {
            if !desk.reader.has_frame() {
                self.outcomes.send();
            }
            let message = desk.next()?;
            if matches!(message, ToExecutor::Stop) {
                return Ok(());
            }
            if let Some(shift) = self.take(&mut desk, message)? {
                self.deck.announce(shift);
            }
        }
    }

    /// Does what a message says; the load, if it is one.
    fn take(&self, desk: &mut Desk, message: ToExecutor) -> io::Result<Option<Arc<Shift>>> {
        match message {
            ToExecutor::Batch(common) => {
                desk.batches.insert(common.batch, Arc::new(Batch::new(common)));
            }
            ToExecutor::Load(load) => {
                let load = Load::new(load, self.worker, &desk.batches)?;
                load.begin(&self.outcomes, self.several);
                return Ok(Some(Shift::new(load)));
            }
            ToExecutor::Forget { batch } => {
                desk.batches.remove(&batch);
                forget_what_was_read();
            }
            ToExecutor::Give(given) => self.asked.give(given.of, &given.outcome.bytes),
            ToExecutor::Opened { batches } => self.asked.commit(batches),
            ToExecutor::Cancel { task } => self.asked.cancel(task),
            ToExecutor::Stop | ToExecutor::Welcome { .. } => {
                return Err(io::Error::other("it said welcome twice"));
            }
        }
        Ok(None)
    }

    /// The task of the thread that has `lane` waits: says so, after all that has ended before it, and lets others
    /// run. It leaves its load with that, unless it `had_left` before.
    pub(super) fn suspend(
        self: &Arc<Self>,
        shift: &Arc<Shift>,
        lane: u32,
        had_left: bool,
        (task, on): (Begun, Vec<Awaited>),
    ) -> io::Result<()> {
        self.rest(shift, lane, had_left)?;
        self.deck.suspend(shift, lane, || self.hire())?;
        self.say_blocked(shift, had_left, (task, on));
        Ok(())
    }

    /// The task of the thread that has `lane`, a future, waits: the same, but the thread keeps its lane.
    pub(super) fn set_aside(
        self: &Arc<Self>,
        shift: &Arc<Shift>,
        lane: u32,
        had_left: bool,
        (task, on): (Begun, Vec<Awaited>),
    ) -> io::Result<()> {
        self.rest(shift, lane, had_left)?;
        self.deck.close(shift);
        self.say_blocked(shift, had_left, (task, on));
        Ok(())
    }

    /// Nothing runs in `lane` while its task waits, and nothing more of the load is begun.
    fn rest(self: &Arc<Self>, shift: &Arc<Shift>, lane: u32, had_left: bool) -> io::Result<()> {
        self.read_apart()?;
        self.cell.rest(lane);
        if !had_left {
            self.cell.lower(shift.load.sequence, |next, _| next);
        }
        Ok(())
    }

    fn say_blocked(&self, shift: &Shift, had_left: bool, (task, on): (Begun, Vec<Awaited>)) {
        if had_left {
            self.outcomes.say(FromExecutor::Blocked { task, on, run_us: None });
            return;
        }
        self.outcomes.say_blocked(task, on);
        if shift.leave(true) {
            self.outcomes.finish(shift.load.sequence, false);
        }
    }
}

impl Desk {
    /// The next message. A worker that has closed the socket without a word is gone.
    fn next(&mut self) -> io::Result<ToExecutor> {
        match self.reader.next()? {
            Some(message) => Ok(message),
            None => watch::end_group(),
        }
    }
}
