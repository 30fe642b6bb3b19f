//! A program on a cluster of three coordinators and two workers, one of which is killed (-9) in the
//! middle of a batch: every result comes, once, right, and without an error.
//!
//! It is a program of its own, and not one of libtest's, because the workers run it as well. Without
//! arguments it is a test; `--rounds N` kills N times and prints the gap each time, which is the longest
//! time between two results. `cargo test -p allhands-cli --test kill -- leader --rounds 20`

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the tests of the command use the rest")]
mod support;

use std::time::{Duration, Instant};

use allhands::Cluster;
use allhands::prelude::*;

use support::{Dev, eventually, kill_9};

/// How long a task takes: a batch lasts about 3 s on two slots.
const NAP: Duration = Duration::from_millis(2);
const TASKS: u64 = 3_000;

/// Most time between two results when the leader dies; see the project's promises, 1.
const LEADER_GAP_MAX: Duration = Duration::from_secs(2);
/// And when a worker dies; promise 5. The other worker goes on meanwhile, so the gap is at the end.
const WORKER_GAP_MAX: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn nap(n: u64) -> u64 {
    std::thread::sleep(NAP);
    n * n
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Worker,
}

impl Victim {
    const ALL: [(&str, Self); 2] =
        [("the_leader_is_killed", Self::Leader), ("a_worker_is_killed", Self::Worker)];

    fn process(self, dev: &Dev) -> String {
        match self {
            Self::Leader => format!("coordinator-{}", eventually("a leader", || dev.leader())),
            Self::Worker => "worker-1".into(),
        }
    }

    fn gap_max(self) -> Duration {
        match self {
            Self::Leader => LEADER_GAP_MAX,
            Self::Worker => WORKER_GAP_MAX,
        }
    }
}

#[allhands::main]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        Victim::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let rounds = words.iter().position(|word| word == "--rounds");
    let rounds = rounds.map_or(1, |at| words[at + 1].parse().unwrap());
    let filter = words.first().filter(|word| !word.starts_with('-'));
    for (name, victim) in Victim::ALL {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            for _ in 0..rounds {
                let (gap, whole) = round(victim);
                println!("{name}: {TASKS} results in {whole:.2?}, gap {gap:.3?}");
                assert!(gap < victim.gap_max(), "{name}: nothing came for {gap:?}");
            }
        }
    }
}

/// The longest time between two results, and that of the whole batch.
fn round(victim: Victim) -> (Duration, Duration) {
    let dev = Dev::start(&["--coordinators", "3", "--workers", "2", "--slots", "1"]);
    let addresses = std::fs::read_to_string(dev.dir().join("cluster")).unwrap();
    let cluster = Cluster::connect(addresses.trim(), dev.dir().join("client")).unwrap();
    // The program is on both workers before anything is measured.
    let warm: Vec<u64> = Parallel::new().on(&cluster).run((0..100).map(delayed(nap))).unwrap();
    assert_eq!(warm[99], 99 * 99);

    let process = victim.process(&dev);
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
        if count == TASKS / 4 {
            kill_9(dev.pid(&process));
        }
    }
    assert!(seen.iter().all(|seen| *seen), "results are missing");
    (gap, start.elapsed())
}
