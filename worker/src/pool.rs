//! The executor pool: processes of users' programs, started, fed, watched and ended.
//!
//! The worker's loop calls [`Pool`]'s methods, none of which waits, and hears back through one
//! bounded channel. Each executor has a *seat* (what both sides of the pool know of it) and a
//! *keeper*, a task on the loop's own thread that owns its process and socket. All of it runs on one
//! thread: no lock, and a load is on the socket when [`Pool::load`] returns.
//!
//! * `spawner` is the one thread that starts processes, `command` says how, `output` takes what they print.
//! * `counter` is where executors borrow what they map.
//! * `outbox` and `inbox` are the two directions of the socket.
//! * `timeouts` reads the cell to find tasks that run too long.
//!
//! Nothing survives a crash of the worker: executors notice it and end themselves.

mod command;
mod counter;
mod inbox;
mod keeper;
mod outbox;
pub mod output;
mod postmortem;
mod seat;
mod spawner;
mod timeouts;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use allhands_common::chain::chain;
use allhands_common::execution::Given;
use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BatchId, ExecutorId, WorkerId};
use allhands_common::wire::executor::ToExecutor;
use allhands_scheduler::{ExecutorEvent, Load, PIECES_MAX, Share, Spawn};
use tokio::sync::mpsc;

use crate::blobs::Blobs;
pub use command::{Environment, ExecutorCommand, Launch, Stored};
use seat::Seat;
use spawner::Spawner;

/// Events that may wait for the worker's loop. Beyond that the keepers wait, then the sockets fill,
/// then the executors: a slow loop slows its own executors and nobody else.
pub const EVENTS_MAX: usize = 1024;

const _: () =
    assert!(PIECES_MAX <= allhands_store::cell::SLOTS, "each load has a slot of the cell");

/// How long an executor that was told to stop may take before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What a pool needs to know.
#[derive(Debug)]
pub struct PoolConfig {
    /// Whose executors they are, for failures.
    pub worker: WorkerId,
    /// How a program is started.
    pub launch: Launch,
    /// Where sockets and scratch directories lie. Short: a socket's path has at most 107 bytes.
    pub directory: PathBuf,
    /// Who takes what executors print.
    pub output: mpsc::Sender<output::Written>,
    /// What executors may borrow.
    pub blobs: Blobs,
}

/// The executors of one worker.
#[derive(Debug)]
pub struct Pool {
    config: Rc<PoolConfig>,
    spawner: Spawner,
    seats: BTreeMap<ExecutorId, Rc<Seat>>,
    events: mpsc::Sender<(ExecutorId, ExecutorEvent)>,
}

impl Pool {
    /// A pool without executors, and where it tells what happens in it.
    ///
    /// # Errors
    /// When the spawner's thread cannot be started or the directory cannot be made.
    pub fn new(
        config: PoolConfig,
    ) -> io::Result<(Self, mpsc::Receiver<(ExecutorId, ExecutorEvent)>)> {
        std::fs::create_dir_all(&config.directory)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let spawner = Spawner::start()?;
        let pool = Self { config: Rc::new(config), spawner, seats: BTreeMap::new(), events };
        Ok((pool, receiver))
    }

    /// Starts an executor. `Ready` follows, or `Died`.
    pub fn spawn(&mut self, spawn: Spawn) {
        let executor = spawn.executor;
        let seat = match Seat::new(&spawn) {
            Ok(seat) => Rc::new(seat),
            Err(error) => {
                let stderr_tail = chain(&error);
                tracing::warn!(%executor, cause = stderr_tail, "an executor did not start");
                let cause =
                    Cause::ExecutorDied { signal: None, exit: None, stderr_tail, deaths: 1 };
                let events = self.events.clone();
                tokio::task::spawn_local(async move {
                    let died = ExecutorEvent::Died { running: Vec::new(), culprit: None, cause };
                    _ = events.send((executor, died)).await;
                });
                return;
            }
        };
        self.seats.insert(executor, Rc::clone(&seat));
        let keeper = keeper::Keeper {
            seat,
            spawner: self.spawner.clone(),
            config: Rc::clone(&self.config),
            events: self.events.clone(),
        };
        tokio::task::spawn_local(keeper.keep(spawn));
    }

    /// Gives an executor a load, with the next [`Pool::flush`]. At most [`PIECES_MAX`] are outstanding.
    /// The load of an executor that has died meanwhile is dropped: `Died` is on its way.
    pub fn load(&mut self, executor: ExecutorId, load: Load) {
        if let Some(seat) = self.seats.get(&executor) {
            seat.load(load);
        }
    }

    /// Sends the loads that were given since the last time.
    pub fn flush(&self) {
        self.seats.values().for_each(|seat| seat.outbox.flush());
    }

    /// Takes back unstarted tasks from the end of a load, and says which, maybe none.
    pub fn take(
        &mut self,
        executor: ExecutorId,
        attempt: AttemptId,
        share: Share,
    ) -> ExecutorEvent {
        let seat = self.seats.get(&executor);
        let range = seat.and_then(|seat| seat.take(attempt, share)).unwrap_or_default();
        ExecutorEvent::Taken { attempt, range }
    }

    /// No load of `batch` will follow on any executor.
    pub fn forget(&mut self, batch: BatchId) {
        self.seats.values().for_each(|seat| seat.forget(batch));
        self.config.blobs.forget(batch);
    }

    /// Batches of whose tasks there are long results here.
    pub fn results(&self) -> Vec<BatchId> {
        self.config.blobs.batches()
    }

    /// Kills an executor and everything that it has started. `Died` follows.
    pub fn kill(&mut self, executor: ExecutorId) {
        if let Some(seat) = self.seats.get(&executor) {
            seat.kill(seat::Doom::Told);
        }
    }

    /// Gives an executor an outcome that tasks of it wait for, with the next [`Pool::flush`].
    pub fn give(&mut self, executor: ExecutorId, given: Given) {
        self.say(executor, ToExecutor::Give(given));
    }

    /// Tells an executor that so many of the batches that its tasks have called are committed, with the next
    /// [`Pool::flush`].
    pub fn opened(&mut self, executor: ExecutorId, batches: u32) {
        self.say(executor, ToExecutor::Opened { batches });
    }

    /// Tells the tasks of an attempt that an executor has begun that they are cancelled, with the next
    /// [`Pool::flush`].
    pub fn cancel(&mut self, executor: ExecutorId, attempt: AttemptId) {
        let begun = self.seats.get(&executor).map(|seat| seat.begun_of(attempt));
        for task in begun.unwrap_or_default() {
            self.say(executor, ToExecutor::Cancel { task });
        }
    }

    fn say(&self, executor: ExecutorId, mut message: ToExecutor) {
        if let Some(seat) = self.seats.get(&executor) {
            seat.send(&mut message);
        }
    }

    /// Asks an idle executor to exit; kills it if it does not. `Died` follows, with nothing running.
    pub fn stop(&mut self, executor: ExecutorId) {
        if let Some(seat) = self.seats.get(&executor) {
            seat.stop_by.set(Some(tokio::time::Instant::now() + STOP_GRACE));
            seat.send(&mut ToExecutor::Stop);
            seat.changed.notify_one();
        }
    }

    /// Kills all executors; a `Died` of each follows.
    pub fn end(&mut self) {
        self.seats.values().for_each(|seat| seat.kill(seat::Doom::Told));
    }

    /// Whether there is no executor.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// To be called for each `Died`: its seat is free.
    pub fn bury(&mut self, executor: ExecutorId) {
        self.seats.remove(&executor);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end();
    }
}
