//! What callers do, and what the loop would see of it: there is none here.

use allhands_common::execution::Need;
use allhands_common::segment::{DONE, SegmentBuilder};

use super::*;
use crate::execution::home::Home;
use crate::execution::slot::Beginning;
use crate::{Delayed, delayed};

fn one(n: u64) -> u64 {
    n
}

fn other(n: u64) -> u64 {
    n + 1
}

fn session() -> Arc<Session> {
    let session = Arc::<Session>::default();
    session.begin_submits(ClusterId([1; 16]), SessionId([2; 16]));
    session
}

fn submit(
    session: &Arc<Session>,
    call: &Delayed<u64>,
    names: &[&Arc<Slot>],
) -> Result<Arc<Slot>, Untaken> {
    let named = |slot: &&Arc<Slot>| Named { slot: Arc::clone(slot), need: Need::Value, place: 0 };
    let needs: Vec<Named> = names.iter().map(named).collect();
    let strings: Vec<&[u8]> = call.arguments().collect();
    let submission = Submission {
        key: Key { entry: call.entry(), patch: call.patch().cloned() },
        codec: call.codec(),
        tag: 0,
        strings: &strings,
        needs: &needs,
        maps: None,
        keeps: Vec::new(),
        stored_bytes: 0,
    };
    let spec = || BatchSpec {
        name: "b".into(),
        functions: Vec::new(),
        policy: Default::default(),
        env: Vec::new(),
    };
    let home = Home::Client(Arc::clone(session));
    session.take_call(submission, spec, |task| {
        Slot::new(Beginning {
            of: Awaited { task, follow: false },
            cluster: ClusterId([1; 16]),
            home,
            function: None,
            returns: None,
            origin: None,
            flattens: false,
            counted: true,
            comes: true,
        })
    })
}

/// What the loop sees, in short.
fn seen(session: &Session, at: u64) -> Vec<(&'static str, BatchId, u32)> {
    let short = |event: Event| match event {
        Event::Open { batch, sequence, kept: true, .. } => ("open", batch, sequence),
        Event::Append { batch, tasks, .. } => ("append", batch, tasks),
        Event::Seal { batch } => ("seal", batch, 0),
        Event::Release { batch } => ("release", batch, 0),
        Event::CancelTasks { batch, range } => ("cancel", batch, range.start),
        other => panic!("{other:?}"),
    };
    session.take_submits(Instant(at)).into_iter().map(short).collect()
}

#[test]
fn calls_of_one_function_share_a_batch_and_nothing_is_said_before_what_it_names() {
    let session = session();
    let a = submit(&session, &delayed(one)(1), &[]).unwrap();
    let b = submit(&session, &delayed(other)(2), &[&a]).unwrap();
    let c = submit(&session, &delayed(one)(3), &[&b]).unwrap();
    let d = submit(&session, &delayed(one)(4), &[&c]).unwrap();
    let (first, second) = (a.of().task.batch, b.of().task.batch);
    assert_eq!((c.of().task, d.of().task.index), (TaskId { batch: first, index: 1 }, 2));
    let expected = [
        ("open", first, 0),
        ("open", second, 1),
        ("append", first, 1),
        ("append", second, 1),
        ("append", first, 2),
    ];
    assert_eq!(seen(&session, 0), expected);
    assert_eq!(seen(&session, 0), []);
}

#[test]
fn a_batch_that_nobody_joins_is_sealed_and_released_with_its_last_execution() {
    let session = session();
    let slot = submit(&session, &delayed(one)(1), &[]).unwrap();
    let batch = slot.of().task.batch;
    assert_eq!(seen(&session, 5).len(), 2);
    let idle = session.submits_idle_at().unwrap();
    assert_eq!(idle, Instant(5) + IDLE);
    // Somebody joins meanwhile.
    submit(&session, &delayed(one)(2), &[]).unwrap();
    assert_eq!(seen(&session, 9), [("append", batch, 1)]);
    session.seal_idle_submits(idle);
    assert_eq!(seen(&session, 9), []);
    session.seal_idle_submits(Instant(9) + IDLE);
    assert_eq!((seen(&session, 10), session.submits_idle_at()), (vec![("seal", batch, 0)], None));
    drop(slot);
    assert_eq!(seen(&session, 10), [("release", batch, 0)]);
    assert!(session.has_submitted(batch), "it is not over");
    session.submits_end(batch, &End::Complete { rest: None });
    assert!(!session.has_submitted(batch));
    // Those that come later open another.
    let next = submit(&session, &delayed(one)(1), &[]).unwrap();
    assert_ne!(next.of().task.batch, batch);
}

