//! What coordinators and workers that are started one by one say of themselves.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Again, allhands, eventually, output, run};

/// Three addresses where nobody listens. Somebody else may take one before it is used: that has not been
/// seen yet.
fn addresses() -> [String; 3] {
    let held = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    held.map(|socket| socket.local_addr().unwrap().to_string())
}

fn coordinator(dir: &Path, id: usize, addresses: &[String], members: &str) -> Command {
    let (listen, id) = (&addresses[id - 1], id.to_string());
    let mut command =
        allhands(["coordinator", "--id", &id, "--listen", listen, "--members", members]);
    command.arg("--identity").arg(dir.join(format!("coordinator-{id}")));
    command.arg("--dir").arg(dir.join(format!("data-{id}")));
    command
}

fn until_said(log: &Path, what: &str) {
    eventually(what, || std::fs::read_to_string(log).unwrap().contains(what).then_some(()));
}

#[test]
fn a_coordinator_serves_and_says_whom_it_follows_or_that_it_waits() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = &temporary.path().join("x");
    let addresses = addresses();
    let members: Vec<_> = (1..).zip(&addresses).map(|(id, at)| format!("{id}={at}")).collect();
    let members = members.join(",");
    output(allhands(["init"]).arg(dir).args(["--at", &addresses.join(",")]));
    let logs = [1, 2].map(|id| dir.join(format!("log-{id}")));
    // It was there before, for everybody to read.
    std::fs::create_dir(dir.join("data-1")).unwrap();
    std::fs::set_permissions(dir.join("data-1"), PermissionsExt::from_mode(0o755)).unwrap();

    let first = Again::start(&mut coordinator(dir, 1, &addresses, &members), &logs[0]);
    until_said(&logs[0], &format!("coordinator 1 is ready at {}", addresses[0]));
    until_said(&logs[0], "coordinator 1 is waiting for a majority: 1 of 3 answer");
    let second = Again::start(&mut coordinator(dir, 2, &addresses, &members), &logs[1]);
    let leads = |id: usize| {
        let said = std::fs::read_to_string(&logs[id - 1]).unwrap();
        said.contains(&format!("coordinator {id} leads\n")).then_some(id)
    };
    let leader = eventually("one leads", || leads(1).or_else(|| leads(2)));
    let other = 3 - leader;
    until_said(&logs[other - 1], &format!("coordinator {other} follows coordinator {leader}"));
    for inner in ["data-1/raft", "data-1/segments", "data-1/programs", "data-2"] {
        let mode = std::fs::metadata(dir.join(inner)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{inner}");
    }

    // The third is not there, and is asked many times a second.
    let silent = "does not answer coordinator=3";
    until_said(&logs[leader - 1], silent);
    let third = Again::start(&mut coordinator(dir, 3, &addresses, &members), &dir.join("log-3"));
    until_said(&logs[leader - 1], "answers again coordinator=3");
    let said = std::fs::read_to_string(&logs[leader - 1]).unwrap();
    // Once in 30 s, and the machine may be slow.
    assert!(said.matches(silent).count() <= 3, "{said}");
    assert!(!said.contains("openraft"), "{said}");

    drop((first, second, third));
    let alone = format!("1={}", addresses[0]);
    let (code, _, error) = run(&mut coordinator(dir, 1, &addresses, &alone));
    assert_eq!(code, Some(1), "{error}");
    let names_both = error.contains(&format!("--members is {alone},")) && error.contains(&members);
    assert!(names_both && error.contains("does not change it"), "{error}");
}

#[test]
fn a_worker_that_reaches_nobody_says_so_once() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("x");
    output(allhands(["init"]).arg(&dir));
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let mut worker = allhands(["worker", "--log", "info,allhands_common=debug", "--coordinators"]);
    worker.arg(&address).arg("--identity").arg(dir.join("worker-1"));
    worker.arg("--dir").arg(dir.join("worker"));
    let log = dir.join("log");
    let _worker = Again::start(&mut worker, &log);
    let lines = |level: &str| -> Vec<String> {
        let said = std::fs::read_to_string(&log).unwrap();
        let about = said.lines().filter(|line| line.contains("no link") && line.contains(level));
        about.map(str::to_owned).collect()
    };
    // It goes on trying, and is silent about that.
    eventually("it has tried again", || (lines("DEBUG").len() >= 2).then_some(()));
    let [warning] = lines("WARN").try_into().unwrap();
    assert!(warning.contains(&address) && warning.contains("nothing answers"), "{warning}");
}
