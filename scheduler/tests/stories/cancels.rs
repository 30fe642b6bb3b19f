//! Single tasks of a batch that nobody wants any more.

use allhands_common::failure::Cause;
use allhands_common::policy::Policy;
use allhands_common::resources::Resources;
use allhands_common::wire::client::FromClient;
use allhands_common::wire::worker::{ALL_TASKS, How, Order};
use allhands_scheduler::{Action, Command, Event};

use crate::support::*;

fn cancel_tasks(leader: &mut Leader, start: u32, end: u32) -> Vec<Action> {
    leader.client(FromClient::CancelTasks { batch: batch(0), range: range(start, end) })
}

fn is_cancelled(leader: &Leader, index: u32) -> bool {
    matches!(leader.failure(0, index).cause, Cause::Cancelled { .. })
}

#[test]
fn a_waiting_task_is_cancelled_and_its_neighbours_run() {
    let mut leader = Leader::with_workers(0, 0);
    leader.submit(0, 3, Policy::default());
    let actions = cancel_tasks(&mut leader, 1, 2);
    assert_eq!(delivered(&actions), [(0, range(1, 2))]);
    assert!(is_cancelled(&leader, 1));
    let actions = leader.register(1, Resources::cpus(4), Vec::new());
    let given: Vec<_> = runs(&actions).into_iter().map(|(_, _, range)| range).collect();
    assert_eq!(given, [range(0, 1), range(2, 3)]);
}

#[test]
fn of_an_attempt_the_rest_comes_back_and_runs_again() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 2, Policy { batch_size: Some(2), ..Policy::default() });
    let actions = cancel_tasks(&mut leader, 0, 1);
    let retract = Order::Retract { attempt: attempt(0), tasks: ALL_TASKS };
    assert_eq!(orders(&actions), [(1, retract)]);
    let actions = leader.end(1, attempt(0), 0, range(1, 2), How::Returned);
    assert_eq!(runs(&actions), [(1, attempt(1), range(1, 2))], "the worker knows the batch");
    // The cancelled one still runs there, and the order to stop it is given again until it does not.
    let stop = (1, Order::Cancel { attempt: attempt(0) });
    assert!(orders(&actions).contains(&stop));
    let held = vec![
        held(attempt(0), batch(0), &[range(0, 1)], &[]),
        held(attempt(1), batch(0), &[range(1, 2)], &[]),
    ];
    assert_eq!(orders(&leader.heartbeat(1, 1, 9, held)), [stop]);
    let actions = leader.end(1, attempt(0), 0, range(0, 1), How::Cancelled);
    assert_eq!(runs(&actions), []);
}

#[test]
fn an_attempt_of_which_nothing_else_is_left_is_stopped() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, Policy::default());
    let actions = cancel_tasks(&mut leader, 0, 1);
    assert_eq!(orders(&actions), [(1, Order::Cancel { attempt: attempt(0) })]);
    assert!(is_cancelled(&leader, 0));
    // Its value comes too late, and is not kept.
    let actions = leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(delivered(&actions), []);
}

#[test]
fn what_has_ended_stays_as_it_is() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, Policy::default());
    leader.finish(1, attempt(0), 0, range(0, 1));
    let actions = cancel_tasks(&mut leader, 0, 1);
    assert_eq!((delivered(&actions), orders(&actions).len()), (Vec::new(), 0));
    // Nor does it matter of which tasks, or of which batch.
    assert_eq!(delivered(&cancel_tasks(&mut leader, 7, 9)), []);
    let unknown = FromClient::CancelTasks { batch: batch(5), range: range(0, 1) };
    assert_eq!(delivered(&leader.client(unknown)), []);
}

#[test]
fn one_that_must_not_run_twice_is_not_sent_once_it_is_cancelled() {
    let mut leader = Leader::with_workers(1, 1);
    leader.slow = true;
    leader.submit(0, 1, Policy { idempotent: false, ..Policy::default() });
    let opened = std::mem::take(&mut leader.proposed);
    let effects = leader.apply(opened);
    leader.step(Event::Applied(effects));
    assert!(matches!(leader.proposed[..], [Command::Start { .. }]));
    cancel_tasks(&mut leader, 0, 1);
    leader.proposed.reverse();
    let actions = leader.commit();
    assert_eq!(delivered(&actions), [(0, range(0, 1))]);
    assert_eq!(orders(&actions), []);
    assert!(leader.state.batches[&batch(0)].progress().unwrap().started.is_empty());
}
