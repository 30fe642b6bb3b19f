//! `n_jobs(1)`: the caller's thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;

use super::{Odd, even, fails_at_three, slowly, square};
use crate::prelude::*;
use crate::{Cause, TaskErrorKind, TryError};

fn inline() -> Parallel {
    Parallel::new().n_jobs(1)
}

#[test]
fn results_in_order() {
    assert_eq!(inline().run((0..5).map(delayed(square))).unwrap(), [0, 1, 4, 9, 16]);
    assert!(inline().run(Vec::<Delayed<u64>>::new()).unwrap().is_empty());
    assert_eq!(
        inline().map(vec!["a", "bcd"].into_iter().map(String::from), |s| s.len()).unwrap(),
        [1, 3]
    );
    let table = vec![10u64, 20, 30];
    assert_eq!(inline().map_with(table, [2usize, 0], |table, at| table[at]).unwrap(), [30, 10]);
}

#[test]
fn options_that_make_no_sense_are_errors_of_the_call() {
    let calls = || (0..3).map(delayed(square));
    for (parallel, says) in [
        (Parallel::new().n_jobs(0), "n_jobs(0)"),
        (inline().batch_size(0), "batch_size(0)"),
        (inline().pre_dispatch(0), "pre_dispatch(0)"),
    ] {
        let error = parallel.run(calls()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.retry_can_help());
        let mut iterator = parallel.run_iter(calls());
        let error = iterator.next().unwrap().unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(iterator.next().is_none());
        assert!(parallel.start(calls()).unwrap_err().to_string().contains(says));
    }
    let error = inline().fail_after(0).run(calls()).unwrap_err();
    assert!(error.to_string().contains("fail_after(0)"), "{error}");
}

#[test]
fn the_first_panic_ends_the_call_and_says_where() {
    let error = inline().run((0..9).map(delayed(fails_at_three))).unwrap_err();
    let task = error.task().unwrap();
    assert_eq!((task.index(), task.tries()), (3, 1));
    let Some(Cause::Panicked { message, location, .. }) = task.cause() else { panic!("{task:?}") };
    assert_eq!(message, "three is too much");
    assert!(location.contains("parallel/tests.rs"), "{location}");
    let text = error.to_string();
    assert!(
        text.starts_with("task 3, allhands::parallel::tests::fails_at_three(<8 bytes: 03000000"),
        "{text}"
    );
    assert!(text.ends_with("three is too much (try 1)"), "{text}");
    assert_eq!(error.partial::<u64>(), [Some(0), Some(1), Some(2), None]);
}

#[test]
fn collecting_runs_them_all() {
    let outcomes = inline().run_collect((2..5).map(delayed(fails_at_three))).unwrap();
    let values: Vec<Option<u64>> = outcomes.into_iter().map(Result::ok).collect();
    assert_eq!(values, [Some(2), None, Some(4)]);

    let calls = || [3, 4, 3, 5, 3].into_iter().map(delayed(fails_at_three));
    let error = inline().fail_after(2).run(calls()).unwrap_err();
    assert!(error.to_string().starts_with("2 tasks have no value"), "{error}");
    assert_eq!(error.task().unwrap().index(), 0);
    assert_eq!(error.partial::<u64>(), [None, Some(4), None]);
    assert_eq!(inline().fail_after(4).run(calls()).unwrap().len(), 5);
}

#[test]
fn an_err_is_a_result_but_for_try_run() {
    let all = inline().run((0..3).map(delayed(even))).unwrap();
    assert_eq!(all, [Ok(0), Err(Odd(1)), Ok(2)]);
    assert_eq!(inline().try_run([2, 4].into_iter().map(delayed(even))).unwrap(), [2, 4]);

    let error = inline().try_run((4..9).map(delayed(even))).unwrap_err();
    let TryError::Failed { error, run } = error else { panic!("{error}") };
    assert_eq!(error, Odd(5));
    let task = run.task().unwrap();
    assert_eq!((task.index(), task.downcast::<Odd>()), (1, Some(Odd(5))));
    assert!(matches!(task.kind(), TaskErrorKind::Failed(_)));
    assert_eq!(run.partial::<Result<u64, Odd>>(), [Some(Ok(4)), None]);
    let text = crate::Error::from(TryError::Failed { error, run }).to_string();
    assert!(text.contains("task 1,") && text.contains("returned Err(Odd(5))"), "{text}");
}

