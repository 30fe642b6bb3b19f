//! What all stories use: a leader with its log, a worker with executors that run when told to, and
//! short words for long messages.

mod graph;
mod leader;
mod words;
mod worker;

pub(crate) use graph::*;
pub(crate) use leader::{Leader, delivered, full_runs, orders, runs, told};
pub(crate) use words::*;
pub(crate) use worker::TestWorker;
