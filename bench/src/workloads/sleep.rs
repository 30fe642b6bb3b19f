//! Calls that sleep a millisecond: what remains is the overhead of giving them out.

use std::thread;
use std::time::{Duration, Instant};

use allhands::prelude::*;

use super::warm;
use crate::Arguments;
use crate::cluster::Measured;
use crate::measure::Line;

const NAP: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "sleeping is what is measured")]
fn nap(n: u64) -> u64 {
    thread::sleep(NAP);
    n
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(2_000);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    for rep in 0..arguments.repeats {
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..arguments.workers {
                scope.spawn(|| {
                    (0..tasks / u64::from(arguments.workers)).for_each(|n| {
                        nap(n);
                    })
                });
            }
        });
        Line::new("floor", "sleep", tasks, rep, begun.elapsed()).print()?;

        let begun = Instant::now();
        let results = Parallel::new().on(&measured.cluster).run((0..tasks).map(delayed(nap)))?;
        let took = begun.elapsed();
        anyhow::ensure!(results.iter().copied().eq(0..tasks), "a result is wrong");
        Line::new("allhands", "sleep", tasks, rep, took).print()?;
    }
    Ok(())
}
