//! Executions on an embedded cluster: real executor processes of this test binary.

use std::sync::mpsc::channel;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{
    Cause, Cluster, TaskErrorKind, Until, as_completed, call, select, wait, wait_timeout,
};
use serde::{Deserialize, Serialize};

#[allhands::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[allhands::task]
fn checked(n: u64) -> Result<u64, String> {
    if n > 9 { Err(format!("{n} is too much")) } else { Ok(n) }
}

#[allhands::task]
fn fails(n: u64) -> u64 {
    panic!("{n} is wrong")
}

#[allhands::task]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[allhands::task]
fn numbers(n: u64) -> Vec<f64> {
    (0..n).map(|n| n as f64).collect()
}

#[allhands::task]
#[expect(clippy::disallowed_methods, reason = "the task is to take time")]
fn sleeps(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

#[allhands::test]
fn two_calls_and_their_sum() {
    let (one, other) = (add::submit(1, 2).unwrap(), add::submit(3, 4).unwrap());
    let sum = add::submit(&one, &other).unwrap();
    assert_eq!(sum.result().unwrap(), 10);
    assert_eq!((one.result().unwrap(), other.result().unwrap()), (3, 7));
    assert!(!one.cancel(), "it has ended");
    assert_eq!(delayed(|n: u64| n + 1)(1).submit().unwrap().result().unwrap(), 2);
}

#[allhands::test]
fn a_chain_of_a_thousand() {
    let mut last = add::submit(0, 0).unwrap();
    for _ in 0..1000 {
        last = add::submit(&last, 1).unwrap();
    }
    assert_eq!(last.result().unwrap(), 1000);
}

#[allhands::test]
fn a_tree_and_a_fan() {
    let mut level: Vec<Execution<u64>> = (0..256).map(|n| add::submit(n, 0).unwrap()).collect();
    let all = call(|all: Vec<u64>| all.iter().sum::<u64>(), (&level,)).submit().unwrap();
    while level.len() > 1 {
        level = level.chunks(2).map(|two| add::submit(&two[0], &two[1]).unwrap()).collect();
    }
    assert_eq!((level[0].result().unwrap(), all.result().unwrap()), (255 * 128, 255 * 128));
}

#[allhands::test]
fn errors_reach_those_who_depend() {
    let (good, bad) = (checked::submit(3).unwrap(), checked::submit(30).unwrap());
    assert_eq!((good.ok().unwrap(), good.result().unwrap()), (3, Ok(3)));
    assert_eq!(bad.result().unwrap(), Err("30 is too much".into()));
    assert_eq!(bad.error().unwrap().downcast::<String>().unwrap(), "30 is too much");
    assert_eq!(add::submit(&good, 1).unwrap().result().unwrap(), 4);
    let near = add::submit(&bad, 1).unwrap();
    let far = add::submit(&near, 1).unwrap();
    for error in [near.result().unwrap_err(), far.result().unwrap_err()] {
        let Some(Cause::DependencyFailed { root, .. }) = error.cause() else { panic!("{error}") };
        assert_eq!(*root, bad.id(), "{error}");
    }
    let passed = call(|n: Result<u64, String>| n.unwrap_err(), (&bad,)).submit().unwrap();
    assert_eq!(passed.result().unwrap(), "30 is too much");
    let panicked = fails::submit(7).unwrap();
    let text = panicked.result().unwrap_err().to_string();
    assert!(text.contains("fails(n = 7): panicked at") && text.contains("7 is wrong"), "{text}");
    let error = add::submit(&panicked, 1).unwrap().result().unwrap_err();
    assert!(error.to_string().contains("7 is wrong"), "{error}");
}

#[allhands::test]
fn long_values_stay_where_they_are_until_somebody_asks() {
    let values = numbers::submit(1 << 20).unwrap();
    let expected = ((1u64 << 20) - 1) as f64 / 2.0;
    assert_eq!(mean::submit(&values).unwrap().result().unwrap(), expected);
    assert_eq!(values.result().unwrap().len(), 1 << 20);
    let again = mean::submit(&values).unwrap();
    assert_eq!(again.result().unwrap(), expected, "asking for it takes it from nobody");
    let given = vec![0.5; 1 << 18];
    assert_eq!(mean::submit(&given).unwrap().result().unwrap(), 0.5);
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "kind")]
enum Shape {
    Square { side: f64 },
}

#[allhands::test]
fn values_that_need_names_are_passed_with_them() {
    let shape = delayed(|side: f64| Shape::Square { side })(2.0).submit().unwrap();
    let area = call(|Shape::Square { side }: Shape| side * side, (&shape,)).submit().unwrap();
    assert_eq!(area.result().unwrap(), 4.0);
    let both = call(|all: Vec<Shape>| all.len(), (&vec![shape.clone(), shape],)).submit().unwrap();
    assert_eq!(both.result().unwrap(), 2);
}

