//! The workloads, one file each where there is something to them.

mod array;
mod broadcast;
mod delta;
mod factorial;
mod graph;
mod kill;
mod latency;
mod memory;
mod put;
mod scheduler;
mod sleep;
mod slices;
pub(crate) mod startup;
mod transfer;

use std::time::Instant;

use allhands::prelude::*;

use crate::cluster::Measured;
use crate::measure::Line;
use crate::{Arguments, Workload};

fn noop(n: u64) -> u64 {
    n
}

/// Runs what the arguments say.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.workload {
        Workload::Noop => noop_batch(arguments),
        Workload::Latency => latency::run(arguments),
        Workload::Submit => submit(arguments),
        Workload::Factorial => factorial::run(arguments),
        Workload::Sleep => sleep::run(arguments),
        Workload::Startup => startup::run(arguments),
        Workload::Memory => memory::run(arguments),
        Workload::Scheduler => scheduler::run(arguments),
        Workload::Array => array::run(arguments),
        Workload::Put => put::run(arguments),
        Workload::Transfer => transfer::run(arguments),
        Workload::Broadcast => broadcast::run(arguments),
        Workload::Slices => slices::run(arguments),
        Workload::Delta => delta::run(arguments),
        Workload::Graph => graph::run(arguments),
        Workload::Kill => kill::run(arguments),
    }
}

/// Executors are warm in every measurement but that of the start.
fn warm(measured: &Measured, workers: u32) -> anyhow::Result<()> {
    for _ in 0..2 {
        Parallel::new()
            .on(&measured.cluster)
            .run((0..u64::from(workers) * 64).map(delayed(noop)))?;
    }
    Ok(())
}

fn noop_batch(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(1_000_000);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    for rep in 0..arguments.repeats {
        let begun = Instant::now();
        let results = Parallel::new().on(&measured.cluster).run((0..tasks).map(delayed(noop)))?;
        let took = begun.elapsed();
        anyhow::ensure!(results.iter().copied().eq(0..tasks), "a result is wrong");
        Line::new("allhands", "noop", tasks, rep, took).print()?;
    }
    Ok(())
}

fn submit(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(10_000);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    let parallel = Parallel::new().on(&measured.cluster);
    for rep in 0..arguments.repeats {
        let begun = Instant::now();
        let mut batches = Vec::with_capacity(usize::try_from(tasks)?);
        for n in 0..tasks {
            batches.push(parallel.start([delayed(noop)(n)])?);
        }
        for (n, batch) in (0..tasks).zip(batches) {
            anyhow::ensure!(batch.wait()? == [n], "a result is wrong");
        }
        Line::new("allhands", "submit", tasks, rep, begun.elapsed()).print()?;
    }
    Ok(())
}
