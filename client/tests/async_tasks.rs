//! Tasks that are `async fn`, on an embedded cluster: real executor processes of this test binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tally;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use allhands::prelude::*;
use allhands::{Arg, Cause, Failure, Level, Said, TaskId, Until, as_completed, context, wait};
use futures_util::StreamExt;
use futures_util::future::{join_all, select_all};
use tally::{counted, file, tally};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Threads of one executor, at most, however many tasks wait in it.
const THREADS_MAX: u64 = 64;

fn one_slot() -> Cluster {
    Cluster::embedded().slots(1).start().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test looks now and then")]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Threads of this process.
fn threads() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.unwrap().trim().parse().unwrap()
}

/// Is asked again until the file is there.
#[allhands::task(recurrent, delay = "20ms")]
fn opened(file: &Path) -> Option<u64> {
    file.exists().then_some(1)
}

#[allhands::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// The process, its threads, and a sum.
#[allhands::task]
async fn waits(begun: &Path, gate: Execution<u64>, n: u64) -> Result<(u32, u64, u64), Failure> {
    let child = add::submit(&gate, n)?;
    tally(begun);
    let before = threads();
    let sum = child.await?;
    Ok((std::process::id(), before.max(threads()), sum))
}

#[allhands::test]
fn thousands_wait_in_one_process_and_have_no_thread() {
    const TASKS: u64 = 2_000;
    let cluster = one_slot();
    let (folder, begun) = file();
    let open = folder.path().join("open");
    let gate = cluster.submit(opened::delayed(&open)).unwrap();
    let call = |n| cluster.submit(waits::delayed(&begun, gate.clone(), n)).unwrap();
    let all: Vec<_> = (0..TASKS).map(call).collect();
    until("all begin, one after the other", || counted(&begun) == TASKS);
    std::fs::write(&open, "").unwrap();
    let mut processes = Vec::new();
    for (n, execution) in (0..TASKS).zip(&all) {
        let (process, threads, sum) = execution.ok().unwrap();
        assert_eq!(sum, n + 1);
        assert!(threads < THREADS_MAX, "{threads} threads");
        processes.push(process);
    }
    processes.dedup();
    assert_eq!(processes.len(), 1, "{processes:?}");
    assert_eq!(counted(&begun), TASKS, "none was run twice");
}

/// So deep, and how many threads there were at most.
#[allhands::task]
async fn deep(depth: u64) -> Result<(u64, u64), Failure> {
    if depth == 0 {
        return Ok((0, threads()));
    }
    let (below, most) = deep::submit(depth - 1)?.await??;
    Ok((below + 1, most.max(threads())))
}

#[allhands::test]
fn a_thousand_deep_on_one_slot() {
    let (depth, most) = one_slot().submit(deep::delayed(1000)).unwrap().ok().unwrap();
    assert_eq!(depth, 1000);
    assert!(most < THREADS_MAX, "{most} threads");
}

#[allhands::task]
fn sync_tree(depth: u64) -> Result<u64, Failure> {
    match depth {
        0 => Ok(1),
        _ => Ok(tree::submit(depth - 1)?.ok()? + tree::submit(depth - 1)?.ok()?),
    }
}

/// Calls half of the next level with `await`, the other half as a thread would.
#[allhands::task]
async fn tree(depth: u64) -> Result<u64, Failure> {
    if depth == 0 {
        return Ok(1);
    }
    let (one, other) = (sync_tree::submit(depth - 1)?, tree::submit(depth - 1)?);
    let third = tree::submit(depth - 1)?;
    let sum = other.await?? + one.ok()?;
    wait(std::slice::from_ref(&third), Until::All);
    Ok(sum + third.await??)
}

#[allhands::test]
fn tasks_that_block_and_tasks_that_await_call_each_other() {
    for slots in [1, 2] {
        let cluster = Cluster::embedded().slots(slots).start().unwrap();
        let expected = |depth| (0..depth).fold((1, 1), |(a, s), _| (s + 2 * a, 2 * a)).0;
        let (shallow, deep) = (tree::delayed(1), tree::delayed(6));
        assert_eq!(cluster.submit(shallow).unwrap().ok().unwrap(), expected(1));
        assert_eq!(cluster.submit(deep).unwrap().ok().unwrap(), expected(6));
    }
}

