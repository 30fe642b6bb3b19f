//! Executions against a coordinator that runs every task at once.

use std::future::IntoFuture;
use std::sync::mpsc::channel;
use std::time::Duration;

use allhands_common::execution::Need;
use allhands_common::id::{BatchId, ClusterId};

use super::home::Home;
use super::*;
use crate::error::TaskErrorKind;
use crate::parallel::tests::fake::{Manner, cluster, watched};
use crate::{Cause, Parallel, call, delayed};

/// A handle on a task that nobody knows, of a cluster that nobody is connected to.
pub(crate) fn unknown<R>(task: TaskId) -> Execution<R> {
    Execution::of_slot(&Slot::new(Beginning {
        of: Awaited { task, follow: false },
        cluster: ClusterId([1; 16]),
        home: Home::Nowhere,
        function: None,
        returns: None,
        origin: None,
        flattens: false,
        counted: false,
        comes: false,
    }))
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn checked(n: u64) -> Result<u64, String> {
    if n > 9 { Err(format!("{n} is too much")) } else { Ok(n) }
}

fn fails(n: u64) -> u64 {
    panic!("{n} is wrong")
}

fn stuck() -> crate::Cluster {
    cluster(Manner { stuck: true, ..Manner::default() })
}

#[test]
fn two_calls_and_their_sum() {
    let cluster = cluster(Manner::default());
    let one = cluster.submit(delayed(add)(1, 2)).unwrap();
    let other = cluster.submit(delayed(add)(3, 4)).unwrap();
    let sum = cluster.submit(call(add, (&one, &other))).unwrap();
    assert_eq!(sum.result().unwrap(), 10);
    assert_eq!((one.result().unwrap(), other.result().unwrap()), (3, 7));
    assert_eq!((one.poll().unwrap().unwrap(), sum.done()), (3, true));
    assert_ne!(one.id(), other.id());
}

#[test]
fn a_chain_goes_out_without_waiting_in_the_order_of_its_links() {
    let (cluster, told) = watched(Manner::default());
    let mut last = cluster.submit(delayed(add)(0, 0)).unwrap();
    // Of two functions, so that the batches take turns.
    for _ in 0..200 {
        last = cluster.submit(call(add, (&last, 1))).unwrap();
        last = cluster.submit(call(|n: u64| n + 1, (&last,))).unwrap();
    }
    assert_eq!(last.result().unwrap(), 400);
    let told = told.lock().unwrap();
    assert!(told.opened.len() < 20, "{} batches", told.opened.len());
    assert_eq!(told.mentions.len(), 400);
}

#[test]
fn an_error_of_its_own_is_a_value_and_ends_who_wants_the_ok() {
    let cluster = cluster(Manner::default());
    let good = cluster.submit(delayed(checked)(3)).unwrap();
    let bad = cluster.submit(delayed(checked)(30)).unwrap();
    assert_eq!((good.result().unwrap(), good.ok().unwrap()), (Ok(3), 3));
    assert_eq!(bad.result().unwrap(), Err("30 is too much".to_owned()));
    for error in [bad.ok().unwrap_err(), bad.error().unwrap()] {
        assert_eq!(error.downcast::<String>().unwrap(), "30 is too much");
    }
    assert!(good.error().is_none());
    assert_eq!(cluster.submit(call(add, (&good, 1))).unwrap().result().unwrap(), 4);
    let error = cluster.submit(call(add, (&bad, 1))).unwrap().result().unwrap_err();
    let Some(Cause::DependencyFailed { root, .. }) = error.cause() else { panic!("{error}") };
    assert_eq!(*root, bad.id());
    let passed = call(|n: Result<u64, String>| n.is_err(), (&bad,));
    assert!(cluster.submit(passed).unwrap().result().unwrap());
}

#[test]
fn an_error_says_what_was_called() {
    let cluster = cluster(Manner::default());
    let execution = cluster.submit(delayed(fails)(7)).unwrap();
    let error = execution.result().unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("execution {}, ", execution.id())), "{text}");
    assert!(text.contains("fails(") && text.contains("7 is wrong"), "{text}");
    assert_eq!(error.execution(), Some(execution.id()));
    let after = cluster.submit(call(fails, (&execution,))).unwrap();
    let text = after.result().unwrap_err().to_string();
    assert!(text.contains(&format!("fails(execution {})", execution.id())), "{text}");
}

#[test]
fn who_does_not_wait_for_ever_is_told() {
    let cluster = stuck();
    let execution = cluster.submit(delayed(add)(1, 2)).unwrap();
    assert!(execution.poll().is_none() && !execution.done());
    let error = execution.result_timeout(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error.kind(), TaskErrorKind::Overdue { .. }) && error.retry_can_help());
    assert!(execution.cancel());
    let error = execution.result().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::Cancelled { .. })), "{error}");
    assert!(!execution.cancel(), "it has ended");
}

