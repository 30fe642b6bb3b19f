//! The coordinator: one member of the replicated log, and, while it leads, the scheduler.
//!
//! ```text
//! clients, workers, operators ─► links ─► core loop ─► actions ─► links
//!                                           │  ▲
//!                                 proposals ▼  │ applied entries
//!                                          log (raft, or direct)
//! ```
//!
//! `shell` is the one loop that owns the replicated state, the dispatcher and the seats of everybody
//! who is connected; everything else carries messages to and from it. [`raft`] keeps the log, [`segments`]
//! the bytes that the state names, `programs` the executables on their way to the workers.
//!
//! What survives a crash is the data directory (`raft`, `segments`); everything in the loop but the
//! state is soft and is said again by those who connect.

mod act;
mod admin;
pub mod config;
mod links;
mod peers;
mod programs;
mod proposals;
pub mod raft;
mod seats;
pub mod segments;
mod shell;
mod silence;
mod start;

pub use config::Config;
pub use links::Entrance;
pub use start::{Coordinator, RunError, embedded, run};
