//! Long results on a cluster of real processes: they stay with the workers that made them, and this program fetches
//! them.

use std::path::PathBuf;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Cluster, RunError};
use serde_json::Value;

use crate::batch::{cluster, connect};
use crate::support::{Dev, eventually, kill_9, output};

/// Of one result: twice what fits a log entry.
const WORDS: usize = 1 << 20;

fn numbers(seed: u64) -> Vec<u64> {
    (0..WORDS as u64).map(|n| n.wrapping_mul(2 * seed + 1)).collect()
}

/// 8 MiB of the first, and a note of the second; a third of them are equal.
fn noted(seed: u64, note: String) -> (Vec<u64>, String) {
    (numbers(seed % 6), note)
}

/// A result that comes in one of the three ways in which one can.
pub(crate) fn long_results_come_from_workers() {
    let dev = cluster();
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster);

    let all = parallel.run((0..9).map(delayed(numbers))).unwrap();
    assert!(all == (0..9).map(numbers).collect::<Vec<_>>());

    let calls = (0..9).map(|n| delayed(noted)(n, format!("note {n}")));
    for (n, result) in parallel.run_iter(calls).enumerate() {
        let n = n as u64;
        assert!(result.unwrap() == (numbers(n % 6), format!("note {n}")));
    }

    // Calls of one task, which share a batch.
    for n in 0..3 {
        assert!(parallel.run([delayed(numbers)(n)]).unwrap() == [numbers(n)]);
    }

    // The identity: the result is the very blob that this program offers.
    let same = |array: Vec<u64>| array;
    let argument = numbers(77);
    assert!(parallel.run([delayed(same)(argument.clone())]).unwrap() == [argument]);

    println!("right");
}

/// The leader ends while results come.
pub(crate) fn long_results_survive_a_leader() {
    let dev = cluster();
    let cluster = connect(&dev);
    let results = Parallel::new().on(&cluster).run_iter((0..16).map(delayed(numbers)));
    let mut count = 0;
    for (n, result) in results.enumerate() {
        assert!(result.unwrap() == numbers(n as u64), "{n}");
        count += 1;
        if count == 3 {
            let leader = eventually("a leader", || dev.leader());
            kill_9(dev.pid(&format!("coordinator-{leader}")));
        }
    }
    assert_eq!(count, 16);
    println!("right");
}

/// As many results that travel in the log as exhaust the credit of a batch, and more.
const SHORT: usize = 30;
const SHORT_BYTES: usize = 900 << 10;

/// One that travels in the log; or, once the file `gate` is there, one that does not.
#[expect(clippy::disallowed_methods, reason = "other processes cannot be waited for")]
fn short_or_long(n: usize, gate: PathBuf) -> Vec<u8> {
    if n < SHORT {
        return vec![u8::try_from(n).unwrap(); SHORT_BYTES];
    }
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    vec![7; 8 << 20]
}

fn json(dev: &Dev, words: &[&str]) -> Value {
    serde_json::from_str(&output(dev.ask(words).arg("--json"))).unwrap()
}

/// Runs a batch whose last result is long, and calls `meanwhile` with the worker that keeps it: when all tasks have
/// ended, and before this program has fetched it.
///
/// This program takes no outcome until then, so that the leader does not send the last one.
fn with_a_result_held_back(
    dev: &Dev,
    cluster: &Cluster,
    meanwhile: impl FnOnce(&str),
) -> Result<Vec<Vec<u8>>, RunError> {
    let gate = dev.dir().join("gate");
    let calls = (0..=SHORT).map(|n| delayed(short_or_long)(n, gate.clone()));
    let batch = Parallel::new().on(cluster).start(calls).unwrap();
    let ended = |tasks: usize| {
        let jobs = json(dev, &["jobs"]);
        (jobs["jobs"][0]["ended"].as_u64()? == tasks as u64).then_some(())
    };
    eventually("all but the last have ended", || ended(SHORT));
    std::fs::write(&gate, "").unwrap();
    eventually("the last has ended", || ended(SHORT + 1));
    let keeper = eventually("somebody is known to keep it", || {
        let blobs = json(dev, &["blobs"]);
        assert!(blobs["blobs"].as_array()?.iter().all(|blob| blob["wanted_by"] == 0));
        Some(blobs["blobs"][0]["workers"][0]["name"].as_str()?.to_owned())
    });
    meanwhile(&keeper);
    batch.wait()
}

pub(crate) fn a_result_whose_worker_is_lost_is_an_error() {
    let dev = cluster();
    let cluster = connect(&dev);
    let error = with_a_result_held_back(&dev, &cluster, |keeper| kill_9(dev.pid(keeper)));
    let error = error.unwrap_err();
    let text = error.to_string();
    for part in ["its result is lost", "no worker has blob", "is lost", "call it again"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(error.retry_can_help());
    let partial = error.partial::<Vec<u8>>();
    assert_eq!(partial.len(), SHORT + 1);
    for (n, result) in partial.into_iter().enumerate() {
        match result {
            Some(result) => assert!(result == vec![u8::try_from(n).unwrap(); SHORT_BYTES], "{n}"),
            None => assert_eq!(n, SHORT),
        }
    }
    // The other worker goes on.
    assert!(Parallel::new().on(&cluster).run([delayed(numbers)(3)]).unwrap() == [numbers(3)]);
    println!("right");
}

pub(crate) fn a_result_outlives_its_workers_process() {
    let dev = cluster();
    let cluster = connect(&dev);
    let mut again = None;
    let results = with_a_result_held_back(&dev, &cluster, |keeper| {
        kill_9(dev.pid(keeper));
        eventually("its loss is noticed", || (dev.workers_ready() == 1).then_some(()));
        again = Some(dev.start_again(keeper));
        eventually("it is back", || (dev.workers_ready() == 2).then_some(()));
    });
    assert!(results.unwrap()[SHORT] == vec![7; 8 << 20]);
    drop(again);
    println!("right");
}
