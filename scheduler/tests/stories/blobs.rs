//! Who is told of which holders of a blob.

mod keeps;
mod random;
mod sessions;

use std::collections::BTreeMap;

use allhands_common::id::{BlobId, BootId, CoordinatorId, RequestId, SessionId, Term};
use allhands_common::limit::{
    HOLDERS_NAMED_MAX, SESSION_OFFERS_MAX, WORKER_BLOBS_MAX, WORKER_WANTS_MAX,
};
use allhands_common::resources::Resources;
use allhands_common::role::Role;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::data::{Holder, Node};
use allhands_common::wire::worker::{Depot, FromWorker};
use allhands_scheduler::{Action, Config, Event};

use crate::support::*;

const BLOB: BlobId = BlobId([5; 32]);

/// Blobs that differ.
fn blob(number: usize) -> BlobId {
    let mut id = [6; 32];
    id[..8].copy_from_slice(&(number as u64).to_le_bytes());
    BlobId(id)
}

fn holder(worker: u64) -> Holder {
    let addresses = vec![([10, 0, 0, 1], 7000 + u16::try_from(worker).unwrap()).into()];
    Holder { node: Node { role: Role::Worker, name: format!("node{worker}") }, addresses }
}

fn client() -> Holder {
    Holder { node: Node { role: Role::Client, name: "ann".into() }, addresses: Vec::new() }
}

fn depot(worker: u64, blobs: &[(BlobId, bool)]) -> Depot {
    let Holder { node, addresses } = holder(worker);
    Depot { node: node.name, addresses, blobs: blobs.into(), results: Vec::new() }
}

fn register(leader: &mut Leader, worker: u64, blobs: &[(BlobId, bool)]) -> Vec<Action> {
    let mut registration = registration(worker, Resources::cpus(1), Vec::new());
    *registration.depot = depot(worker, blobs);
    leader.worker(worker, FromWorker::Register(registration))
}

/// A leader with a client, and workers that hold nothing.
fn with_workers(workers: u64) -> Leader {
    let mut leader = Leader::new();
    leader.attach(&[]);
    for worker in 1..=workers {
        register(&mut leader, worker, &[]);
    }
    leader
}

fn want(leader: &mut Leader, worker: u64) -> Vec<Action> {
    leader.worker(worker, FromWorker::WantBlob { blob: BLOB })
}

fn have(leader: &mut Leader, worker: u64, whole: bool) -> Vec<Action> {
    let come = vec![(BLOB, whole)];
    leader.worker(worker, FromWorker::HaveBlobs { come, gone: Vec::new() })
}

fn lose(leader: &mut Leader, worker: u64) -> Vec<Action> {
    leader.worker(worker, FromWorker::HaveBlobs { come: Vec::new(), gone: vec![BLOB] })
}

fn offer(leader: &mut Leader) -> Vec<Action> {
    leader.client(FromClient::Offer { blobs: vec![BLOB] })
}

/// Who is told of whom.
fn named(actions: &[Action]) -> Vec<(u64, Vec<(Holder, bool)>)> {
    let named = actions.iter().filter_map(|action| match action {
        Action::Holders { worker, blob, holders } => {
            assert_eq!(*blob, BLOB);
            Some((worker.0, holders.clone()))
        }
        _ => None,
    });
    named.collect()
}

fn wanted_by(worker: u64) -> ToClient {
    ToClient::Wanted { blob: BLOB, by: holder(worker) }
}

#[test]
fn who_offers_is_named_and_told_to_dial() {
    let mut leader = with_workers(1);
    offer(&mut leader);
    let actions = want(&mut leader, 1);
    assert_eq!(named(&actions), [(1, vec![(client(), true)])]);
    assert_eq!(told(&actions), [wanted_by(1)]);
}

#[test]
fn nobody_has_it_until_somebody_has() {
    let mut leader = with_workers(3);
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);
    assert_eq!(named(&want(&mut leader, 2)), [(2, vec![])], "who only wants it has nothing");
    let actions = offer(&mut leader);
    let both = named(&actions);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.iter().all(|(_, holders)| holders.contains(&(client(), true))), "{both:?}");
    assert_eq!(told(&actions), [wanted_by(1), wanted_by(2)]);
    assert_eq!(named(&have(&mut leader, 3, true)), [], "they have been told of somebody");
}

