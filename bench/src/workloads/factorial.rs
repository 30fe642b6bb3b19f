//! Factorials by a product tree: work of very different length, and 70 MB of results.

use std::time::Instant;

use allhands::prelude::*;
use num_bigint::BigUint;
use rayon::prelude::*;

use super::warm;
use crate::Arguments;
use crate::cluster::Measured;
use crate::measure::Line;

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

fn factorial(n: u64) -> BigUint {
    product(1, n)
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(10_000);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    let threads = usize::try_from(arguments.workers)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    for rep in 0..arguments.repeats {
        let begun = Instant::now();
        let expected: Vec<BigUint> =
            pool.install(|| (0..tasks).into_par_iter().map(factorial).collect());
        Line::new("rayon", "factorial", tasks, rep, begun.elapsed()).print()?;

        let begun = Instant::now();
        let results =
            Parallel::new().on(&measured.cluster).run((0..tasks).map(delayed(factorial)))?;
        let took = begun.elapsed();
        anyhow::ensure!(results == expected, "a result is wrong");
        let bytes: u64 = results.iter().map(|value| value.bits().div_ceil(8)).sum();
        let mut line = Line::new("allhands", "factorial", tasks, rep, took);
        line.bytes_per_task = Some(bytes as f64 / tasks.max(1) as f64);
        line.bytes_per_s = Some(bytes as f64 / took.as_secs_f64());
        line.print()?;
    }
    Ok(())
}
