//! Every form of `delayed`, `call` and `#[task]`: written, found by its name, called, read back, in
//! this process, the way that an executor and its client do it together.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use allhands::__private::{CallStatus, Codec, Entry, TASKS, parts};
use allhands::{Delayed, Failure, Resources, Slice, call, delayed, task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Runs a call as an executor would: by the name of its function and the bytes of its arguments.
#[track_caller]
fn run<R>(call: Delayed<R>) -> R {
    let (result, failed) = run_status(&call);
    assert!(!failed, "the function returned `Err`");
    result
}

#[track_caller]
fn run_status<R>(call: &Delayed<R>) -> (R, bool) {
    let parts = parts(call);
    let name = parts.entry.name().unwrap();
    let entry = Entry::resolve(name).unwrap();
    let mut out = Vec::new();
    let status = entry.call()(parts.codec, &parts.args, &mut out);
    assert!(matches!(status, CallStatus::Done | CallStatus::Failed), "{status:?}");
    ((parts.decode)(parts.codec, &out).unwrap(), status == CallStatus::Failed)
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    x: f64,
    y: f64,
}

impl Point {
    fn scale(self, by: f64) -> Self {
        Self { x: self.x * by, y: self.y * by }
    }
}

trait Area {
    fn area(self) -> f64;
}

impl Area for Point {
    fn area(self) -> f64 {
        self.x * self.y
    }
}

fn none() {}

fn square(n: u64) -> u64 {
    n * n
}

fn generic<T: std::ops::Add<Output = T> + Copy>(n: T) -> T {
    n + n
}

fn add(n: impl Into<u64>) -> u64 {
    n.into() + 1
}

#[expect(clippy::too_many_arguments, reason = "the most that a task may have")]
fn eight(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> Vec<u8> {
    vec![a, b, c, d, e, f, g, h]
}

fn serde_error(n: i32) -> Result<i32, String> {
    if n < 0 { Err(format!("{n} is negative")) } else { Ok(n) }
}

fn io_error(path: PathBuf) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn boxed_error(text: String) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
    Ok(text.parse::<i32>()?)
}

async fn later(n: u32) -> u32 {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    n + 1
}

async fn later_io(path: PathBuf) -> io::Result<u64> {
    io_error(path)
}

fn boxed_future(n: u32) -> Pin<Box<dyn Future<Output = u32>>> {
    Box::pin(later(n))
}

#[test]
fn functions_of_every_arity() {
    run(delayed(none)());
    assert_eq!(run(delayed(square)(7)), 49);
    assert_eq!(run(delayed(|a: u8, b: u8| a * b)(3, 4)), 12);
    assert_eq!(run(delayed(eight)(1, 2, 3, 4, 5, 6, 7, 8)), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_delayed_function_is_a_plain_fn() {
    let calls: Vec<Delayed<u64>> = (0..5).map(delayed(square)).collect();
    let results: Vec<u64> = calls.into_iter().map(run).collect();
    assert_eq!(results, [0, 1, 4, 9, 16]);
    let plain: fn(u64) -> Delayed<u64> = delayed(square);
    assert_eq!(run(plain(3)), 9);
}

#[test]
fn closures_that_capture_nothing() {
    assert_eq!(run(delayed(|x| x + 1)(1)), 2);
    assert_eq!(run(delayed(|text: String| text.len())("abc".into())), 3);
}

#[test]
fn generic_functions() {
    fn inside<T>(n: T) -> Delayed<T>
    where
        T: std::ops::Add<Output = T> + Copy + Serialize + DeserializeOwned + 'static,
    {
        delayed(generic::<T>)(n)
    }
    assert_eq!(run(delayed(generic::<f64>)(4.5)), 9.0);
    assert_eq!(run(delayed(generic)(4u8)), 8);
    assert_eq!(run(inside(21u16)), 42);
    assert_eq!(run(delayed(add)(1u32)), 2);
}

#[test]
fn methods_by_value() {
    let point = Point { x: 2.0, y: 3.0 };
    assert_eq!(run(delayed(Point::scale)(point, 2.0)), Point { x: 4.0, y: 6.0 });
    assert_eq!(run(delayed(<Point as Area>::area)(point)), 6.0);
}

#[test]
fn results_with_an_error_that_is_data() {
    assert_eq!(run_status(&delayed(serde_error)(3)), (Ok(3), false));
    let (result, failed) = run_status(&delayed(serde_error)(-3));
    assert_eq!((result, failed), (Err("-3 is negative".to_owned()), true));
}

#[test]
fn results_with_an_error_that_is_not() {
    let (result, failed) = run_status(&delayed(io_error)("/does/not/exist".into()));
    assert!(failed && result.unwrap_err().message().starts_with("No such file"));
    let (result, _): (Result<i32, Failure>, _) = run_status(&delayed(boxed_error)("7".into()));
    assert_eq!(result, Ok(7));
}

#[test]
fn async_functions() {
    assert_eq!(run(delayed(later)(1)), 2);
    assert_eq!(run(delayed(boxed_future)(2)), 3);
    assert_eq!(run(delayed(async |n: u32| later(n).await * 2)(3)), 8);
    let (result, failed) = run_status(&delayed(later_io)("/does/not/exist".into()));
    assert!(failed && result.is_err());
}

#[test]
fn recursion() {
    fn down(n: u8) -> u8 {
        if n == 0 { 0 } else { 1 + run(delayed(down)(n - 1)) }
    }
    async fn down_later(n: u8) -> u8 {
        if n == 0 { 0 } else { 1 + run(delayed(down_later)(n - 1)) }
    }
    assert_eq!(run(delayed(down)(5)), 5);
    assert_eq!(run(delayed(down_later)(5)), 5);
}

#[test]
fn what_delayed_cannot_take_goes_into_a_closure() {
    fn count(text: &str) -> usize {
        text.len()
    }
    extern "C" fn foreign(n: i32) -> i32 {
        n + 1
    }
    assert_eq!(run(delayed(|text: String| count(&text))("abc".into())), 3);
    assert_eq!(run(delayed(|n: i32| foreign(n))(1)), 2);
}

#[test]
fn a_call_converts_its_arguments() {
    fn repeat(text: String, times: usize) -> String {
        text.repeat(times)
    }
    fn total(numbers: Vec<u64>, path: PathBuf) -> u64 {
        numbers.iter().sum::<u64>() + path.components().count() as u64
    }
    assert_eq!(run(call(repeat, ("ab", 3))), "ababab");
    let numbers = vec![1, 2, 3];
    assert_eq!(run(call(total, (&numbers, Path::new("a/b")))), 8);
    assert_eq!(run(call(total, (&numbers[1..], "a"))), 6);
    assert_eq!(run(call(total, ([1, 2], "a"))), 4);
    run(call(none, ()));
}

mod tasks {
    //! Tasks in a module of their own, as users have them.

    use super::*;

    #[task(
        name = "heavy.name",
        retries = 3,
        backoff = "10ms",
        timeout = "30s",
        queue_timeout = "5m",
        priority = -2,
        resources(cpus = 2, memory = "1GiB", gpu = 1),
        idempotent = false
    )]
    pub(crate) fn heavy(n: u64) -> u64 {
        n + 1
    }

    #[task]
    pub fn mean(xs: &[f64]) -> f64 {
        xs.iter().sum::<f64>() / xs.len() as f64
    }

    #[task]
    pub(crate) fn words(text: &str, at: &Path, point: &Point, names: &[String]) -> String {
        format!("{text} {} {} {}", at.display(), point.x, names.join("+"))
    }

    #[task]
    pub(crate) fn total<T>(numbers: Vec<T>) -> T
    where
        T: std::iter::Sum<T> + Serialize + DeserializeOwned + 'static,
    {
        numbers.into_iter().sum()
    }

    #[task]
    pub(crate) fn take<const N: usize>(text: &str) -> String {
        text.chars().take(N).collect()
    }

    #[task]
    pub(crate) fn patterns(
        (a, b): (u32, u32),
        _: u8,
        Point { x, .. }: Point,
        mut v: Vec<u8>,
    ) -> String {
        v.push(9);
        format!("{a} {b} {x} {v:?}")
    }

    #[task]
    pub(crate) async fn later(text: &str) -> String {
        tokio::task::yield_now().await;
        text.to_uppercase()
    }

    #[task]
    pub(crate) fn cow(text: Cow<'_, str>) -> usize {
        text.len()
    }

    #[task]
    pub(crate) fn fails(path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    #[task(codec = "cbor")]
    pub(crate) fn forced(n: u8) -> u8 {
        n
    }

    #[task]
    pub(crate) fn typed_error(n: i32) -> Result<i32, String> {
        serde_error(n)
    }

    #[task]
    pub(crate) fn raw_parameter(r#type: u8) -> u8 {
        r#type
    }

    #[task]
    #[expect(clippy::too_many_arguments, reason = "the most that a task may have")]
    pub(crate) fn eight(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> u8 {
        [a, b, c, d, e, f, g, h].iter().sum()
    }

    #[task]
    pub(crate) fn __allhands_lend(text: String) -> usize {
        text.len()
    }

    #[cfg(not(unix))]
    #[task]
    pub(crate) fn nowhere(_: NoSuchType) {}

    #[task]
    #[cfg(not(unix))]
    pub(crate) fn nowhere_either(_: NoSuchType) {}
}

use tasks::heavy;
pub use tasks::mean as average;

#[test]
fn a_task_is_still_the_function() {
    assert_eq!(heavy(5), 6);
    assert_eq!(average(&[1.0, 3.0]), 2.0);
}

#[test]
fn tasks_take_what_their_parameters_are_made_of() {
    assert_eq!(run(heavy::delayed(5)), 6);
    let numbers = vec![1.0, 2.0, 6.0];
    assert_eq!(run(average::delayed(&numbers)), 3.0);
    assert_eq!(run(average::delayed(&numbers[1..])), 4.0);
    assert_eq!(run(average::delayed([1.0, 2.0])), 1.5);
    assert_eq!(run(average::delayed(numbers.clone())), 3.0);
    assert_eq!(run(average::delayed(Slice::from(numbers.clone()))), 3.0);
    let halves: Vec<f64> = numbers.chunks(2).map(average::delayed).map(run).collect();
    assert_eq!(halves, [1.5, 6.0]);
    let calls: Vec<u64> = (0..3).map(heavy::delayed).map(run).collect();
    assert_eq!(calls, [1, 2, 3]);
}

#[test]
fn references_are_owned_by_the_executor_and_lent() {
    let point = Point { x: 1.5, y: 0.0 };
    let names = ["a".to_owned(), "b".to_owned()];
    assert_eq!(run(tasks::words::delayed("hi", "/tmp", point, &names)), "hi /tmp 1.5 a+b");
    assert_eq!(run(tasks::later::delayed("abc")), "ABC");
    assert_eq!(run(tasks::__allhands_lend::delayed("abc")), 3, "a name of the macro's own");
    assert_eq!(run(tasks::cow::delayed(Cow::Borrowed("abc"))), 3);
}

#[test]
fn generic_tasks() {
    assert_eq!(run(tasks::total::delayed::<f64>(vec![1.5, 2.5])), 4.0);
    assert_eq!(run(tasks::total::delayed(vec![1u8, 2])), 3);
    assert_eq!(run(tasks::total::delayed::<u64>(&[1, 2, 3])), 6);
    assert_eq!(run(tasks::take::delayed::<2>("abc")), "ab");
}

#[test]
fn tasks_of_every_shape() {
    let point = Point { x: 1.5, y: 0.0 };
    let call = tasks::patterns::delayed((1, 2), 0, point, vec![]);
    assert_eq!(run(call), "1 2 1.5 [9]");
    assert_eq!(run(tasks::raw_parameter::delayed(4)), 4);
    assert_eq!(run(tasks::eight::delayed(1, 2, 3, 4, 5, 6, 7, 8)), 36);
    let (result, failed) = run_status(&tasks::typed_error::delayed(-1));
    assert!(failed && result == Err("-1 is negative".to_owned()));
    let (result, failed) = run_status(&tasks::fails::delayed("/does/not/exist"));
    assert!(failed && result.unwrap_err().message().starts_with("No such file"));
}

#[test]
fn a_task_inside_a_function() {
    #[task]
    fn local(n: &u8) -> u8 {
        n + 1
    }
    assert_eq!(local(&1), 2);
    assert_eq!(run(local::delayed(1)), 2);
}

#[test]
fn literals_and_options_infer() {
    #[task]
    fn many(a: f32, b: Option<u8>, c: Vec<String>, d: (u8, f64)) -> String {
        format!("{a} {b:?} {c:?} {d:?}")
    }
    let n = 1;
    assert_eq!(run(many::delayed(-1.5, None, vec![], (n + 1, 2.0))), "-1.5 None [] (2, 2.0)");
    let text = run(many::delayed(1.0, Some(3), vec!["a".into()], (1 << 3, 0.5)));
    assert_eq!(text, "1 Some(3) [\"a\"] (8, 0.5)");
}

#[test]
fn the_policy_of_a_task_holds_for_every_form() {
    for call in [heavy::delayed(1), delayed(heavy)(1), call(heavy, (1,))] {
        let parts = parts(&call);
        assert_eq!(parts.label, "heavy.name");
        let policy = parts.policy;
        assert_eq!((policy.retries, policy.priority, policy.idempotent), (3, -2, false));
        assert_eq!((policy.backoff.first_ms, policy.backoff.max_ms), (10, 30_000));
        assert_eq!((policy.timeout_ms, policy.queue_timeout_ms), (Some(30_000), Some(300_000)));
        assert_eq!(policy.resources, Resources::cpus(2).memory(1 << 30).with("gpu", 1));
    }
    let call = heavy::delayed(1).retries(9);
    let parts = parts(&call);
    assert_eq!((parts.policy.retries, parts.policy.priority, &*parts.label), (9, -2, "heavy.name"));
}

#[test]
fn a_task_is_named_by_its_path() {
    assert_eq!(parts(&average::delayed([1.0])).label, "front::tasks::mean");
    assert_eq!(parts(&tasks::total::delayed(vec![1u8])).label, "front::tasks::total");
}

#[test]
fn a_forced_codec_holds_for_every_form() {
    assert_eq!(parts(&tasks::forced::delayed(1)).codec, Codec::Cbor);
    assert_eq!(parts(&delayed(tasks::forced)(1)).codec, Codec::Cbor);
    assert_eq!(parts(&heavy::delayed(1)).codec, Codec::Bincode);
    assert_eq!(run(tasks::forced::delayed(200)), 200);
}

#[test]
fn arguments_of_a_task_are_shown_as_debug() {
    #[derive(Serialize, Deserialize)]
    struct Silent(u8);
    #[task]
    fn shown(n: u64, names: &[String], silent: Silent) -> u8 {
        silent.0 + n as u8 + names.len() as u8
    }
    let call = shown::delayed(5, ["a".to_owned()], Silent(7));
    assert_eq!(parts(&call).text, "(n = 5, names = [\"a\"], silent = <1 bytes: 07>)");
    assert_eq!(run(call), 13);
    assert_eq!(parts(&delayed(none)()).text, "()");
}

#[test]
fn json_travels_both_ways() {
    use serde_json::{Value, json};
    #[task]
    fn merge(mut a: Value, b: BTreeMap<String, Value>) -> Value {
        if let Some(object) = a.as_object_mut() {
            object.extend(b);
        }
        a
    }
    let more = BTreeMap::from([("b".to_owned(), json!([1, null]))]);
    assert_eq!(run(merge::delayed(json!({ "a": 1 }), more)), json!({ "a": 1, "b": [1, null] }));
}

mod once {
    #[allhands::task]
    pub(super) fn same(a: u8) -> u8 {
        a + 1
    }
}

#[rustfmt::skip]
mod again {
    #[allhands::task]
    /// Documented, and laid out in its own way.
    pub(super) fn same(
        a: u8, // the argument
    ) -> u8 {

        a   +   1
    }
}

mod changed {
    #[allhands::task]
    pub(super) fn same(a: u8) -> u8 {
        a + 2
    }
}

mod included {
    #[allhands::task]
    pub(super) fn same(a: u8) -> u8 {
        if cfg!(unix) { a + 1 } else { include_bytes!("front.rs").len() as u8 }
    }
}

#[test]
fn digests_tell_sources_apart() {
    let digest = |call: Delayed<u8>| {
        let label = parts(&call).label;
        TASKS.iter().find(|task| task.name == label).map(|task| task.digest).unwrap()
    };
    let [once, again, changed, included] = [
        once::same::delayed(1),
        again::same::delayed(1),
        changed::same::delayed(1),
        included::same::delayed(1),
    ]
    .map(digest);
    assert_eq!(once, again);
    assert_ne!(once, changed);
    assert_ne!(once, included);
    assert_eq!([once::same(1), again::same(1), changed::same(1), included::same(1)], [2, 2, 3, 2]);
}
