//! Calls that are one call, and calls that are of one group, on an embedded cluster. What tasks have done is counted in
//! files, because each may run in another process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tally;

use std::path::Path;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Cause, TaskErrorKind};
use tally::{counted, file, tally};

const LONG: Duration = Duration::from_secs(600);

#[allhands::task(memo)]
fn once(file: &Path, n: u64) -> u64 {
    n * 100 + tally(file)
}

#[allhands::task(memo)]
fn fails_once(file: &Path) -> Result<u64, String> {
    match tally(file) {
        1 => Err("no".into()),
        times => Ok(times),
    }
}

#[allhands::task(memo)]
fn leads(file: &Path) -> Execution<u64> {
    once::submit(file, 7).unwrap()
}

#[allhands::task]
fn asks(file: &Path, _who: u32) -> u64 {
    once::submit(file, 3).unwrap().result().unwrap()
}

#[allhands::task(defer, delay = "1ms")]
fn indexes(file: &Path) -> u64 {
    tally(file)
}

#[allhands::task]
fn count(file: &Path, n: u64) -> u64 {
    n * 100 + tally(file)
}

#[allhands::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Waits for one of the group `late` that will not come.
#[allhands::task]
fn waits(file: &Path) -> bool {
    let late = count::delayed(file, 0).delay(LONG).group("late").submit().unwrap();
    tally(file);
    is_cancelled(&late)
}

fn is_cancelled(execution: &Execution<u64>) -> bool {
    let error = execution.result().unwrap_err();
    matches!(error.kind(), TaskErrorKind::Ended(Cause::Cancelled { .. }))
}

#[allhands::test]
fn equal_calls_of_a_memo_are_one() {
    let (_directory, file) = file();
    let calls: Vec<_> = (0..4).map(|_| once::submit(&*file, 1).unwrap()).collect();
    let sum = add::submit(&calls[2], 1000).unwrap();
    let other = once::submit(&*file, 2).unwrap();
    let values: Vec<_> = calls.iter().map(|call| call.result().unwrap()).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    assert_eq!(sum.result().unwrap(), values[0] + 1000);
    assert_eq!(other.result().unwrap() / 100, 2, "of other arguments");
    let late = once::submit(&*file, 1).unwrap();
    assert_eq!((late.result().unwrap(), counted(&file)), (values[0], 2));
    let apart = count::delayed(&*file, 1).memo().submit().unwrap();
    assert_eq!(apart.result().unwrap(), 103, "of another function");
}

#[allhands::test]
fn tasks_share_what_they_call() {
    let (_directory, file) = file();
    let calls: Vec<_> = (0..8).map(|who| asks::submit(&*file, who).unwrap()).collect();
    let own = once::submit(&*file, 3).unwrap();
    assert!(calls.iter().all(|call| call.result().unwrap() == 301));
    assert_eq!((own.result().unwrap(), counted(&file)), (301, 1));
}

#[allhands::test]
fn a_call_that_failed_is_made_again() {
    let (_directory, file) = file();
    let first = fails_once::submit(&*file).unwrap();
    assert_eq!(first.result().unwrap(), Err("no".into()));
    let [second, third] = [(); 2].map(|()| fails_once::submit(&*file).unwrap());
    assert_eq!((second.result().unwrap(), third.result().unwrap()), (Ok(2), Ok(2)));
}

#[allhands::test]
fn an_execution_that_both_return_is_one() {
    let (_directory, file) = file();
    let [first, second] = [(); 2].map(|()| leads::submit(&*file).unwrap());
    assert_eq!(second.result().unwrap().result().unwrap(), 701);
    assert_eq!(first.flatten().result().unwrap(), second.flatten().result().unwrap());
    assert_eq!(counted(&file), 1);
}

#[allhands::test]
fn a_shared_call_ends_when_nobody_wants_it() {
    let (_directory, file) = file();
    let call = || count::delayed(&*file, 1).memo().delay(Duration::from_millis(300)).submit();
    let [first, second, third] = [(); 3].map(|()| call().unwrap());
    first.cancel();
    third.cancel();
    assert_eq!(second.result().unwrap(), 101);
    let call = || count::delayed(&*file, 2).memo().delay(LONG).submit().unwrap();
    let calls = [(); 3].map(|()| call());
    calls.iter().for_each(|call| _ = call.cancel());
    assert!(calls.iter().all(is_cancelled));
}

#[allhands::test]
fn of_deferred_calls_the_last_runs() {
    let (_directory, file) = file();
    let pause = Duration::from_millis(500);
    let call = |n| count::delayed(&*file, n).delay(pause).defer("index").submit().unwrap();
    let calls: Vec<_> = (1..=5).map(call).collect();
    let other = count::delayed(&*file, 9).defer("other").submit().unwrap();
    assert_eq!(other.result().unwrap() / 100, 9);
    assert!(calls.iter().all(|call| call.result().unwrap() == 502), "the fifth, after the other");
    assert_eq!(counted(&file), 2);
    let calls = [(); 3].map(|()| indexes::delayed(&*file).delay(pause).submit().unwrap());
    assert!(calls.iter().all(|call| call.result().unwrap() == 3));
}

#[allhands::test]
fn a_group_is_cancelled_with_all_that_tasks_have_called_in_it() {
    let (_directory, file) = file();
    let cluster = Cluster::from_env().unwrap();
    let parent = waits::submit(&*file).unwrap();
    while counted(&file) == 0 {
        std::thread::yield_now();
    }
    let call = |n| count::delayed(&*file, n).delay(LONG).group("late");
    let late: Vec<_> = (0..3).map(|n| call(n).submit().unwrap()).collect();
    let more = delayed(|n: u64| n)(1).delay(LONG).group("late").submit().unwrap();
    let other = count::delayed(&*file, 5).group("other").submit().unwrap();
    cluster.cancel_group("late");
    assert!(late.iter().all(is_cancelled) && is_cancelled(&more));
    assert!(parent.result().unwrap());
    assert_eq!(other.result().unwrap(), 502);
    let again = count::delayed(&*file, 6).group("late").submit().unwrap();
    assert_eq!(again.result().unwrap(), 603, "it is another one from then on");
}

#[allhands::test]
fn what_makes_no_sense_is_said() {
    let refused =
        |call: Delayed<u64>| Parallel::new().run([call]).map(drop).unwrap_err().to_string();
    for call in [add::delayed(1, 2).memo(), add::delayed(1, 2).defer("key")] {
        let error = refused(call);
        assert!(error.contains("are of calls that are submitted one by one"), "{error}");
    }
    let inline = Parallel::new().n_jobs(1).run([add::delayed(1, 2).memo()]);
    assert!(inline.unwrap_err().to_string().contains("one by one"));
    assert_eq!(Parallel::new().run([once::delayed("/dev/null", 1)]).unwrap().len(), 1, "it runs");
    let error = refused(add::delayed(1, 2).group(""));
    assert!(error.contains("the name of a group has at least one byte"), "{error}");
    let error = add::delayed(1, 2).group("x".repeat(129)).submit().unwrap_err().to_string();
    assert!(error.contains("at most 128"), "{error}");
    let error = Parallel::new().group("").run([add::delayed(1, 2)]).unwrap_err().to_string();
    assert!(error.contains("the name of a group"), "{error}");
}
