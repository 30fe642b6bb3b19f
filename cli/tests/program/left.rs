//! Arrays that tasks leave with their workers, on a cluster of real processes: this program has handles on them, gives
//! them to other tasks, and reads them while processes end.

use std::io::Write as _;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Cause, Failure};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::batch::{cluster, connect};
use crate::support::{Dev, eventually, kill_9, output};

/// Of one array: 8 MiB.
const WORDS: usize = 1 << 20;

fn numbers(seed: u64) -> Vec<u64> {
    (0..WORDS as u64).map(|n| n.wrapping_mul(2 * seed + 1)).collect()
}

fn made(seed: u64) -> Shared<[u64]> {
    allhands::put(&numbers(seed)).unwrap()
}

/// A note, and arrays.
type Noted = (String, Vec<Shared<[u64]>>);

/// The same, in rows, with a note.
fn written(seed: u64) -> Result<Noted, Failure> {
    let mut writer = ArrayWriter::of_rows(&[1024])?;
    for some in numbers(seed).chunks(10_000) {
        writer.push(some)?;
    }
    let array = writer.finish()?;
    Ok((format!("{:?}", array.shape()), vec![array.rows(3..5), array]))
}

fn sum(part: Shared<[u64]>) -> u64 {
    part.iter().fold(0, |sum, n| sum.wrapping_add(*n))
}

fn sum_of(seed: u64) -> u64 {
    numbers(seed).iter().fold(0, |sum, n| sum.wrapping_add(*n))
}

fn blobs(dev: &Dev) -> Vec<Value> {
    let text = output(dev.ask(["blobs", "--json"]).stdin(std::process::Stdio::null()));
    let all: Value = serde_json::from_str(&text).unwrap();
    all["blobs"].as_array().unwrap().clone()
}

/// Workers that have all of each blob that anybody has.
fn holders(dev: &Dev) -> Vec<Vec<String>> {
    let names = |blob: &Value| {
        let workers = blob["workers"].as_array().unwrap().iter();
        workers
            .filter(|w| w["whole"] == true)
            .map(|w| w["name"].as_str().unwrap().to_owned())
            .collect()
    };
    blobs(dev).iter().map(names).collect()
}

/// They come back as handles, from processes and from threads, go on to other tasks, and are read here.
pub(crate) fn arrays_that_tasks_leave_are_read_from_workers() {
    let dev = cluster();
    let cluster = connect(&dev);
    for prefer in [Prefer::Processes, Prefer::Threads] {
        let parallel = Parallel::new().on(&cluster).prefer(prefer);
        let arrays = parallel.run((0..6).map(delayed(made))).unwrap();
        let sums = parallel.run(arrays.iter().cloned().map(delayed(sum))).unwrap();
        assert_eq!(sums, (0..6).map(sum_of).collect::<Vec<_>>());
        for (seed, array) in (0..).zip(&arrays) {
            assert_eq!(array.slice(7..9)[..], numbers(seed)[7..9]);
            assert!(**array == numbers(seed)[..], "{seed}");
        }
        for (seed, result) in (6..9).zip(parallel.run_iter((6..9).map(delayed(written)))) {
            let (shape, arrays) = result.unwrap().unwrap();
            assert_eq!((shape.as_str(), arrays[0].shape()), ("[1024, 1024]", vec![2, 1024]));
            assert!(arrays[0][..] == numbers(seed)[3 * 1024..5 * 1024]);
            assert!(*arrays[1] == numbers(seed)[..]);
        }
    }
    // Written here, read there.
    let mut writer = ArrayWriter::<u8>::of_rows_on(&cluster, &[]).unwrap();
    (0..100_000).for_each(|n| writeln!(writer, "{n}").unwrap());
    let lines = |text: Shared<[u8]>| text.iter().filter(|byte| **byte == b'\n').count();
    let text = writer.finish().unwrap();
    assert_eq!(Parallel::new().on(&cluster).map([text], lines).unwrap(), [100_000]);
    println!("right");
}

