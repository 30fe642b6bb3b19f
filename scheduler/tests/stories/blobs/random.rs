//! Workers and clients that come, go, ask and offer in any order, against an account of who has what.

use std::collections::{BTreeMap, BTreeSet};

use allhands_common::id::WorkerId;
use proptest::prelude::*;

use super::*;

const WORKERS: u64 = 5;

#[derive(Debug, Clone, Copy)]
enum Step {
    Register(u64, bool),
    Gone(u64),
    Have(u64, bool),
    Lose(u64),
    Want(u64),
    Attach,
    ClientGone,
    Offer,
    Withdraw,
    Ask,
    AskNoMore,
    /// So long that whoever says nothing is lost.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 1..=WORKERS;
    prop_oneof![
        2 => (worker(), any::<bool>()).prop_map(|(worker, has)| Step::Register(worker, has)),
        1 => worker().prop_map(Step::Gone),
        3 => (worker(), any::<bool>()).prop_map(|(worker, whole)| Step::Have(worker, whole)),
        2 => worker().prop_map(Step::Lose),
        4 => worker().prop_map(Step::Want),
        1 => Just(Step::Attach),
        1 => Just(Step::ClientGone),
        2 => Just(Step::Offer),
        1 => Just(Step::Withdraw),
        3 => Just(Step::Ask),
        1 => Just(Step::AskNoMore),
        1 => Just(Step::Wait),
    ]
}

/// What must be so.
#[derive(Debug, Default)]
struct Account {
    /// Workers that can be asked, and whether they have the blob, or all of it.
    there: BTreeMap<u64, Option<bool>>,
    attached: bool,
    offered: bool,
    /// Workers that were told that nobody has it.
    waiting: BTreeSet<u64>,
    /// The session was told so.
    session_waits: bool,
}

impl Account {
    fn somebody_for(&self, worker: u64) -> bool {
        let others = self.there.iter().filter(|(id, _)| **id != worker);
        (self.attached && self.offered) || others.into_iter().any(|(_, has)| has.is_some())
    }

    /// No worker has it.
    fn only_offered(&self) -> bool {
        self.there.values().all(Option::is_none)
    }

    /// Who is named has it or wants it; one who has all of it is among them, if there is one.
    fn check(&mut self, actions: &[Action]) {
        for (worker, holders) in named(actions) {
            assert!(self.there.contains_key(&worker), "{worker} is not there");
            assert_eq!(!holders.is_empty(), self.somebody_for(worker), "{worker}: {holders:?}");
            match holders.is_empty() {
                true => self.waiting.insert(worker),
                false => self.waiting.remove(&worker),
            };
            let mut others = self.there.iter().filter(|(id, _)| **id != worker);
            let whole = others.any(|(_, has)| *has == Some(true));
            if whole || (self.attached && self.offered) {
                assert!(holders.is_empty() || holders.iter().any(|(_, whole)| *whole));
            }
            assert!(holders.len() <= HOLDERS_NAMED_MAX);
        }
        let has = |id: &str| {
            let id: u64 = id.strip_prefix("node").unwrap().parse().unwrap();
            self.there.get(&id)
        };
        for holders in sessions::answers(actions) {
            assert!(self.attached);
            assert_eq!(!holders.is_empty(), self.somebody_for(0) && !self.only_offered());
            assert!(holders.iter().all(|(holder, _)| holder.node.role == Role::Worker));
            let some = |(holder, _): &(Holder, bool)| has(&holder.node.name).is_some();
            assert!(holders.iter().all(some), "{holders:?}");
            self.session_waits = holders.is_empty();
        }
        assert!(!self.session_waits || self.only_offered() || !self.somebody_for(0));
        for worker in &self.waiting {
            assert!(!self.somebody_for(*worker), "{worker} was not told");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_for_what_somebody_has(steps in proptest::collection::vec(step(), 1..80)) {
        let mut leader = Leader::new();
        let mut account = Account::default();
        for step in steps {
            let actions = match step {
                Step::Register(worker, has) => {
                    account.there.insert(worker, has.then_some(true));
                    account.waiting.remove(&worker);
                    register(&mut leader, worker, if has { &[(BLOB, true)] } else { &[] })
                }
                Step::Gone(worker) => {
                    account.there.remove(&worker);
                    account.waiting.remove(&worker);
                    leader.step(Event::WorkerGone { worker: WorkerId(worker) })
                }
                // The shell lets nobody speak who is not there.
                Step::Have(worker, _) | Step::Lose(worker) | Step::Want(worker)
                    if !account.there.contains_key(&worker) => continue,
                Step::Have(worker, whole) => {
                    account.there.insert(worker, Some(whole));
                    account.waiting.remove(&worker);
                    have(&mut leader, worker, whole)
                }
                Step::Lose(worker) => {
                    account.there.insert(worker, None);
                    account.waiting.remove(&worker);
                    lose(&mut leader, worker)
                }
                Step::Want(worker) => want(&mut leader, worker),
                Step::Attach => {
                    (account.attached, account.offered) = (true, false);
                    account.session_waits = false;
                    leader.attach(&[])
                }
                Step::ClientGone => {
                    (account.attached, account.session_waits) = (false, false);
                    leader.step(Event::ClientGone { session: SESSION })
                }
                Step::Offer | Step::Withdraw | Step::Ask | Step::AskNoMore
                    if !account.attached => continue,
                Step::Ask => sessions::ask(&mut leader),
                Step::AskNoMore => {
                    account.session_waits = false;
                    sessions::ask_no_more(&mut leader)
                }
                Step::Offer => {
                    account.offered = true;
                    offer(&mut leader)
                }
                Step::Withdraw => {
                    account.offered = false;
                    leader.client(FromClient::Withdraw { blobs: vec![BLOB] })
                }
                Step::Wait => {
                    // Who is there says so; of the others what they had is forgotten.
                    let there: Vec<u64> = account.there.keys().copied().collect();
                    leader.live(&there, 2500)
                }
            };
            account.check(&actions);
        }
    }
}
