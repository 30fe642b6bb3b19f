//! One call after the other, each awaited; beside it, bare, what the way of a call consists of: `uds`, a
//! round trip between two processes, and `relay`, the same with another thread in between, as a caller has
//! it that does not run the cluster's loop itself; and `hops`, where there are coordinators: the same processes,
//! connections and fsyncs with nothing computed.

use std::time::{Duration, Instant};

use allhands::prelude::*;

use super::{noop, warm};
use crate::Arguments;
use crate::cluster::Measured;
use crate::hops::bare_calls;
use crate::measure::{Line, bare_round_trips, relayed_round_trips};

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tasks = arguments.tasks.unwrap_or(1_000);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    let parallel = Parallel::new().on(&measured.cluster);
    for rep in 0..arguments.repeats {
        let bare = bare_round_trips(tasks)?;
        let sum: Duration = bare.iter().sum();
        Line::new("uds", "latency", tasks, rep, sum).spread(bare).print()?;
        let relayed = relayed_round_trips(tasks)?;
        let sum: Duration = relayed.iter().sum();
        Line::new("relay", "latency", tasks, rep, sum).spread(relayed).print()?;
        if arguments.coordinators > 1 {
            let hops = bare_calls(tasks)?;
            let sum: Duration = hops.iter().sum();
            Line::new("hops", "latency", tasks, rep, sum).spread(hops).print()?;
        }

        let mut times = Vec::with_capacity(usize::try_from(tasks)?);
        for n in 0..tasks {
            let begun = Instant::now();
            let result = parallel.run([delayed(noop)(n)])?;
            times.push(begun.elapsed());
            anyhow::ensure!(result == [n], "a result is wrong");
        }
        let sum: Duration = times.iter().sum();
        Line::new("allhands", "latency", tasks, rep, sum).spread(times).print()?;
    }
    Ok(())
}
