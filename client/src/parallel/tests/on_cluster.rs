//! The whole client: caller's thread, session's thread, protocol.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allhands_common::policy::BatchSpec;
use allhands_common::range::TaskRange;
use futures_util::StreamExt;

use super::super::call::PART_TASKS_MAX;
use super::fake::{Manner, Told, cluster, watched};
use super::{Odd, even, fails_at_three, square};
use crate::prelude::*;
use crate::{Cause, TryError};

fn cube(n: u64) -> u64 {
    n * n * n
}

#[test]
fn results_in_order_whatever_the_order_of_outcomes() {
    for backwards in [false, true] {
        let cluster = cluster(Manner { backwards, ..Manner::default() });
        let parallel = Parallel::new().on(&cluster);
        for n in [0u64, 1, 2, 1000, 100_000] {
            let expected: Vec<u64> = (0..n).map(square).collect();
            assert_eq!(parallel.run((0..n).map(delayed(square))).unwrap(), expected);
        }
        let iterated: Vec<u64> =
            parallel.run_iter((0..5000).map(delayed(square))).map(Result::unwrap).collect();
        assert_eq!(iterated, (0..5000).map(square).collect::<Vec<_>>());
        let mut unordered: Vec<_> =
            parallel.run_unordered((0..5000).map(delayed(square))).collect();
        unordered.sort_by_key(|(place, _)| *place);
        assert!(
            unordered
                .into_iter()
                .enumerate()
                .all(|(at, (place, value))| { at == place && value.unwrap() == square(at as u64) })
        );
    }
}

#[test]
fn functions_and_policies_of_all_kinds_in_one_call() {
    let cluster = cluster(Manner::default());
    let parallel = Parallel::new().on(&cluster);
    let calls = || {
        (0..900u64).map(|n| match n % 4 {
            0 => delayed(square)(n),
            1 => delayed(cube)(n),
            2 => delayed(square)(n).retries(2),
            _ => delayed(|n: u64| n + 1)(n),
        })
    };
    let expected: Vec<u64> = (0..900)
        .map(|n| match n % 4 {
            0 | 2 => square(n),
            1 => cube(n),
            _ => n + 1,
        })
        .collect();
    assert_eq!(parallel.run(calls()).unwrap(), expected);
    let iterated: Result<Vec<u64>, _> = parallel.run_iter(calls()).collect();
    assert_eq!(iterated.unwrap(), expected);
    assert_eq!(parallel.start(calls()).unwrap().wait().unwrap(), expected);
}

#[test]
fn what_is_said_at_a_call_is_said_of_that_call_alone() {
    let (cluster, told) = watched(Manner::default());
    let timeout = Duration::from_millis(10);
    let plain = |n| delayed(square)(n);
    let calls =
        [plain(1).timeout(timeout), plain(2), plain(3).timeout(timeout), plain(4), plain(5)];
    assert_eq!(Parallel::new().on(&cluster).run(calls).unwrap(), [1, 4, 9, 16, 25]);
    let opened = told.lock().unwrap().opened.clone();
    let parts: Vec<_> =
        opened.iter().map(|(spec, tasks)| (spec.policy.timeout_ms, *tasks)).collect();
    assert_eq!(parts, [(Some(10), 2), (None, 3)]);
}

