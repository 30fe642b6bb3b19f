//! Memory of a coordinator with N queued tasks: one process, no worker, nothing runs.

use std::time::Instant;

use allhands::prelude::*;
use anyhow::Context as _;

use super::noop;
use crate::Arguments;
use crate::cluster::Measured;
use crate::measure::{Line, resident};

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks =
        arguments.tasks.unwrap_or(if arguments.single { 100_000 } else { 10_000_000 });
    for rep in 0..arguments.repeats {
        let one = Arguments {
            coordinators: 1,
            workload: arguments.workload,
            durability: arguments.durability.clone(),
            ..*arguments
        };
        let measured = Measured::with_workers(&one, 0)?;
        let dev = measured.dev.as_ref().context("the coordinator is no process of its own")?;
        let (coordinator, _) = dev.processes()?.into_iter().next().context("no coordinator")?;
        let before = resident(coordinator)?;
        let begun = Instant::now();
        let parallel = Parallel::new().on(&measured.cluster);
        let mut held = Vec::new();
        if arguments.single {
            for n in 0..tasks {
                held.push(parallel.start([delayed(noop)(n)])?);
            }
        } else {
            held.push(parallel.start((0..tasks).map(delayed(noop)))?);
        }
        let took = begun.elapsed();
        let grown = resident(coordinator)?.saturating_sub(before);
        let name = if arguments.single { "memory-single" } else { "memory" };
        let mut line = Line::new("allhands", name, tasks, rep, took);
        line.bytes_per_task = Some(grown as f64 / tasks.max(1) as f64);
        line.print()?;
    }
    Ok(())
}