#[test]
fn retries_apply_and_tries_are_counted() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    fn third_time(_: ()) -> u32 {
        let tries = TRIES.fetch_add(1, Ordering::Relaxed);
        assert!(tries >= 2, "not yet");
        tries
    }
    let patient = inline().retries(2).backoff(Duration::from_millis(1), Duration::from_millis(2));
    assert_eq!(patient.run([delayed(third_time)(())]).unwrap(), [2]);
    TRIES.store(0, Ordering::Relaxed);
    let error = patient.run([delayed(third_time)(()).retries(1)]).unwrap_err();
    assert_eq!(error.task().unwrap().tries(), 2);
    TRIES.store(0, Ordering::Relaxed);
    let error = patient.idempotent(false).run([delayed(third_time)(())]).unwrap_err();
    assert_eq!(error.task().unwrap().tries(), 1);
}

#[test]
fn a_deadline_ends_the_call() {
    let error = inline().deadline(Duration::from_millis(12)).map(0..100u64, slowly).unwrap_err();
    assert!(matches!(error.task().unwrap().cause(), Some(Cause::DeadlinePassed { limit_ms: 12 })));
}

#[test]
fn iterators_are_lazy_and_may_be_endless() {
    let pulled = Cell::new(0);
    let calls = (0u64..).inspect(|_| pulled.set(pulled.get() + 1)).map(delayed(square));
    let parallel = inline();
    let mut results = parallel.run_iter(calls);
    assert_eq!(results.by_ref().take(3).map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 4]);
    assert_eq!(pulled.get(), 3);
    let unordered: Vec<_> = inline().run_unordered((5..7).map(delayed(square))).collect();
    assert_eq!(
        unordered.into_iter().map(|(at, value)| (at, value.unwrap())).collect::<Vec<_>>(),
        [(0, 25), (1, 36)]
    );

    let mut failing = parallel.run_iter((2..9).map(delayed(fails_at_three)));
    assert!(failing.next().unwrap().is_ok());
    assert!(failing.next().unwrap().is_err());
    assert!(failing.next().is_none(), "failing fast, it ends with the error");
    let all = inline().on_error(Collect).run_iter((2..9).map(delayed(fails_at_three))).count();
    assert_eq!(all, 7);
}

#[test]
fn a_started_batch_is_a_future_and_a_stream() {
    let start = || inline().start((0..4).map(delayed(square))).unwrap();
    assert!(start().is_finished());
    assert_eq!(start().wait().unwrap(), [0, 1, 4, 9]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(start().await.unwrap(), [0, 1, 4, 9]);
        assert_eq!(inline().run_async((1..3).map(delayed(square))).await.unwrap(), [1, 4]);
        let mut awaited = IntoFuture::into_future(start());
        assert_eq!((&mut awaited).await.unwrap(), [0, 1, 4, 9]);
        let error = awaited.await.unwrap_err();
        assert!(error.to_string().contains("awaited to its end before"), "{error}");
        let mut batch = start();
        let (place, value) = batch.next().await.unwrap();
        assert_eq!((place, value.unwrap()), (0, 0));
        let error = batch.await.unwrap_err();
        assert!(error.to_string().contains("as a stream"), "{error}");
    });
}

#[test]
fn an_argument_that_cannot_be_sent_is_named() {
    #[derive(serde::Deserialize)]
    struct Never;
    impl serde::Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it will not"))
        }
    }
    fn take(_: Never) {}
    let error = inline().run([delayed(take)(Never)]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("task 0 cannot be sent") && text.contains("it will not"), "{text}");
}

#[test]
fn progress_is_told_at_the_end_at_least() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let parallel = inline().progress(move |progress| own.lock().unwrap().push(progress.clone()));
    parallel.run((0..10).map(delayed(square))).unwrap();
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.done, last.failed, last.total), (10, 0, Some(10)));
}
