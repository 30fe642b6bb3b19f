//! What is recorded of tasks: when they waited, ran, waited again and ended, and what is told of it.

use std::time::Duration;

use allhands_common::execution::Need;
use allhands_common::id::{BatchId, JobId, TaskId, WorkerId};
use allhands_common::policy::{Backoff, Policy};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};
use allhands_common::wire::record::{End, Moment, PAUSES_MAX, Page, STRETCH_EDGES_MAX, Stretch};
use allhands_common::wire::worker::{Held, How};

use crate::support::*;

/// All pages of a job's record as one.
fn record_of(leader: &Leader, job: u64) -> Page {
    let ask = |from| leader.dispatcher.record(leader.now, &leader.state, JobId(job), from).unwrap();
    let mut all = ask(0);
    while let Some(from) = all.next {
        let page = ask(from);
        all.stretches.extend(page.stretches);
        all.batches.extend(page.batches);
        (all.waiting, all.next) = (page.waiting, page.next);
    }
    all
}

fn record(leader: &Leader) -> Page {
    record_of(leader, 0)
}

fn later(leader: &mut Leader, ms: u64) {
    leader.now = leader.now + Duration::from_millis(ms);
}

/// How many milliseconds after the leader's first moment.
const fn at(ms: u64) -> Option<Moment> {
    Some(Moment(ms * 1000))
}

fn ranges(stretches: &[Stretch]) -> Vec<(BatchId, TaskRange, Option<End>)> {
    stretches.iter().map(|one| (one.batch, one.range, one.end)).collect()
}

fn ran_for(range: TaskRange, run_us: u64) -> How {
    let How::Ran { segment, mentions, .. } = ran(values(range), range) else { panic!() };
    How::Ran { segment, run_us, mentions }
}

#[test]
fn each_step_of_a_range_has_its_time() {
    let mut leader = Leader::with_workers(1, 1);
    later(&mut leader, 5);
    leader.submit(0, 8, Policy { batch_size: Some(4), ..Policy::default() });
    leader.submit(1, 1, Policy { batch_size: Some(1), ..Policy::default() });
    later(&mut leader, 20);
    leader.slow = true;
    leader.end(1, attempt(0), 0, range(0, 4), ran_for(range(0, 4), 15_000));
    later(&mut leader, 2);
    leader.commit();

    let page = record(&leader);
    assert_eq!(
        (page.now, page.forgotten, page.workers),
        (Moment(27_000), 0, vec![(WorkerId(1), "host1".into())])
    );
    let [first, second, third] = &page.stretches[..] else { panic!("{:?}", page.stretches) };
    assert_eq!((first.attempt, first.range), (Some((attempt(0), WorkerId(1))), range(0, 4)));
    assert_eq!((Some(first.submitted), first.ready, first.assigned), (at(5), None, at(5)));
    assert_eq!((first.started, first.finished, first.committed), (at(10), at(25), at(27)));
    assert_eq!((first.end, first.failed, first.run_us), (Some(End::Ran), 0, 15_000));
    assert_eq!((second.range, second.assigned, second.end), (range(4, 8), at(5), None));
    assert_eq!((third.batch, third.assigned), (batch(1), at(25)), "there was no room before");
    assert_eq!(page.batches[0].function, "f");
}

#[test]
fn outcomes_in_order_are_one_stretch_unless_people_tell_them_apart() {
    for kept in [false, true] {
        let mut leader = Leader::with_workers(1, 1);
        let policy = Policy { batch_size: Some(10), ..Policy::default() };
        if kept {
            leader.keep(0, 10, true, &[], policy);
        } else {
            leader.submit(0, 10, policy);
        }
        for (ms, part) in [(3, range(0, 4)), (3, range(6, 9)), (4, range(4, 6)), (1, range(9, 10))]
        {
            later(&mut leader, ms);
            leader.end(1, attempt(0), 0, part, ran_for(part, 1000));
        }
        let page = record(&leader);
        let ended: Vec<_> = page.stretches.iter().map(|one| (one.range, one.run_us)).collect();
        if kept {
            assert_eq!(ended.len(), 4, "{ended:?}");
        } else {
            // What came between joined what was before it, and not what was behind.
            assert_eq!(ended, [(range(0, 6), 2000), (range(6, 10), 2000)]);
            let first = &page.stretches[0];
            assert_eq!((first.started, first.finished, first.committed), (at(2), at(10), at(10)));
        }
    }
}

