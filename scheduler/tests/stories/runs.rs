//! A batch runs.

use allhands_common::bulk::Carries as _;
use allhands_common::frame::{Header, Message as _};
use allhands_common::id::{BatchId, JobId, Term};
use allhands_common::policy::{BatchSpec, Policy, Prefer};
use allhands_common::resources::Resources;
use allhands_common::segment::SegmentBuilder;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient, ToClient};
use allhands_common::wire::worker::{Order, ToWorker};
use allhands_scheduler::{Action, AgentEvent, ArgumentSegment};

use bytes::Bytes;

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
    let ends: Vec<bool> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Deliver { last, .. } => Some(*last),
            _ => None,
        })
        .collect();
    assert_eq!(ends.iter().position(|last| *last), Some(ends.len() - 1), "said with the last one");
    assert!(!told(&actions).iter().any(|message| matches!(message, ToClient::Ended { .. })));
    leader.acknowledge(0, DONE_WITH_BATCH);
    let actions = leader.wait(5);
    assert_eq!(orders(&actions).last(), Some(&(1, Order::Forget { batch: batch(0) })));
    worker.settle(&mut leader, actions);
    assert!(worker.agent.is_idle());
    assert!(leader.state.batches.is_empty() && leader.segments.is_empty());
}

#[test]
fn threads_of_one_worker_share_a_range_that_keeps_all_of_them_busy() {
    let mut leader = Leader::with_workers(1, 2);
    let policy = Policy { prefer: Prefer::Threads, n_jobs: 20, ..Policy::default() };
    let given = full_runs(&leader.submit(0, 40, policy));
    let given: Vec<_> = given.into_iter().map(|(_, run)| (run.range, run.threads)).collect();
    assert_eq!(given, [(range(0, 20), 20), (range(20, 40), 20)]);
}

#[test]
fn a_call_of_one_task_is_one_message_and_one_command() {
    let mut leader = Leader::with_workers(1, 1);
    let (id, spec) = (batch(0), spec(Policy::default()).into());
    leader.slow = true;
    let open = leader.client(FromClient::OpenBatch {
        batch: id,
        sequence: 0,
        call: 0,
        job: JobId(0),
        spec,
        context: Bytes::new().into(),
        tasks: 1,
        segment: arguments(range(0, 1)).into(),
        sealed: true,
        kept: false,
        mentions: Vec::new(),
    });
    assert_eq!((open, leader.proposed.len()), (Vec::new(), 1));
    assert_eq!(runs(&leader.commit()), [(1, attempt(0), range(0, 1))]);
    assert!(leader.state.batches[&id].sealed);
}

#[test]
fn short_calls_queue_at_a_worker_and_long_ones_do_not() {
    let mut leader = Leader::with_workers(1, 1);
    let calls = |leader: &mut Leader, from: u32| {
        let given = (from..from + 40).map(|n| runs(&leader.submit(n, 1, Policy::default())).len());
        given.sum::<usize>()
    };
    assert_eq!(calls(&mut leader, 0), 2, "nothing is known of them");
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, Policy::default());
    leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(calls(&mut leader, 1), 32, "microseconds each");
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

#[test]
fn an_idle_worker_gets_part_of_a_range_while_others_wait_for_something_else() {
    let mut leader = Leader::with_workers(1, 1);
    let resources = Resources::cpus(1).with("gpu", 1);
    leader.submit(0, 1, Policy { resources, ..Policy::default() });
    leader.submit(1, 2, Policy { batch_size: Some(1), ..Policy::default() });
    leader.register(2, Resources::cpus(1), Vec::new());
    let asked = orders(&leader.wait(11));
    let is_it =
        |(worker, order): &(u64, Order)| *worker == 1 && matches!(order, Order::Retract { .. });
    assert!(asked.iter().any(is_it), "{asked:?}");
}

#[test]
fn an_idle_worker_gets_part_of_a_range_behind_any_number_of_newer_ones() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 4, Policy { n_jobs: 1, ..Policy::default() });
    let here = |number, tasks| held(attempt(number), batch(0), &[tasks], &[]);
    let brought = vec![here(0, range(0, 2)), here(1, range(2, 3))];
    leader.register(1, Resources::cpus(400), brought);
    leader.submit(1, 398, Policy { batch_size: Some(1), ..Policy::default() });
    leader.register(2, Resources::cpus(1), Vec::new());
    let asked = orders(&leader.wait(11));
    let is_it =
        |order: &Order| matches!(order, Order::Retract { attempt, .. } if attempt.number == 0);
    assert!(asked.iter().any(|(worker, order)| *worker == 1 && is_it(order)), "{asked:?}");
}

/// How many of the tasks given out go to which message.
fn messages(actions: &[Action]) -> Vec<(u64, u32)> {
    let tasks = |orders: &[Order]| {
        let runs = orders.iter().filter_map(|order| match order {
            Order::Run(run) => Some(run.range.len()),
            _ => None,
        });
        runs.sum()
    };
    let orders = actions.iter().filter_map(|action| match action {
        Action::Order { number, orders, .. } => Some((*number, tasks(orders))),
        _ => None,
    });
    orders.filter(|(_, tasks)| *tasks > 0).collect()
}

