//! Codecs that calls choose, errors that they keep, policies that they say.

use std::cell::Cell;
use std::time::Duration;

use allhands_common::resources::Resources;
use serde::{Deserialize, Serialize, Serializer};

use super::*;
use crate::entry::CallStatus;

fn run<R>(call: &Delayed<R>) -> R {
    let name = call.entry().name().unwrap();
    let entry = Entry::resolve(name).unwrap();
    let mut out = Vec::new();
    let args: Vec<&[u8]> = call.arguments().collect();
    let status = entry.call()(call.codec(), &args, &mut out);
    assert!(matches!(status, CallStatus::Done | CallStatus::Failed), "{status:?}");
    call.decode_result(call.codec(), &out).unwrap()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Opt {
    id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn keep(opt: Opt) -> u8 {
    opt.id
}

fn json(text: String) -> serde_json::Value {
    serde_json::json!({ "text": text })
}

#[derive(Debug, Deserialize)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("will not"))
    }
}

fn stubborn(_: u8, _: Stubborn) {}

#[test]
fn numbers_travel_as_bincode_in_place() {
    let call = delayed(add)(2, 3);
    assert_eq!(call.codec(), Codec::Bincode);
    assert_eq!(call.encoded().ends(), [8, 16]);
    assert_eq!(run(&call), 5);
}

#[test]
fn a_call_that_bincode_refuses_moves_its_function_to_cbor() {
    let first = delayed(keep)(Opt { id: 1, note: Some(1) });
    assert_eq!((first.codec(), run(&first)), (Codec::Bincode, 1));
    let second = delayed(keep)(Opt { id: 2, note: None });
    assert_eq!((second.codec(), run(&second)), (Codec::Cbor, 2));
    let third = delayed(keep)(Opt { id: 3, note: Some(3) });
    assert_eq!((third.codec(), run(&third)), (Codec::Cbor, 3));
}

#[test]
fn a_result_that_bincode_cannot_carry_is_seen_before_the_first_call() {
    let call = delayed(json)("x".into());
    assert_eq!(call.codec(), Codec::Cbor);
    assert_eq!(run(&call), serde_json::json!({ "text": "x" }));
}

#[test]
fn an_argument_that_refuses_is_an_error_kept_for_run() {
    for _ in 0..2 {
        let mut call = delayed(stubborn)(1, Stubborn);
        let error = call.take_error().unwrap();
        assert_eq!(error.position, 1);
        let text = error.to_string();
        assert!(text.starts_with("argument 2 of `") && text.ends_with("will not"), "{text}");
        assert!(text.contains("::stubborn` cannot be sent: cannot encode `"), "{text}");
        assert_eq!(call.take_error(), None);
    }
}

#[test]
fn a_result_that_bincode_would_corrupt_is_refused_in_the_executor() {
    fn opt(id: u8) -> Opt {
        Opt { id, note: None }
    }
    let call = delayed(opt)(1);
    let args: Vec<&[u8]> = call.arguments().collect();
    let mut out = vec![7];
    let status = call.entry().call()(call.codec(), &args, &mut out);
    let CallStatus::BadResult { message } = status else { panic!("{status:?}") };
    assert!(message.contains("field `note` of `Opt` is left out"), "{message}");
    assert_eq!(out, [7], "what was written of it is taken back");
}

#[test]
fn closures_are_called_after_their_place() {
    let call = delayed(|n: u8| n)(1);
    let label = call.label();
    assert!(label.contains("{{closure}} ("), "{label}");
    assert!(delayed(add)(1, 2).label().ends_with("::add"));
}

#[test]
fn arguments_without_a_task_are_shown_as_bytes() {
    let call = delayed(add)(1, 2);
    let shown = "<8 bytes: 01000000 00000000>, <8 bytes: 02000000 00000000>";
    assert_eq!(call.debug_text(), format!("({shown})"));
}

#[test]
fn what_is_said_at_the_call_wins() {
    let plain = delayed(add)(1, 2);
    assert_eq!(plain.patch(), None);
    let call = plain
        .retries(3)
        .backoff(Duration::from_millis(5), Duration::from_secs(1))
        .timeout(Duration::from_secs(2))
        .queue_timeout(Duration::MAX)
        .priority(-4)
        .resources(Resources::cpus(2).with("gpu", 1));
    let mut policy = Policy { n_jobs: 7, retries: 1, ..Policy::default() };
    call.apply_policy(&mut policy);
    let backoff = allhands_common::policy::Backoff { first_ms: 5, max_ms: 1000 };
    let expected = Policy {
        n_jobs: 7,
        retries: 3,
        backoff,
        timeout_ms: Some(2000),
        queue_timeout_ms: Some(u64::MAX),
        priority: -4,
        resources: Resources::cpus(2).with("gpu", 1),
        ..Policy::default()
    };
    assert_eq!(policy, expected);
}

#[test]
fn no_time_is_shorter_than_a_millisecond() {
    let mut policy = Policy::default();
    delayed(add)(1, 2).timeout(Duration::ZERO).apply_policy(&mut policy);
    assert_eq!(policy.timeout_ms, Some(1));
}

#[test]
fn the_call_is_made_where_it_runs_and_not_before() {
    thread_local! { static CALLS: Cell<u8> = const { Cell::new(0) } }
    fn count() -> u8 {
        CALLS.set(CALLS.get() + 1);
        CALLS.get()
    }
    let call = delayed(count)();
    assert_eq!(CALLS.get(), 0);
    assert_eq!((run(&call), run(&call)), (1, 2));
}

#[test]
fn executions_in_arguments_that_are_waited_for_have_to_end() {
    use allhands_common::id::{BatchId, TaskId};

    let [a, b] = [1, 2].map(|index| {
        crate::execution::tests::unknown::<u8>(TaskId { batch: BatchId([7; 16]), index })
    });
    let take = |a: crate::Execution<u8>, b: Vec<crate::Execution<u8>>, c: u8| {
        _ = (a, b, c);
    };
    let call = call(take, (&a, vec![b.clone()], &b));
    let needs = |waits: u8| -> Vec<Need> {
        let needs = waiting(call.needs().to_vec(), waits);
        (0..3).map(|place| needs.iter().find(|one| one.place == place).unwrap().need).collect()
    };
    assert_eq!(needs(0), [Need::Handle, Need::Handle, Need::Returned]);
    assert_eq!(needs(0b10), [Need::Handle, Need::End, Need::Returned]);
    assert_eq!(needs(u8::MAX), [Need::End, Need::End, Need::Returned]);
}
