//! A leader, or a worker, is killed in the middle of a batch of calls that sleep, or that do nothing.
//! Every result has to come, once; what is measured is the longest time between two results. Each repeat
//! has a cluster of its own, in which everybody is alive.

use std::time::{Duration, Instant};

use allhands::prelude::*;
use allhands_common::wire::admin::{Answer, Question};
use anyhow::Context as _;

use super::warm;
use crate::Arguments;
use crate::cluster::{Dev, Measured};
use crate::measure::Line;

/// How long a call of the batch takes.
const NAP: Duration = Duration::from_millis(2);

#[expect(clippy::disallowed_methods, reason = "the tasks are to take their time")]
fn nap(n: u64) -> u64 {
    std::thread::sleep(NAP);
    n
}

fn noop(n: u64) -> u64 {
    n
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (call, default): (fn(u64) -> Delayed<u64>, u64) = match arguments.noop {
        true => (delayed(noop), 2_000_000),
        false => (delayed(nap), 2_000),
    };
    let tasks = arguments.tasks.unwrap_or(default);
    anyhow::ensure!(arguments.coordinators > 0, "nobody can be killed in an embedded cluster");
    let mut gaps = Vec::new();
    for rep in 0..arguments.repeats {
        let measured = Measured::start(arguments)?;
        warm(&measured, arguments.workers)?;
        let dev = measured.dev.as_ref().context("the cluster is not of processes")?;
        let victim = if arguments.worker { worker(dev)? } else { leader(dev)? };
        let begun = Instant::now();
        let (mut seen, mut last, mut gap) =
            (vec![false; usize::try_from(tasks)?], begun, Duration::ZERO);
        let results = Parallel::new().on(&measured.cluster).run_unordered((0..tasks).map(call));
        let mut count = 0;
        for (index, result) in results {
            let now = Instant::now();
            gap = gap.max(now - last);
            last = now;
            anyhow::ensure!(result? == index as u64, "result {index} is wrong");
            anyhow::ensure!(
                !std::mem::replace(&mut seen[index], true),
                "result {index} came twice"
            );
            count += 1;
            if count == tasks / 4 {
                rustix::process::kill_process(victim, rustix::process::Signal::KILL)
                    .context("cannot kill the victim")?;
            }
        }
        anyhow::ensure!(count == tasks, "{count} of {tasks} results came");
        let what = match (arguments.worker, arguments.noop) {
            (false, false) => "kill-leader",
            (false, true) => "kill-leader-noop",
            (true, false) => "kill-worker",
            (true, true) => "kill-worker-noop",
        };
        let line = Line::new("allhands", what, tasks, rep, begun.elapsed());
        line.spread(vec![gap]).print()?;
        gaps.push(gap);
    }
    let sum: Duration = gaps.iter().sum();
    Line::new("allhands", "gap", gaps.len() as u64, 0, sum).spread(gaps).print()
}

fn process(id: u32) -> anyhow::Result<rustix::process::Pid> {
    rustix::process::Pid::from_raw(id.cast_signed()).context("no such process")
}

fn worker(dev: &Dev) -> anyhow::Result<rustix::process::Pid> {
    let processes = dev.processes()?;
    let found = processes.iter().find(|(_, command)| command.contains(" worker "));
    process(found.context("no worker is running")?.0)
}

/// The coordinator process that leads.
fn leader(dev: &Dev) -> anyhow::Result<rustix::process::Pid> {
    let Answer::Status(status) = allhands_cli::ask(&dev.folder(), Question::Status)? else {
        anyhow::bail!("no leader says how the cluster is");
    };
    let flag = format!(" --id {} ", status.leader);
    let processes = dev.processes()?;
    let found = processes.iter().find(|(_, command)| command.contains(&flag));
    process(found.with_context(|| format!("coordinator {} is not running", status.leader))?.0)
}
