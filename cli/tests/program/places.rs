//! Where tasks run that map parts of an array: on the machine that has them.

use allhands::prelude::*;
use rustix::process::Pid;

use crate::batch::{cluster, connect};
use crate::support::Dev;

const SLICES: usize = 16;
const MIB: usize = 1 << 20;
const SLICE_BYTES: usize = 8 * MIB;

fn sum(part: Shared<[u64]>) -> u64 {
    part.iter().fold(0, |sum, one| sum ^ one.rotate_left(7))
}

/// Bytes that a process has written to files: of a worker, the chunks that have come.
fn written_bytes(process: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", process.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}

fn written(dev: &Dev) -> [u64; 2] {
    ["worker-1", "worker-2"].map(|name| written_bytes(dev.pid(name)))
}

/// Each half of an array comes to another worker, and is used there again.
pub(crate) fn tasks_run_where_their_bytes_are() {
    let dev = cluster();
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster).batch_size(1);
    let each = SLICE_BYTES / size_of::<u64>();
    let numbers: Vec<u64> = (0..(SLICES * each) as u64).map(|n| n.wrapping_mul(n)).collect();
    let expected: Vec<u64> = numbers
        .chunks(each)
        .map(|part| part.iter().fold(0, |sum, one| sum ^ one.rotate_left(7)))
        .collect();
    // The program is on both workers.
    parallel.run((0..50u64).map(delayed(|n: u64| n))).unwrap();

    let put = cluster.put(&numbers).unwrap();
    let mut moved = Vec::new();
    for _ in 0..2 {
        let before = written(&dev);
        let slices = (0..SLICES).map(|slice| put.slice(slice * each..(slice + 1) * each));
        assert_eq!(parallel.run(slices.map(delayed(sum))).unwrap(), expected);
        let after = written(&dev);
        moved.push([after[0] - before[0], after[1] - before[1]].map(|bytes| bytes as usize / MIB));
    }
    println!("{moved:?} MiB came to the workers at first, and then");
    let slice = SLICE_BYTES / MIB;
    assert!(moved[0].iter().all(|came| *came >= 2 * slice), "both have worked: {moved:?}");
    // A worker that is held up long enough loses a task to the other one.
    let again: usize = moved[1].iter().sum();
    assert!(again <= 2 * slice, "what is there has travelled again: {moved:?}");
}