#[test]
fn what_an_execution_leads_to_is_had_in_all_ways() {
    fn leads(to: Execution<u64>) -> Execution<u64> {
        to
    }
    fn may_lead(to: Option<Execution<u64>>) -> Result<Execution<u64>, String> {
        to.ok_or_else(|| "nowhere".to_owned())
    }
    let (cluster, told) = watched(Manner::default());
    let end = cluster.submit(delayed(add)(1, 2)).unwrap();
    let outer = cluster.submit(call(leads, (&end,))).unwrap();
    assert_eq!(outer.result().unwrap().result().unwrap(), 3);
    assert_eq!(outer.clone().flatten().result().unwrap(), 3);
    assert_eq!(cluster.submit(call(add, (&outer, 1))).unwrap().result().unwrap(), 4);
    assert_eq!(cluster.submit(call(add, (&outer.flatten(), 2))).unwrap().result().unwrap(), 5);
    let good = cluster.submit(delayed(may_lead)(Some(end.clone()))).unwrap();
    assert_eq!(good.result().unwrap().unwrap().result().unwrap(), 3);
    assert_eq!(good.flatten().result().unwrap(), 3);
    let bad = cluster.submit(delayed(may_lead)(None)).unwrap().flatten();
    let error = bad.result().unwrap_err();
    assert_eq!(error.downcast::<String>().as_deref(), Some("nowhere"), "{error}");
    let told = told.lock().unwrap();
    assert!(told.mentions.iter().any(|mention| mention.need == Need::Handle));
    assert!(told.awaited.iter().any(|awaited| awaited.follow));
}

#[test]
fn a_batch_is_released_with_the_last_of_its_executions() {
    let (cluster, told) = watched(Manner::default());
    let executions: Vec<_> = (0..10).map(|n| cluster.submit(delayed(add)(n, n)).unwrap()).collect();
    let batch = executions[0].id().batch;
    assert!(executions.iter().all(|execution| execution.id().batch == batch));
    assert_eq!(executions[9].result().unwrap(), 18);
    let kept = executions[4].clone();
    drop(executions);
    let released = || told.lock().unwrap().released.contains(&batch);
    // Sealed after a second without calls; then only the handle is left.
    let sealed = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < sealed {
        assert!(!released());
        std::thread::yield_now();
    }
    assert_eq!(kept.result().unwrap(), 8);
    drop(kept);
    while !released() {
        std::thread::yield_now();
    }
}

#[test]
fn several_are_waited_for() {
    let cluster = stuck();
    let all: Vec<_> = (0..3).map(|n| cluster.submit(delayed(add)(n, n)).unwrap()).collect();
    let soon = Duration::from_millis(10);
    let waited = wait_timeout(&all, Until::First, soon);
    assert_eq!((waited.done.len(), waited.open.len()), (0, 3));
    all[1].cancel();
    assert_eq!(wait(&all, Until::First).done, [1]);
    assert_eq!(wait(&all, Until::FirstError).done, [1]);
    assert_eq!(wait_timeout(&all, Until::All, soon).open, [0, 2]);
    let (first, result) = select(&all, true).unwrap();
    assert!(first == 1 && result.is_err());
    assert_eq!(wait(&all, Until::All).done, [0, 1, 2]);
    assert!(select::<u8>(&[], true).is_none() && wait::<u8>(&[], Until::First).done.is_empty());
}

#[test]
fn all_are_taken_as_they_end() {
    let cluster = cluster(Manner::default());
    let all: Vec<_> = (0..100).map(|n| cluster.submit(delayed(checked)(n)).unwrap()).collect();
    let mut taken: Vec<usize> = as_completed(&all)
        .map(|(place, result)| {
            assert_eq!(result.unwrap().is_ok(), place < 10);
            place
        })
        .collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..100).collect::<Vec<_>>());
    let waited = wait(&all, Until::FirstError);
    assert!(!waited.done.is_empty());
}

#[test]
fn calls_go_out_as_results_are_taken() {
    let (cluster, told) = watched(Manner::default());
    let mut results = cluster.map((0u64..).map(|n| delayed(add)(n, 1)), 5);
    for n in 0..20 {
        assert_eq!(results.next().unwrap().unwrap(), n + 1);
    }
    let given: u32 = told.lock().unwrap().opened.iter().map(|(_, tasks)| tasks).sum();
    assert!((20..=25).contains(&given), "{given}");
    assert_eq!(cluster.map((0..3).map(|n| delayed(add)(n, 0)), 0).count(), 3);
}

