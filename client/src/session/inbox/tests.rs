//! What waits for a caller: order, wakes, the end.

use std::sync::Arc;

use allhands_common::segment::{DONE, Segment, SegmentBuilder};

use super::*;

const RULES: Rules =
    Rules { hold: false, stop_after: Some(2), errors_count: false, replicas: None };

fn outcomes(tags: &[u16]) -> Outcomes {
    let mut builder = SegmentBuilder::new(1);
    tags.iter().for_each(|tag| builder.push(*tag, std::iter::once(&b"x"[..])));
    Outcomes::plain(Segment::parse(builder.finish()).unwrap())
}

#[test]
fn failures_are_counted_as_the_rules_say() {
    for (errors_count, stopped) in [(false, false), (true, true)] {
        let inbox = Inbox::new(Rules { errors_count, ..RULES });
        inbox.deliver(0, TaskRange::new(0, 3), outcomes(&[DONE, FAILED, ERROR]));
        assert_eq!(inbox.mail().is_stopped(inbox.rules()), stopped);
        assert!(!inbox.mail().is_over());
    }
}

#[test]
fn arguments_come_along_where_a_task_has_no_value() {
    let inbox = Inbox::new(RULES);
    inbox.keep(0, 2, Bytes::from_static(b"first"), 0);
    inbox.keep(0, 2, Bytes::from_static(b"second"), 0);
    inbox.deliver(0, TaskRange::new(0, 2), outcomes(&[DONE, DONE]));
    inbox.deliver(0, TaskRange::new(2, 4), outcomes(&[DONE, ERROR]));
    let mail = inbox.mail();
    assert!(mail.arrived[0].arguments.is_empty());
    assert_eq!(mail.arrived[1].arguments[0].arguments, "second");
    assert_eq!(mail.kept_bytes(), 0);
}

#[test]
fn a_call_is_over_with_its_last_part_or_at_once_in_disorder() {
    let complete = || End::Complete { rest: None };
    let inbox = Inbox::new(RULES);
    inbox.mail().parts = 2;
    inbox.mail().sealed = true;
    inbox.end(0, complete());
    assert!(!inbox.mail().is_over());
    inbox.end(1, complete());
    assert!(inbox.mail().is_over());

    let inbox = Inbox::new(RULES);
    inbox.mail().parts = 2;
    inbox.end(0, End::Expired);
    assert!(inbox.mail().is_over());
}

#[test]
fn who_waits_is_woken_by_what_it_wants() {
    let inbox = Arc::new(Inbox::new(RULES));
    inbox.mail().parts = 1;
    let other = Arc::clone(&inbox);
    let waiter = std::thread::spawn(move || other.wait(Wanted::Finished(3), None).finished);
    while inbox.mail().waiting.is_none() {
        std::thread::yield_now();
    }
    inbox.deliver(0, TaskRange::new(0, 1), outcomes(&[DONE]));
    assert!(inbox.mail().waiting.is_some(), "one of three is not enough");
    inbox.deliver(0, TaskRange::new(1, 3), outcomes(&[DONE, DONE]));
    assert_eq!(waiter.join().unwrap(), 3);
}
