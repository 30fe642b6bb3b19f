//! Which workers keep what sessions have handles on.

use std::collections::{BTreeMap, BTreeSet};

use allhands_common::blob::BlobRef;
use allhands_common::id::WorkerId;
use allhands_common::limit::{BLOB_NEWS_MAX, SESSION_KEEPS_MAX};
use allhands_common::wire::client::Keep;
use allhands_common::wire::worker::Order;
use proptest::prelude::*;

use super::*;

const BYTES: u64 = 7 << 20;

/// Who is told to keep (`true`) or let go of it, in this order.
fn words(actions: &[Action]) -> Vec<(u64, bool)> {
    let orders = orders(actions).into_iter();
    let words = orders.filter_map(|(worker, order)| match order {
        Order::Keep { blobs } => {
            assert_eq!(blobs, [BlobRef { id: BLOB, bytes: BYTES }]);
            Some((worker, true))
        }
        Order::LetGo { blobs } => {
            assert_eq!(blobs, [BLOB]);
            Some((worker, false))
        }
        _ => None,
    });
    words.collect()
}

/// A keep of the blob.
fn keep_of(replicas: u8, at: Option<u64>) -> Keep {
    Keep { blob: BlobRef { id: BLOB, bytes: BYTES }, replicas, at: at.map(WorkerId) }
}

fn keep(leader: &mut Leader, replicas: u8, at: Option<u64>) -> Vec<(u64, bool)> {
    words(&leader.client(FromClient::Keep { blobs: vec![keep_of(replicas, at)], all: false }))
}

fn let_go(leader: &mut Leader) -> Vec<(u64, bool)> {
    words(&leader.client(FromClient::LetGo { blobs: vec![BLOB] }))
}

fn drain(leader: &mut Leader, worker: u64) -> Vec<(u64, bool)> {
    words(&leader.worker(worker, FromWorker::Draining))
}

/// Whom a session is sent to.
fn asked(leader: &mut Leader) -> Vec<String> {
    let answers = sessions::answers(&sessions::ask(leader));
    answers.concat().into_iter().map(|(holder, _)| holder.node.name).collect()
}

#[test]
fn who_has_made_it_keeps_it_until_the_last_handle_is_gone() {
    let mut leader = with_workers(2);
    // Whether it has said that it has it or not.
    assert_eq!(keep(&mut leader, 1, Some(2)), [(2, true)]);
    assert_eq!(asked(&mut leader), ["node2"]);
    assert_eq!(keep(&mut leader, 1, Some(2)), [], "it knows");
    lose(&mut leader, 2);
    assert_eq!(asked(&mut leader), ["node2"], "others have pushed it off the list of what it has");
    assert_eq!(let_go(&mut leader), [(2, false)]);
    assert_eq!(let_go(&mut leader), []);
}

#[test]
fn where_nobody_says_who_has_it_one_who_has_keeps_it() {
    let mut leader = with_workers(3);
    assert_eq!(keep(&mut leader, 1, None), [], "nobody has it");
    have(&mut leader, 3, false);
    assert_eq!(words(&have(&mut leader, 2, true)), [(2, true)]);
    assert_eq!(words(&have(&mut leader, 3, true)), [], "one is enough");
    let view = &leader.dispatcher.blobs().blobs[0];
    assert_eq!((view.bytes, view.kept_for, view.kept_by), (Some(BYTES), 1, 1));
}

#[test]
fn a_second_holder_is_found_and_one_that_cannot_is_replaced() {
    let mut leader = with_workers(3);
    assert_eq!(keep(&mut leader, 2, Some(1)), [(1, true), (2, true)]);
    assert_eq!(
        words(&leader.worker(2, FromWorker::CannotKeep { blob: BLOB })),
        [(3, true)],
        "and is not asked again"
    );
    assert_eq!(words(&leader.worker(3, FromWorker::CannotKeep { blob: BLOB })), []);
    assert_eq!(words(&register(&mut leader, 2, &[])), [(2, true)], "until it comes anew");
    let mut told = let_go(&mut leader);
    told.sort_unstable();
    assert_eq!(told, [(1, false), (2, false)]);
}