#[test]
fn async_code_awaits_them() {
    let cluster = cluster(Manner::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let one = cluster.submit(delayed(add)(1, 2)).unwrap();
        assert_eq!((&one).await.unwrap(), 3);
        let two = cluster.submit(call(add, (&one, 2))).unwrap();
        assert_eq!(one.into_future().await.unwrap() + two.await.unwrap(), 8);
    });
}

#[test]
fn callbacks_run_elsewhere_and_may_wait() {
    let cluster = cluster(Manner::default());
    let (sender, receiver) = channel();
    let one = cluster.submit(delayed(add)(1, 2)).unwrap();
    let inner = cluster.clone();
    one.on_done(move |one| {
        let next = inner.submit(call(add, (&one, 1))).unwrap();
        sender.send(next.result().unwrap()).unwrap();
    });
    assert_eq!(receiver.recv().unwrap(), 4);
    one.on_done(|_| panic!("a callback's own fault"));
    let (sender, receiver) = channel();
    one.on_done(move |one| sender.send(one.id()).unwrap());
    assert_eq!(receiver.recv().unwrap(), one.id(), "the thread goes on");
}

#[test]
fn batches_of_parallel_take_executions() {
    let (cluster, told) = watched(Manner::default());
    let base = cluster.submit(delayed(add)(1, 2)).unwrap();
    let calls = (0..1000).map(|n| call(add, (&base, n)));
    let sums = Parallel::new().on(&cluster).run(calls).unwrap();
    assert_eq!(sums, (3..1003).collect::<Vec<u64>>());
    assert_eq!(told.lock().unwrap().mentions.len(), 1000);
    let inline = Parallel::new().on(&cluster).n_jobs(1);
    assert_eq!(inline.run([call(add, (&base, &base))]).unwrap(), [6]);
    let bad = cluster.submit(delayed(checked)(30)).unwrap();
    let error = inline.run([call(add, (&bad, 1))]).unwrap_err();
    let cause = error.task().unwrap().cause();
    assert!(matches!(cause, Some(Cause::DependencyFailed { .. })), "{error}");
    let leads = Parallel::new().on(&cluster).run([call(|to: Execution<u64>| to, (&base,))]);
    assert_eq!(leads.unwrap()[0].result().unwrap(), 3);
}

#[test]
fn a_handle_of_nowhere_says_so() {
    let task = TaskId { batch: BatchId([1; 16]), index: 0 };
    let text = unknown::<u8>(task).result().unwrap_err().to_string();
    assert!(text.contains("init() was not called") || text.contains("not connected"), "{text}");
    let [here, there] = [cluster(Manner::default()), cluster(Manner::default())];
    let one = here.submit(delayed(add)(1, 2)).unwrap();
    let error = there.submit(call(add, (&one, 1))).unwrap_err().to_string();
    assert!(error.contains(&format!("execution {} is of cluster", one.id())), "{error}");
}

#[test]
fn a_handle_that_was_written_is_found_again() {
    let cluster = cluster(Manner::default());
    let one = cluster.submit(delayed(add)(1, 2)).unwrap();
    let text = serde_json::to_string(&one).unwrap();
    let read: Execution<u64> = serde_json::from_str(&text).unwrap();
    assert_eq!((read.id(), read.result().unwrap()), (one.id(), 3));
    let other: Execution<String> = serde_json::from_str(&text).unwrap();
    let text = other.result().unwrap_err().to_string();
    assert!(text.contains("was read as one of `alloc::string::String`"), "{text}");
    let before = serde_json::to_string(&one).unwrap();
    drop((one, read, other));
    // It stays for as long as the batch is not released: it is asked for again.
    let again: Execution<u64> = serde_json::from_str(&before).unwrap();
    assert_eq!(again.result().unwrap(), 3);
}

#[test]
fn what_a_session_leaves_open_ends_with_it() {
    let cluster = stuck();
    let one = cluster.submit(delayed(add)(1, 2)).unwrap();
    let own = Execution::<u64>::of_slot(&one.slot);
    drop((one, cluster));
    let text = own.result().unwrap_err().to_string();
    assert!(text.contains("cannot be had"), "{text}");
}

#[test]
fn a_long_way_of_origins_is_let_go_of_without_a_deep_stack() {
    let of = Awaited { task: TaskId { batch: BatchId([1; 16]), index: 0 }, follow: false };
    let mut origin = None;
    for _ in 0..200_000 {
        origin = Some(Slot::new(Beginning {
            of,
            cluster: ClusterId::default(),
            home: Home::Nowhere,
            function: None,
            returns: None,
            origin,
            flattens: false,
            counted: false,
            comes: false,
        }));
    }
    drop(origin);
}