#[allhands::test]
fn many_lanes_of_one_process_go_on_with_each_other_s() {
    let parallel = Parallel::new().prefer(Prefer::Threads).n_jobs(4);
    let sums = parallel.try_run((0..400).map(|n| tree::delayed(n % 4))).unwrap();
    assert_eq!(sums, [1, 3, 8, 22].repeat(100));
}

#[allhands::task]
async fn fails(n: u64) -> u64 {
    let sum = add::submit(n, 1).unwrap().await.unwrap();
    panic!("{sum} is wrong")
}

#[allhands::test]
fn a_panic_after_an_await_is_the_task_s_own() {
    let cluster = one_slot();
    let all: Vec<_> = (0..20).map(|n| cluster.submit(fails::delayed(n)).unwrap()).collect();
    let fine = cluster.submit(deep::delayed(5)).unwrap();
    for (n, execution) in all.iter().enumerate() {
        let error = execution.result().unwrap_err();
        let Some(Cause::Panicked { message, location, .. }) = error.cause() else {
            panic!("{error}")
        };
        assert_eq!(*message, format!("{} is wrong", n + 1));
        assert!(location.contains("async_tasks.rs"), "{location}");
        assert!(error.to_string().contains(&format!("fails(n = {n})")), "{error}");
    }
    assert_eq!(fine.ok().unwrap().0, 5);
}

/// Which process it runs in; says so in the file when it is cancelled.
#[allhands::task]
async fn cancellable(gate: Execution<u64>, begun: &Path, told: PathBuf) -> Result<u32, Failure> {
    tally(begun);
    let waits = async { gate.await };
    tokio::select! {
        biased;
        () = context().cancelled() => { tally(&told); }
        value = waits => { value?; }
    }
    Ok(std::process::id())
}

/// Awaits so many, whatever it is told.
#[allhands::task]
async fn stubborn(gates: Vec<Execution<u64>>, begun: &Path) -> usize {
    tally(begun);
    let mut values = join_all(gates.iter().map(IntoFuture::into_future)).await;
    values.extend(join_all(gates.iter().map(IntoFuture::into_future)).await);
    values.iter().filter(|value| value.is_ok()).count()
}

#[allhands::test]
fn who_is_cancelled_learns_it_and_the_others_go_on() {
    let cluster = one_slot();
    let (folder, begun) = file();
    let (open, told) = (folder.path().join("open"), folder.path().join("told"));
    let gate = cluster.submit(opened::delayed(&open)).unwrap();
    let call = || cluster.submit(cancellable::delayed(gate.clone(), &begun, &told)).unwrap();
    let all: Vec<_> = (0..10).map(|_| call()).collect();
    let gates = vec![gate.clone(); 100];
    let stubborn = cluster.submit(stubborn::delayed(gates, &begun)).unwrap();
    until("all begin", || counted(&begun) == 11);
    for execution in all[..5].iter() {
        assert!(execution.cancel());
    }
    assert!(stubborn.cancel());
    for error in all[..5].iter().map(|execution| execution.result().unwrap_err()) {
        assert!(matches!(error.cause(), Some(Cause::Cancelled { .. })), "{error}");
    }
    assert!(matches!(stubborn.result().unwrap_err().cause(), Some(Cause::Cancelled { .. })));
    until("five are told", || counted(&told) == 5);
    std::fs::write(&open, "").unwrap();
    let mut processes: Vec<u32> = all[5..].iter().map(|left| left.ok().unwrap()).collect();
    processes.dedup();
    assert_eq!(processes.len(), 1);
    assert_eq!(counted(&begun), 11, "nobody had to be run again");
}

/// Awaits it and then takes so long.
#[allhands::task(timeout = "400ms")]
async fn timed(gate: Execution<u64>, ms: u64) -> Result<u64, Failure> {
    let left = || context().deadline().unwrap().saturating_duration_since(Instant::now());
    let before = left();
    let value = gate.await?;
    // The time that it waited does not count.
    assert!(before - left() < Duration::from_millis(300), "{before:?}, {:?}", left());
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(value)
}

#[allhands::test]
fn time_that_is_waited_for_others_does_not_count() {
    let cluster = one_slot();
    let gate = cluster.submit(add::delayed(1, 2).delay(Duration::from_secs(1))).unwrap();
    let short = cluster.submit(timed::delayed(gate.clone(), 1)).unwrap();
    let long = cluster.submit(timed::delayed(gate, 60_000)).unwrap();
    assert_eq!(short.ok().unwrap(), 3);
    let error = long.ok().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::TimedOut { .. })), "{error}");
}