#[allhands::test]
fn handles_travel_and_lead_somewhere() {
    let end = add::submit(1, 2).unwrap();
    let outer = call(|to: Execution<u64>| to, (&end,)).submit().unwrap();
    assert_eq!(outer.result().unwrap().id(), end.id());
    assert_eq!(outer.result().unwrap().result().unwrap(), 3);
    assert_eq!(outer.clone().flatten().result().unwrap(), 3);
    assert_eq!(add::submit(&outer, 1).unwrap().result().unwrap(), 4);
    let nested = call(|to: Vec<Option<Execution<u64>>>| to, (vec![None, Some(end.clone())],));
    let nested = nested.submit().unwrap().result().unwrap();
    drop(end);
    assert_eq!(nested[1].as_ref().unwrap().result().unwrap(), 3);
    let chain = (0..20).fold(nested[1].clone().unwrap(), |to, _| {
        call(|to: Execution<u64>| to, (&to,)).submit().unwrap().flatten()
    });
    assert_eq!(chain.result().unwrap(), 3);
    let nowhere = call(|| Err::<Execution<u64>, String>("nowhere".into()), ()).submit().unwrap();
    let error = nowhere.flatten().result().unwrap_err();
    assert_eq!(error.downcast::<String>().unwrap(), "nowhere");
}

#[allhands::test]
fn who_does_not_wait_for_ever_is_told_and_may_cancel() {
    let slow = sleeps::submit(60_000).unwrap();
    let after = add::submit(&slow, 1).unwrap();
    assert!(slow.poll().is_none() && !after.done());
    let error = after.result_timeout(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error.kind(), TaskErrorKind::Overdue { .. }), "{error}");
    assert!(slow.cancel());
    let error = slow.result().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::Cancelled { .. })), "{error}");
    let error = after.result().unwrap_err();
    let Some(Cause::DependencyFailed { root, .. }) = error.cause() else { panic!("{error}") };
    assert_eq!(*root, slow.id());
}

#[allhands::test]
fn several_at_once() {
    let all: Vec<_> = (0..20).map(|n| checked::submit(n).unwrap()).collect();
    let mut taken: Vec<usize> = as_completed(&all).map(|(place, _)| place).collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..20).collect::<Vec<_>>());
    assert_eq!(wait(&all, Until::All).open.len(), 0);
    let race = [sleeps::submit(60_000).unwrap(), sleeps::submit(1).unwrap()];
    assert_eq!(wait_timeout(&race, Until::All, Duration::from_millis(20)).open[0], 0);
    let (first, result) = select(&race, true).unwrap();
    assert_eq!((first, result.unwrap()), (1, 1));
    assert!(race[0].result().is_err());
    let cluster = Cluster::from_env().unwrap();
    let results = cluster.map((0u64..).map(|n| add::delayed(n, 1)), 8);
    assert_eq!(results.take(50).map(Result::unwrap).sum::<u64>(), 50 * 51 / 2);
}

#[allhands::test]
fn nobody_need_wait() {
    let (sender, receiver) = channel();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written");
    let write = |path: std::path::PathBuf| std::fs::write(path, "here").is_ok();
    // Fire and forget: it runs all the same.
    drop(call(write, (&file,)).submit().unwrap());
    let last = add::submit(1, 1).unwrap();
    last.on_done(move |execution| sender.send(execution.result().unwrap()).unwrap());
    assert_eq!(receiver.recv().unwrap(), 2);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !file.exists() && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "here");
}

#[allhands::test]
fn batches_of_parallel_take_executions() {
    let base = add::submit(1, 2).unwrap();
    let sums = Parallel::new().run((0..1000).map(|n| add::delayed(&base, n))).unwrap();
    assert_eq!(sums, (3..1003).collect::<Vec<u64>>());
    let inline = Parallel::new().n_jobs(1).run([add::delayed(&base, &base)]).unwrap();
    assert_eq!(inline, [6]);
    let leads = Parallel::new().run([call(|to: Execution<u64>| to, (&base,))]).unwrap();
    assert_eq!(leads[0].result().unwrap(), 3);
}

#[allhands::test]
fn many_calls_are_pipelined() {
    let all: Vec<_> = (0..20_000).map(|n| add::submit(n, 1).unwrap()).collect();
    let sum: u64 = all.iter().map(|execution| execution.result().unwrap()).sum();
    assert_eq!(sum, (1..=20_000).sum::<u64>());
}

#[allhands::test]
fn async_code_awaits_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let one = add::submit(1, 2).unwrap();
        assert_eq!((&one).await.unwrap(), 3);
        let two = add::submit(&one, 2).unwrap();
        assert_eq!(one.await.unwrap() + two.await.unwrap(), 8);
    });
}
