//! When, how often and how long calls run, on an embedded cluster: real executor processes of this test binary. What
//! tasks have done is counted in files, because each may run in another process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tally;

use std::path::Path;
use std::time::{Duration, SystemTime};

use allhands::prelude::*;
use allhands::{Cause, TaskErrorKind};
use serde::{Deserialize, Serialize};
use tally::{counted, file, tally};

const NOW: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Trouble {
    Busy(u32),
    Gone,
}

fn is_busy(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Busy(_))
}

/// Is busy twice, and then gone.
#[allhands::task(retries = 9, when = is_busy, backoff = "1ms")]
fn serve(file: &Path) -> Result<u64, Trouble> {
    match tally(file) {
        tries @ 1..=2 => Err(Trouble::Busy(tries as u32)),
        _ => Err(Trouble::Gone),
    }
}

#[allhands::task(retries = 9, backoff = "1ms")]
fn words(file: &Path) -> Result<u64, String> {
    match tally(file) {
        1 => Err("busy: come again".into()),
        2 => panic!("busy, and in a panic"),
        3 => Err("no".into()),
        tries => Ok(tries),
    }
}

#[allhands::task(recurrent, delay = "5ms", deadline = "1h")]
fn third(file: &Path) -> Option<u64> {
    let round = tally(file);
    (round >= 3).then_some(round * 100)
}

#[allhands::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[allhands::task]
fn count(file: &Path) -> u64 {
    tally(file)
}

#[allhands::task]
fn checked(file: &Path, least: u64) -> Result<Option<u64>, String> {
    match tally(file) {
        13 => Err("thirteen".into()),
        round => Ok(Some(round).filter(|round| *round >= least)),
    }
}

/// Calls the same in each round.
#[allhands::task(recurrent, delay = "5ms")]
fn asks(file: &Path) -> Option<u64> {
    let counted = count::submit(file).unwrap().result().unwrap();
    (counted >= 3).then_some(counted)
}

#[allhands::test]
#[expect(clippy::disallowed_methods, reason = "the call names a moment of that clock")]
fn a_delayed_call_lets_others_go_first() {
    let (_directory, file) = file();
    let late = count::delayed(&*file).delay(Duration::from_secs(2)).submit().unwrap();
    let early = count::submit(&*file).unwrap();
    let later = SystemTime::now() + Duration::from_secs(4);
    let last = count::delayed(&*file).start_at(later).submit().unwrap();
    let past = count::delayed(&*file).start_at(SystemTime::UNIX_EPOCH).submit().unwrap();
    let mut first = [early.result().unwrap(), past.result().unwrap()];
    first.sort_unstable();
    assert_eq!(first, [1, 2]);
    assert_eq!((late.result().unwrap(), last.result().unwrap()), (3, 4));
}

#[allhands::test]
fn a_delayed_call_of_a_task_lets_it_go_on() {
    fn parent(file: std::path::PathBuf) -> u64 {
        let late = count::delayed(&*file).delay(Duration::from_millis(50)).submit().unwrap();
        late.result().unwrap()
    }
    let (_directory, file) = file();
    assert_eq!(delayed(parent)(file).submit().unwrap().result().unwrap(), 1);
}

#[allhands::test]
fn what_a_predicate_on_the_error_refuses_is_not_tried_again() {
    let (_directory, file) = file();
    let error = serve::submit(&*file).unwrap().ok().unwrap_err();
    let TaskErrorKind::Failed(failed) = error.kind() else { panic!("{error}") };
    let _ = failed;
    assert_eq!(error.downcast::<Trouble>(), Some(Trouble::Gone));
    assert_eq!(counted(&file), 3, "twice it was busy");
}

