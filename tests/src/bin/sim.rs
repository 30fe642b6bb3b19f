//! `sim --seeds A..B | --seed N [--trace]`: runs simulated clusters, each twice, and says which rule
//! was broken and how to see it again.
#![expect(clippy::print_stdout, reason = "its report is what it is for")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use allhands_tests::sim::{self, Outcome, Stats};
use clap::Parser;

/// How many seeds broke a rule, and the first of them.
type Broken = (u64, u64, Outcome);

/// Simulates clusters from seeds.
#[derive(Debug, Parser)]
struct Options {
    /// Seeds, as in 0..1000.
    #[arg(long, value_parser = parse_range, default_value = "0..1000")]
    seeds: (u64, u64),
    /// Just this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Do not stop at the first seed that fails: count which rules are broken.
    #[arg(long)]
    all: bool,
    /// Print everything that happens; with --seed.
    #[arg(long)]
    trace: bool,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number"));
    Ok((number(from)?, number(to)?))
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed, options.trace),
        None => many(options.seeds.0, options.seeds.1, options.all),
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let outcome = if trace { sim::run(seed, true) } else { sim::run_twice(seed) };
    outcome.lines.iter().for_each(|line| println!("{line}"));
    print!("{}", outcome.stats);
    println!("trace {:016x}", outcome.trace);
    if report(seed, &outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs the seeds on all cores, up to the first that fails unless `all` are wanted.
fn many(from: u64, to: u64, all_of_them: bool) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let all = Mutex::new((Stats::default(), BTreeMap::<&str, Broken>::new()));
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                return;
            }
            let outcome = sim::run_twice(seed);
            let Ok(mut all) = all.lock() else { return };
            all.0.merge(&outcome.stats);
            if let Some(violation) = &outcome.violation {
                if !all_of_them {
                    next.store(to, Ordering::Relaxed);
                }
                let broken =
                    all.1.entry(violation.rule).or_insert_with(|| (0, seed, outcome.clone()));
                broken.0 += 1;
                if seed < broken.1 {
                    (broken.1, broken.2) = (seed, outcome);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores).for_each(|_| {
            scope.spawn(run);
        });
    });
    let Ok((stats, failed)) = all.into_inner() else { return ExitCode::FAILURE };
    print!("{stats}");
    let (seconds, seeds) = (began.elapsed().as_secs_f64(), to - from);
    for (count, seed, outcome) in failed.values() {
        report(*seed, outcome);
        println!("  {count} seeds");
    }
    if !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("{seeds} seeds, each twice, in {seconds:.1} s: {:.0} seeds/s", seeds as f64 / seconds);
    ExitCode::SUCCESS
}

/// Says what was broken; whether anything was.
fn report(seed: u64, outcome: &Outcome) -> bool {
    let Some(violation) = &outcome.violation else { return false };
    println!("seed {seed} BROKEN: {}\n  {}", violation.rule, violation.what);
    println!("  cargo run --release -p allhands-tests --bin sim -- --seed {seed} --trace");
    true
}
