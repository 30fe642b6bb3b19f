//! `allhands dev`.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Dev, allhands, eventually, kill_9, output, processes_of, run, within};

#[test]
fn three_and_two_survive_their_leader_and_end_with_ctrl_c() {
    let mut dev = Dev::start(&["--coordinators", "3", "--workers", "2", "--slots", "1"]);
    let status = dev.status().unwrap();
    assert_eq!(status["coordinators"].as_array().unwrap().len(), 3);
    assert_eq!(dev.workers_ready(), 2);
    assert_eq!(status["workers"][0]["name"], "worker-1");
    assert_eq!(status["workers"][0]["slots"], 1);
    let log = std::fs::read_to_string(dev.dir().join("logs/worker-1.log")).unwrap();
    assert_eq!(log.matches("has joined the cluster").count(), 1, "{log}");
    let of_worker = ["data/worker-1/programs", "data/worker-1/blobs"];
    for private in ["", "logs", "data", "data/coordinator-1/segments"].iter().chain(&of_worker) {
        let mode = std::fs::metadata(dev.dir().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{private}");
    }
    let shown = output(&mut dev.ask(["status"]));
    assert!(shown.contains("worker-2") && shown.contains("leader"), "{shown}");
    assert!(output(&mut dev.ask(["jobs"])).starts_with("job "));
    assert_eq!(output(&mut dev.ask(["jobs", "--json"])), "{\"jobs\":[],\"more_jobs\":0}\n");

    let first = dev.leader().unwrap();
    let name = format!("coordinator-{first}");
    kill_9(dev.pid(&name));
    eventually("another leader", || dev.leader().filter(|leader| *leader != first));
    eventually("both workers with the new leader", || (dev.workers_ready() == 2).then_some(()));
    assert!(dev.said().contains(&format!("{name} (pid ")), "{}", dev.said());
    let state = |number: u64| {
        let status = dev.status()?;
        let all = status["coordinators"].as_array()?;
        let one = all.iter().find(|one| one["id"] == number)?;
        one["state"].as_str().map(str::to_owned)
    };
    assert_eq!(state(first).as_deref(), Some("silent"));

    let again = dev.start_again(&name);
    eventually("the former leader follows", || (state(first)? == "follower").then_some(()));
    drop(again);

    dev.signal(Signal::INT);
    assert_eq!(dev.ended().code(), Some(0));
    assert_eq!(processes_of(dev.dir()), Vec::<String>::new());
}

#[test]
fn nothing_outlives_a_parent_that_is_killed() {
    let mut dev = Dev::start(&["--coordinators", "1", "--workers", "1"]);
    dev.signal(Signal::KILL);
    dev.ended();
    within(Duration::from_secs(5), "all children are gone", || {
        processes_of(dev.dir()).is_empty().then_some(())
    });
}

#[test]
fn a_second_run_is_the_same_cluster() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("dev");
    let mut first = Dev::start_in(&dir, &["--coordinators", "1", "--workers", "1"]);
    let before = first.status().unwrap();

    let (code, _, error) = run(allhands(["dev", "--dir"]).arg(&dir));
    assert_eq!(code, Some(1));
    assert!(error.contains("is running in") && error.contains("dev"), "{error}");

    first.signal(Signal::TERM);
    assert_eq!(first.ended().code(), Some(0));
    drop(first);

    let second = Dev::start_in(&dir, &[]);
    let after = second.status().unwrap();
    assert_eq!(after["cluster"], before["cluster"]);
    assert_eq!(after["coordinators"][0]["address"], before["coordinators"][0]["address"]);
    assert!(after["term"].as_u64() > before["term"].as_u64());
    assert_eq!(second.workers_ready(), 1);
    drop(second);

    let (code, _, error) = run(allhands(["dev", "--coordinators", "3", "--dir"]).arg(&dir));
    assert_eq!(code, Some(1));
    assert!(error.contains("a cluster of 1 coordinators, not 3"), "{error}");

    let address = after["coordinators"][0]["address"].as_str().unwrap();
    let _taken = UdpSocket::bind(address).unwrap();
    let (code, _, error) = run(allhands(["dev", "--dir"]).arg(&dir));
    assert_eq!(code, Some(1));
    assert!(error.contains(address) && error.contains("another process"), "{error}");
    assert_eq!(processes_of(&dir), Vec::<String>::new());
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("thesis.txt"), "chapter one").unwrap();
    let (code, _, error) = run(allhands(["dev", "--dir"]).arg(temporary.path()));
    assert_eq!(code, Some(1));
    assert!(error.contains("is not empty"), "{error}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
}

/// Longer than any election timeout: who has heard no quorum for so long leads no more.
const IDLE: Duration = Duration::from_millis(1_500);

#[test]
fn a_lone_coordinator_leads_though_nobody_answers_it() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "0"]);
    let start = Instant::now();
    while start.elapsed() < IDLE {
        let mut status = dev.ask(["status", "--patience", "3"]);
        output(&mut status);
    }
}
