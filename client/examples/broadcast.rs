//! One model that all tasks use: put once, mapped by every executor, never copied.
//!
//! ```text
//! cargo run --release --example broadcast
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::collections::BTreeSet;
use std::time::Instant;

use allhands::prelude::*;

/// Weights of the model: 4 Mi numbers, 32 MiB.
const WEIGHTS: usize = 4 << 20;

/// What the model says of one sample, and which process asked it.
fn predict(model: Shared<[f64]>, sample: u64) -> (f64, u32) {
    let step = 1 + sample as usize % 7;
    let score = model.iter().step_by(step).sum::<f64>() * step as f64 / model.len() as f64;
    (score, std::process::id())
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    let weights: Vec<f64> = (0..WEIGHTS).map(|at| (at % 1000) as f64 / 1000.0).collect();
    let cluster = Cluster::from_env()?;

    let started = Instant::now();
    let model = cluster.put(&weights)?;
    let calls = (0..200).map(|sample| delayed(predict)(model.clone(), sample));
    let predictions = Parallel::new().run(calls)?;
    let elapsed = started.elapsed();

    let executors: BTreeSet<u32> = predictions.iter().map(|(_, executor)| *executor).collect();
    println!(
        "the first three scores: {:.3?}",
        predictions[..3].iter().map(|one| one.0).collect::<Vec<_>>()
    );
    println!(
        "{} predictions by {} executors in {elapsed:.2?}, one model of {} MiB for all of them",
        predictions.len(),
        executors.len(),
        (WEIGHTS * size_of::<f64>()) >> 20,
    );
    Ok(())
}