/// As they come, all together, and the first.
#[allhands::task]
async fn several(count: u64) -> Result<(u64, u64, u64), Failure> {
    let calls = || (0..count).map(|n| add::submit(n, 1)).collect::<Result<Vec<_>, _>>();
    let all = calls()?;
    let mut sum = 0;
    let mut come = as_completed(&all);
    while let Some((_, result)) = StreamExt::next(&mut come).await {
        sum += result?;
    }
    let again = calls()?;
    let together = join_all(again.into_iter().map(IntoFuture::into_future))
        .await
        .into_iter()
        .sum::<Result<u64, _>>()?;
    let race = [add::delayed(0, 0).delay(PATIENCE).submit()?, add::submit(0, 1)?];
    let (first, place, _) = select_all(race.iter().map(IntoFuture::into_future)).await;
    race[1 - place].cancel();
    Ok((sum, together, first?))
}

#[allhands::test]
fn several_are_awaited_at_once() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let all: Vec<_> =
        (1..5).map(|count| cluster.submit(several::delayed(count * 20)).unwrap()).collect();
    for (count, execution) in (1u64..5).map(|count| count * 20).zip(all) {
        let sum = count * (count + 1) / 2;
        assert_eq!(execution.ok().unwrap(), (sum, sum, 1));
    }
}

/// Itself, as it sees itself before and after it has waited.
#[allhands::task]
async fn looks(n: u64) -> Result<(Vec<Option<TaskId>>, Vec<Option<String>>, Vec<TaskId>), Failure> {
    let (mut tasks, mut keys, mut children) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..4 {
        tasks.push(context().task());
        keys.push(context().idempotency_key());
        // The same call each time: each is another child.
        let child = add::submit(n, 1)?;
        children.push(child.id());
        assert_eq!(child.await?, n + 1);
        context().log(Level::Info, format!("round {round}"), &[]);
    }
    Ok((tasks, keys, children))
}

#[allhands::test]
fn a_task_knows_itself_in_whichever_thread_it_goes_on() {
    let cluster = Cluster::from_env().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    cluster.listen(move |note| _ = tell.send(note)).unwrap();
    let all: Vec<_> = (0..10).map(|n| looks::submit(n).unwrap()).collect();
    let mut everybody = Vec::new();
    for execution in &all {
        let (tasks, keys, children) = execution.ok().unwrap();
        assert_eq!(tasks, [Some(execution.id()); 4]);
        assert!(keys.iter().all(|key| *key == keys[0] && key.is_some()), "{keys:?}");
        everybody.extend(children);
    }
    let mut lines: BTreeMap<TaskId, Vec<String>> = BTreeMap::new();
    for _ in 0..40 {
        let note = told.recv_timeout(PATIENCE).unwrap();
        let Said::Line(line) = note.said else { panic!("{note:?}") };
        lines.entry(note.task).or_default().push(line.text);
    }
    assert!(lines.values().all(|lines| lines[..] == ["round 0", "round 1", "round 2", "round 3"]));
    assert_eq!(lines.len(), 10, "{lines:?}");
    everybody.sort_unstable();
    everybody.dedup();
    assert_eq!(everybody.len(), 40, "no two of them have the same child");
}

/// What the runtime is for.
#[allhands::task]
async fn runtime(ms: u64) -> Result<(u64, bool, bool), Failure> {
    let nap = Duration::from_millis(ms);
    tokio::time::sleep(nap).await;
    let sum = tokio::spawn(async move {
        tokio::time::sleep(nap).await;
        ms + 1
    });
    let sum = sum.await.unwrap();
    let slow = add::delayed(0, 0).delay(PATIENCE).submit()?;
    let late = tokio::time::timeout(nap, &slow).await.is_err();
    slow.cancel();
    // What is spawned is not the task: that is said, and nothing waits for ever.
    let other = add::submit(1, 2)?;
    let elsewhere = tokio::spawn(async move { other.await }).await.unwrap();
    let (listener, stream) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await;
        (listener, stream)
    };
    assert!(listener.accept().await.is_ok() && stream.is_ok());
    Ok((sum, late, elsewhere.is_err()))
}

#[allhands::test]
fn timers_sockets_and_spawned_tasks_work() {
    let cluster = one_slot();
    let all: Vec<_> = (0..3).map(|_| cluster.submit(runtime::delayed(5)).unwrap()).collect();
    for execution in all {
        assert_eq!(execution.ok().unwrap(), (6, true, true));
    }
}

