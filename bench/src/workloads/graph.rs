//! Executions that depend on each other: chains, a tree, a fan, and tasks that call and wait for others.
//!
//! | `run` | what |
//! |---|---|
//! | `chains` | N tasks in chains of ten; all ends are taken |
//! | `tree` | 2^16 leaves, added in pairs |
//! | `fan` | one task, ten thousand that take its value, one that takes all of theirs |
//! | `chain` | a chain of a thousand: what one edge adds, its median over twenty chains |
//! | `deep` | on one slot, a task that waits for one that waits for one …, ten thousand deep |
//! | `wide` | on one slot, a task with a thousand children that each wait for a child of their own |

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use allhands::prelude::*;
use allhands::{Execution, call};
use anyhow::Context as _;

use super::warm;
use crate::Arguments;
use crate::cluster::Measured;
use crate::measure::Line;

/// Tasks of one chain.
const CHAIN: u64 = 10;
/// Leaves of the tree.
const LEAVES: u64 = 1 << 16;
/// Tasks in the middle of the fan.
const FAN: u64 = 10_000;
/// The chain of which an edge is measured, and how often.
const EDGES: u64 = 1_000;
const LONG_CHAINS: u64 = 20;
/// How deep and how wide tasks wait for others.
const DEPTH: u64 = 10_000;
const WIDTH: u64 = 1_000;

fn start(n: u64) -> u64 {
    n
}

fn step(n: u64) -> u64 {
    n + 1
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn sum(all: Vec<u64>) -> u64 {
    all.iter().sum()
}

#[allhands::task]
fn deep(n: u64) -> Result<u64, allhands::Failure> {
    match n {
        0 => Ok(0),
        n => Ok(deep::submit(n - 1)?.ok()? + 1),
    }
}

#[allhands::task]
fn leaf(n: u64) -> u64 {
    n
}

#[allhands::task]
fn branch(n: u64) -> Result<u64, allhands::Failure> {
    Ok(leaf::submit(n)?.result()?)
}

#[allhands::task]
fn wide(n: u64) -> Result<u64, allhands::Failure> {
    let children = (0..n).map(branch::submit).collect::<Result<Vec<_>, _>>()?;
    let mut sum = 0;
    for child in &children {
        sum += child.ok()?;
    }
    Ok(sum)
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    let cluster = &measured.cluster;
    let tasks = arguments.tasks.unwrap_or(100_000);
    for rep in 0..arguments.repeats {
        let line = |run: &str, n: u64, begun: Instant| Line {
            run: Some(run.into()),
            ..Line::new("allhands", "graph", n, rep, begun.elapsed())
        };
        let begun = Instant::now();
        chains(cluster, tasks / CHAIN, CHAIN)?;
        line("chains", tasks / CHAIN * CHAIN, begun).print()?;
        let begun = Instant::now();
        tree(cluster)?;
        line("tree", 2 * LEAVES - 1, begun).print()?;
        let begun = Instant::now();
        fan(cluster)?;
        line("fan", FAN + 2, begun).print()?;
        let (begun, mut edges) = (Instant::now(), Vec::new());
        for _ in 0..LONG_CHAINS {
            let begun = Instant::now();
            chains(cluster, 1, EDGES)?;
            edges.push(begun.elapsed() / u32::try_from(EDGES)?);
        }
        line("chain", EDGES * LONG_CHAINS, begun).spread(edges).print()?;
        if let Some(python) = &arguments.dask {
            on_dask(python, arguments.workers, tasks, rep)?;
        }
    }
    drop(measured);
    nested(arguments)
}

/// The same on Dask, a tenth as many tasks: it prints its own lines.
fn on_dask(python: &Path, workers: u32, tasks: u64, rep: u32) -> anyhow::Result<()> {
    let sizes = [tasks / 10, LEAVES / 16, FAN / 10, EDGES / 10, workers.into(), rep.into()];
    // Its workers start as copies of a file, which `-c` would not give them.
    let mut script = tempfile::Builder::new().suffix(".py").tempfile()?;
    script.write_all(include_bytes!("../../peers/graph.py"))?;
    let arguments = sizes.iter().map(u64::to_string);
    let ended = Command::new(python).arg(script.path()).args(arguments).status();
    let ended = ended.with_context(|| format!("{} cannot be run", python.display()))?;
    anyhow::ensure!(ended.success(), "{} with dask: {ended}", python.display());
    Ok(())
}

/// `count` chains of `length` tasks each.
fn chains(cluster: &Cluster, count: u64, length: u64) -> anyhow::Result<()> {
    let mut ends = Vec::with_capacity(usize::try_from(count)?);
    for n in 0..count {
        let mut end = cluster.submit(delayed(start)(n))?;
        for _ in 1..length {
            end = cluster.submit(call(step, (&end,)))?;
        }
        ends.push(end);
    }
    for (n, end) in (0..count).zip(ends) {
        anyhow::ensure!(end.result()? == n + length - 1, "chain {n} is wrong");
    }
    Ok(())
}

fn tree(cluster: &Cluster) -> anyhow::Result<()> {
    let leaves = (0..LEAVES).map(|n| cluster.submit(delayed(start)(n)));
    let mut level: Vec<Execution<u64>> = leaves.collect::<allhands::Result<_>>()?;
    while level.len() > 1 {
        let pairs = level.chunks_exact(2);
        level = pairs
            .map(|pair| cluster.submit(call(add, (&pair[0], &pair[1]))))
            .collect::<allhands::Result<_>>()?;
    }
    anyhow::ensure!(level[0].result()? == LEAVES * (LEAVES - 1) / 2, "the tree is wrong");
    Ok(())
}

fn fan(cluster: &Cluster) -> anyhow::Result<()> {
    let root = cluster.submit(delayed(start)(1))?;
    let middle = (0..FAN).map(|_| cluster.submit(call(step, (&root,))));
    let middle: Vec<Execution<u64>> = middle.collect::<allhands::Result<_>>()?;
    let end = cluster.submit(call(sum, (&middle,)))?;
    anyhow::ensure!(end.result()? == 2 * FAN, "the fan is wrong");
    Ok(())
}

/// Tasks that wait for others, on one slot.
fn nested(arguments: &Arguments) -> anyhow::Result<()> {
    let measured = Measured::with_workers(arguments, 1)?;
    warm(&measured, 1)?;
    let begun = Instant::now();
    let depth = measured.cluster.submit(deep::delayed(DEPTH))?.ok()?;
    anyhow::ensure!(depth == DEPTH, "the depth is {depth}");
    let deep = Line::new("allhands", "graph", DEPTH + 1, 0, begun.elapsed());
    Line { run: Some("deep".into()), ..deep }.print()?;
    let begun = Instant::now();
    let sum = measured.cluster.submit(wide::delayed(WIDTH))?.ok()?;
    anyhow::ensure!(sum == WIDTH * (WIDTH - 1) / 2, "the sum is {sum}");
    let wide = Line::new("allhands", "graph", 2 * WIDTH + 1, 0, begun.elapsed());
    Line { run: Some("wide".into()), ..wide }.print()?;
    Ok(())
}
