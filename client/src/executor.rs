//! The executor: what a process of the user's program does instead of its `main` when a worker has
//! started it.
//!
//! [`enter_if_executor`], called by `init()` before anything else, connects to the worker, proves the
//! protocol's version, takes the cell, and then runs one load after the other until the worker says
//! stop or is gone. It never returns in an executor.
//!
//! * `link` is the socket, `watch` the thread that ends everything when the worker dies.
//! * `lanes` is the loop: one lane on the main thread, or many on threads of their own; `deck` says which of the
//!   threads have a lane, and `tasks` is what a task may ask of the cluster while it has one.
//! * `load` and `call` run tasks, `fill` finds the arguments that are elsewhere, `panics` turns a panic into a cause, `context` lends a batch's
//!   common value to its tasks.
//! * `wander` is how tasks that are futures wait: without a thread.
//! * `loans` is where tasks get the arrays that they map.
//! * `notes` is what tasks say to people, on its way.
//! * `collect` gathers outcomes and says when they go out.
//!
//! Nothing here survives a crash: what a dead executor had taken, its worker reads from the cell.

mod call;
mod collect;
pub(crate) mod context;
mod deck;
mod fill;
mod lanes;
mod link;
mod load;
pub(crate) mod loans;
mod notes;
pub(crate) mod panics;
pub(crate) mod tasks;
mod wander;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use allhands_common::wire::executor::SOCKET_VARIABLE;
use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Exit code of a program that a worker started and that used the cluster before `init()`.
const NOT_ENTERED: i32 = 70;
/// Exit code of an executor that could not reach its worker, or lost its way with it.
const BROKEN: i32 = 71;

static ENTERED: AtomicBool = AtomicBool::new(false);

/// Becomes an executor, and never returns, if a worker started this process to be one. Else does
/// nothing.
pub fn enter_if_executor() {
    let Some((worker, socket)) = announced() else {
        return;
    };
    ENTERED.store(true, Ordering::Relaxed);
    if let Err(error) = watch::bind_to(worker) {
        leave(BROKEN, &format!("an executor cannot bind its life to its worker: {error}"));
    }
    // Without this a crash in user code writes gigabytes of core somewhere.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    _ = rustix::process::setrlimit(Resource::Core, none);
    match link::connect(&socket).and_then(|link| lanes::run(link, worker)) {
        Ok(()) => leave(0, ""),
        Err(error) => leave(BROKEN, &format!("an executor lost its worker: {error}")),
    }
}

/// Whether this process is an executor: tasks run in it, and it has no cluster of its own.
pub fn is_executor() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// Ends a process that a worker started as an executor and that comes to the cluster API without
/// having entered: its `main` is running a second time.
pub fn refuse_cluster_api() {
    if !is_executor() && announced().is_some() {
        leave(
            NOT_ENTERED,
            "this process is an executor, but its main has begun: call allhands::init() first in \
             main, before anything else, or put #[allhands::main] on main",
        );
    }
}

/// The worker's process and its socket, if a worker started this process as an executor. The variable
/// stays set, but means only children of that worker: what a task starts is not one.
fn announced() -> Option<(Pid, PathBuf)> {
    let value = std::env::var(SOCKET_VARIABLE).ok()?;
    let (worker, socket) = value.split_once(':')?;
    let worker = Pid::from_raw(worker.parse().ok()?)?;
    if rustix::process::getppid() == Some(worker) {
        return Some((worker, socket.into()));
    }
    if rustix::process::test_kill_process(worker).is_err() {
        // Its worker died before this line: it must not go on as a second run of the program.
        leave(0, "");
    }
    None
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "an executor has no main to return to")]
#[expect(clippy::print_stderr, reason = "the worker reads an executor's last words there")]
fn leave(code: i32, words: &str) -> ! {
    if !words.is_empty() {
        eprintln!("allhands: {words}");
    }
    std::process::exit(code)
}

/// The signal that ends executors: nothing in user code can hold it off.
const END: Signal = Signal::KILL;
