//! Benchmarks: one JSON line for each repeat, with the workloads and the schema of the peers'
//! benchmarks, and beside each figure the limit that it is compared with, measured in the same run.
//!
//! ```text
//! cargo run --release -p allhands-bench -- noop --tasks 1000000 --repeats 5
//! cargo run --release -p allhands-bench -- noop --coordinators 3 --workers 2
//! ```

mod cluster;
mod hops;
mod measure;
mod nodes;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// A batch of calls that do nothing.
    Noop,
    /// One call after the other, each awaited; beside it a bare round trip over a Unix socket.
    Latency,
    /// Single calls, submitted without waiting.
    Submit,
    /// Factorials of 0..N by a product tree, all returned; beside it rayon in one process.
    Factorial,
    /// Calls that sleep a millisecond; beside it two bare threads that sleep as often.
    Sleep,
    /// From nothing to the first result.
    Startup,
    /// Memory of a coordinator with N queued tasks and no worker.
    Memory,
    /// The core alone, with workers that execute nothing.
    Scheduler,
    /// Means of slices of an array that tasks map; beside it threads of one process.
    Array,
    /// Putting an array into a chunk store; beside it hashing and writing alone.
    Put,
    /// One blob from process to process; beside it bare streams.
    Transfer,
    /// One blob from one process to many.
    Broadcast,
    /// Many processes, each with its own part of one blob.
    Slices,
    /// An array fetched again after one chunk in a hundred has changed.
    Delta,
    /// Executions that depend on, call and wait for each other.
    Graph,
    /// Kills the leader, or a worker, in the middle of a batch and measures the gap in its results.
    Kill,
}

/// The command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "allhands-bench", about = "Benchmarks of allhands, one JSON line a repeat")]
pub(crate) struct Arguments {
    /// What to measure.
    workload: Workload,
    /// How many tasks; each workload has its own default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: Option<u64>,
    /// Workers of the cluster; embedded: executors.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    workers: u32,
    /// Coordinator processes; 0 is the embedded cluster.
    #[arg(long, default_value_t = 0)]
    coordinators: u32,
    /// When the coordinators acknowledge a write.
    #[arg(long, default_value = "disk", value_parser = ["process", "disk"])]
    durability: String,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// `memory`: batches of one task each, instead of one batch.
    #[arg(long)]
    single: bool,
    /// `kill`: a worker instead of the leader.
    #[arg(long)]
    worker: bool,
    /// `kill`: in the middle of calls that do nothing, instead of calls that sleep.
    #[arg(long)]
    noop: bool,
    /// `array`, `put`, `transfer`, `broadcast`, `slices`, `delta`: length of the array in MiB; each has its own default.
    #[arg(long)]
    mib: Option<u64>,
    /// `broadcast`, `slices`: how many processes fetch.
    #[arg(long)]
    nodes: Option<u32>,
    /// `broadcast`: one of them is killed in the middle.
    #[arg(long)]
    kill: bool,
    /// `graph`: a Python that has `dask` and `distributed`, which runs the same graphs after each repeat.
    #[arg(long)]
    dask: Option<PathBuf>,
}

#[allhands::main]
fn main() -> ExitCode {
    // This program is also every process of the cluster that it measures.
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some(cluster::AS_ALLHANDS) => return allhands_cli::main_with(words.into_iter().skip(1)),
        Some(nodes::AS_NODE) => return nodes::be_node(&words[2..]),
        Some(hops::AS_HOP) => return hops::be_hop(&words[2..]),
        Some(measure::AS_PEER) => return measure::be_peer(&words[2..]),
        Some(workloads::startup::AS_FRESH) => return workloads::startup::be_fresh(),
        _ => {}
    }
    let arguments = Arguments::parse();
    match workloads::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            measure::complain(&error);
            ExitCode::FAILURE
        }
    }
}
