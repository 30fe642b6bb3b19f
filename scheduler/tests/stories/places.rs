//! Which worker is given which tasks of a batch that maps blobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, BlobId, WorkerId};
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::wire::client::FromClient;
use allhands_common::wire::data::ChunkRange;
use allhands_common::wire::needs::{Needs, Part, Run};
use allhands_common::wire::worker::{FromWorker, How, Order};
use allhands_scheduler::{Action, Event};

use crate::support::*;

const BLOB: BlobId = BlobId([5; 32]);

/// Chunks that one task maps: at 256 MiB in a second they travel for 31 ms.
const SLICE: u32 = 8;

/// Each task maps its own slice of one blob.
fn slices_of(slices: impl Iterator<Item = u32>) -> Needs {
    let run = |slice| {
        let chunks = ChunkRange::new(slice * SLICE, (slice + 1) * SLICE);
        Run { tasks: 1, parts: vec![Part { blob: 0, chunks }] }
    };
    Needs { blobs: vec![BLOB], runs: slices.map(run).collect() }
}

fn slices(tasks: u32) -> Needs {
    slices_of(0..tasks)
}

/// All of `tasks` tasks map the same `chunks` chunks.
fn whole(tasks: u32, chunks: u32) -> Needs {
    let parts = vec![Part { blob: 0, chunks: ChunkRange::new(0, chunks) }];
    Needs { blobs: vec![BLOB], runs: vec![Run { tasks, parts }] }
}

fn say(leader: &mut Leader, sequence: u32, needs: Needs) -> Vec<Action> {
    leader.client(FromClient::Needs { batch: batch(sequence), first: 0, needs })
}

fn submit(leader: &mut Leader, sequence: u32, tasks: u32, needs: Needs) -> Vec<Action> {
    assert_eq!(say(leader, sequence, needs), []);
    leader.submit(sequence, tasks, Policy::default())
}

fn have(leader: &mut Leader, worker: u64, whole: bool) {
    let come = vec![(BLOB, whole)];
    leader.worker(worker, FromWorker::HaveBlobs { come, gone: Vec::new() });
}

/// The tasks of `range` ran for so many milliseconds each.
fn took(range: TaskRange, ms: u64) -> How {
    How::Ran {
        segment: values(range).into(),
        run_us: u64::from(range.len()) * ms * 1000,
        mentions: Vec::new(),
    }
}

/// Workers with one slot each that take a range after the other, and who had to fetch what.
#[derive(Default)]
struct Machines {
    given: BTreeMap<u64, VecDeque<(AttemptId, TaskRange)>>,
    /// Whether the first task maps the last slice.
    backward: Option<u32>,
    /// Who used each slice in the batch.
    ran: BTreeMap<u32, u64>,
    has: BTreeSet<(u64, u32)>,
    /// Slices that travelled.
    moved: u32,
}

impl Machines {
    fn take(&mut self, actions: &[Action]) {
        for (worker, id, range) in runs(actions) {
            self.given.entry(worker).or_default().push_back((id, range));
        }
        for (worker, order) in orders(actions) {
            assert!(!matches!(order, Order::Retract { .. }), "worker {worker} is asked for tasks");
        }
    }

    /// Runs a batch to its end: each takes as long for a task, `ms`, and they take turns.
    fn run(&mut self, leader: &mut Leader, sequence: u32, actions: &[Action], ms: u64) {
        self.take(actions);
        while self.given.values().any(|given| !given.is_empty()) {
            let due: Vec<(u64, AttemptId, TaskRange)> = self
                .given
                .iter_mut()
                .filter_map(|(worker, given)| {
                    let (id, range) = given.pop_front()?;
                    Some((*worker, id, range))
                })
                .collect();
            let longest = due.iter().map(|(_, _, range)| range.len()).max().unwrap_or(0);
            let actions = leader.live(&[1, 2], u64::from(longest) * ms);
            self.take(&actions);
            for (worker, id, range) in due {
                for task in range.start..range.end {
                    let slice = self.backward.map_or(task, |tasks| tasks - 1 - task);
                    self.ran.insert(slice, worker);
                    self.moved += u32::from(self.has.insert((worker, slice)));
                }
                let actions = leader.end(worker, id, sequence, range, took(range, ms));
                self.take(&actions);
            }
        }
    }
}