#[test]
fn what_a_worker_is_given_at_once_is_cut_into_messages() {
    let mut leader = Leader::with_workers(0, 0);
    leader.open(JobId(0), 0, Policy::default());
    for first in (0..36).step_by(3) {
        let mut builder = SegmentBuilder::new(0);
        let large = vec![0; 1 << 20];
        (0..3).for_each(|_| builder.push(0, [large.as_slice()].into_iter()));
        let (batch, segment) = (batch(0), builder.finish().into());
        leader.client(FromClient::Append { batch, first, tasks: 3, segment, mentions: Vec::new() });
    }
    // Each task of 1 MiB goes alone, and counts as its whole segment of 3 MiB: one fits, two do not.
    let actions = leader.register(1, Resources::cpus(4), Vec::new());
    let given = messages(&actions);
    assert_eq!(given.iter().map(|(_, tasks)| tasks).sum::<u32>(), 8, "{given:?}");
    assert!(given.iter().all(|(_, tasks)| *tasks <= 4), "{given:?}");
    assert!(given.windows(2).all(|two| two[1].0 == two[0].0 + 1), "{given:?}");
    // An inventory after the first message says nothing of what the others carry.
    let first = held(attempt(0), batch(0), &[range(0, 1)], &[]);
    assert_eq!(runs(&leader.heartbeat(1, 1, given[0].0, vec![first])), []);
}

#[test]
fn a_range_of_fixed_length_is_never_longer_than_a_message() {
    let mut leader = Leader::with_workers(1, 1);
    leader.open(JobId(0), 0, Policy { batch_size: Some(100), ..Policy::default() });
    let mut given = Vec::new();
    for first in (0..100).step_by(10) {
        let mut builder = SegmentBuilder::new(0);
        let large = vec![0; 100 << 10];
        (0..10).for_each(|_| builder.push(0, [large.as_slice()].into_iter()));
        let (batch, segment) = (batch(0), builder.finish().into());
        given.extend(leader.client(FromClient::Append {
            batch,
            first,
            tasks: 10,
            segment,
            mentions: Vec::new(),
        }));
    }
    let (_, _, tasks) = runs(&given)[0];
    assert!(tasks.len() <= 41, "{tasks:?}");
}

/// A message to a worker as its shell sends it, with the bytes that are stored: it has to fit a frame.
fn fits(leader: &Leader, number: u64, mut orders: Vec<Order>) {
    for order in &mut orders {
        match order {
            Order::Batch(shared) => {
                let progress = leader.state.batches[&shared.batch].progress();
                if let Some(context) = progress.and_then(|progress| progress.context) {
                    shared.context = leader.segments[&context].clone().into();
                }
            }
            Order::Run(run) => {
                let arguments = leader.state.batches[&run.batch].arguments_of(run.range);
                let stored =
                    |argument: &ArgumentSegment| leader.segments[&argument.segment].clone();
                run.segments = arguments.map(|argument| stored(argument).into()).collect();
            }
            _ => {}
        }
    }
    let mut message = ToWorker::Orders { term: leader.dispatcher.term(), number, orders };
    let (mut bulk, mut head) = (0, Vec::new());
    message.each_bulk(&mut |one| bulk += one.bytes.len());
    allhands_common::codec::encode(&message, &mut head).unwrap();
    Header::new(ToWorker::KIND, head.len(), bulk).unwrap();
}

#[test]
fn batches_with_much_to_share_are_given_in_messages_that_fit() {
    const BATCHES: u32 = 60;
    let mut leader = Leader::with_workers(0, 0);
    let (kib, mib) = (|n: usize| vec![0; n << 10], 1 << 20);
    for sequence in 0..BATCHES {
        // 40 KiB of head each, and of every third a context of almost all that an entry holds.
        let env = vec![("KEY".into(), "v".repeat(40 << 10))];
        let context = if sequence % 3 == 0 { kib(3 << 10) } else { Vec::new() };
        let mut segment = SegmentBuilder::new(0);
        segment.push(0, [kib(700).as_slice()].into_iter());
        leader.client(FromClient::OpenBatch {
            batch: batch(sequence),
            sequence,
            call: sequence,
            job: JobId(0),
            spec: BatchSpec { env, ..spec(Policy::default()) }.into(),
            context: Bytes::from(context).into(),
            tasks: 1,
            segment: segment.finish().into(),
            sealed: true,
            kept: false,
            mentions: Vec::new(),
        });
    }
    let actions = leader.register(1, Resources::cpus(BATCHES), Vec::new());
    let mut sent = 0;
    for action in &actions {
        if let Action::Order { number, orders, .. } = action {
            sent += 1;
            assert_eq!(*number, sent);
            fits(&leader, *number, orders.clone());
        }
    }
    let mut given: Vec<BatchId> = full_runs(&actions).iter().map(|(_, run)| run.batch).collect();
    let mut all: Vec<BatchId> = (0..BATCHES).map(batch).collect();
    given.sort_unstable();
    all.sort_unstable();
    assert_eq!(given, all);
    let bytes = BATCHES as usize * 700 * 1024;
    assert!(sent as usize >= bytes / (4 * mib), "{sent} messages");
}
