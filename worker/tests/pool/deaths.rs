//! Tasks that kill their executor: the right one is named, what had ended is kept.

use allhands::delayed;
use allhands_common::failure::Cause;
use allhands_common::id::ExecutorId;
use allhands_common::policy::Policy;
use allhands_worker::pool::{Environment, ExecutorCommand, Launch};
use rustix::process::{Signal, getpid, kill_process};

use crate::support::{Calls, Death, attempt, calls_with, with_launch, with_pool};

/// Ends the process in the way called so.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "that is what is tested"
)]
fn end(how: String) -> u32 {
    match how.as_str() {
        "exit" => {
            eprintln!("these are my last words");
            std::process::exit(3)
        }
        "abort" => std::process::abort(),
        // The first one meets std's handler, which expects the fault to come again.
        "fault" => loop {
            _ = kill_process(getpid(), Signal::SEGV);
        },
        "overflow" => return deeper(1),
        "loop" => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
    0
}

#[expect(unconditional_recursion, reason = "that is what is tested")]
fn deeper(n: u32) -> u32 {
    std::hint::black_box(deeper(std::hint::black_box(n)) + 1)
}

/// Two harmless tasks, the deadly one, two more; what has ended is on its way before the next starts.
fn deadly(how: &str, timeout_ms: Option<u64>) -> Calls {
    let policy = Policy { idempotent: false, timeout_ms, ..Policy::default() };
    calls_with(["", "", how, "", ""].map(str::to_owned).map(delayed(end)), policy)
}

/// The cause of death, after the checks that are the same for each.
fn death_by(test: &str, how: &str, timeout_ms: Option<u64>, check: impl FnOnce(Cause)) {
    with_pool(test, async |rig| {
        let executor = rig.executor(1).await;
        rig.load(executor, 5, &deadly(how, timeout_ms));
        let Death { outcomes, running, culprit, cause } = rig.death().await;
        assert_eq!(culprit.is_some(), timeout_ms.is_some());
        assert_eq!(outcomes.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(running, [(attempt(5), 2)]);
        check(cause);
        rig.pool.bury(executor);
        let next = rig.executor(2).await;
        rig.load(next, 6, &deadly("", None));
        assert_eq!(rig.finish(6).await.len(), 5);
    });
}

#[test]
fn exit_is_named_with_its_code_and_last_words() {
    death_by("deaths::exit_is_named_with_its_code_and_last_words", "exit", None, |cause| {
        let Cause::ExecutorDied { signal: None, exit: Some(3), stderr_tail, deaths: 1 } = cause
        else {
            panic!("{cause}")
        };
        assert!(stderr_tail.ends_with("these are my last words"), "{stderr_tail}");
    });
}

#[test]
fn abort_is_named() {
    death_by("deaths::abort_is_named", "abort", None, |cause| {
        assert!(matches!(cause, Cause::ExecutorDied { signal: Some(6), .. }), "{cause}");
    });
}

#[test]
fn a_fault_is_named() {
    death_by("deaths::a_fault_is_named", "fault", None, |cause| {
        assert!(matches!(cause, Cause::ExecutorDied { signal: Some(11), .. }), "{cause}");
    });
}

#[test]
fn a_stack_overflow_is_named_and_says_so() {
    death_by("deaths::a_stack_overflow_is_named_and_says_so", "overflow", None, |cause| {
        assert!(cause.to_string().contains("overflowed its stack"), "{cause}");
    });
}

#[test]
fn a_task_that_loops_is_stopped_by_its_timeout() {
    death_by("deaths::a_task_that_loops_is_stopped_by_its_timeout", "loop", Some(50), |cause| {
        assert_eq!(cause, Cause::TimedOut { limit_ms: 50 });
    });
}

#[test]
fn a_cancelled_executor_is_killed_with_that_cause() {
    with_pool("deaths::a_cancelled_executor_is_killed_with_that_cause", async |rig| {
        let executor = rig.executor(1).await;
        rig.load(executor, 1, &deadly("loop", None));
        rig.event().await;
        rig.event().await;
        rig.pool.kill(executor);
        let Death { outcomes, running, cause, .. } = rig.death().await;
        // Whether it had taken the third task yet is its affair.
        assert!(outcomes.is_empty() && (running.is_empty() || running == [(attempt(1), 2)]));
        assert!(matches!(cause, Cause::Cancelled { .. }), "{cause}");
    });
}

#[test]
fn a_program_that_never_enters_is_refused_with_its_exit() {
    let environment = Environment::Inherited;
    let exe = "/bin/false".into();
    let command = ExecutorCommand { exe, args: Vec::new(), environment };
    with_launch(Launch::Own(command), async |rig| {
        rig.spawn(ExecutorId(1), 1);
        let Death { running, cause, .. } = rig.death().await;
        assert!(running.is_empty());
        let text = cause.to_string();
        assert!(text.contains("exited with code 1") && text.contains("had not entered"), "{text}");
        // The agent says so when it gives the program up.
        assert!(!text.contains("cannot run"), "{text}");
    });
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let environment = Environment::Cleared(Vec::new());
    let command = ExecutorCommand { exe: "/no/such/program".into(), args: Vec::new(), environment };
    with_launch(Launch::Own(command), async |rig| {
        rig.spawn(ExecutorId(1), 1);
        let text = rig.death().await.cause.to_string();
        assert!(text.contains("No such file") && !text.contains("cannot run"), "{text}");
    });
}