#[test]
fn as_many_keep_it_as_the_most_demanding_session_wants() {
    let mut leader = with_workers(4);
    assert_eq!(keep(&mut leader, 1, Some(1)), [(1, true)]);
    let other = SessionId([8; 16]);
    let say = |leader: &mut Leader, message| {
        words(&leader.step(Event::Client { session: other, owner: "bob".into(), message }))
    };
    let attach = FromClient::Attach { session: other, low: RequestId(0), batches: Vec::new() };
    say(&mut leader, attach);
    let keep = FromClient::Keep { blobs: vec![keep_of(3, None)], all: true };
    assert_eq!(say(&mut leader, keep), [(2, true), (3, true)]);
    have(&mut leader, 2, true);
    have(&mut leader, 3, true);
    // It goes: one is enough again.
    let told = say(&mut leader, FromClient::Detach);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(_, keeps)| !keeps), "{told:?}");
    assert_eq!(asked(&mut leader).len(), 3, "they have it as long as there is room");
}

#[test]
fn a_holder_that_is_lost_is_replaced_while_another_has_it() {
    let mut leader = with_workers(3);
    keep(&mut leader, 2, Some(1));
    have(&mut leader, 2, true);
    leader.step(Event::WorkerGone { worker: WorkerId(1) });
    let told = leader.live(&[2, 3], 2500);
    assert_eq!(words(&told), [(3, true)]);
    have(&mut leader, 3, true);
    // It comes back with what it has: one too many.
    let told = words(&register(&mut leader, 1, &[(BLOB, true)]));
    assert_eq!(told.iter().filter(|(_, keeps)| !keeps).count(), 1, "{told:?}");
    // The last ones are lost: there is nobody to ask.
    for worker in [1, 2, 3] {
        leader.step(Event::WorkerGone { worker: WorkerId(worker) });
    }
    register(&mut leader, 4, &[]);
    assert_eq!(words(&leader.live(&[4], 2500)), []);
}

#[test]
fn who_leaves_lets_go_once_another_has_it() {
    let mut leader = with_workers(3);
    keep(&mut leader, 1, Some(1));
    assert_eq!(drain(&mut leader, 1), [(2, true)]);
    assert_eq!(words(&leader.worker(2, FromWorker::CannotKeep { blob: BLOB })), [(3, true)]);
    assert_eq!(words(&have(&mut leader, 3, false)), []);
    assert_eq!(words(&have(&mut leader, 3, true)), [(1, false)]);
    // Nobody is left who could take it.
    drain(&mut leader, 2);
    assert_eq!(drain(&mut leader, 3), [(3, false)]);
}

#[test]
fn who_leaves_does_not_wait_where_nobody_can_take_it() {
    let mut leader = with_workers(2);
    keep(&mut leader, 1, Some(1));
    assert_eq!(drain(&mut leader, 1), [(2, true)]);
    let told = words(&leader.worker(2, FromWorker::CannotKeep { blob: BLOB }));
    assert_eq!(told, [(1, false)]);
}

#[test]
fn a_new_leader_hears_it_from_the_sessions_and_tells_the_workers() {
    let mut leader = with_workers(2);
    keep(&mut leader, 2, Some(1));
    have(&mut leader, 2, true);
    let mut leader = leader.succeed();
    register(&mut leader, 1, &[(BLOB, true)]);
    leader.attach(&[]);
    assert_eq!(keep(&mut leader, 2, Some(1)), [(1, true)], "the other has not registered");
    assert_eq!(words(&register(&mut leader, 2, &[(BLOB, true)])), [(2, true)]);
    assert_eq!(words(&register(&mut leader, 2, &[(BLOB, true)])), [(2, true)], "and again");
}

#[test]
fn what_was_let_go_while_the_session_was_away_is_let_go() {
    let mut leader = with_workers(1);
    keep(&mut leader, 1, Some(1));
    leader.step(Event::ClientGone { session: SESSION });
    assert_eq!(words(&leader.attach(&[])), []);
    let again = FromClient::Keep { blobs: vec![keep_of(1, Some(1))], all: true };
    assert_eq!(words(&leader.client(again)), []);
    leader.attach(&[]);
    let nothing = FromClient::Keep { blobs: Vec::new(), all: true };
    assert_eq!(words(&leader.client(nothing)), [(1, false)]);
}

#[test]
fn a_session_that_is_closed_keeps_nothing() {
    let mut leader = with_workers(1);
    keep(&mut leader, 1, Some(1));
    assert_eq!(words(&leader.client(FromClient::Detach)), [(1, false)]);
}