#[test]
fn tasks_go_to_the_machine_that_has_their_bytes() {
    const TASKS: u32 = 64;
    let mut leader = Leader::with_workers(2, 1);
    let mut machines = Machines::default();
    let actions = submit(&mut leader, 0, TASKS, slices(TASKS));
    machines.run(&mut leader, 0, &actions, 3);
    let first = std::mem::take(&mut machines.ran);
    assert_eq!(first.len() as u32, TASKS);
    assert_eq!(machines.moved, TASKS, "each slice goes to one machine");
    let shares = [1, 2].map(|worker| first.values().filter(|ran| **ran == worker).count());
    assert!(shares.iter().all(|share| *share >= 20), "{shares:?}");

    // They say that they have parts of it; which, the leader has seen.
    (1..=2).for_each(|worker| have(&mut leader, worker, false));
    for sequence in 1..4 {
        // In the order in which nobody would come upon them by accident.
        machines.backward = (sequence != 2).then_some(TASKS);
        let needs = match machines.backward {
            Some(tasks) => slices_of((0..tasks).rev()),
            None => slices(TASKS),
        };
        let actions = submit(&mut leader, sequence, TASKS, needs);
        machines.run(&mut leader, sequence, &actions, 3);
        assert_eq!(std::mem::take(&mut machines.ran), first);
    }
    assert_eq!(machines.moved, TASKS, "nothing travels twice");
}

#[test]
fn a_range_ends_where_others_have_the_bytes() {
    let mut leader = Leader::with_workers(2, 1);
    let needs = || Needs {
        blobs: vec![BLOB, BlobId([6; 32])],
        runs: [(0, 40), (1, 60)]
            .map(|(blob, tasks)| {
                let parts = vec![Part { blob, chunks: ChunkRange::new(0, 1000) }];
                Run { tasks, parts }
            })
            .into(),
    };
    let come =
        |blob| FromWorker::HaveBlobs { come: vec![(BlobId([blob; 32]), true)], gone: Vec::new() };
    leader.worker(1, come(6));
    leader.worker(2, come(5));
    // Of what a task takes is known that it is nearly nothing: else ranges are short anyway.
    let given = runs(&leader.submit(0, 2, Policy::default()));
    let (worker, id, tasks) = given[0];
    leader.end(
        worker,
        id,
        0,
        tasks,
        How::Ran { segment: values(tasks).into(), run_us: 1, mentions: Vec::new() },
    );
    let mut given = runs(&submit(&mut leader, 1, 100, needs()));
    given.sort_by_key(|(_, _, range)| range.start);
    let of = |worker| {
        let theirs = given.iter().filter(move |(to, _, _)| *to == worker);
        theirs.map(|(_, _, range)| *range).collect::<Vec<_>>()
    };
    assert!(
        !of(1).is_empty() && of(1).iter().all(|theirs| range(40, 100).covers(*theirs)),
        "{given:?}"
    );
    assert!(
        !of(2).is_empty() && of(2).iter().all(|theirs| range(0, 40).covers(*theirs)),
        "{given:?}"
    );
}

/// Worker 1 has the blob and two ranges of one task each, of which `ms` is known; worker 2 has nothing to do.
fn busy_holder(ms: u64) -> (Leader, Vec<(AttemptId, TaskRange)>) {
    let mut leader = Leader::with_workers(1, 1);
    have(&mut leader, 1, true);
    let single = Policy { batch_size: Some(1), ..Policy::default() };
    let (_, id, tasks) = runs(&leader.submit(0, 1, single.clone()))[0];
    leader.end(1, id, 0, tasks, took(tasks, ms));
    let given = runs(&leader.submit(1, 2, single));
    let given: Vec<_> = given.into_iter().map(|(_, id, range)| (id, range)).collect();
    assert_eq!(given.len(), 2, "one that runs and the next");
    leader.register(2, Resources::cpus(1), Vec::new());
    (leader, given)
}