#[test]
fn who_asks_later_is_sent_to_those_who_asked_before() {
    let mut leader = with_workers(3);
    offer(&mut leader);
    want(&mut leader, 1);
    have(&mut leader, 1, false);
    want(&mut leader, 2);
    let named = named(&want(&mut leader, 3));
    let (_, mut holders) = named[0].clone();
    holders.sort_by_key(|(holder, _)| holder.node.name.clone());
    assert_eq!(holders, [(client(), true), (holder(1), false), (holder(2), false)]);
}

#[test]
fn clients_are_spared_where_workers_have_all_of_it() {
    let mut leader = with_workers(3);
    offer(&mut leader);
    have(&mut leader, 1, true);
    let actions = want(&mut leader, 3);
    assert_eq!(named(&actions), [(3, vec![(holder(1), true), (client(), true)])]);
    have(&mut leader, 2, true);
    let actions = want(&mut leader, 3);
    let (_, holders) = named(&actions)[0].clone();
    assert!(!holders.contains(&(client(), true)), "{holders:?}");
    assert_eq!((holders.len(), told(&actions).len()), (2, 0));
}

#[test]
fn hundreds_who_ask_are_sent_to_many() {
    let mut leader = with_workers(300);
    for worker in 1..=10 {
        have(&mut leader, worker, true);
    }
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    for worker in 11..=300 {
        let (_, holders) = named(&want(&mut leader, worker)).remove(0);
        assert!(holders.len() <= HOLDERS_NAMED_MAX);
        assert!(holders.iter().any(|(_, whole)| *whole));
        assert!(!holders.contains(&(holder(worker), false)), "not itself");
        for (holder, _) in holders {
            *asked.entry(holder.node.name).or_default() += 1;
        }
    }
    let most = asked.values().max().unwrap();
    assert!(*most <= 2 * 290 * 4 / 10, "one is named {most} times");
    assert!(asked.len() > 250, "only {} are named", asked.len());
}

#[test]
fn one_who_has_all_of_it_is_always_named() {
    let mut leader = with_workers(40);
    offer(&mut leader);
    for worker in 2..=40 {
        have(&mut leader, worker, false);
        let (_, holders) = named(&want(&mut leader, 1)).remove(0);
        assert!(holders.contains(&(client(), true)), "{holders:?}");
    }
}

#[test]
fn what_is_withdrawn_gone_or_lost_is_nobodys() {
    let mut leader = with_workers(3);
    offer(&mut leader);
    leader.client(FromClient::Withdraw { blobs: vec![BLOB] });
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);

    have(&mut leader, 2, true);
    lose(&mut leader, 2);
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);

    have(&mut leader, 2, true);
    leader.step(Event::WorkerGone { worker: allhands_common::id::WorkerId(2) });
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])], "it cannot be reached");
    let again = register(&mut leader, 2, &[(BLOB, true)]);
    assert_eq!(named(&again), [(1, vec![(holder(2), true)])], "it is back");

    leader.live(&[1, 3], 2500);
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])], "it is silent");
    assert_eq!(
        named(&leader.heartbeat(2, 1000, 0, Vec::new())),
        [(1, vec![(holder(2), true)])],
        "and is heard again"
    );
}

#[test]
fn a_worker_that_starts_anew_has_what_it_says() {
    let mut leader = with_workers(2);
    have(&mut leader, 2, true);
    let mut new = registration(2, Resources::cpus(1), Vec::new());
    (new.boot, *new.depot) = (BootId([2; 16]), depot(2, &[]));
    leader.worker(2, FromWorker::Register(new));
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);
}

#[test]
fn offers_end_with_the_session_and_are_said_again_after_an_attach() {
    let mut leader = with_workers(1);
    offer(&mut leader);
    leader.step(Event::ClientGone { session: SESSION });
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])], "it could not be told to dial");
    assert_eq!(named(&leader.attach(&[])), []);
    assert_eq!(named(&offer(&mut leader)), [(1, vec![(client(), true)])]);
    leader.client(FromClient::Detach);
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);
    assert_eq!(told(&offer(&mut leader)), [ToClient::SessionExpired]);
    assert_eq!(leader.dispatcher.blobs().blobs.len(), 1, "only the want is left");
}