#[test]
fn a_task_that_waits_has_its_waits() {
    let mut leader = Leader::with_workers(1, 2);
    let policy = Policy { batch_size: Some(3), ..Policy::default() };
    leader.keep(0, 3, true, &[], policy);
    let (parent, on) = (task(0, 1), child(task(0, 1), 0));
    later(&mut leader, 10);
    leader.call(1, vec![call(parent, attempt(0), 0)]);
    leader.tell(1, attempt(0), task(0, 0), ran_for(range(0, 1), 1000));
    let How::Blocked { on: waits, .. } = blocked(&[on]) else { panic!() };
    leader.tell(1, attempt(0), parent, How::Blocked { on: waits, run_us: Some(8_000) });
    leader.tell(1, attempt(0), task(0, 2), How::Returned);
    later(&mut leader, 30);
    leader.done(1, attempt(1), on);
    leader.tell(1, attempt(0), parent, How::Resumed);
    later(&mut leader, 5);
    leader.tell(1, attempt(0), parent, ran_for(range(1, 2), 0));

    let page = record(&leader);
    let find = |of: TaskId| {
        let mut all = page.stretches.iter();
        all.find(|one| one.batch == of.batch && one.range.contains(of.index)).unwrap()
    };
    let waited = find(parent);
    let pauses: Vec<_> = waited.pauses.iter().map(|p| (&p.on[..], p.since, p.until)).collect();
    assert_eq!(pauses, [(&[on][..], Moment(10_000), at(40))]);
    assert_eq!((waited.range, waited.started, waited.finished), (range(1, 2), at(2), at(45)));
    assert_eq!(find(task(0, 2)).end, Some(End::Returned), "the first attempt at it");
    let again = page.stretches.iter().rfind(|one| one.range == range(2, 3)).unwrap();
    assert_eq!((again.attempt.unwrap().0 > attempt(0), again.ready), (true, at(10)));
    let called = page.batches.iter().find(|one| one.batch == on.batch).unwrap();
    assert_eq!(called.parent, Some(parent));
}

#[test]
fn a_dependant_has_who_it_waited_for_and_until_when() {
    let mut leader = Leader::with_workers(1, 1);
    leader.kept(0, 1, &[]);
    let named = [value(0, task(0, 0)), names(1, task(0, 0), Need::Handle)];
    leader.keep(1, 2, true, &named, Policy { batch_size: Some(1), ..Policy::default() });
    later(&mut leader, 7);
    let page = record(&leader);
    let [waiting] = &page.waiting[..] else { panic!("{:?}", page.waiting) };
    assert_eq!(
        (waiting.range, waiting.ready, &waiting.edges[..]),
        (range(0, 1), None, &named[..1])
    );
    leader.done(1, attempt(0), task(0, 0));
    let page = record(&leader);
    assert_eq!((&page.waiting[..], page.more_waiting), (&[][..], 0));
    let released = page.stretches.iter().find(|one| one.edges == named[..1]).unwrap();
    assert_eq!((released.ready, released.assigned), (at(7), at(7)));
    let early = page.stretches.iter().find(|one| one.edges == named[1..]).unwrap();
    assert_eq!((early.ready, early.assigned), (None, at(0)), "it need not wait");
}

#[test]
fn what_is_tried_again_has_a_stretch_a_try() {
    let mut leader = Leader::with_workers(1, 1);
    let backoff = Backoff { first_ms: 100, max_ms: 100 };
    leader.submit(0, 1, Policy { retries: 1, backoff, ..Policy::default() });
    later(&mut leader, 3);
    leader.end(1, attempt(0), 0, range(0, 1), ran(error(panic()), range(0, 1)));
    leader.live(&[1], 300);
    let given = record(&leader).stretches;
    let [first, second] = &given[..] else { panic!("{given:?}") };
    assert_eq!((first.end, first.failed, first.committed), (Some(End::Ran), 1, None));
    assert_eq!((second.ready, second.attempt.unwrap().0), (at(103), attempt(1)));
    leader.end(1, attempt(1), 0, range(0, 1), ran(error(panic()), range(0, 1)));
    let last = record(&leader).stretches.pop().unwrap();
    assert_eq!((last.failed, last.committed), (1, Some(record(&leader).now)));
}

