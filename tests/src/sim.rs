//! Simulator of the core, level 1: whole clusters in virtual time, from a seed.
//!
//! Real: `State` (one a replica), `Dispatcher` (one a leader), `Agent` (one a worker). Simulated: time,
//! the log, the links, executors and their tasks, clients. A seed gives a climate (how often what
//! breaks), a cluster and its clients' work. First everything breaks as the climate says (safety
//! phase), then nothing does any more and, without anybody being restarted, all must end (liveness
//! phase). The oracle knows what ran and what came out, and every rule is checked at every step.
//!
//! `world` has the clock and everybody in it; the other files are who they are named after.

mod client;
mod climate;
mod connection;
mod consensus;
mod executor;
mod graph;
mod leader;
mod oracle;
mod rng;
mod scripts;
mod stats;
mod trace;
mod truth;
mod worker;
mod workload;
mod world;

pub use stats::Stats;

use world::World;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// How, where and when.
    pub what: String,
}

/// What became of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Hash of everything that happened, in order.
    pub trace: u64,
    /// What was done.
    pub stats: Stats,
    /// The first rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Everything that happened, where it was asked for.
    pub lines: Vec<String>,
}

/// Runs the cluster of `seed`; keeps what happens as text where `keep` says so.
pub fn run(seed: u64, keep: bool) -> Outcome {
    let mut world = World::new(seed, keep);
    let violation = world.run().err();
    world.outcome(violation)
}

/// Runs `seed` twice: both runs have to be the same.
pub fn run_twice(seed: u64) -> Outcome {
    let first = run(seed, false);
    let second = run(seed, false);
    if first.violation.is_none() && first.trace != second.trace {
        let what = format!("hashes {:016x} and {:016x}", first.trace, second.trace);
        let violation = Some(Violation { rule: "a seed runs twice alike", what });
        return Outcome { violation, ..first };
    }
    first
}