#[allhands::test]
fn a_predicate_on_the_text_judges_panics_too() {
    let (_directory, file) = file();
    let call = words::delayed(&*file).retry_when(|text: &str| text.starts_with("busy"));
    assert_eq!(call.submit().unwrap().result().unwrap(), Err("no".into()));
    assert_eq!(counted(&file), 3);
    std::fs::remove_file(&file).unwrap();
    let call = words::delayed(&*file).retry_when(|text: &str| !text.contains("panic"));
    let error = call.submit().unwrap().result().unwrap_err();
    assert!(matches!(error.kind(), TaskErrorKind::Ended(Cause::Panicked { .. })), "{error}");
    assert_eq!(counted(&file), 2);
    std::fs::remove_file(&file).unwrap();
    // One on the error has nothing to say of a panic: that is an end.
    let call = words::delayed(&*file).retry_when(|_: &String| true);
    assert!(call.submit().unwrap().result().is_err());
    assert_eq!(counted(&file), 2);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(words::submit(&*file).unwrap().result().unwrap(), Ok(4), "without one all are");
}

#[allhands::test]
fn a_predicate_that_panics_says_no() {
    let (_directory, file) = file();
    let call = words::delayed(&*file).retry_when(|_: &str| -> bool { panic!("cannot say") });
    assert_eq!(call.submit().unwrap().result().unwrap(), Err("busy: come again".into()));
    assert_eq!(counted(&file), 1);
}

#[allhands::test]
fn a_recurrent_task_runs_until_it_returns_some() {
    let (_directory, file) = file();
    let third: Execution<u64> = third::submit(&*file).unwrap();
    let sum = add::submit(&third, 1).unwrap();
    assert_eq!((sum.result().unwrap(), third.result().unwrap()), (301, 300));
    assert_eq!(counted(&file), 3);
    assert_eq!(self::third(&file), Some(400), "the function itself is a function");
}

#[allhands::test]
fn a_round_that_fails_ends_it() {
    let (_directory, file) = file();
    let call = || checked::delayed(&*file, 3).delay(NOW).recurrent();
    assert_eq!(call().submit().unwrap().result().unwrap(), Ok(3));
    let call = || checked::delayed(&*file, u64::MAX).delay(NOW).recurrent();
    assert_eq!(call().submit().unwrap().result().unwrap(), Err("thirteen".into()));
    let first: Result<u64, _> = call().deadline(SOON * 10).submit().unwrap().ok();
    let error = first.unwrap_err();
    let passed = |cause: &Cause| matches!(cause, Cause::DeadlinePassed { limit_ms: 200 });
    let TaskErrorKind::Ended(cause) = error.kind() else { panic!("{error}") };
    assert!(passed(cause), "{error}");
}

#[allhands::test]
fn what_a_round_calls_is_called_anew() {
    let (_directory, file) = file();
    assert_eq!(asks::submit(&*file).unwrap().result().unwrap(), 3);
    assert_eq!(counted(&file), 3);
}

#[allhands::test]
fn a_recurrent_task_can_be_cancelled_between_its_rounds() {
    let (_directory, file) = file();
    let execution =
        checked::delayed(&*file, u64::MAX).delay(NOW).retries(99).recurrent().submit().unwrap();
    while counted(&file) < 3 {
        std::thread::yield_now();
    }
    assert!(execution.cancel());
    let error = execution.result().unwrap_err();
    assert!(matches!(error.kind(), TaskErrorKind::Ended(Cause::Cancelled { .. })), "{error}");
}

#[allhands::test]
fn a_call_of_many_has_all_of_that_too() {
    for n_jobs in [1, -1] {
        let (_directory, file) = file();
        let parallel = Parallel::new().n_jobs(n_jobs);
        let calls = || (1..=3).map(|_| checked::delayed(&*file, 5).delay(NOW).recurrent());
        let values = parallel.try_run(calls()).unwrap();
        assert!(values.iter().all(|value| *value >= 5), "{values:?}");
        assert!(counted(&file) >= 7, "two have returned beside the last");
        std::fs::remove_file(&file).unwrap();
        let served = parallel.run([serve::delayed(&*file)]).unwrap();
        assert_eq!((served, counted(&file)), (vec![Err(Trouble::Gone)], 3));
    }
}
