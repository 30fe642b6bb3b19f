//! The factorials of 0..10 000, on every core of the cluster.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//! Without further ado this starts a cluster in the process. With `ALLHANDS_CLUSTER` set it runs on
//! that one, unchanged.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::collections::BTreeMap;
use std::time::Instant;

use allhands::prelude::*;
use num_bigint::BigUint;

/// The product of `from..=to`, split in halves so that both factors are of like length.
fn product(from: u64, to: u64) -> BigUint {
    if to < from {
        return BigUint::from(1u32);
    }
    if to - from < 16 {
        return (from..=to).map(BigUint::from).product();
    }
    let middle = from + (to - from) / 2;
    product(from, middle) * product(middle + 1, to)
}

/// An ordinary function. Beside its result it says in which process it ran.
fn factorial(n: u64) -> (BigUint, u32) {
    (product(1, n), std::process::id())
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    let started = Instant::now();
    let results = Parallel::new().verbose(10).run((0..10_000).map(delayed(factorial)))?;
    let elapsed = started.elapsed();

    let first: Vec<&BigUint> = results[..5].iter().map(|(value, _)| value).collect();
    println!("{first:?}");
    let mut tasks: BTreeMap<u32, usize> = BTreeMap::new();
    results.iter().for_each(|(_, executor)| *tasks.entry(*executor).or_default() += 1);
    println!("{} factorials in {elapsed:.2?}", results.len());
    for (executor, count) in tasks {
        println!("executor {executor} ran {count} tasks");
    }
    Ok(())
}
