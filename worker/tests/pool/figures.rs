//! Figures, printed; nothing is asserted of them.
//! `cargo test --release -p allhands-worker --test pool -- --ignored --nocapture --test-threads=1 figures`
#![expect(clippy::print_stderr, reason = "the figures are the point")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use allhands::delayed;
use allhands_common::id::ExecutorId;
use allhands_scheduler::ExecutorEvent;

use crate::support::{Rig, calls, with_pool};

fn no_op(n: u64) -> u64 {
    n
}

#[test]
#[ignore = "prints figures, proves nothing"]
fn figures() {
    with_pool("figures::figures", async |rig| {
        let start = Instant::now();
        rig.spawn(ExecutorId(9), 1);
        let _ = rig.event().await;
        eprintln!("spawn to ready, first: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
        let mut best = f64::MAX;
        for number in 10..30 {
            let start = Instant::now();
            rig.executor(number).await;
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        eprintln!("spawn to ready, best of 20: {best:.2} ms");
        for number in 10..30 {
            rig.pool.stop(ExecutorId(number));
            rig.death().await;
        }
        per_task(rig).await;
        round_trips(rig).await;
        ping_pong();
    });
}

async fn per_task(rig: &mut Rig) {
    const TASKS: u32 = 500_000;
    let calls = calls((0..u64::from(TASKS)).map(delayed(no_op)));
    for number in 100..106 {
        rig.load(ExecutorId(9), number, &calls);
        let (start, mut run_us) = (Instant::now(), 0);
        loop {
            match rig.event().await.1 {
                ExecutorEvent::Outcomes { run_us: us, .. } => run_us += us,
                ExecutorEvent::Finished { .. } => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        let all = start.elapsed().as_nanos() as f64 / f64::from(TASKS);
        let inside = run_us as f64 * 1e3 / f64::from(TASKS);
        eprintln!(
            "no-op: {inside:.1} ns a task in the executor, {all:.1} with the way there and back"
        );
    }
}

async fn round_trips(rig: &mut Rig) {
    const ROUNDS: u32 = 20_000;
    let calls = calls([7u64].map(delayed(no_op)));
    for _ in 0..3 {
        let start = Instant::now();
        for number in 0..ROUNDS {
            rig.load(ExecutorId(9), 1000 + number, &calls);
            let _ = rig.event().await;
            let _ = rig.event().await;
        }
        let us = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
        eprintln!("load of one task to its outcome and end: {us:.2} us");
    }
}

/// The same bytes over a bare socket between two threads that block: what the system takes.
fn ping_pong() {
    const ROUNDS: u32 = 20_000;
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(1..) = there.read(&mut bytes) {
            there.write_all(&bytes).unwrap();
        }
    });
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            here.write_all(&[1; 64]).unwrap();
            here.read_exact(&mut [0; 64]).unwrap();
        }
        let us = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
        eprintln!("bare socket ping-pong: {us:.2} us");
    }
    drop(here);
    echo.join().unwrap();
}
