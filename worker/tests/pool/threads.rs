//! One process, many lanes.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use allhands::delayed;
use allhands_common::failure::Cause;
use allhands_common::id::AttemptId;
use allhands_common::policy::Policy;
use allhands_scheduler::ExecutorEvent;

use crate::support::{Death, Outcomes, attempt, calls, calls_with, note, with_pool};

const LANES: u16 = 8;
const LOADS: u32 = 60;

/// Ends when all lanes are in it at once.
fn meet(n: u32) -> u32 {
    static THERE: Mutex<u32> = Mutex::new(0);
    static ALL: Condvar = Condvar::new();
    let mut there = THERE.lock().unwrap();
    *there += 1;
    let round = there.next_multiple_of(LANES.into());
    ALL.notify_all();
    while *there < round {
        there = ALL.wait(there).unwrap();
    }
    n
}

fn same(n: u32) -> u32 {
    n
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "that is what is tested")]
fn stuck(n: u32) -> u32 {
    match n {
        0 => std::process::exit(9),
        _ => loop {
            std::thread::park();
        },
    }
}

#[test]
fn tasks_of_one_load_run_at_once_and_all_come_back() {
    with_pool("threads::tasks_of_one_load_run_at_once_and_all_come_back", async |rig| {
        let executor = rig.executor_of(1, LANES).await;
        rig.load(executor, 1, &calls((0..4 * u32::from(LANES)).map(delayed(meet))));
        let outcomes = rig.finish(1).await;
        assert_eq!(outcomes.len() as u32, 4 * u32::from(LANES));
        assert!(outcomes.iter().all(|(index, (_, string))| string[..] == index.to_le_bytes()));
    });
}

#[test]
fn many_short_tasks_in_many_loads_come_back_once_each() {
    with_pool("threads::many_short_tasks_in_many_loads_come_back_once_each", async |rig| {
        let executor = rig.executor_of(1, LANES).await;
        let calls = calls((0..2000).map(delayed(same)));
        // Two at a time; the later one may end first.
        let (mut given, mut ended) = (2, 0);
        rig.load(executor, 1, &calls);
        rig.load(executor, 2, &calls);
        let mut outcomes: BTreeMap<AttemptId, Outcomes> = BTreeMap::new();
        while ended < LOADS {
            match rig.event().await.1 {
                ExecutorEvent::Outcomes { attempt, range, segment, .. } => {
                    note(outcomes.entry(attempt).or_default(), range, segment);
                }
                ExecutorEvent::Finished { attempt } => {
                    let outcomes = outcomes.remove(&attempt).unwrap();
                    assert_eq!(outcomes.len(), 2000);
                    assert!(outcomes.iter().all(|(n, (_, string))| string[..] == n.to_le_bytes()));
                    ended += 1;
                    given += 1;
                    if given <= LOADS {
                        rig.load(executor, given, &calls);
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    });
}

#[test]
fn all_that_ran_when_the_process_died_are_named() {
    with_pool("threads::all_that_ran_when_the_process_died_are_named", async |rig| {
        let executor = rig.executor_of(1, 2).await;
        rig.load(executor, 3, &calls([1, 0].map(delayed(stuck))));
        let Death { mut running, cause, .. } = rig.death().await;
        running.sort_unstable();
        assert!(matches!(cause, Cause::ExecutorDied { exit: Some(9), .. }), "{cause}");
        assert!(running.contains(&(attempt(3), 1)), "{running:?}");
    });
}

#[test]
fn only_the_overdue_task_is_named_by_a_timeout() {
    with_pool("threads::only_the_overdue_task_is_named_by_a_timeout", async |rig| {
        let executor = rig.executor_of(1, 2).await;
        let policy = Policy { timeout_ms: Some(50), ..Policy::default() };
        rig.load(executor, 1, &calls_with([1].map(delayed(stuck)), policy));
        rig.load(executor, 2, &calls([1].map(delayed(stuck))));
        let Death { mut running, culprit, cause, .. } = rig.death().await;
        running.sort_unstable();
        assert_eq!((culprit, cause), (Some((attempt(1), 0)), Cause::TimedOut { limit_ms: 50 }));
        assert!(running.contains(&(attempt(1), 0)));
    });
}
