//! A hundred items, each of which takes 0.2 s, four at a time.
//!
//! ```text
//! cargo run --release --example transform
//! ```
//! Without further ado this starts a cluster in the process, with a slot for each core: on less than four
//! cores fewer run at once. With `ALLHANDS_CLUSTER` set it runs on that one, unchanged.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]
#![expect(clippy::disallowed_methods, reason = "sleeping stands for work")]

use std::thread;
use std::time::{Duration, Instant};

use allhands::prelude::*;

/// Stands for anything that takes its time.
fn transform(item: u32) -> String {
    thread::sleep(Duration::from_millis(200));
    format!("item {item} squared is {}", item * item)
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    let started = Instant::now();
    let lines = Parallel::new().n_jobs(4).verbose(1).run((0..100).map(delayed(transform)))?;
    println!("{}", lines[7]);
    println!("{} items in {:.1?} (one after the other: 20 s)", lines.len(), started.elapsed());
    Ok(())
}