/// Handles hold what they name, however long their call is over and whoever leads; without them it goes.
pub(crate) fn arrays_that_tasks_leave_outlive_their_call_and_a_leader() {
    let dev = cluster();
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster);
    let mut arrays = Vec::new();
    for (n, array) in parallel.run_iter((0..8).map(delayed(made))).enumerate() {
        arrays.push(array.unwrap());
        if n == 3 {
            let leader = eventually("a leader", || dev.leader());
            kill_9(dev.pid(&format!("coordinator-{leader}")));
        }
    }
    let jobs = || serde_json::from_str::<Value>(&output(&mut dev.ask(["jobs", "--json"]))).unwrap();
    eventually("the call is forgotten", || (jobs()["jobs"][0]["batches_total"] == 0).then_some(()));
    for (seed, array) in (0..).zip(&arrays) {
        assert!(**array == numbers(seed)[..], "{seed}");
    }
    let sums = parallel.run(arrays.into_iter().map(delayed(sum))).unwrap();
    assert_eq!(sums, (0..8).map(sum_of).collect::<Vec<_>>());
    println!("right");
}

/// Of two holders one is killed, and then the other's place is taken as well.
pub(crate) fn an_array_with_two_holders_survives_one() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "3", "--slots", "1"]);
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster).replicas(2);
    let arrays = parallel.run((0..3).map(delayed(made))).unwrap();
    let two_each = || {
        let holders = holders(&dev);
        let alive = |names: &Vec<String>| names.len() >= 2;
        (holders.len() == 3 && holders.iter().all(alive)).then_some(holders)
    };
    let before = eventually("each has two holders", two_each);
    kill_9(dev.pid(&before[0][0]));
    eventually("its loss is noticed", || (dev.workers_ready() == 2).then_some(()));
    let others = eventually("each has two holders again", || {
        let holders = two_each()?;
        holders.iter().all(|names| !names.contains(&before[0][0])).then_some(holders)
    });
    kill_9(dev.pid(&others[0][0]));
    for (seed, array) in (0..).zip(&arrays) {
        assert!(**array == numbers(seed)[..], "{seed}");
    }
    println!("right");
}

/// The only holder is told to stop: the other worker has its arrays before it is gone.
pub(crate) fn a_worker_that_is_drained_hands_its_arrays_on() {
    let dev = cluster();
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster);
    let arrays = parallel.run((0..4).map(delayed(made))).unwrap();
    kill_process(dev.pid("worker-1"), Signal::TERM).unwrap();
    eventually("it is gone", || (dev.workers_ready() == 1).then_some(()));
    for (seed, array) in (0..).zip(&arrays) {
        assert!(**array == numbers(seed)[..], "{seed}");
    }
    println!("right");
}

/// Where nobody has it any more, reading it is an error that says so, and not a wait.
pub(crate) fn an_array_whose_worker_is_lost_is_an_error() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "2", "--slots", "1"]);
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster);
    let array = parallel.run([delayed(made)(1)]).unwrap().remove(0);
    assert_eq!(array.slice(3..4)[0], 9);
    let holder = eventually("its holder is known", || holders(&dev).pop()?.pop());
    kill_9(dev.pid(&holder));
    let error = array.slice(WORDS / 2..WORDS).load().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::BlobLost { .. })), "{error}");
    let text = error.to_string();
    for part in ["task 0 of batch", "has left blob", "with worker worker-", "call the task again"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(array.slice(3..4)[0], 9, "what was read is still here");
    // A task that is given it ends of the same cause.
    let error = parallel.run([delayed(sum)(array)]).unwrap_err();
    let cause = error.task().and_then(|task| task.cause().cloned());
    assert!(matches!(cause, Some(Cause::BlobLost { .. })), "{error}");
    assert!(*parallel.run([delayed(made)(2)]).unwrap()[0] == numbers(2)[..]);
    println!("right");
}

/// Together eight times what the store of the worker holds.
const MANY: u64 = 48;
const STORE_BYTES: &str = "50331648";

/// A call whose results are longer than the worker's store, taken slowly in the beginning.
pub(crate) fn results_longer_than_the_store_come() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "1", "--slots", "1"]);
    kill_9(dev.pid("worker-1"));
    eventually("it is gone", || (dev.workers_ready() == 0).then_some(()));
    let (_worker, _) = dev.start_again_as("worker-1", |mut command| {
        command.args(["--store-bytes", STORE_BYTES]);
        command
    });
    let cluster = connect(&dev);
    let results = Parallel::new().on(&cluster).run_iter((0..MANY).map(delayed(numbers)));
    for (seed, result) in (0..).zip(results) {
        assert!(result.unwrap() == numbers(seed), "{seed}");
        if seed < 4 {
            pause();
        }
    }
    let all = Parallel::new().on(&cluster).run((0..MANY / 2).map(delayed(numbers))).unwrap();
    assert!((0..).zip(all).all(|(seed, result)| result == numbers(seed)));
    println!("right");
}

#[expect(clippy::disallowed_methods, reason = "a caller that takes its time")]
fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}
