//! A batch that is watched while something happens to its cluster.

use std::fmt;
use std::time::{Duration, Instant};

use allhands::Cluster;
use allhands::prelude::*;

use crate::support::Dev;

/// How long a task takes: a batch lasts about 3 s on two slots.
const NAP: Duration = Duration::from_millis(2);
const TASKS: u64 = 3_000;

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn nap(n: u64) -> u64 {
    std::thread::sleep(NAP);
    n * n
}

/// How the results came.
#[derive(Debug)]
pub(crate) struct Came {
    /// The longest time between two of them.
    pub(crate) gap: Duration,
    whole: Duration,
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TASKS} results in {:.2?}, gap {:.3?}", self.whole, self.gap)
    }
}

/// Three coordinators and two workers.
pub(crate) fn cluster() -> Dev {
    Dev::start(&["--coordinators", "3", "--workers", "2", "--slots", "1"])
}

/// This program's session with it.
pub(crate) fn connect(dev: &Dev) -> Cluster {
    let addresses = std::fs::read_to_string(dev.dir().join("cluster")).unwrap();
    Cluster::connect(addresses.trim(), dev.dir().join("client")).unwrap()
}

/// Runs a batch and does `something` when a quarter of its results are there. All of them must come,
/// once, right, and without an error.
pub(crate) fn all_results_come(dev: &Dev, something: impl FnOnce()) -> Came {
    let cluster = connect(dev);
    // The program is on both workers before anything is measured.
    let warm: Vec<u64> = Parallel::new().on(&cluster).run((0..100).map(delayed(nap))).unwrap();
    assert_eq!(warm[99], 99 * 99);

    let mut something = Some(something);
    let start = Instant::now();
    let (mut last, mut gap) = (start, Duration::ZERO);
    let mut seen = vec![false; usize::try_from(TASKS).unwrap()];
    let results = Parallel::new().on(&cluster).run_unordered((0..TASKS).map(delayed(nap)));
    for (count, (index, result)) in (1..).zip(results) {
        gap = gap.max(last.elapsed());
        last = Instant::now();
        let n = index as u64;
        assert_eq!(result.unwrap(), n * n);
        assert!(!std::mem::replace(&mut seen[index], true), "result {index} came twice");
        if count >= TASKS / 4
            && let Some(something) = something.take()
        {
            something();
        }
    }
    assert!(seen.iter().all(|seen| *seen), "results are missing");
    Came { gap, whole: start.elapsed() }
}