#[test]
fn a_session_has_no_more_handles_than_its_share() {
    let mut leader = with_workers(1);
    let one = |number| Keep { blob: BlobRef { id: blob(number), bytes: 1 }, ..keep_of(1, Some(1)) };
    let all: Vec<Keep> = (0..SESSION_KEEPS_MAX + 9).map(one).collect();
    let actions = leader.client(FromClient::Keep { blobs: all, all: false });
    let told: Vec<usize> = orders(&actions)
        .into_iter()
        .map(|(_, order)| match order {
            Order::Keep { blobs } => blobs.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told.iter().sum::<usize>(), SESSION_KEEPS_MAX);
    assert!(told.iter().all(|some| *some <= BLOB_NEWS_MAX));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Register(u64),
    Gone(u64),
    Drain(u64),
    Have(u64),
    Cannot(u64),
    Keep(u8, Option<u64>),
    LetGo,
    Away,
    Wait,
}

const WORKERS: u64 = 4;

fn step() -> impl Strategy<Value = Step> {
    let worker = || 1..=WORKERS;
    prop_oneof![
        2 => worker().prop_map(Step::Register),
        1 => worker().prop_map(Step::Gone),
        1 => worker().prop_map(Step::Drain),
        3 => worker().prop_map(Step::Have),
        1 => worker().prop_map(Step::Cannot),
        2 => (1..4u8, proptest::option::of(worker())).prop_map(|(most, at)| Step::Keep(most, at)),
        1 => Just(Step::LetGo),
        1 => Just(Step::Away),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes and goes: what workers were told is what the leader has them keep, its books agree
    /// (`Leader::step` looks), and once there is no handle nobody keeps anything.
    #[test]
    fn nobody_keeps_it_for_nothing(steps in proptest::collection::vec(step(), 1..60)) {
        let mut leader = Leader::new();
        leader.attach(&[]);
        let mut there: BTreeSet<u64> = BTreeSet::new();
        let mut keeping: BTreeMap<u64, bool> = BTreeMap::new();
        let mut told = |told: Vec<(u64, bool)>| {
            for (worker, keeps) in told {
                keeping.insert(worker, keeps);
            }
            keeping.clone()
        };
        for step in steps {
            let actions = match step {
                Step::Register(worker) => {
                    there.insert(worker);
                    register(&mut leader, worker, &[])
                }
                Step::Gone(worker) => {
                    there.remove(&worker);
                    leader.step(Event::WorkerGone { worker: WorkerId(worker) })
                }
                Step::Drain(worker) | Step::Have(worker) | Step::Cannot(worker)
                    if !there.contains(&worker) => continue,
                Step::Drain(worker) => leader.worker(worker, FromWorker::Draining),
                Step::Have(worker) => have(&mut leader, worker, true),
                Step::Cannot(worker) => {
                    told(vec![(worker, false)]);
                    leader.worker(worker, FromWorker::CannotKeep { blob: BLOB })
                }
                Step::Keep(most, at) => {
                    let at = at.filter(|at| there.contains(at));
                    let blobs = vec![keep_of(most, at)];
                    leader.client(FromClient::Keep { blobs, all: false })
                }
                Step::LetGo => leader.client(FromClient::LetGo { blobs: vec![BLOB] }),
                Step::Away => {
                    leader.step(Event::ClientGone { session: SESSION });
                    leader.attach(&[])
                }
                Step::Wait => {
                    let there: Vec<u64> = there.iter().copied().collect();
                    leader.live(&there, 2500)
                }
            };
            told(words(&actions));
        }
        // Everybody is there, and the last handle goes.
        for worker in 1..=WORKERS {
            let actions = register(&mut leader, worker, &[]);
            told(words(&actions));
        }
        let nothing = FromClient::Keep { blobs: Vec::new(), all: true };
        leader.step(Event::ClientGone { session: SESSION });
        leader.attach(&[]);
        let actions = leader.client(nothing);
        let keeping = told(words(&actions));
        // Who was away when it was let go is not told again: it drops what no leader has named since.
        for worker in 1..=WORKERS {
            let actions = register(&mut leader, worker, &[]);
            prop_assert_eq!(words(&actions), []);
        }
        drop(keeping);
    }
}
