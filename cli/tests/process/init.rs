//! `allhands init`.

use serde_json::Value;

use crate::support::{allhands, output, run};

#[test]
fn it_makes_an_authority_and_a_folder_for_each_process() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new/cluster");
    let mut command = allhands(["init"]);
    command.arg(&dir).args(["--workers", "2", "--json", "--at", "h1:7100,h2:7100,h3:7100"]);
    let made: Value = serde_json::from_str(&output(&mut command)).unwrap();

    let folders = ["coordinator-1", "coordinator-2", "coordinator-3", "worker-1", "worker-2"];
    for name in folders.into_iter().chain(["client", "admin"]) {
        for file in ["cert.pem", "key.pem", "ca.pem", "reset.key"] {
            assert!(dir.join(name).join(file).is_file(), "{name}/{file}");
        }
    }
    assert_eq!(std::fs::read_to_string(dir.join("cluster")).unwrap(), "h1:7100,h2:7100,h3:7100\n");
    assert_eq!(made["identities"].as_array().unwrap().len(), 7);
    assert_eq!(made["identities"][0]["role"], "coordinator");
    let id = std::fs::read_to_string(dir.join("cluster-id")).unwrap();
    assert_eq!(made["cluster"], id.trim());
}

#[test]
fn it_says_what_to_copy_and_to_start() {
    let temporary = tempfile::tempdir().unwrap();
    let said = output(allhands(["init"]).arg(temporary.path()).args(["--coordinators", "1"]));
    for part in ["coordinator-1", "allhands worker --coordinators", "ca.key", "ALLHANDS_CLUSTER"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn it_refuses_a_directory_with_something_in_it() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("thesis.txt"), "chapter one").unwrap();
    let (code, out, error) = run(allhands(["init"]).arg(temporary.path()));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains(temporary.path().to_str().unwrap()), "{error}");
    assert!(error.contains("is not empty") && error.contains("--add"), "{error}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
}

#[test]
fn it_adds_an_identity_once() {
    let temporary = tempfile::tempdir().unwrap();
    output(allhands(["init"]).arg(temporary.path()));
    let mut add = allhands(["init"]);
    add.arg(temporary.path()).args(["--add", "worker:rack-7"]);
    assert!(output(&mut add).contains("rack-7"));
    let (code, _, error) = run(&mut add);
    assert_eq!(code, Some(1));
    assert!(error.contains("rack-7 is there already"), "{error}");
}

#[test]
fn what_cannot_work_is_refused_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    for (words, says) in [
        (["--days", "4000000000"], "3652"),
        (["--days", "0"], "3652"),
        (["--at", "c1:99999"], "HOST:PORT"),
        (["--at", "a b:1,c:1,d:1"], "HOST:PORT"),
        (["--at", "h1,h2,h3"], "HOST:PORT"),
        (["--at", "h1:1,h1:1,h3:1"], "twice"),
    ] {
        let (code, out, error) = run(allhands(["init"]).arg(&dir).args(words));
        assert!(matches!(code, Some(1 | 2)) && out.is_empty(), "{words:?}: {code:?}");
        assert!(error.contains(says) && !error.contains("panicked"), "{words:?}: {error}");
        assert!(!dir.exists(), "{words:?}");
    }
}

#[test]
fn numbers_that_make_no_cluster_are_refused() {
    let (code, _, error) = run(&mut allhands(["init", "x", "--coordinators", "2"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("1, 3 or 5"), "{error}");
}