#[test]
fn an_outcome_comes_into_the_slot_and_is_found_while_it_is_awaited() {
    let session = session();
    let slots: Vec<_> = (0..3).map(|n| submit(&session, &delayed(one)(n), &[]).unwrap()).collect();
    let batch = slots[0].of().task.batch;
    assert!(Arc::ptr_eq(&session.find(slots[1].of()).unwrap(), &slots[1]));
    let mut builder = SegmentBuilder::new(1);
    (0..2u8).for_each(|n| builder.push(DONE, std::iter::once(&[n][..])));
    let segment = Segment::parse(builder.finish()).unwrap();
    assert_eq!(session.submits_came(batch, TaskRange::new(1, 3), &segment, Vec::new()), 1);
    let Some(Settled::Outcome(outcome)) = slots[2].settled() else { panic!() };
    assert_eq!((outcome.tag, &outcome.bytes[..]), (DONE, &[1][..]));
    assert!(slots[0].settled().is_none() && slots[1].settled().is_some());
    // A handle that is read after that is counted, and asks.
    assert!(matches!(session.find(slots[1].of()), Err(true)));
    session.let_go_slot(batch);
}

#[test]
fn who_is_too_far_ahead_waits_until_something_is_committed() {
    let session = session();
    let long = crate::call(|text: String| text.len() as u64, ("x".repeat(1 << 20),));
    let theirs = Arc::clone(&session);
    let (sent, given) = std::sync::mpsc::channel();
    let caller = std::thread::spawn(move || {
        for _ in 0..40 {
            let slot = submit(&theirs, &long, &[]).unwrap();
            sent.send(slot).unwrap();
        }
    });
    let mut slots = Vec::new();
    loop {
        while session.submits.table().waiting == 0 && !caller.is_finished() {
            std::thread::yield_now();
        }
        slots.extend(given.try_iter());
        let ahead = session.submits.table().ahead_bytes;
        assert!(ahead <= SUBMIT_BYTES_MAX, "{ahead}");
        if caller.is_finished() {
            break;
        }
        session.take_submits(Instant(0));
        // All of its batch that there is.
        let batch = slots.last().map_or(BatchId([0; 16]), |slot| slot.of().task.batch);
        session.submits_committed(batch, slots.len() as u32);
    }
    caller.join().unwrap();
    assert_eq!(slots.len() + given.try_iter().count(), 40);
}

#[test]
fn with_another_stay_everything_of_the_former_one_ends() {
    let session = session();
    let known = submit(&session, &delayed(one)(1), &[]).unwrap();
    session.take_submits(Instant(0));
    let unseen = submit(&session, &delayed(other)(1), &[]).unwrap();
    session.submits_renamed(SessionId([3; 16]));
    for slot in [&known, &unseen] {
        assert!(matches!(slot.settled(), Some(Settled::Ended(End::Expired))), "{slot:?}");
    }
    let next = submit(&session, &delayed(one)(1), &[]).unwrap();
    assert_eq!(
        next.of().task.batch,
        BatchId::of_session(ClusterId([1; 16]), SessionId([3; 16]), 2)
    );
    let seen = seen(&session, 0);
    assert!(seen.contains(&("append", next.of().task.batch, 1)), "{seen:?}");
    assert!(
        !seen.iter().any(|(what, batch, _)| *what == "append" && *batch == unseen.of().task.batch)
    );
    session.submits_ended(&End::Closed);
    assert!(matches!(next.settled(), Some(Settled::Ended(End::Closed))));
    let untaken = submit(&session, &delayed(one)(1), &[]).unwrap_err();
    assert!(matches!(untaken, Untaken::Ended(End::Closed)));
}

#[test]
fn a_call_that_is_too_long_or_names_too_many_is_not_taken() {
    let session = session();
    let long = crate::call(|text: String| text.len() as u64, ("x".repeat(CALL_BYTES_MAX),));
    assert!(matches!(submit(&session, &long, &[]), Err(Untaken::TooLong { .. })));
    let slot = submit(&session, &delayed(one)(1), &[]).unwrap();
    let names = vec![&slot; MENTIONS_MAX + 1];
    let untaken = submit(&session, &delayed(one)(1), &names);
    assert!(matches!(untaken, Err(Untaken::TooManyNamed { .. })));
}

#[test]
fn a_batch_takes_so_many_calls_and_so_many_are_open() {
    let session = session();
    let mut batches = Vec::new();
    for n in 0..20_000 {
        let slot = submit(&session, &delayed(one)(n), &[]).unwrap();
        if batches.last() != Some(&slot.of().task.batch) {
            batches.push(slot.of().task.batch);
        }
    }
    assert_eq!(batches.len(), 3);
    for retries in 0..40 {
        submit(&session, &delayed(one)(1).retries(retries + 1), &[]).unwrap();
    }
    assert!(session.submits.table().open.len() <= OPEN_MAX);
}
