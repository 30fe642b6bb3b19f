//! The pool with real executor processes. Each test is its own program: its executors are this
//! executable again, entering the same test, whose first statement makes them executors.

mod deaths;
mod figures;
mod orphans;
mod outcomes;
mod output;
mod retract;
mod shell;
mod support;
mod threads;
