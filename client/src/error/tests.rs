//! The texts, as a user reads them.

use std::time::Duration;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, Term, WorkerId};

use super::*;
use crate::payload::{Codec, encode};

fn task(kind: TaskErrorKind) -> TaskError {
    TaskError::new(17, "app::heavy".into(), "(5, \"x\")".into(), kind)
}

#[test]
fn a_task_error_says_which_what_where_and_at_which_try() {
    let cause = Cause::Panicked {
        message: "boom".into(),
        location: "src/main.rs:3:5".into(),
        backtrace: "app::heavy".into(),
    };
    let attempt = AttemptId { term: Term(2), number: 40 };
    let error = task(TaskErrorKind::Ended(cause)).at(Some(WorkerId(8)), Some(attempt), 3);
    let text = "task 17, app::heavy(5, \"x\"): panicked at src/main.rs:3:5: boom \
                (on worker 8, attempt 2.40, try 3)";
    assert_eq!(error.to_string(), text);
    assert_eq!(format!("{error:?}"), format!("{text}\napp::heavy"));
    assert!(error.retry_can_help());

    let error = error.on(Some("oak".into()));
    assert!(error.to_string().ends_with("(on worker oak, attempt 2.40, try 3)"), "{error}");
    assert_eq!((error.worker(), error.worker_name()), (Some(WorkerId(8)), Some("oak")));
}

#[test]
fn where_nothing_is_known_nothing_is_said() {
    let cause = Cause::QueueTimedOut { limit_ms: 50 };
    let error = task(TaskErrorKind::Ended(cause));
    assert_eq!(
        error.to_string(),
        "task 17, app::heavy(5, \"x\"): waited for a slot longer than its queue_timeout of 50 ms"
    );
}

#[test]
fn long_arguments_are_shortened_at_a_character() {
    let message = String::new();
    let kind = TaskErrorKind::Undecodable { message };
    let error = TaskError::new(0, "f".into(), "ä".repeat(1000), kind);
    assert!(error.arguments().len() < 310 && error.arguments().ends_with("ä…"));
    assert!(!error.retry_can_help());
}

#[test]
fn a_functions_own_error_comes_back_typed() {
    for codec in [Codec::Bincode, Codec::Cbor] {
        let mut bytes = Vec::new();
        encode(codec, &Err::<u64, _>(("disk".to_owned(), 5u8)), &mut bytes).unwrap();
        let error = task(TaskErrorKind::failed(bytes.into(), codec));
        assert_eq!(error.downcast::<(String, u8)>(), Some(("disk".into(), 5)));
        assert!(error.to_string().ends_with("returned an error"));
    }
}

#[test]
fn a_cluster_error_names_the_thing_the_cause_and_what_to_do() {
    let no_link = |cause: &str, retry_can_help| {
        let cause = cause.to_owned();
        Some(NoLink { cause, retry_can_help })
    };
    let refused = || ("10.0.0.3:7001".to_owned(), no_link("it is of another cluster", false));
    let error = Error::new(Kind::NoCluster { causes: vec![refused()] });
    let text = error.to_string();
    assert!(text.contains("7001: it is of another cluster. Trying again cannot help"), "{text}");
    assert!(text.contains("ALLHANDS_IDENTITY") && !error.retry_can_help(), "{text}");

    let causes = vec![
        ("10.0.0.1:7001".to_owned(), no_link("nothing answers", true)),
        ("10.0.0.2:7001".to_owned(), None),
        refused(),
    ];
    let error = Error::new(Kind::NoCluster { causes });
    let text = error.to_string();
    assert!(
        text.starts_with("no cluster: 10.0.0.1:7001: nothing answers; 10.0.0.2:7001: it answers"),
        "{text}"
    );
    assert!(text.contains("ALLHANDS_CLUSTER") && error.retry_can_help(), "{text}");

    let error = Error::new(Kind::Leaderless { waited: Duration::from_secs(30) });
    assert!(error.to_string().starts_with("no coordinator has led for 30.0 s"), "{error}");

    let error = Error::new(Kind::ProgramRefused { reason: "needs glibc 2.99".into() });
    assert!(error.to_string().ends_with("needs glibc 2.99") && !error.retry_can_help());
    let run: RunError = error.into();
    assert!(run.cluster().is_some() && run.task().is_none());
    // What `main` returns is printed by `Debug`.
    assert_eq!(
        format!("{:?}", Error::from(run)),
        "the cluster does not take this program: needs glibc 2.99"
    );
}

#[test]
fn causes_are_chained_once() {
    let cause = std::io::Error::other("no such file");
    let error = Error::caused(Kind::Identity { directory: "/x".into() }, cause);
    let text = format!("{error:?}");
    assert!(
        text.starts_with("the identity in /x cannot be used") && text.ends_with(": no such file"),
        "{text}"
    );
}

#[test]
fn what_is_too_large_says_how_large_it_may_be() {
    let what = "task 3, app::heavy: its arguments".to_owned();
    let error = RunError::new(Reason::TooLarge { what, bytes: 9, limit: 8 }, Finished::default());
    assert!(
        error.to_string().starts_with("task 3, app::heavy: its arguments: 9 bytes, the limit is 8")
    );
    assert!(error.to_string().contains("map_with"));
}
