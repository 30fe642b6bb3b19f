//! What comes back from an executor that lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allhands::delayed;
use allhands_common::failure::Cause;
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::segment::{DONE, FAILED};
use allhands_scheduler::{ExecutorEvent, Load};

use crate::support::{Death, attempt, calls, calls_with, cause, note, with_pool};

fn square(n: u64) -> u64 {
    n * n
}

fn half(n: u64) -> Result<u64, String> {
    if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) }
}

fn shout(n: u64) -> u64 {
    assert!(n != 3, "{n} is not to be asked for");
    n
}

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::disallowed_methods, reason = "a task that looks again and again")]
fn waits_for(path: Option<PathBuf>) -> bool {
    let Some(path) = path else { return true };
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[test]
fn values_come_back_in_order() {
    with_pool("outcomes::values_come_back_in_order", async |rig| {
        let executor = rig.executor(1).await;
        let calls = calls((0..1000).map(delayed(square)));
        rig.load(executor, 1, &calls);
        let outcomes = rig.finish(1).await;
        assert_eq!(outcomes.len(), 1000);
        for (index, (tag, string)) in outcomes {
            assert_eq!((tag, number(&string)), (DONE, u64::from(index).pow(2)));
        }
    });
}

#[test]
fn a_load_of_several_segments_and_the_next_one_behind_it() {
    with_pool("outcomes::a_load_of_several_segments_and_the_next_one_behind_it", async |rig| {
        let executor = rig.executor(1).await;
        let (first, second) =
            (calls((0..10).map(delayed(square))), calls((10..30).map(delayed(square))));
        rig.pool.load(
            executor,
            Load {
                attempt: attempt(1),
                shared: Arc::clone(&first.shared),
                range: TaskRange::new(100, 130),
                segments: vec![first.segment, second.segment],
                given: Vec::new(),
                rounds: Vec::new(),
            },
        );
        let next = calls((0..5).map(delayed(half)));
        rig.load(executor, 2, &next);
        let outcomes = rig.finish(1).await;
        assert_eq!(outcomes.len(), 30);
        assert!(
            outcomes
                .iter()
                .all(|(index, (_, string))| { number(string) == u64::from(index - 100).pow(2) })
        );
        assert_eq!(rig.finish(2).await.len(), 5);
    });
}

#[test]
fn an_err_is_a_failed_outcome_that_holds_the_result() {
    with_pool("outcomes::an_err_is_a_failed_outcome_that_holds_the_result", async |rig| {
        let executor = rig.executor(1).await;
        rig.load(executor, 1, &calls((4..6).map(delayed(half))));
        let outcomes = rig.finish(1).await;
        assert_eq!((outcomes[&0].0, outcomes[&1].0), (DONE, FAILED));
        assert!(outcomes[&1].1.ends_with(b"5 is odd"));
    });
}

#[test]
fn a_panic_is_caught_with_its_place_and_its_way() {
    with_pool("outcomes::a_panic_is_caught_with_its_place_and_its_way", async |rig| {
        let executor = rig.executor(1).await;
        rig.load(executor, 1, &calls((0..6).map(delayed(shout))));
        let outcomes = rig.finish(1).await;
        assert_eq!(outcomes.values().filter(|(tag, _)| *tag == DONE).count(), 5);
        let Cause::Panicked { message, location, backtrace } = cause(&outcomes[&3]) else {
            panic!("another cause")
        };
        assert_eq!(message, "3 is not to be asked for");
        assert!(location.contains("tests/pool/outcomes.rs:"), "{location}");
        assert!(backtrace.contains("shout"), "{backtrace}");
        assert!(!backtrace.contains("begin_unwind"), "{backtrace}");
        assert!(!backtrace.contains("allhands::executor"), "{backtrace}");
    });
}

#[test]
fn an_unknown_function_and_a_bad_argument_are_causes_of_their_own() {
    with_pool(
        "outcomes::an_unknown_function_and_a_bad_argument_are_causes_of_their_own",
        async |rig| {
            let executor = rig.executor(1).await;
            let mut unknown = calls((0..2).map(delayed(square)));
            let shared = Arc::make_mut(&mut unknown.shared);
            Arc::make_mut(&mut shared.spec).functions[0].name.offset += 8;
            rig.load(executor, 1, &unknown);
            let outcomes = rig.finish(1).await;
            assert!(matches!(cause(&outcomes[&1]), Cause::Program { .. }));
            // As a text it would be seven bytes long, and nothing follows.
            let mut short = calls((7..8).map(delayed(square)));
            short.shared = calls([delayed(variable)("x".into())]).shared;
            rig.load(executor, 2, &short);
            let Cause::BadArgument { position: 0, .. } = cause(&rig.finish(2).await[&0]) else {
                panic!("another cause")
            };
        },
    );
}

#[test]
fn executors_see_their_job_s_variables_and_their_share_of_the_machine() {
    with_pool(
        "outcomes::executors_see_their_job_s_variables_and_their_share_of_the_machine",
        async |rig| {
            let executor = rig.executor(1).await;
            let names = ["ALLHANDS_TEST_VARIABLE", "RAYON_NUM_THREADS"].map(str::to_owned);
            rig.load(executor, 1, &calls(names.map(delayed(variable))));
            let outcomes = rig.finish(1).await;
            assert!(outcomes[&0].1.ends_with(b"here"));
            assert!(outcomes[&1].1.ends_with(b"1"));
        },
    );
}

/// The second task runs until this test has the first one's outcome.
#[test]
fn an_outcome_does_not_wait_for_a_long_task_behind_it() {
    with_pool("outcomes::an_outcome_does_not_wait_for_a_long_task_behind_it", async |rig| {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        early_outcome(rig, &gate, Policy::default()).await;
    });
}

#[test]
fn what_must_not_run_twice_is_reported_at_once() {
    with_pool("outcomes::what_must_not_run_twice_is_reported_at_once", async |rig| {
        let directory = tempfile::tempdir().unwrap();
        let policy = Policy { idempotent: false, ..Policy::default() };
        early_outcome(rig, &directory.path().join("gate"), policy).await;
    });
}

async fn early_outcome(rig: &mut crate::support::Rig, gate: &Path, policy: Policy) {
    let executor = rig.executor(1).await;
    let paths = [None, Some(gate.to_owned())];
    rig.load(executor, 1, &calls_with(paths.map(delayed(waits_for)), policy));
    let (_, ExecutorEvent::Outcomes { range, segment, .. }) = rig.event().await else {
        panic!("another event")
    };
    assert_eq!(range, TaskRange::new(0, 1));
    std::fs::write(gate, "").unwrap();
    let mut outcomes = rig.finish(1).await;
    note(&mut outcomes, range, segment);
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn an_executor_that_is_told_to_stop_does_and_charges_nobody() {
    with_pool("outcomes::an_executor_that_is_told_to_stop_does_and_charges_nobody", async |rig| {
        let executor = rig.executor(1).await;
        rig.load(executor, 1, &calls((0..3).map(delayed(square))));
        rig.finish(1).await;
        rig.pool.stop(executor);
        let Death { running, cause, .. } = rig.death().await;
        assert!(running.is_empty());
        assert!(matches!(cause, Cause::ExecutorDied { exit: Some(0), .. }), "{cause}");
    });
}
