//! What cannot work is said: which thing, why, and what to do.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Dev, allhands, output, run};

fn cluster_of_one() -> TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let init = ["--coordinators", "1"];
    output(allhands(["init"]).arg(temporary.path()).args(init));
    temporary
}

fn coordinator(dir: &Path, id: &str, listen: &str, members: &str) -> (Option<i32>, String) {
    let mut command =
        allhands(["coordinator", "--id", id, "--listen", listen, "--members", members]);
    command.arg("--identity").arg(dir.join("coordinator-1")).arg("--dir").arg(dir.join("data"));
    let (code, _, error) = run(&mut command);
    (code, error)
}

#[test]
fn a_port_that_is_taken_is_named() {
    let cluster = cluster_of_one();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = coordinator(cluster.path(), "1", &address, &format!("1={address}"));
    assert_eq!(code, Some(1));
    assert!(error.contains(&address) && error.contains("another process"), "{error}");
}

#[test]
fn a_coordinator_needs_its_own_identity() {
    let cluster = cluster_of_one();
    let (code, error) = coordinator(cluster.path(), "2", "127.0.0.1:0", "2=127.0.0.1:1");
    assert_eq!(code, Some(1));
    assert!(error.contains("coordinator-1") && error.contains("coordinator-2"), "{error}");
}

#[test]
fn a_coordinator_is_one_of_the_members() {
    let cluster = cluster_of_one();
    let (code, error) = coordinator(cluster.path(), "1", "127.0.0.1:0", "2=127.0.0.1:1");
    assert_eq!(code, Some(1));
    assert!(error.contains("--members does not name coordinator 1"), "{error}");
}

#[test]
fn members_that_make_no_cluster_are_refused() {
    let cluster = cluster_of_one();
    for (members, says) in [
        ("1=127.0.0.1:1,2=127.0.0.1:2", "2 coordinators"),
        ("1=127.0.0.1:1,1=127.0.0.1:2,3=127.0.0.1:3", "a coordinator twice"),
    ] {
        let (code, error) = coordinator(cluster.path(), "1", "127.0.0.1:0", members);
        assert_eq!(code, Some(1));
        assert!(error.contains(says), "{error}");
    }
    assert!(!cluster.path().join("data").exists());
}

#[test]
fn a_worker_of_another_cluster_ends_and_says_why() {
    let dev = Dev::start(&["--coordinators", "3", "--workers", "0"]);
    let other = cluster_of_one();
    let addresses = std::fs::read_to_string(dev.dir().join("cluster")).unwrap();
    let mut worker = allhands(["worker", "--coordinators", addresses.trim()]);
    worker.arg("--identity").arg(other.path().join("worker-1"));
    let (code, _, error) = run(worker.arg("--dir").arg(other.path().join("worker")));
    assert_eq!(code, Some(1));
    assert!(error.contains("trying again cannot help"), "{error}");
    assert_eq!(error.matches("it belongs to another cluster").count(), 6, "{error}");
}

#[test]
fn a_folder_that_is_no_identity_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("nothing");
    let mut status = allhands(["status", "--cluster", "127.0.0.1:1", "--identity"]);
    let (code, _, error) = run(status.arg(&folder));
    assert_eq!(code, Some(1));
    assert!(error.contains(folder.to_str().unwrap()) && error.contains("allhands init"), "{error}");
}

#[test]
fn a_question_needs_a_cluster_and_an_identity() {
    let (code, _, error) = run(&mut allhands(["status"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("--cluster"), "{error}");
    let (code, _, error) = run(allhands(["status"]).env("ALLHANDS_CLUSTER", ""));
    assert_eq!(code, Some(2));
    assert!(error.contains("ALLHANDS_CLUSTER") && error.contains("no cluster"), "{error}");
    let (code, _, error) = run(&mut allhands(["status", "--cluster", "127.0.0.1:1"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("--identity"), "{error}");
    let (code, _, error) = run(&mut allhands(["status", "--cluster", "/no/such/place"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("/no/such/place"), "{error}");
}

#[test]
fn a_client_may_not_ask_what_an_admin_may() {
    let cluster = cluster_of_one();
    let mut status = allhands(["status", "--cluster", "127.0.0.1:1", "--identity"]);
    let (code, _, error) = run(status.arg(cluster.path().join("client")));
    assert_eq!(code, Some(1));
    assert!(error.contains("client client") && error.contains("admin"), "{error}");
}

#[test]
fn an_address_where_nobody_listens_is_named() {
    let cluster = cluster_of_one();
    // Bound and never read: nobody else gets the port.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let mut status = allhands(["status", "--patience", "0.5", "--cluster", &address, "--identity"]);
    let (code, out, error) = run(status.arg(cluster.path().join("admin")));
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(error.contains(&address) && error.contains("nothing answers"), "{error}");
}

#[test]
fn the_sibling_of_a_programs_identity_asks() {
    let cluster = cluster_of_one();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let client: PathBuf = cluster.path().join("client");
    let mut status = allhands(["status", "--patience", "0.2"]);
    status.env("ALLHANDS_CLUSTER", address).env("ALLHANDS_IDENTITY", client);
    let (code, _, error) = run(&mut status);
    assert_eq!(code, Some(4), "{error}");
}

#[test]
fn a_live_cluster_refuses_strangers_and_knows_what_it_does_not_know() {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "0"]);
    let addresses = std::fs::read_to_string(dev.dir().join("cluster")).unwrap();

    let other = cluster_of_one();
    let mut status = allhands(["status", "--cluster", addresses.trim(), "--identity"]);
    let (code, _, error) = run(status.arg(other.path().join("admin")));
    assert_eq!(code, Some(4));
    assert!(error.contains("another cluster") && error.contains(addresses.trim()), "{error}");

    for question in [["job", "17"], ["cancel", "17"]] {
        let (code, out, error) = run(&mut dev.ask(question));
        assert_eq!((code, out.as_str()), (Some(3), ""), "{question:?}");
        assert!(error.contains("job 17 does not exist"), "{error}");
    }
    let batch = "ab".repeat(16);
    for question in [["cancel", &batch], ["explain", &format!("{batch}:0")]] {
        let (code, out, error) = run(&mut dev.ask(question));
        assert_eq!((code, out.as_str()), (Some(3), ""), "{question:?}");
        assert!(error.contains(&batch), "{error}");
    }
    let (code, _, error) = run(&mut dev.ask(["explain", "17"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("BATCH:INDEX"), "{error}");
}
