//! Memory of a coordinator with N queued tasks: one process, no worker, nothing runs.

use std::time::{Duration, Instant};

use allhands::prelude::*;
use allhands_common::wire::admin::{Answer, Question};
use anyhow::Context as _;

use super::noop;
use crate::Arguments;
use crate::cluster::{Dev, Measured};
use crate::measure::{Line, resident};

/// Single calls that are queued before the count begins: code, buffers and caches come once.
const WARM: u64 = 4_096;

/// Longest wait until everything is queued.
const QUEUED_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(if arguments.single { 200_000 } else { 10_000_000 });
    for rep in 0..arguments.repeats {
        let one = Arguments { coordinators: 1, ..arguments.clone() };
        let measured = Measured::with_workers(&one, 0)?;
        let dev = measured.dev.as_ref().context("the coordinator is no process of its own")?;
        let (coordinator, _) = dev.processes()?.into_iter().next().context("no coordinator")?;
        // Single calls that prefer threads do not share a batch.
        let prefer = if arguments.single { Prefer::Threads } else { Prefer::Processes };
        let parallel = Parallel::new().on(&measured.cluster).prefer(prefer);
        let mut held = Vec::new();
        for n in 0..WARM {
            held.push(parallel.start([delayed(noop)(n)])?);
        }
        wait_queued(dev, WARM)?;
        let before = resident(coordinator)?;
        let begun = Instant::now();
        if arguments.single {
            for n in 0..tasks {
                held.push(parallel.start([delayed(noop)(n)])?);
            }
        } else {
            held.push(parallel.start((0..tasks).map(delayed(noop)))?);
        }
        wait_queued(dev, WARM + tasks)?;
        let took = begun.elapsed();
        let grown = resident(coordinator)?.saturating_sub(before);
        let name = if arguments.single { "memory-single" } else { "memory" };
        let mut line = Line::new("allhands", name, tasks, rep, took);
        line.bytes_per_task = Some(grown as f64 / tasks.max(1) as f64);
        line.print()?;
    }
    Ok(())
}

/// Waits until the coordinator has all of the tasks.
#[expect(clippy::disallowed_methods, reason = "nothing tells when another process has taken all")]
fn wait_queued(dev: &Dev, tasks: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let Answer::Status(status) = allhands_cli::ask(&dev.folder(), Question::Status)? else {
            anyhow::bail!("no leader says how the cluster is");
        };
        if status.pending == tasks {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < QUEUED_MAX,
            "{} of {tasks} tasks are queued after {QUEUED_MAX:?}",
            status.pending
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
