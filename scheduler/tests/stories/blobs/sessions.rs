//! Sessions that ask where long results are, and workers that are told when nobody will.

use allhands_common::id::{BatchId, WorkerId};
use allhands_common::limit::SESSION_WANTS_MAX;
use allhands_common::policy::Policy;
use allhands_common::wire::client::DONE_WITH_BATCH;
use allhands_common::wire::worker::Order;

use super::*;

pub(super) fn ask(leader: &mut Leader) -> Vec<Action> {
    leader.client(FromClient::WantBlob { blob: BLOB })
}

pub(super) fn ask_no_more(leader: &mut Leader) -> Vec<Action> {
    leader.client(FromClient::UnwantBlob { blob: BLOB })
}

/// Whom the session is told of.
pub(super) fn answers(actions: &[Action]) -> Vec<Vec<(Holder, bool)>> {
    let answers = told(actions).into_iter().filter_map(|message| match message {
        ToClient::Holders { blob, holders } => {
            assert_eq!(blob, BLOB);
            Some(holders)
        }
        _ => None,
    });
    answers.collect()
}

#[test]
fn a_session_is_told_of_workers_and_of_no_client() {
    let mut leader = with_workers(2);
    offer(&mut leader);
    assert_eq!(answers(&ask(&mut leader)), [vec![]], "it can dial no client");
    have(&mut leader, 2, true);
    assert_eq!(answers(&ask(&mut leader)), [vec![(holder(2), true)]]);
}

#[test]
fn a_session_learns_that_somebody_has_it_after_all() {
    let mut leader = with_workers(2);
    assert_eq!(answers(&ask(&mut leader)), [vec![]]);
    assert_eq!(leader.dispatcher.blobs().blobs[0].wanted_by, 1);
    assert_eq!(answers(&have(&mut leader, 1, false)), [vec![(holder(1), false)]]);
    assert_eq!(answers(&have(&mut leader, 1, true)), Vec::<Vec<_>>::new(), "it was told");
}

#[test]
fn a_session_that_asks_no_more_or_is_away_is_not_told() {
    let mut leader = with_workers(1);
    ask(&mut leader);
    ask_no_more(&mut leader);
    assert_eq!(answers(&have(&mut leader, 1, true)), Vec::<Vec<_>>::new());
    lose(&mut leader, 1);
    ask(&mut leader);
    leader.step(Event::ClientGone { session: SESSION });
    assert_eq!(leader.dispatcher.blobs().blobs.len(), 0);
    leader.attach(&[]);
    assert_eq!(answers(&have(&mut leader, 1, true)), Vec::<Vec<_>>::new(), "it has to ask anew");
    assert_eq!(answers(&ask(&mut leader)), [vec![(holder(1), true)]]);
    leader.client(FromClient::Detach);
    lose(&mut leader, 1);
    assert_eq!(leader.dispatcher.blobs().blobs.len(), 0);
}

#[test]
fn a_session_asks_a_new_leader_again() {
    let mut leader = with_workers(1);
    have(&mut leader, 1, true);
    let mut leader = leader.succeed();
    leader.attach(&[]);
    assert_eq!(answers(&ask(&mut leader)), [vec![]]);
    let actions = register(&mut leader, 1, &[(BLOB, true)]);
    assert_eq!(answers(&actions), [vec![(holder(1), true)]]);
}

#[test]
fn a_lost_worker_is_nobody() {
    let mut leader = with_workers(1);
    have(&mut leader, 1, true);
    leader.step(Event::WorkerGone { worker: WorkerId(1) });
    assert_eq!(answers(&ask(&mut leader)), [vec![]]);
}

#[test]
fn a_session_has_no_more_than_its_share() {
    let mut leader = with_workers(1);
    for number in 0..SESSION_WANTS_MAX + 9 {
        leader.client(FromClient::WantBlob { blob: blob(number) });
    }
    let view = leader.dispatcher.blobs();
    assert_eq!(view.blobs.len() as u64 + view.more, SESSION_WANTS_MAX as u64);
}

/// Which batches a worker is told to forget.
fn forgotten(actions: &[Action]) -> Vec<(u64, BatchId)> {
    let orders = actions.iter().filter_map(|action| match action {
        Action::Order { worker, orders, .. } => Some((worker.0, orders)),
        _ => None,
    });
    let forgets = orders.flat_map(|(worker, orders)| {
        orders.iter().filter_map(move |order| match order {
            Order::Forget { batch } => Some((worker, *batch)),
            _ => None,
        })
    });
    forgets.collect()
}

fn register_keeping(leader: &mut Leader, worker: u64, results: &[BatchId]) -> Vec<Action> {
    let mut registration = registration(worker, Resources::cpus(1), Vec::new());
    *registration.depot = Depot { results: results.into(), ..depot(worker, &[]) };
    let mut actions = leader.worker(worker, FromWorker::Register(registration));
    actions.extend(leader.live(&[worker], 50));
    actions
}

#[test]
fn who_keeps_results_of_a_batch_that_is_gone_is_told_so() {
    let mut leader = with_workers(0);
    let gone = BatchId([7; 16]);
    assert_eq!(forgotten(&register_keeping(&mut leader, 1, &[gone])), [(1, gone)]);
}

#[test]
fn who_keeps_results_for_an_earlier_leader_is_told_when_the_batch_goes() {
    let mut leader = with_workers(0);
    leader.open_job(0);
    leader.submit(0, 1, Policy::default());
    let batch = batch(0);
    let mut leader = leader.succeed();
    leader.attach(&[(batch, 0)]);
    assert_eq!(forgotten(&register_keeping(&mut leader, 2, &[batch])), []);
    let mut actions = leader.cancel(0);
    actions.extend(leader.acknowledge(0, DONE_WITH_BATCH));
    actions.extend(leader.live(&[2], 50));
    assert_eq!(forgotten(&actions), [(2, batch)], "once");
}