#[test]
fn calls_of_one_task_share_a_batch() {
    let (cluster, told) = watched(Manner::default());
    let parallel = Parallel::new().on(&cluster);
    let started: Vec<_> =
        (0..5000).map(|n| parallel.start([delayed(square)(n)]).unwrap()).collect();
    let patient = parallel.start([delayed(cube)(3)]).unwrap();
    for (n, batch) in (0..).zip(started) {
        assert_eq!(batch.wait().unwrap(), [square(n)]);
    }
    assert_eq!(patient.wait().unwrap(), [27]);
    // Whatever says nothing about one task makes no difference, and one that fails fails alone.
    let other = parallel.clone().n_jobs(7).fail_after(3);
    assert!(matches!(other.run([delayed(square)(9)]).unwrap()[..], [Ok(81)]));
    assert!(parallel.run([delayed(fails_at_three)(3)]).is_err());
    assert_eq!(parallel.run([delayed(fails_at_three)(4)]).unwrap(), [4]);
    let opened = told.lock().unwrap().opened.clone();
    let tasks: u32 = opened.iter().map(|(_, tasks)| tasks).sum();
    assert_eq!(tasks, 5004);
    let ends_with = |spec: &BatchSpec, what: &str| spec.functions[0].label.ends_with(what);
    let of = |what: &str| opened.iter().filter(|(spec, _)| ends_with(spec, what)).count();
    // A convoy that is long enough is followed by another.
    assert!(of("square") < 50, "{} batches for 5001 calls", of("square"));
    assert_eq!((of("cube"), of("fails_at_three")), (1, 1));
}

#[test]
fn a_call_of_one_task_that_says_how_long_or_where_has_a_batch_of_its_own() {
    let (cluster, told) = watched(Manner::default());
    let parallel = || Parallel::new().on(&cluster);
    for _ in 0..2 {
        let hour = Duration::from_secs(3600);
        assert_eq!(parallel().deadline(hour).run([delayed(square)(2)]).unwrap(), [4]);
        assert_eq!(parallel().prefer(Prefer::Threads).run([delayed(square)(2)]).unwrap(), [4]);
        assert_eq!(parallel().run([delayed(square)(2), delayed(square)(3)]).unwrap(), [4, 9]);
        assert_eq!(parallel().timeout(hour).run([delayed(square)(2)]).unwrap(), [4]);
    }
    let tasks: Vec<_> = told.lock().unwrap().opened.iter().map(|(_, tasks)| *tasks).collect();
    assert_eq!(tasks, [1, 1, 2, 2, 1, 1, 2], "a timeout is a task's own");
}

#[test]
fn calls_of_one_task_and_any_size_share_segments_that_an_entry_holds() {
    let (cluster, told) = watched(Manner::default());
    let parallel = Parallel::new().on(&cluster).max_nbytes(None);
    let length = |bytes: Vec<u8>| bytes.len();
    let sizes = [1, 200 << 10, 3 << 20, 5, 250 << 10, 3 << 20];
    let calls = sizes.map(|size| parallel.start([delayed(length)(vec![0; size])]).unwrap());
    for (call, size) in calls.into_iter().zip(sizes) {
        assert_eq!(call.wait().unwrap(), [size]);
    }
    let longest = told.lock().unwrap().longest;
    assert!(longest <= (3 << 20) + 1024, "a segment of {longest} bytes");
}

#[test]
fn parts_of_one_task_are_no_calls_of_one_task() {
    let (cluster, told) = watched(Manner::default());
    let calls = (1..=4).map(|n| delayed(square)(n).timeout(Duration::from_secs(n)));
    assert_eq!(Parallel::new().on(&cluster).n_jobs(2).run(calls).unwrap(), [1, 4, 9, 16]);
    let caps: Vec<i32> =
        told.lock().unwrap().opened.iter().map(|(spec, _)| spec.policy.n_jobs).collect();
    assert_eq!(caps, [2, 2, 2, 2]);
}