/// Its future stays with its thread.
#[allhands::task]
async fn stays(n: u64) -> Result<u64, Failure> {
    let kept = Rc::new(n);
    let sum = add::submit(n, 1)?.await?;
    let local = Rc::clone(&kept);
    let more = tokio::task::spawn_local(async move { *local }).await.unwrap();
    Ok(sum + *kept + more)
}

/// What it spawns on its own thread awaits, too, and so does what runs in a runtime of a task that is none.
#[allhands::task]
async fn spawns(n: u64) -> Result<u64, Failure> {
    let kept = Rc::new(add::submit(n, 1)?);
    let local = Rc::clone(&kept);
    let one = tokio::task::spawn_local(async move { (&*local).await });
    let other = add::submit(n, 2)?;
    let other = tokio::spawn(async move { other.await });
    Ok(one.await.unwrap()? + other.await.unwrap()? + (&*kept).await?)
}

#[allhands::task]
fn has_a_runtime(n: u64) -> Result<u64, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let all = (0..n).map(|n| add::submit(n, 1)).collect::<Result<Vec<_>, _>>()?;
    runtime.block_on(async {
        let mut sum = add::submit(n, 1)?.await?;
        let mut come = as_completed(&all);
        while let Some((_, result)) = StreamExt::next(&mut come).await {
            sum += result?;
        }
        Ok(sum)
    })
}

#[allhands::test]
fn an_execution_is_awaited_wherever_a_task_awaits_it() {
    let cluster = one_slot();
    let (spawns, has) = (spawns::delayed(5), has_a_runtime::delayed(5));
    assert_eq!(cluster.submit(spawns).unwrap().ok().unwrap(), 6 + 7 + 6);
    assert_eq!(cluster.submit(has).unwrap().ok().unwrap(), 6 + 15);
}

#[allhands::task]
async fn shows<T: Display + Arg>(value: T) -> String {
    let sum = add::submit(1, 2).unwrap().await.unwrap();
    format!("{value} of {sum}")
}

/// Delays itself.
async fn counts(depth: u64) -> u64 {
    match depth {
        0 => 0,
        _ => delayed(counts)(depth - 1).submit().unwrap().await.unwrap() + 1,
    }
}

#[allhands::test]
fn what_cannot_go_from_thread_to_thread_need_not() {
    let cluster = one_slot();
    let all: Vec<_> = (0..20).map(|n| cluster.submit(stays::delayed(n)).unwrap()).collect();
    for (n, execution) in (0..).zip(all) {
        assert_eq!(execution.ok().unwrap(), 3 * n + 1);
    }
    let shown = cluster.submit(shows::delayed::<u64>(5)).unwrap();
    assert_eq!(shown.result().unwrap(), "5 of 3");
    assert_eq!(cluster.submit(delayed(counts)(20)).unwrap().result().unwrap(), 20);
    let closure = delayed(async |n: u64| add::submit(n, 1).unwrap().await.unwrap());
    assert_eq!(cluster.submit(closure(4)).unwrap().result().unwrap(), 5);
}

/// Ends its process after it has waited, if it is that one.
#[allhands::task]
async fn dies(gate: Execution<u64>, begun: &Path, n: u64) -> Result<u64, Failure> {
    tally(begun);
    let value = gate.await?;
    if n == 7 {
        std::process::abort();
    }
    Ok(n + value)
}

#[allhands::test]
fn the_one_that_ends_its_process_is_named_and_the_others_are_run_again() {
    let cluster = one_slot();
    let (folder, begun) = file();
    let open = folder.path().join("open");
    let gate = cluster.submit(opened::delayed(&open)).unwrap();
    let call = |n| cluster.submit(dies::delayed(gate.clone(), &begun, n)).unwrap();
    let all: Vec<_> = (0..20).map(call).collect();
    until("all begin", || counted(&begun) >= 20);
    std::fs::write(&open, "").unwrap();
    for (n, execution) in (0..).zip(all) {
        match execution.ok() {
            Ok(sum) => assert_eq!(sum, n + 1),
            Err(error) => {
                let died = matches!(error.cause(), Some(Cause::ExecutorDied { .. }));
                assert!(died && n == 7, "{n}: {error}");
            }
        }
    }
}
