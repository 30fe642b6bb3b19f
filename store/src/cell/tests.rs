//! The cell under several takers, limits that are lowered under way, and another process.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn twice() -> (Cell, Cell) {
    let ours = Cell::create().unwrap();
    let theirs = Cell::open(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
    (ours, theirs)
}

#[test]
fn a_layout_is_these_bytes() {
    assert_eq!(
        (size_of::<Layout>(), size_of::<Slot>(), size_of::<Lane>()),
        (64 + 32 * 64 + 256 * 64, 64, 64)
    );
    let (cell, other) = twice();
    cell.arm(7, 3);
    assert_eq!(other.take(7, 2, false), Some(0));
    let mut bytes = vec![0; 2304];
    rustix::io::pread(&cell, &mut bytes, 0).unwrap();
    assert_eq!(bytes[..8], *b"AH cell2");
    assert_eq!(bytes[512..520], [1, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(bytes[2240..2256], [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn tasks_are_taken_in_order_up_to_the_limit() {
    let (worker, executor) = twice();
    assert_eq!(executor.take(1, 0, false), None, "nothing is armed");
    worker.arm(1, 3);
    assert_eq!([0; 4].map(|_| executor.take(1, 0, false)), [Some(0), Some(1), Some(2), None]);
    assert_eq!(worker.taken(1), (3, 3));
}

#[test]
fn two_loads_do_not_touch_each_other() {
    let (worker, executor) = twice();
    worker.arm(1, 1);
    worker.arm(2, 2);
    assert_eq!(executor.take(2, 0, false), Some(0));
    assert_eq!(worker.lower(2, |_, _| 0), (1, 2));
    assert_eq!((executor.take(1, 0, false), executor.take(2, 0, false)), (Some(0), None));
}

#[test]
fn a_task_is_given_back_only_before_it_is_taken() {
    let (worker, executor) = twice();
    worker.arm(1, 10);
    executor.take(1, 0, false);
    executor.take(1, 0, false);
    assert_eq!(worker.lower(1, |_, _| 8), (8, 10));
    assert_eq!(worker.lower(1, |_, _| 0), (2, 8));
    assert_eq!(worker.lower(1, |_, _| 5), (2, 2), "a limit never rises");
    assert_eq!(executor.take(1, 0, false), None);
}

#[test]
fn a_lane_says_what_it_runs_and_since_when_if_asked() {
    let (worker, executor) = twice();
    worker.arm(5, 9);
    executor.take(5, 0, false);
    let before = monotonic_us();
    executor.take(5, 3, true);
    let running: Vec<_> = worker.running(4).collect();
    assert_eq!(running[0], Running { sequence: 5, index: 0, started_us: 0 });
    assert_eq!((running[1].sequence, running[1].index), (5, 1));
    assert!(running[1].started_us >= before);
    executor.rest(3);
    assert_eq!(worker.running(4).count(), 1);
}

#[test]
fn under_fire_each_task_is_run_or_given_back_once() {
    const TASKS: u32 = 200_000;
    let (worker, executor) = twice();
    let seen: Vec<AtomicU32> = (0..TASKS).map(|_| AtomicU32::new(0)).collect();
    worker.arm(1, TASKS);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (executor, seen) = (&executor, &seen);
            scope.spawn(move || {
                while let Some(index) = executor.take(1, lane, false) {
                    seen[index as usize].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut keep = TASKS;
        while keep > TASKS / 2 {
            keep -= 97;
            let (first, end) = worker.lower(1, |_, _| keep);
            for index in first..end {
                seen[index as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
}

#[test]
fn another_file_is_refused() {
    let plain = rustix::fs::memfd_create(c"other", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&plain, CELL_BYTES as u64).unwrap();
    assert!(matches!(Cell::open(plain), Err(CellError::NotACell(_))));
    let short = rustix::fs::memfd_create(c"other", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .unwrap();
    rustix::fs::ftruncate(&short, 4096).unwrap();
    rustix::fs::fcntl_add_seals(&short, SealFlags::SHRINK).unwrap();
    assert!(matches!(Cell::open(short), Err(CellError::NotACell(_))));
}

/// The other process is this test again, with the cell as its standard input.
#[test]
fn another_process_takes_from_the_same_cell() {
    const CHILD: &str = "ALLHANDS_CELL_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let cell = Cell::open(io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
        while cell.take(1, 0, false).is_some_and(|index| index < 4) {}
        return;
    }
    let cell = Cell::create().unwrap();
    cell.arm(1, 1000);
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cell::tests::another_process_takes_from_the_same_cell"])
        .env(CHILD, "1")
        .stdin(cell.as_fd().try_clone_to_owned().unwrap())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(cell.taken(1), (5, 1000));
    assert_eq!(cell.running(1).next(), Some(Running { sequence: 1, index: 4, started_us: 0 }));
    assert_eq!(cell.lower(1, |_, _| 0), (5, 1000));
}

/// `cargo test --release -p allhands-store -- --ignored --nocapture ns_per_take`
#[test]
#[ignore = "prints a figure, proves nothing"]
#[expect(clippy::print_stderr, reason = "the figure is the point")]
fn ns_per_take() {
    let (worker, executor) = twice();
    const TASKS: u32 = 20_000_000;
    for timed in [false, true] {
        worker.arm(1, TASKS);
        let start = std::time::Instant::now();
        while executor.take(1, 0, timed).is_some() {}
        eprintln!(
            "timed {timed}: {:.2} ns a take",
            start.elapsed().as_nanos() as f64 / f64::from(TASKS)
        );
    }
}
