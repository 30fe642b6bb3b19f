//! Shared arrays on a cluster of real processes: they travel from this program to the workers, and go on to be
//! right while processes end.

use std::sync::Arc;
use std::time::Duration;

use allhands::prelude::*;

use crate::batch::{cluster, connect};
use crate::support::{eventually, kill_9};

const ROWS: usize = 24;
const ROW: usize = 1 << 17;

/// Sum of a part, which takes its time.
#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn sum(part: Shared<[u64]>) -> u64 {
    std::thread::sleep(Duration::from_millis(20));
    part.iter().sum()
}

fn numbers() -> Vec<u64> {
    (0..(ROWS * ROW) as u64).map(|n| n.wrapping_mul(n)).collect()
}

fn sums(numbers: &[u64]) -> Vec<u64> {
    numbers.chunks(ROW).map(|row| row.iter().sum()).collect()
}

/// 24 MiB that are put, and as many in a file where it lies.
pub(crate) fn arrays_travel_to_workers() {
    let dev = cluster();
    let cluster = connect(&dev);
    let numbers = numbers();
    let parallel = Parallel::new().on(&cluster);

    let put = cluster.put(&numbers).unwrap();
    let rows = (0..ROWS).map(|row| put.slice(row * ROW..(row + 1) * ROW));
    assert_eq!(parallel.run(rows.map(delayed(sum))).unwrap(), sums(&numbers));

    let path = dev.dir().join("array");
    let bytes: Vec<u8> = numbers.iter().rev().flat_map(|n| n.to_ne_bytes()).collect();
    std::fs::write(&path, &bytes).unwrap();
    let opened = Shared::<[u64]>::open(&path).unwrap().reshape(&[ROWS, ROW]).unwrap();
    let rows = (0..ROWS).map(|row| opened.rows(row..row + 1));
    let reversed: Vec<u64> = numbers.iter().rev().copied().collect();
    assert_eq!(parallel.run(rows.map(delayed(sum))).unwrap(), sums(&reversed));

    let carried = Arc::new(numbers);
    let at = |array: Arc<Vec<u64>>, at: usize| array[at];
    let calls = (0..500).map(|n| delayed(at)(Arc::clone(&carried), n * 1000));
    let expected: Vec<u64> = (0..500).map(|n| carried[n * 1000]).collect();
    assert_eq!(parallel.run(calls).unwrap(), expected);
    println!("right");
}

/// The leader ends, then a worker that others fetch from.
pub(crate) fn arrays_survive_a_leader_and_a_worker() {
    let dev = cluster();
    let cluster = connect(&dev);
    let numbers = numbers();
    let put = cluster.put(&numbers).unwrap();
    let calls = (0..4 * ROWS).map(|row| {
        let row = row % ROWS;
        delayed(sum)(put.slice(row * ROW..(row + 1) * ROW))
    });
    let results = Parallel::new().on(&cluster).run_iter(calls);
    let mut found = Vec::new();
    for result in results {
        found.push(result.unwrap());
        match found.len() {
            10 => {
                let leader = eventually("a leader", || dev.leader());
                kill_9(dev.pid(&format!("coordinator-{leader}")));
            }
            40 => kill_9(dev.pid("worker-1")),
            _ => {}
        }
    }
    assert_eq!(found, sums(&numbers).repeat(4));
    println!("right");
}

/// What a handle names is what the file was when it was opened, or an error.
pub(crate) fn a_file_that_changes_before_it_travels_is_noticed() {
    let dev = cluster();
    let cluster = connect(&dev);
    let path = dev.dir().join("array");
    std::fs::write(&path, vec![1u8; ROW * 8]).unwrap();
    let opened = Shared::<[u64]>::open(&path).unwrap();
    let parallel = Parallel::new().on(&cluster);
    assert_eq!(parallel.run([delayed(sum)(opened.slice(0..1))]).unwrap(), [0x0101_0101_0101_0101]);
    // Of the same length, with other bytes.
    std::fs::write(&path, vec![2u8; ROW * 8]).unwrap();
    let error = parallel.run([delayed(sum)(opened.slice(ROW - 1..ROW))]).unwrap_err().to_string();
    assert!(error.contains("was changed after it was opened"), "{error}");
    println!("right");
}
