//! The executor's loop: messages in, loads worked off, by one lane or by many.
//!
//! One lane runs on the main thread, which reads the next load only when it is done with the current
//! one: it waits in the socket's buffer, so no other thread is woken between them. Several lanes are
//! threads that take from the same load; the main thread reads. A lane that finds nothing left goes on
//! to the next load while others still run tasks of the first; the last one to leave a load ends it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use allhands_common::wire::executor::ToExecutor;
use allhands_store::cell::Cell;
use rustix::process::Pid;

use super::collect::Collector;
use super::link::Link;
use super::load::{Batch, Batches, Lane, Load};
use super::{panics, watch};
use crate::payload::forget_what_was_read;

/// Stack of a lane's thread, in bytes: what std gives.
const STACK_BYTES: usize = 2 << 20;

/// Runs loads until the worker says stop.
///
/// # Errors
/// When the worker is not what it should be.
pub(super) fn run(link: Link, worker: Pid) -> io::Result<()> {
    let Link { mut reader, writer, cell, worker: name, lanes } = link;
    watch::watch(worker, reader.socket()?)?;
    panics::install();
    let crew = Arc::new(Crew {
        cell,
        outcomes: Collector::start(writer)?,
        several: lanes > 1,
        waiting: Mutex::default(),
        more: Condvar::new(),
    });
    if crew.several {
        (0..lanes).try_for_each(|number| crew.hire(number))?;
    }
    let mut lane = Lane::new(0);
    let mut batches = Batches::new();
    loop {
        // What has ended waits for what is at hand, and for nothing else.
        if !reader.has_frame() {
            crew.outcomes.send();
        }
        let Some(message) = reader.next()? else { break };
        match message {
            ToExecutor::Batch(common) => {
                batches.insert(common.batch, Arc::new(Batch::new(common)));
            }
            ToExecutor::Load(load) => {
                let load = Load::new(load, name, &batches)?;
                load.begin(&crew.outcomes, crew.several);
                if crew.several {
                    crew.announce(load);
                } else {
                    load.work(&mut lane, &crew.cell, &crew.outcomes, false);
                    crew.outcomes.finish(load.sequence, true);
                }
            }
            ToExecutor::Forget { batch } => {
                batches.remove(&batch);
                forget_what_was_read();
            }
            ToExecutor::Give(_) | ToExecutor::Opened { .. } | ToExecutor::Cancel { .. } => {}
            ToExecutor::Stop => return Ok(()),
            ToExecutor::Welcome { .. } => return Err(io::Error::other("it said welcome twice")),
        }
    }
    // The worker has closed the socket without a word: it is gone.
    watch::end_group()
}

/// What the lanes share.
struct Crew {
    cell: Cell,
    outcomes: Collector,
    several: bool,
    waiting: Mutex<VecDeque<Arc<Shift>>>,
    more: Condvar,
}

/// A load that several lanes work off.
struct Shift {
    load: Load,
    /// Lanes inside, and whether one of them has found nothing left.
    state: Mutex<(u32, bool)>,
}

impl Crew {
    fn hire(self: &Arc<Self>, number: u32) -> io::Result<()> {
        let crew = Arc::clone(self);
        let work = move || {
            let mut lane = Lane::new(number);
            loop {
                crew.work_one(&mut lane);
            }
        };
        let name = format!("allhands-lane-{number}");
        std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(work)?;
        Ok(())
    }

    fn announce(&self, load: Load) {
        let shift = Arc::new(Shift { load, state: Mutex::default() });
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(shift);
        self.more.notify_all();
    }

    /// Waits for a load that has room for this lane, and works on it.
    fn work_one(&self, lane: &mut Lane) {
        let shift = self.enter();
        shift.load.work(lane, &self.cell, &self.outcomes, true);
        // Out of the queue before anybody may end it: nobody enters a load that has ended, for its
        // slot in the cell may then hold the one after the next.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| !Arc::ptr_eq(other, &shift));
        drop(waiting);
        let mut state = shift.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 -= 1;
        state.1 = true;
        if state.0 == 0 {
            self.outcomes.finish(shift.load.sequence, false);
        }
    }

    fn enter(&self) -> Arc<Shift> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for shift in waiting.iter() {
                let mut state = shift.state.lock().unwrap_or_else(PoisonError::into_inner);
                if !state.1 {
                    state.0 += 1;
                    return Arc::clone(shift);
                }
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
