//! The whole worker, with a leader at the other end of a link that says what a test wants.

use std::future::pending;

use allhands::delayed;
use allhands_common::id::{BootId, CoordinatorId, Term, WorkerId};
use allhands_common::net::link::Link;
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::wire::worker::{Ended, FromWorker, How, Order, Run, ToWorker};
use allhands_scheduler::AgentConfig;
use allhands_store::scratch::Directory;
use allhands_worker::pool::{ExecutorCommand, Launch, output};
use allhands_worker::{Config, Coordinators, platform};

use crate::support::{Calls, Outcomes, PATIENCE, attempt, calls, note};

type Leader = Link<ToWorker, FromWorker>;

fn triple(n: u64) -> u64 {
    3 * n
}

/// Runs a worker, and `leader` until it ends; then the worker has ended, too.
fn with_worker(
    name: &str,
    shutdown: impl Future<Output = ()>,
    leader: impl AsyncFnOnce(Leader, AgentConfig),
) {
    allhands::executor::enter_if_executor();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let directory = Directory::temporary().unwrap();
    let flags = ["--include-ignored", "--nocapture", "--quiet", "--test-threads=1"];
    let args = ["--exact", name].into_iter().chain(flags);
    let agent = AgentConfig {
        worker: WorkerId(7),
        boot: BootId([1; 16]),
        name: "here".into(),
        resources: Resources::cpus(2),
        platform: platform::of_this_machine(),
    };
    let config = Config {
        agent: agent.clone(),
        launch: Launch::Own(ExecutorCommand::own(args)),
        scratch: directory.path().to_owned(),
        output: output::to_own().unwrap(),
        blobs: crate::support::blobs(directory.path()),
        plane: None,
    };
    let (near, far) = Link::pair(64);
    let both = async {
        tokio::join!(
            async {
                allhands_worker::run(config, Coordinators::Embedded(near), shutdown).await.unwrap()
            },
            leader(far, agent),
        )
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await.expect("it hangs") });
}

async fn say(link: &mut Leader, message: ToWorker) {
    link.send(message, bytes::Bytes::new()).await.unwrap();
}

/// The next message that is no heartbeat.
async fn hear(link: &mut Leader) -> Option<FromWorker> {
    loop {
        match link.recv().await.unwrap()?.0 {
            FromWorker::Heartbeat { .. } => {}
            other => return Some(other),
        }
    }
}

/// The worker's registration with the leader of `term`.
async fn register(link: &mut Leader, term: u64) -> Vec<allhands_common::wire::worker::Held> {
    say(link, ToWorker::Leader { term: Term(term), leader: CoordinatorId(1) }).await;
    let Some(FromWorker::Register(registration)) = hear(link).await else { panic!() };
    assert_eq!(registration.worker, WorkerId(7));
    say(link, ToWorker::Registered { term: Term(term) }).await;
    registration.held
}

fn run(number: u32, calls: &Calls) -> Vec<Order> {
    let run = Run {
        attempt: attempt(number),
        batch: calls.shared.batch,
        range: TaskRange::new(0, calls.tasks),
        segments: vec![calls.segment.clone().into()],
        threads: 1,
        alone: false,
        task_ns: None,
        given: Vec::new(),
        rounds: Vec::new(),
    };
    vec![Order::Batch(Box::new((*calls.shared).clone())), Order::Run(run)]
}

/// Outcomes until there are `tasks`.
async fn outcomes(link: &mut Leader, tasks: u32) -> Outcomes {
    let mut outcomes = Outcomes::new();
    while outcomes.len() < tasks as usize {
        let Some(FromWorker::Report { ended, .. }) = hear(link).await else { panic!() };
        for Ended { range, how, .. } in ended {
            let How::Ran { segment, .. } = how else { panic!("{how:?}") };
            note(&mut outcomes, range, segment.bytes);
        }
    }
    outcomes
}

#[test]
fn orders_become_outcomes_which_are_owed_until_they_are_committed() {
    const NAME: &str = "shell::orders_become_outcomes_which_are_owed_until_they_are_committed";
    with_worker(NAME, pending(), async |mut link, _| {
        assert!(register(&mut link, 1).await.is_empty());
        let calls = calls((0..1000).map(delayed(triple)));
        let orders = run(1, &calls);
        say(&mut link, ToWorker::Orders { term: Term(1), number: 1, orders }).await;
        let got = outcomes(&mut link, 1000).await;
        assert!(got.iter().all(|(n, (_, bytes))| bytes[..] == (3 * u64::from(*n)).to_le_bytes()));
        // A new leader has not committed them: they are still owed, and said again.
        let held = register(&mut link, 2).await;
        assert_eq!(
            held.iter().flat_map(|held| &held.owed).map(|range| range.len()).sum::<u32>(),
            1000
        );
        assert_eq!(outcomes(&mut link, 1000).await, got);
        let range = TaskRange::new(0, 1000);
        let orders = vec![Order::Committed { attempt: attempt(1), range }];
        say(&mut link, ToWorker::Orders { term: Term(2), number: 1, orders }).await;
        assert!(register(&mut link, 3).await.is_empty());
    });
}

#[test]
fn a_worker_that_is_told_to_end_gives_back_what_is_owed_first() {
    const NAME: &str = "shell::a_worker_that_is_told_to_end_gives_back_what_is_owed_first";
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        _ = stopped.await;
    };
    with_worker(NAME, shutdown, async |mut link, _| {
        register(&mut link, 1).await;
        let calls = calls((0..10).map(delayed(triple)));
        let orders = run(1, &calls);
        say(&mut link, ToWorker::Orders { term: Term(1), number: 1, orders }).await;
        outcomes(&mut link, 10).await;
        stop.send(()).unwrap();
        assert_eq!(hear(&mut link).await, Some(FromWorker::Draining));
        let range = TaskRange::new(0, 10);
        let orders = vec![Order::Committed { attempt: attempt(1), range }];
        say(&mut link, ToWorker::Orders { term: Term(1), number: 2, orders }).await;
        while hear(&mut link).await.is_some() {}
    });
}
