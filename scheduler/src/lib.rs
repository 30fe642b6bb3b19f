//! The core of allhands: three deterministic machines that cannot name the world.
//!
//! * [`State`] is what the log says: every replica applies every entry to it and gets the same.
//! * [`Dispatcher`] is what only the leader needs: which worker holds what, who waits for what. It is
//!   lost with its leader on purpose and rebuilt from the state and the workers' inventories.
//! * [`Agent`] is the worker's half of the same protocol.
//!
//! Events go in, actions come out, time is an argument. There is no clock here, no socket, no thread,
//! no randomness and no log, and `no_std` makes the compiler say so. The shells (`coordinator`,
//! `worker`) and the simulator (`tests`) drive the same code.
//!
//! Calls run to completion; time never goes backwards between calls; every action must be carried
//! out in the order given, or the link that it was for must be declared broken.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
mod agent;
mod command;
mod dispatch;
mod effect;
mod event;
mod state;

pub use action::Action;
pub use agent::{
    Agent, AgentAction, AgentConfig, AgentEvent, ExecutorEvent, Load, PIECES_MAX, Share, Spawn,
};
pub use command::{Charge, Command, Entry};
pub use dispatch::{Config, Dispatcher, Explanation, Violation};
pub use effect::Effect;
pub use event::Event;
pub use state::{
    ArgumentSegment, Batch, Batches, CallKey, Detached, Exception, Fate, Fault, FaultKind, Job,
    Links, Located, OutcomeSegment, Parent, Progress, Session, SnapshotError, Started, State, Stop,
    WorkerRecord,
};