#[test]
fn who_has_the_bytes_is_waited_for_while_they_would_travel() {
    // 20 ms, and 256 chunks travel for a second.
    let (mut leader, given) = busy_holder(10);
    assert_eq!(runs(&submit(&mut leader, 2, 1, whole(1, 256))), [], "it waits");
    assert_eq!(runs(&leader.live(&[1, 2], 15)), []);
    let (id, tasks) = given[0];
    let actions = leader.end(1, id, 1, tasks, took(tasks, 10));
    assert_eq!(
        runs(&actions).iter().map(|run| (run.0, run.2)).collect::<Vec<_>>(),
        [(1, range(0, 1))]
    );
}

#[test]
fn who_turns_out_to_be_busy_for_longer_is_not_waited_for_any_more() {
    let (mut leader, _) = busy_holder(10);
    submit(&mut leader, 2, 1, whole(1, 256));
    assert_eq!(runs(&leader.live(&[1, 2], 990)), []);
    let given = runs(&leader.live(&[1, 2], 20));
    assert_eq!(given.iter().map(|run| (run.0, run.2)).collect::<Vec<_>>(), [(2, range(0, 1))]);
}

#[test]
fn who_is_busy_for_longer_than_the_bytes_would_travel_is_not_waited_for() {
    let (mut leader, _) = busy_holder(600);
    let given = runs(&submit(&mut leader, 2, 1, whole(1, 256)));
    assert_eq!(given.iter().map(|run| (run.0, run.2)).collect::<Vec<_>>(), [(2, range(0, 1))]);
}

#[test]
fn ranges_of_fixed_length_go_where_their_first_task_has_its_bytes() {
    let mut leader = Leader::with_workers(2, 1);
    let fixed = Policy { batch_size: Some(3), ..Policy::default() };
    say(&mut leader, 0, slices(12));
    let mut machines = Machines::default();
    let actions = leader.submit(0, 12, fixed.clone());
    machines.run(&mut leader, 0, &actions, 3);
    let first = std::mem::take(&mut machines.ran);
    say(&mut leader, 1, slices_of((0..12).rev()));
    machines.backward = Some(12);
    let actions = leader.submit(1, 12, fixed);
    machines.run(&mut leader, 1, &actions, 3);
    assert_eq!(machines.ran, first);
    assert_eq!(machines.moved, 12);
    for group in [range(0, 3), range(3, 6), range(6, 9), range(9, 12)] {
        let by: BTreeSet<_> = (group.start..group.end).map(|task| first[&task]).collect();
        assert_eq!(by.len(), 1, "{group} is one range");
    }
}

#[test]
fn a_holder_of_whose_tasks_nothing_is_known_is_not_waited_for() {
    let mut leader = Leader::with_workers(1, 1);
    have(&mut leader, 1, true);
    let single = Policy { batch_size: Some(1), ..Policy::default() };
    assert_eq!(runs(&leader.submit(0, 2, single)).len(), 2);
    leader.register(2, Resources::cpus(1), Vec::new());
    let given = runs(&submit(&mut leader, 1, 1, whole(1, 256)));
    assert_eq!(given.iter().map(|run| (run.0, run.2)).collect::<Vec<_>>(), [(2, range(0, 1))]);
}

