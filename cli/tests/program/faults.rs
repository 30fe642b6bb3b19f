//! Processes of a cluster end, or stop, in the middle of a batch. The numbers are those of the
//! project's promises.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use allhands::Cause;
use allhands::prelude::*;
use rustix::process::{Signal, kill_process};

use crate::batch::{all_results_come, cluster, connect};
use crate::support::{Dev, eventually, kill_9, processes_of, within};

fn leader(dev: &Dev) -> String {
    format!("coordinator-{}", eventually("a leader", || dev.leader()))
}

/// Promise 1.
pub(crate) fn the_leader_is_killed() {
    let dev = cluster();
    let leader = leader(&dev);
    let came = all_results_come(&dev, || kill_9(dev.pid(&leader)));
    println!("{came}");
    assert!(came.gap < Duration::from_secs(2), "{came}");
}

/// Promise 7: another leads; the old one finds out when it wakes, and nothing of it is believed.
pub(crate) fn the_leader_is_paused() {
    let dev = cluster();
    let leader = leader(&dev);
    let pid = dev.pid(&leader);
    let came = all_results_come(&dev, || kill_process(pid, Signal::STOP).unwrap());
    println!("{came}");
    kill_process(pid, Signal::CONT).unwrap();
    eventually("the old leader follows", || {
        let status = dev.status()?;
        let all = status["coordinators"].as_array()?;
        all.iter().all(|one| one["state"] != "silent").then_some(())
    });
    assert!(came.gap < Duration::from_secs(2), "{came}");
}

/// Promise 3: what was acknowledged comes back with them, and what runs goes on.
pub(crate) fn all_coordinators_are_killed() {
    let dev = cluster();
    let names = ["coordinator-1", "coordinator-2", "coordinator-3"];
    let mut again = Vec::new();
    let came = all_results_come(&dev, || {
        names.iter().for_each(|name| kill_9(dev.pid(name)));
        eventually("all are gone", || {
            let said = dev.said();
            names.iter().all(|name| said.contains(&format!("{name} (pid "))).then_some(())
        });
        again.extend(names.map(|name| dev.start_again(name)));
    });
    println!("{came}");
    assert!(came.gap < Duration::from_secs(5), "{came}");
}

/// A call that has no leader for longer than its deadline ends of that, long before its client gives the
/// cluster up.
pub(crate) fn a_deadline_needs_no_coordinator() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "1", "--slots", "1"]);
    let cluster = connect(&dev);
    kill_9(dev.pid("coordinator-1"));
    let parallel = Parallel::new().on(&cluster).deadline(Duration::from_secs(3));
    let begun = Instant::now();
    let error = parallel.run((0..9).map(delayed(identity))).unwrap_err();
    println!("ended after {:.2?}", begun.elapsed());
    let cause = error.task().and_then(TaskError::cause);
    assert!(matches!(cause, Some(Cause::DeadlinePassed { limit_ms: 3000 })), "{error}");
}

fn identity(n: u64) -> u64 {
    n
}

/// Promises 5 and 19. The other worker goes on meanwhile.
pub(crate) fn a_worker_is_killed() {
    let dev = cluster();
    let executors = || processes_of(&dev.dir().join("data/worker-1/programs"));
    let came = all_results_come(&dev, || {
        assert!(!executors().is_empty(), "no executor is found, so that its end cannot be seen");
        kill_9(dev.pid("worker-1"));
        within(Duration::from_secs(2), "its executors are gone", || {
            executors().is_empty().then_some(())
        });
    });
    println!("{came}");
    assert!(came.gap < Duration::from_secs(5), "{came}");
}

/// It gives back what it has not started, and ends.
pub(crate) fn a_worker_is_drained() {
    let dev = cluster();
    let came = all_results_come(&dev, || {
        kill_process(dev.pid("worker-1"), Signal::TERM).unwrap();
        eventually("the worker has ended", || dev.said().contains("worker-1 (pid ").then_some(()));
        assert!(dev.said().contains("exit status: 0"), "{}", dev.said());
    });
    println!("{came}");
    assert_eq!(dev.workers_ready(), 1);
    assert!(came.gap < Duration::from_secs(5), "{came}");
}

/// First word of this program when it is a client that is to be killed.
pub(crate) const AS_CLIENT: &str = "client";

/// The lease of a client, and some time to notice that it is over.
const LEASE: Duration = Duration::from_secs(25);

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn long_nap(n: u64) -> u64 {
    std::thread::sleep(Duration::from_secs(1));
    n
}

/// A client with an hour's work, in the cluster of a directory.
pub(crate) fn be_client(directory: &str) {
    let addresses = std::fs::read_to_string(Path::new(directory).join("cluster")).unwrap();
    let identity = Path::new(directory).join("client");
    let cluster = Cluster::connect(addresses.trim(), identity).unwrap();
    let done: Vec<u64> =
        Parallel::new().on(&cluster).run((0..7_200).map(delayed(long_nap))).unwrap();
    assert_eq!(done.len(), 7_200);
}

/// What it left is cancelled when its lease is over.
pub(crate) fn a_client_is_killed() {
    let dev = cluster();
    let mut client = Client(
        Command::new(std::env::current_exe().unwrap())
            .arg(AS_CLIENT)
            .arg(dev.dir())
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let count = |what: &str| dev.status()?[what].as_u64();
    eventually("its tasks run", || count("running").filter(|running| *running > 0));
    client.0.kill().unwrap();
    let start = Instant::now();
    within(LEASE, "its tasks are cancelled", || (count("running")? == 0).then_some(()));
    within(LEASE, "its job is forgotten", || (count("jobs")? == 0).then_some(()));
    println!("forgotten after {:.1?}", start.elapsed());
    // Others are served as if nothing had been.
    let done: Vec<u64> =
        Parallel::new().on(&connect(&dev)).run((0..2).map(delayed(long_nap))).unwrap();
    assert_eq!(done, [0, 1]);
}

struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}