#[test]
fn what_never_ran_says_why() {
    let mut leader = Leader::with_workers(1, 1);
    leader.kept(0, 1, &[]);
    leader.kept(1, 1, &[value(0, task(0, 0))]);
    let policy = Policy { batch_size: Some(1), ..Policy::default() };
    leader.keep(2, 5, true, &[], policy.clone());
    leader.submit(3, 100, policy);
    leader.client(FromClient::CancelTasks { batch: batch(2), range: range(2, 5) });
    leader.cancel(3);
    leader.tell(1, attempt(0), task(0, 0), ran(error(panic()), range(0, 1)));
    let without: Vec<_> = record(&leader).stretches;
    let without: Vec<_> = without.into_iter().filter(|one| one.attempt.is_none()).collect();
    assert_eq!(
        ranges(&without),
        [
            (batch(2), range(2, 5), Some(End::NotRun)),
            (batch(3), range(0, 100), Some(End::NotRun)),
            (batch(1), range(0, 1), Some(End::Hopeless)),
        ]
    );
    assert_eq!(without[2].edges, [value(0, task(0, 0))]);
}

#[test]
fn a_lost_worker_and_a_new_leader_leave_what_is_known() {
    let mut leader = Leader::with_workers(2, 1);
    leader.kept(0, 1, &[]);
    later(&mut leader, 1);
    for _ in 0..10 {
        leader.live(&[2], 2000);
        leader.client(FromClient::Alive);
    }
    let page = record(&leader);
    let [lost, again] = page.stretches.try_into().unwrap();
    assert_eq!((lost.end, again.attempt.unwrap().1), (Some(End::GivenUp), WorkerId(2)));

    let mut next = leader.succeed();
    let mut held: Held = held_blocked(attempt(1), task(0, 0), &[task(9, 0)]);
    (held.since_us, held.blocked[0].since_us) = (900_000, 400_000);
    next.register(2, Resources::cpus(1), vec![held]);
    let page = record(&next);
    let [adopted] = &page.stretches[..] else { panic!("{:?}", page.stretches) };
    let since = |us| Moment(page.now.0 - us);
    assert_eq!((adopted.assigned, adopted.started), (Some(since(900_000)), None));
    assert_eq!((adopted.pauses[0].since, adopted.pauses[0].until), (since(400_000), None));
    assert!(Some(page.now) >= lost.finished, "time goes on from leader to leader");
}

#[test]
fn a_worker_says_that_it_runs_before_it_says_for_how_long() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 1, Policy::default());
    later(&mut leader, 50);
    leader.heartbeat(1, 1, 0, vec![held(attempt(0), batch(0), &[range(0, 1)], &[])]);
    assert_eq!(record(&leader).stretches[0].started, at(50), "not later");
    later(&mut leader, 50);
    leader.end(1, attempt(0), 0, range(0, 1), ran_for(range(0, 1), 90_000));
    assert_eq!(record(&leader).stretches[0].started, at(10));
}

#[test]
fn nothing_is_recorded_of_who_does_not_want_it() {
    let mut leader = Leader::with_workers(1, 1);
    leader.submit(0, 10, Policy { record: false, ..Policy::default() });
    leader.finish(1, attempt(0), 0, range(0, 1));
    let page = record(&leader);
    assert_eq!((page.stretches.len(), page.waiting.len()), (0, 0));
}