#[test]
fn whose_want_is_over_is_not_told() {
    let mut leader = with_workers(2);
    want(&mut leader, 1);
    lose(&mut leader, 1);
    assert_eq!(named(&offer(&mut leader)), []);
    assert_eq!(leader.dispatcher.blobs().blobs[0].wanted_by, 0);
}

#[test]
fn who_cannot_be_dialled_is_no_holder_and_clients_cannot_reach_it() {
    let mut leader = with_workers(1);
    let mut alone = registration(2, Resources::cpus(1), Vec::new());
    *alone.depot = Depot { addresses: Vec::new(), ..depot(2, &[(BLOB, true)]) };
    leader.worker(2, FromWorker::Register(alone));
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);
    offer(&mut leader);
    let actions = want(&mut leader, 2);
    assert_eq!((named(&actions), told(&actions)), (vec![(2, vec![])], vec![]));
}

#[test]
fn a_new_leader_learns_it_from_registrations_and_attaches() {
    let mut leader = with_workers(2);
    offer(&mut leader);
    have(&mut leader, 2, true);
    let mut leader = leader.succeed();
    register(&mut leader, 1, &[]);
    assert_eq!(named(&want(&mut leader, 1)), [(1, vec![])]);
    let actions = register(&mut leader, 2, &[(BLOB, true)]);
    assert_eq!(named(&actions), [(1, vec![(holder(2), true)])]);
    leader.attach(&[]);
    offer(&mut leader);
    let (_, holders) = named(&want(&mut leader, 1)).remove(0);
    assert_eq!(holders, [(holder(2), true), (client(), true)]);
}

#[test]
fn another_sessions_offers_stay_when_one_ends() {
    let mut leader = with_workers(1);
    offer(&mut leader);
    let other = SessionId([8; 16]);
    let say = |leader: &mut Leader, message| {
        leader.step(Event::Client { session: other, owner: "bob".into(), message })
    };
    let attach = FromClient::Attach { session: other, low: RequestId(0), batches: Vec::new() };
    say(&mut leader, attach);
    say(&mut leader, FromClient::Offer { blobs: vec![BLOB] });
    let view = leader.dispatcher.blobs();
    assert_eq!(view.blobs[0].clients, ["bob", "ann"]);
    leader.client(FromClient::Detach);
    let (_, holders) = named(&want(&mut leader, 1)).remove(0);
    let bob = Holder { node: Node { role: Role::Client, name: "bob".into() }, ..client() };
    assert_eq!(holders, [(bob, true)]);
}

#[test]
fn nobody_has_more_than_its_share_of_the_directory() {
    let config = Config::new(CoordinatorId(1), Term(1));
    let state = allhands_scheduler::State::default();
    let mut leader = Leader::configured(config, state, allhands_common::time::Instant(0));
    leader.attach(&[]);
    let all: Vec<(BlobId, bool)> = (0..WORKER_BLOBS_MAX + 9).map(|n| (blob(n), true)).collect();
    register(&mut leader, 1, &all);
    assert_eq!(leader.dispatcher.blobs().more as usize + 1024, WORKER_BLOBS_MAX);
    let come = vec![(blob(WORKER_BLOBS_MAX + 20), true)];
    leader.worker(1, FromWorker::HaveBlobs { come, gone: Vec::new() });
    assert_eq!(leader.dispatcher.blobs().more as usize + 1024, WORKER_BLOBS_MAX);

    register(&mut leader, 1, &[]);
    assert_eq!(leader.dispatcher.blobs().blobs.len(), 0);
    for number in 0..WORKER_WANTS_MAX + 9 {
        leader.worker(1, FromWorker::WantBlob { blob: blob(number) });
    }
    let view = leader.dispatcher.blobs();
    assert_eq!(view.blobs.len() as u64 + view.more, WORKER_WANTS_MAX as u64);

    let blobs = (0..SESSION_OFFERS_MAX + 9).map(blob).collect();
    leader.client(FromClient::Offer { blobs });
    let view = leader.dispatcher.blobs();
    assert_eq!(view.blobs.len() as u64 + view.more, SESSION_OFFERS_MAX as u64);
}
