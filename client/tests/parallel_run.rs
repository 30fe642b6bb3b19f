//! `Parallel` on an embedded cluster: real executor processes of this test binary.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use allhands::prelude::*;
use allhands::{Cause, Cluster, TryError};

fn square(n: u64) -> u64 {
    n * n
}

fn process_id(_: u32) -> u32 {
    std::process::id()
}

fn panics_at_five(n: u64) -> u64 {
    assert!(n != 5, "five is too much");
    n
}

fn even(n: u64) -> Result<u64, String> {
    if n.is_multiple_of(2) { Ok(n) } else { Err(format!("{n} is odd")) }
}

#[expect(clippy::disallowed_methods, reason = "the task is to take time")]
fn sleeps(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::print_stderr,
    reason = "the task is to die, and to say something before"
)]
fn dies(n: u64) -> u64 {
    if n == 2 {
        eprintln!("these are my last words");
        std::process::exit(3);
    }
    n
}

#[allhands::test]
fn results_in_order_from_other_processes() {
    let parallel = Parallel::new();
    let squares = parallel.run((0..10_000).map(delayed(square))).unwrap();
    assert_eq!(squares, (0..10_000).map(square).collect::<Vec<_>>());
    let ids = parallel.run((0..200).map(delayed(process_id))).unwrap();
    assert!(!ids.contains(&std::process::id()));
    // Warm between calls: the second finds the executors of the first.
    let again: BTreeSet<u32> =
        parallel.run((0..200).map(delayed(process_id))).unwrap().into_iter().collect();
    let slots = Cluster::from_env().unwrap().slots() as usize;
    let all: BTreeSet<u32> = ids.into_iter().chain(again).collect();
    assert!(all.len() <= slots, "{all:?} on {slots} slots");
}

#[allhands::test]
fn a_panic_comes_back_with_its_place_and_the_rest_is_in_the_error() {
    let error = Parallel::new().batch_size(1).run((0..9).map(delayed(panics_at_five))).unwrap_err();
    let task = error.task().unwrap();
    assert_eq!(task.index(), 5);
    let Some(Cause::Panicked { message, location, .. }) = task.cause() else { panic!("{task}") };
    assert_eq!(message, "five is too much");
    assert!(location.contains("parallel_run.rs"), "{location}");
    assert!(task.worker().is_some() && task.attempt().is_some(), "{task}");
    assert!(task.arguments().starts_with("(<8 bytes: 05000000"), "{task}");
    assert_eq!(error.partial::<u64>().len(), 9);

    let all = Parallel::new().run_collect((0..9).map(delayed(panics_at_five))).unwrap();
    assert_eq!(all.iter().filter(|outcome| outcome.is_ok()).count(), 8);
}

#[allhands::test]
fn try_run_stops_at_the_functions_own_error() {
    assert_eq!(Parallel::new().try_run([2, 4].map(delayed(even))).unwrap(), [2, 4]);
    let error = Parallel::new().try_run([2, 3].map(delayed(even))).unwrap_err();
    let TryError::Failed { error, run } = error else { panic!("{error}") };
    assert_eq!((error.as_str(), run.task().unwrap().index()), ("3 is odd", 1));
}

#[allhands::test]
fn a_task_that_kills_its_executor_fails_alone_and_is_named() {
    let outcomes = Parallel::new().run_collect((0..6).map(delayed(dies))).unwrap();
    for (index, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(value) => assert_eq!(value, index),
            Err(error) => {
                assert_eq!(index, 2, "{error}");
                assert!(
                    matches!(error.cause(), Some(Cause::ExecutorDied { exit: Some(3), .. })),
                    "{error}"
                );
                assert!(error.to_string().contains("these are my last words"), "{error}");
            }
        }
    }
}

#[allhands::test]
fn timeout_and_deadline_are_errors_of_their_own() {
    let begun = Instant::now();
    let slow = Parallel::new().timeout(Duration::from_millis(100));
    let error = slow.run([delayed(sleeps)(20_000)]).unwrap_err();
    assert!(
        matches!(error.task().unwrap().cause(), Some(Cause::TimedOut { limit_ms: 100 })),
        "{error}"
    );
    let late = Parallel::new().deadline(Duration::from_millis(200));
    let error = late.run([delayed(sleeps)(20_000)]).unwrap_err();
    assert!(
        matches!(error.task().unwrap().cause(), Some(Cause::DeadlinePassed { limit_ms: 200 })),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[allhands::test]
fn an_endless_iterator_and_its_end() {
    let pulled = Mutex::new(0u64);
    let calls = (0u64..).inspect(|_| *pulled.lock().unwrap() += 1).map(delayed(square));
    let parallel = Parallel::new().pre_dispatch(16);
    let mut results = parallel.run_iter(calls);
    for n in 0..200 {
        assert_eq!(results.next().unwrap().unwrap(), square(n));
        assert!(*pulled.lock().unwrap() <= n + 17);
    }
    drop(results);
    assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]);
}

#[allhands::test]
fn dropping_what_runs_frees_the_slots_at_once() {
    let begun = Instant::now();
    drop(Parallel::new().start((0..50).map(|_| delayed(sleeps)(30_000))).unwrap());
    assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[allhands::test]
fn a_context_travels_once_and_the_environment_with_the_job() {
    let table: Vec<u64> = (0..1000).map(square).collect();
    let found =
        Parallel::new().map_with(table.clone(), 0..1000usize, |table, at| table[at]).unwrap();
    assert_eq!(found, table);
    let said = Parallel::new()
        .env("ALLHANDS_TEST_WORD", "hello")
        .map([0u8], |_| std::env::var("ALLHANDS_TEST_WORD").unwrap_or_default())
        .unwrap();
    assert_eq!(said, ["hello"]);
}

#[allhands::test]
fn results_of_many_megabytes() {
    let lengths = Parallel::new().map([1usize, 3 << 20, 1, 3 << 20], |n| vec![7u8; n]).unwrap();
    assert_eq!(lengths.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3 << 20, 1, 3 << 20]);
    let sum: usize = Parallel::new()
        .run_iter((0..64).map(delayed(|_: u32| vec![1u8; 1 << 20])))
        .map(|result| result.unwrap().len())
        .sum();
    assert_eq!(sum, 64 << 20);
}
