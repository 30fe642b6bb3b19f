//! Taking back under fire: each task runs once, here or there.

use allhands::delayed;
use allhands_common::range::TaskRange;
use allhands_scheduler::{ExecutorEvent, Share};

use crate::support::{Outcomes, attempt, calls, note, with_pool};

fn spin(n: u32) -> u32 {
    (0..200).fold(n, |n, _| std::hint::black_box(n))
}

#[test]
fn every_task_runs_exactly_once_while_tails_move_between_executors() {
    const TASKS: u32 = 200_000;
    with_pool(
        "retract::every_task_runs_exactly_once_while_tails_move_between_executors",
        async |rig| {
            let executors = [rig.executor(1).await, rig.executor(2).await];
            let calls = calls((0..TASKS).map(delayed(spin)));
            // What each attempt still has, by its number; the first executor begins with everything.
            let mut open = vec![TaskRange::default(), TaskRange::new(0, TASKS)];
            rig.load_part(executors[0], 1, &calls, open[1]);
            let mut working = [Some(1), None];
            let mut outcomes = Outcomes::new();
            let mut moves = 0;
            while working != [None, None] {
                // The idle one is given the half that the other has not started.
                for idle in 0..2 {
                    let Some(number) = working[1 - idle].filter(|_| working[idle].is_none()) else {
                        continue;
                    };
                    let taken = rig.pool.take(executors[1 - idle], attempt(number), Share::Half);
                    let ExecutorEvent::Taken { range: returned, .. } = taken else {
                        continue;
                    };
                    if !returned.is_empty() {
                        open[number as usize].end = returned.start;
                        open.push(returned);
                        let number = open.len() as u32 - 1;
                        rig.load_part(executors[idle], number, &calls, returned);
                        working[idle] = Some(number);
                        moves += 1;
                    }
                }
                match rig.event().await {
                    (_, ExecutorEvent::Outcomes { range, segment, .. }) => {
                        note(&mut outcomes, range, segment);
                    }
                    (executor, ExecutorEvent::Finished { .. }) => {
                        working[usize::from(executor == executors[1])] = None;
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(moves > 0);
            assert_eq!(outcomes.len(), TASKS as usize);
        },
    );
}

#[test]
fn a_load_that_has_not_begun_is_taken_back_whole() {
    with_pool("retract::a_load_that_has_not_begun_is_taken_back_whole", async |rig| {
        let executor = rig.executor(1).await;
        let calls = calls((0..1000).map(delayed(spin)));
        rig.load(executor, 1, &calls);
        rig.load(executor, 2, &calls);
        let taken = rig.pool.take(executor, attempt(2), Share::All);
        let ExecutorEvent::Taken { range: returned, .. } = taken else { panic!() };
        assert_eq!(rig.finish(1).await.len(), 1000);
        assert_eq!(rig.finish(2).await.len() as u32, returned.start);
        let nothing = ExecutorEvent::Taken { attempt: attempt(2), range: TaskRange::default() };
        assert_eq!(rig.pool.take(executor, attempt(2), Share::All), nothing);
    });
}