#[test]
fn the_record_outlives_the_job_and_is_bounded() {
    let mut leader = Leader::with_workers(1, 1);
    leader.keep(0, 5000, true, &[], Policy { batch_size: Some(5000), ..Policy::default() });
    let single = (0..5000).map(|number| {
        let one = range(number, number + 1);
        ended(attempt(0), batch(0), one, ran(values(one), one))
    });
    leader.report(1, single.collect());
    let page = record(&leader);
    let first = page.stretches.first().unwrap().range;
    assert_eq!((page.forgotten, page.stretches.len()), (904, 4096));
    assert_eq!((first, page.stretches.last().unwrap().range), (range(904, 905), range(4999, 5000)));
    assert!(
        leader.dispatcher.record(leader.now, &leader.state, JobId(0), 0).unwrap().next.is_some()
    );

    leader.client(FromClient::Acknowledge(vec![(batch(0), DONE_WITH_BATCH)]));
    leader.client(FromClient::Detach);
    assert!(leader.state.jobs.is_empty() && leader.state.batches.is_empty());
    let page = record(&leader);
    assert_eq!((page.stretches.len(), page.batches[0].function.as_str()), (4096, "f"));
    assert!(leader.dispatcher.record(leader.now, &leader.state, JobId(1), 0).is_none());
}

#[test]
fn dependencies_go_with_their_tasks_when_a_range_is_cut() {
    let mut leader = Leader::with_workers(1, 1);
    leader.kept(0, 1, &[]);
    leader.done(1, attempt(0), task(0, 0));
    let named: Vec<_> = (0..10).map(|index| value(index, task(0, 0))).collect();
    let policy = Policy { batch_size: Some(10), ..Policy::default() };
    let [(_, _, id)] = given_out(&leader.keep(1, 10, true, &named, policy))[..] else { panic!() };
    // The stories' leader looks whether what is recorded is counted after each of these.
    for part in [range(4, 6), range(0, 1), range(6, 10), range(1, 4)] {
        leader.end(1, id, 1, part, ran(values(part), part));
    }
    let page = record(&leader);
    let of_batch: Vec<_> = page.stretches.iter().filter(|one| one.batch == batch(1)).collect();
    assert_eq!(of_batch.len(), 4);
    for stretch in of_batch {
        let part = stretch.range.start as usize..stretch.range.end as usize;
        assert_eq!(stretch.edges, named[part]);
    }
}

#[test]
fn a_page_fits_a_reply() {
    let mut leader = Leader::with_workers(1, 1);
    let policy = || Policy { n_jobs: 1, ..Policy::default() };
    leader.keep(0, 2000, true, &[], policy());
    for sequence in 1..40 {
        let named: Vec<_> = (0..2000).map(|n| value(n % 2, task(0, n))).collect();
        leader.keep(sequence, 2, true, &named, policy());
    }
    let page = record(&leader);
    assert!(page.waiting.len() > 1 && page.more_waiting > 10, "{}", page.more_waiting);
    let mut bytes = Vec::new();
    allhands_common::codec::encode(&page, &mut bytes).unwrap();
    assert!(bytes.len() < 600 << 10, "{}", bytes.len());
}

#[test]
fn many_waits_and_dependencies_are_counted_beyond_a_bound() {
    let mut leader = Leader::with_workers(1, 8);
    let many = STRETCH_EDGES_MAX as u32 + 10;
    leader.keep(0, many, true, &[], Policy { n_jobs: 1, ..Policy::default() });
    let named: Vec<_> = (0..many).map(|n| names(0, task(0, n), Need::Handle)).collect();
    let given =
        given_out(&leader.keep(1, 1, true, &named, Policy { priority: 1, ..Policy::default() }));
    let [(_, _, id)] = given[..] else { panic!("{given:?}") };
    for _ in 0..PAUSES_MAX + 5 {
        leader.tell(1, id, task(1, 0), blocked(&[task(0, 0)]));
        later(&mut leader, 1);
        leader.tell(1, id, task(1, 0), How::Resumed);
    }
    let page = record(&leader);
    let waits = page.stretches.iter().find(|one| one.batch == batch(1)).unwrap();
    assert_eq!((waits.edges.len(), waits.more_edges), (STRETCH_EDGES_MAX, 10));
    assert_eq!(
        (waits.pauses.len(), waits.pauses.last().unwrap().until),
        (PAUSES_MAX, Some(page.now))
    );
}
