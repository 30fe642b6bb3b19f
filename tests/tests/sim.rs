//! A few hundred simulated clusters, in-process; `--bin sim` runs as many as you like.

use allhands_tests::sim;

/// Clusters that the gate simulates, each twice.
const SEEDS: u64 = 200;

/// Threads that share them.
const THREADS: usize = 4;

#[test]
fn no_seed_breaks_a_rule_and_each_runs_twice_alike() {
    let of_thread = |first: u64| {
        let mut stats = sim::Stats::default();
        for seed in (first..SEEDS).step_by(THREADS) {
            let outcome = sim::run_twice(seed);
            assert_eq!(outcome.violation, None, "seed {seed}: see tests/README.md");
            stats.merge(&outcome.stats);
        }
        stats
    };
    let mut stats = sim::Stats::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS as u64).map(|first| scope.spawn(move || of_thread(first))).collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => stats.merge(&part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    // A simulator that breaks nothing proves nothing.
    for fault in [
        "fault: worker crashes",
        "fault: worker pauses",
        "fault: worker connections cut",
        "fault: workers told to stop",
        "fault: leader changes",
        "fault: proposals lost with their leader",
        "fault: proposals committed by the next leader",
        "fault: client connections cut",
        "fault: clients silent",
        "fault: snapshots installed",
        "fault: messages lost",
        "fault: messages repeated",
        "fault: messages overtaken",
        "fault: executors killed by their task",
        "fault: false starts of executors",
        "rounds",
        "tasks that were delayed",
        "calls of tasks",
        "tasks that waited",
        "outcomes awaited by clients",
        "values compared",
        "detached jobs left by their client",
        "detached jobs whose client dies",
        "visits: read to the end",
        "visits: somebody was there",
        "visits: refused for good",
        "visits: died",
        "reads again",
        "tasks read",
    ] {
        assert!(stats.of(fault) > 0, "{fault} never happened");
    }
    assert!(stats.of("tasks delivered") > 50 * SEEDS / 2);
}

#[test]
fn another_seed_is_another_cluster() {
    assert_ne!(sim::run(1, false).trace, sim::run(2, false).trace);
}
