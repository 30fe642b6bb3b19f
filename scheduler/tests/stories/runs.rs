//! A batch runs.

use allhands_common::failure::Failed;
use allhands_common::id::Term;
use allhands_common::policy::Policy;
use allhands_common::wire::client::{DONE_WITH_BATCH, ToClient};
use allhands_common::wire::worker::Order;
use allhands_scheduler::AgentEvent;

use crate::support::*;

#[test]
fn a_batch_runs_on_one_real_agent_and_leaves_nothing() {
    let mut leader = Leader::with_workers(0, 0);
    let mut worker = TestWorker::new(2);
    worker.step(leader.now, AgentEvent::Connected { term: Term(1) });
    worker.settle(&mut leader, Vec::new());
    let actions = leader.submit(0, 1000, Policy::default());
    let actions = worker.settle(&mut leader, actions);
    let tasks: u32 = delivered(&actions).iter().map(|(_, tasks)| tasks.len()).sum();
    assert_eq!(tasks, 1000);
    let segments = delivered(&actions).len() as u32;
    let rest: Option<Failed> = None;
    let end = ToClient::Ended { batch: batch(0), segments, rest };
    assert_eq!(told(&actions).last(), Some(&end));
    let actions = leader.acknowledge(0, DONE_WITH_BATCH);
    assert_eq!(orders(&actions), [(1, Order::Forget { batch: batch(0) })]);
    worker.settle(&mut leader, actions);
    assert!(worker.agent.is_idle());
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn a_new_batch_starts_small_on_the_least_loaded_worker() {
    let mut leader = Leader::with_workers(2, 1);
    let actions = leader.submit(0, 4, Policy::default());
    let mut given = runs(&actions);
    given.sort_by_key(|(_, attempt, _)| *attempt);
    let expected = [
        (1, attempt(0), range(0, 1)),
        (2, attempt(1), range(1, 2)),
        (1, attempt(2), range(2, 3)),
        (2, attempt(3), range(3, 4)),
    ];
    assert_eq!(given, expected);
    let shared = orders(&actions).into_iter().filter(|(_, o)| matches!(o, Order::Batch(_)));
    assert_eq!(shared.count(), 2, "what a batch shares goes to each worker once");
}