#[test]
fn what_waits_at_a_holder_is_not_asked_back_while_the_bytes_would_travel() {
    let (mut leader, given) = busy_holder(10);
    let (id, tasks) = given[0];
    submit(&mut leader, 2, 1, whole(1, 256));
    let actions = leader.end(1, id, 1, tasks, took(tasks, 10));
    let (to, waiting, _) = runs(&actions)[0];
    assert_eq!(to, 1);
    let asked = |actions: &[Action]| {
        let retracts = orders(actions).into_iter().filter_map(|(worker, order)| match order {
            Order::Retract { attempt, .. } => Some((worker, attempt)),
            _ => None,
        });
        retracts.collect::<Vec<_>>()
    };
    let early = asked(&leader.live(&[1, 2], 900));
    assert!(!early.contains(&(1, waiting)), "{early:?}");
    let late = asked(&leader.live(&[1, 2], 200));
    assert!(late.contains(&(1, waiting)), "{late:?}");
    // Nobody sends it to where it came from.
    let actions = leader.end(1, waiting, 2, range(0, 1), How::Returned);
    assert_eq!(runs(&actions).iter().map(|run| run.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_worker_that_could_not_provide_the_data_is_not_the_first_to_try_again() {
    let mut leader = Leader::with_workers(2, 2);
    let (first, id, tasks) = runs(&submit(&mut leader, 0, 1, whole(1, 4)))[0];
    let unlent = How::Ran {
        segment: error(Cause::Unlent { message: "its disk is full".into() }).into(),
        run_us: 1,
        mentions: Vec::new(),
    };
    assert_eq!(runs(&leader.end(first, id, 0, tasks, unlent.clone())), []);
    let (second, id, tasks) = runs(&leader.live(&[1, 2], 600))[0];
    assert_ne!(first, second);
    assert_eq!(runs(&leader.end(second, id, 0, tasks, unlent)), []);
    let again = runs(&leader.live(&[1, 2], 1100));
    assert_eq!(again[0].0, first, "the last one who could not is the one that is avoided");

    // Where there is no other, it is tried there.
    let mut leader = Leader::with_workers(1, 1);
    let (_, id, tasks) = runs(&leader.submit(0, 1, Policy::default()))[0];
    let unlent = How::Ran {
        segment: error(Cause::Unlent { message: "its disk is full".into() }).into(),
        run_us: 1,
        mentions: Vec::new(),
    };
    leader.end(1, id, 0, tasks, unlent);
    assert_eq!(runs(&leader.live(&[1], 600)).len(), 1);
}

#[test]
fn a_new_leader_learns_from_the_workers_what_they_have() {
    let mut leader = Leader::with_workers(2, 1).succeed();
    let mut registration = registration(2, Resources::cpus(1), Vec::new());
    registration.depot.blobs = vec![(BLOB, false)];
    leader.register(1, Resources::cpus(1), Vec::new());
    leader.worker(2, FromWorker::Register(registration));
    leader.attach(&[]);
    // A part of it, who knows which: more than nothing.
    let given = runs(&submit(&mut leader, 0, 1, whole(1, 100)));
    assert_eq!(given.iter().map(|run| run.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_a_client_says_of_needs_is_bounded_and_goes_with_it() {
    let mut leader = Leader::with_workers(1, 1);
    let wrong = |part| Needs { blobs: vec![BLOB], runs: vec![Run { tasks: 1, parts: vec![part] }] };
    let nothing = Part { blob: 0, chunks: ChunkRange::new(3, 3) };
    say(&mut leader, 0, wrong(nothing));
    say(&mut leader, 0, wrong(Part { blob: 7, chunks: ChunkRange::new(3, 4) }));
    let far = Run { tasks: u32::MAX, ..whole(1, 1).runs[0].clone() };
    say(&mut leader, 0, Needs { blobs: vec![BLOB], runs: vec![far.clone(), far] });
    // Each twice: over another connection it is said again.
    let said = (0..3000).flat_map(|sequence| [sequence, sequence]).map(|sequence| {
        let message = FromClient::Needs { batch: batch(sequence), first: 0, needs: slices(64) };
        Event::Client { session: SESSION, owner: "ann".into(), message }
    });
    let said: Vec<Event> = said.collect();
    leader.dispatcher.handle(leader.now, &leader.state, said, &mut Vec::new());
    leader.dispatcher.check(&leader.state).unwrap();
    assert_eq!(leader.dispatcher.needs_runs(), 1 << 16);
    leader.client(FromClient::Detach);
    assert_eq!(leader.dispatcher.needs_runs(), 0);
}

#[test]
fn needs_are_forgotten_with_their_tasks() {
    let mut leader = Leader::with_workers(1, 1);
    let mut machines = Machines::default();
    let actions = submit(&mut leader, 0, 8, slices(8));
    machines.run(&mut leader, 0, &actions, 1);
    assert_eq!(leader.dispatcher.needs_runs(), 0);
    submit(&mut leader, 1, 8, slices(8));
    leader.cancel(1);
    assert_eq!(leader.dispatcher.needs_runs(), 0);
    // One that is refused was never there.
    say(&mut leader, 2, slices(3));
    leader.submit(2, 3, Policy { n_jobs: 0, ..Policy::default() });
    leader.step(Event::WorkerGone { worker: WorkerId(1) });
    leader.client(FromClient::Detach);
    assert_eq!(leader.dispatcher.needs_runs(), 0);
}
