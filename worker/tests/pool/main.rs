//! The pool with real executor processes. Each test is its own program: its executors are this
//! executable again, entering the same test, whose first statement makes them executors.
#![expect(clippy::unwrap_used, reason = "a test ends where things are not as they should be")]

mod deaths;
mod figures;
mod orphans;
mod outcomes;
mod output;
mod retract;
mod shell;
mod support;
mod threads;
