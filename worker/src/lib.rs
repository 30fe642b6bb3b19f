//! The worker: the daemon of one machine. It runs tasks in executor processes of users' programs.
//!
//! ```text
//! coordinators ⇄ session ⇄ shell (one loop: agent) ⇄ pool ⇄ executors
//!                             ⇅      ⇅
//!                          programs  blobs, fetch ⇄ workers, clients
//! ```
//!
//! What is to run, what comes first and what is owed to whom is decided by the
//! [`Agent`](allhands_scheduler::Agent); this crate is its hands. [`run`] is given its world: in the
//! daemon links over QUIC and a program store, in the embedded cluster a link inside the process and
//! the program itself.
//!
//! Invariants: no user code runs in this process; no executor outlives it; it starts no process but
//! through the one thread of the pool that does.

pub mod blobs;
pub mod fetch;
pub mod helper;
pub mod platform;
pub mod pool;
mod programs;
mod session;
mod shell;

pub use session::{Coordinators, WorkerLink};
pub use shell::{Config, RunError, run};