#[test]
fn a_fixed_batch_size_is_given_whole_whatever_the_window() {
    let cluster = cluster(Manner { whole: true, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster).batch_size(1000);
    let results = parallel.run_iter((0..10_500).map(delayed(square)));
    assert!(results.enumerate().all(|(n, result)| result.unwrap() == square(n as u64)));
    // Twice as many bytes as the window holds.
    let length = |bytes: Vec<u8>| bytes.len();
    let large = (0..100).map(|_| delayed(length)(vec![0; 350 << 10]));
    let parallel = Parallel::new().on(&cluster).batch_size(100);
    assert_eq!(parallel.run(large).unwrap(), [350 << 10; 100]);
    let error = parallel.pre_dispatch(99).run([delayed(square)(1)]).unwrap_err();
    assert!(error.to_string().contains("batch_size"), "{error}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "nothing tells when the cluster has heard")]
fn who_drops_a_call_of_one_task_cancels_that_task_alone() {
    let (cluster, told) = watched(Manner { stuck: true, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    let calls = [1, 2, 3].map(|n| parallel.start([delayed(square)(n)]).unwrap());
    let until = |is_so: &dyn Fn(&Told) -> bool| {
        let begun = Instant::now();
        while !is_so(&told.lock().unwrap()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", told.lock().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until(&|told| told.opened.iter().map(|(_, tasks)| tasks).sum::<u32>() == 3);
    let [_first, unwanted, _last] = calls;
    drop(unwanted);
    until(&|told| !told.called_off.is_empty());
    assert_eq!(told.lock().unwrap().called_off, [TaskRange::new(1, 2)]);
}

#[test]
fn a_call_goes_on_in_another_batch_when_one_is_full() {
    let (cluster, told) = watched(Manner { chunk: 1000, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    let most = u64::from(PART_TASKS_MAX);
    let calls = || (0..2 * most + 10).map(delayed(square));
    assert_eq!(parallel.run(calls()).unwrap()[most as usize + 5], square(most + 5));
    let results = parallel.run_iter((0..).map(delayed(square)));
    assert!((0..2 * most).zip(results).all(|(n, result)| result.unwrap() == square(n)));
    let tasks: Vec<_> = told.lock().unwrap().opened.iter().map(|(_, tasks)| *tasks).collect();
    assert_eq!(tasks[..5], [PART_TASKS_MAX, PART_TASKS_MAX, 10, PART_TASKS_MAX, PART_TASKS_MAX]);
}

#[test]
fn a_failure_ends_the_call_and_what_had_finished_is_in_the_error() {
    let cluster = cluster(Manner { chunk: 1, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    let error = parallel.run((0..50_000).map(delayed(fails_at_three))).unwrap_err();
    let task = error.task().unwrap();
    assert_eq!(task.index(), 3, "{error}");
    assert!(matches!(task.cause(), Some(Cause::Panicked { .. })), "{task}");
    assert!(task.arguments().starts_with("(<8 bytes: 03000000"), "{task}");
    assert_eq!(error.partial::<u64>()[..4], [Some(0), Some(1), Some(2), None]);

    let outcomes = parallel.run_collect((0..10).map(delayed(fails_at_three))).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
    let error = parallel.try_run((0..10).map(delayed(even))).unwrap_err();
    assert!(matches!(error, TryError::Failed { error: Odd(1), .. }), "{error}");
    let error = parallel.fail_after(2).run([3, 3, 4].into_iter().map(delayed(fails_at_three)));
    assert!(error.unwrap_err().to_string().starts_with("2 tasks have no value"));
}

#[test]
fn the_context_travels_with_the_batch() {
    let cluster = cluster(Manner::default());
    let parallel = Parallel::new().on(&cluster);
    let table: Vec<u64> = (0..100).map(square).collect();
    let found = parallel.map_with(table.clone(), 0..100usize, |table, at| table[at]).unwrap();
    assert_eq!(found, table);
    let error = parallel.map_with(vec![0u8; 5 << 20], 0..2u8, |_, n| n).unwrap_err();
    assert!(error.to_string().starts_with("the context of `map_with`: 52428"), "{error}");
}

#[test]
fn an_endless_iterator_is_consumed_as_far_as_the_window() {
    let cluster = cluster(Manner::default());
    let pulled = Mutex::new(0usize);
    let calls = (0u64..).inspect(|_| *pulled.lock().unwrap() += 1).map(delayed(square));
    let parallel = Parallel::new().on(&cluster).pre_dispatch(10);
    let mut results = parallel.run_iter(calls);
    for n in 0..100 {
        assert_eq!(results.next().unwrap().unwrap(), square(n));
        assert!(*pulled.lock().unwrap() <= n as usize + 1 + 10);
    }
    drop(results);
    let adaptive = Parallel::new().on(&cluster);
    let many: u64 =
        adaptive.run_iter((0u64..).map(delayed(square))).take(200_000).map(Result::unwrap).sum();
    assert_eq!(many, (0..200_000).map(square).sum::<u64>());
}

#[test]
fn an_iterator_that_blocks_does_not_hold_back_what_it_gave() {
    let cluster = cluster(Manner::default());
    let begun = Instant::now();
    let seen = Mutex::new(None);
    let parallel = Parallel::new().on(&cluster).progress(move |progress| {
        let mut seen = seen.lock().unwrap();
        if progress.done >= 2 && seen.is_none() {
            *seen = Some(());
        }
    });
    // The third call is made only when the first two have ended, which another thread tells.
    let (tell, told) = std::sync::mpsc::channel();
    fn note(path: String) -> u64 {
        std::fs::write(path, "done").unwrap();
        0
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("done").to_str().unwrap().to_owned();
    let watched = path.clone();
    std::thread::spawn(move || {
        while !std::path::Path::new(&watched).exists() {
            std::thread::yield_now();
        }
        tell.send(()).unwrap();
    });
    let calls = [path.clone(), path.clone(), String::new()].into_iter().map(|path| {
        if path.is_empty() {
            told.recv_timeout(Duration::from_secs(5)).unwrap();
            return delayed(note)("/dev/null".into());
        }
        delayed(note)(path)
    });
    assert_eq!(parallel.run(calls).unwrap(), [0, 0, 0]);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn batches_wait_stream_and_cancel() {
    let cluster = cluster(Manner { delay: Duration::from_millis(1), ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    let batches: Vec<_> =
        (0..200u64).map(|n| parallel.start([delayed(square)(n)]).unwrap()).collect();
    for (n, batch) in (0..).zip(batches) {
        assert_eq!(batch.wait().unwrap(), [square(n)]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let awaited = parallel.run_async((0..5000).map(delayed(square))).await.unwrap();
        assert_eq!(awaited.len(), 5000);
        // A blocking call inside of a runtime.
        assert_eq!(parallel.run([delayed(square)(9)]).unwrap(), [81]);
        let batch = parallel.start((0..500).map(delayed(square))).unwrap();
        assert_eq!(batch.collect::<Vec<_>>().await.len(), 500);
    });
    drop(parallel.start((0..500).map(delayed(square))).unwrap());
    assert_eq!(parallel.run([delayed(square)(9)]).unwrap(), [81]);
}

#[test]
fn every_kind_of_call_tells_its_progress() {
    let cluster = cluster(Manner { delay: Duration::from_millis(5), ..Manner::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for n_jobs in [1, -1] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&seen);
        let parallel = Parallel::new()
            .on(&cluster)
            .n_jobs(n_jobs)
            .on_error(Collect)
            .progress(move |progress| own.lock().unwrap().push(progress.clone()));
        let calls = || (0..10).map(delayed(fails_at_three));
        let last = |what: &str| {
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            let last = seen.last().unwrap_or_else(|| panic!("{what} tells nothing"));
            assert_eq!((last.done, last.failed, last.total), (10, 1, Some(10)), "{what}");
        };
        assert_eq!(parallel.run(calls()).unwrap().len(), 10);
        last("run");
        assert_eq!(parallel.run_iter(calls()).count(), 10);
        last("run_iter");
        assert_eq!(parallel.run_unordered(calls()).count(), 10);
        last("run_unordered");
        assert_eq!(parallel.start(calls()).unwrap().wait().unwrap().len(), 10);
        last("wait");
        runtime.block_on(async {
            assert_eq!(parallel.run_async(calls()).await.unwrap().len(), 10);
            last("run_async");
            assert_eq!(parallel.start(calls()).unwrap().await.unwrap().len(), 10);
            last("await");
            assert_eq!(parallel.start(calls()).unwrap().count().await, 10);
            last("stream");
        });
    }
}

#[test]
fn an_async_call_leaves_the_thread_to_others_while_its_window_is_full() {
    let cluster = cluster(Manner { delay: Duration::from_millis(1), ..Manner::default() });
    let pulled = Cell::new(0);
    let calls = (0..100).inspect(|_| pulled.set(pulled.get() + 1)).map(delayed(square));
    let parallel = Parallel::new().on(&cluster).pre_dispatch(10);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (results, meanwhile) =
        runtime.block_on(async { tokio::join!(parallel.run_async(calls), async { pulled.get() }) });
    assert_eq!(results.unwrap(), (0..100).map(square).collect::<Vec<_>>());
    assert!(meanwhile <= 10, "{meanwhile} were pulled before anybody else had a turn");
}

#[test]
fn what_cannot_be_sent_is_named_with_its_size() {
    let cluster = cluster(Manner::default());
    let parallel = Parallel::new().on(&cluster).max_nbytes(None);
    let length = |text: String| text.len();
    let sizes = [1usize, 3 << 20, 3 << 20, 1];
    let texts = sizes.into_iter().map(|size| "x".repeat(size));
    assert_eq!(parallel.map(texts, length).unwrap(), sizes);
    let error = parallel.map(["x".repeat(5 << 20)], length).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("task 0, ") && text.contains("its arguments: 5242888 bytes, the limit is"),
        "{text}"
    );
    let text = "x".repeat(2 << 20);
    for parallel in [parallel.clone().env("X", &text), parallel.clone().name(&text)] {
        let error = parallel.run([delayed(square)(1)]).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("the call's name, environment and functions: 20972"), "{said}");
        assert!(said.contains("bytes, the limit is 49152") && !error.retry_can_help(), "{said}");
    }
    let refusing = super::fake::cluster(Manner { refuses: true, ..Manner::default() });
    let parallel = parallel.on(&refusing);
    let error = parallel.run([delayed(square)(1)]).unwrap_err();
    assert!(error.to_string().contains("does not take the call: no such thing"), "{error}");
    let error = parallel.run_iter([delayed(square)(1)]).next().unwrap().unwrap_err();
    assert!(error.to_string().contains("no such thing"), "{error}");
}

#[test]
fn the_end_of_a_cluster_in_this_process_ends_its_calls_at_once() {
    let cluster = cluster(Manner { ends: true, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    let begun = Instant::now();
    for _ in 0..2 {
        let error = parallel.run([delayed(square)(1)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("the embedded cluster has ended") && error.retry_can_help(),
            "{text}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(cluster.session().has_ended());
}

#[test]
fn several_threads_share_one_cluster() {
    let cluster = cluster(Manner::default());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let parallel = Parallel::new().on(&cluster);
            scope.spawn(move || {
                for round in 0..20 {
                    let from = thread * 1000 + round;
                    let results = parallel.run((from..from + 300).map(delayed(square))).unwrap();
                    assert_eq!(results[7], square(from + 7));
                }
            });
        }
    });
}

#[test]
fn the_end_never_overtakes_the_last_outcomes() {
    let cluster = cluster(Manner { chunk: 3, ..Manner::default() });
    let parallel = Parallel::new().on(&cluster);
    for n in 0..400u64 {
        let calls = (0..n % 23).map(|n| match n % 2 {
            0 => delayed(square)(n),
            _ => delayed(cube)(n).retries(1),
        });
        let results: Result<Vec<u64>, _> = parallel.run_iter(calls).collect();
        assert_eq!(results.unwrap().len() as u64, n % 23);
    }
}
