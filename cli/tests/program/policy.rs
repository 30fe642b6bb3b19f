//! When and how often calls run, on a cluster of real processes whose leaders end meanwhile; and groups, as an operator
//! sees them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allhands::prelude::*;

use crate::batch::{cluster, connect};
use crate::operator::json;
use crate::support::{Dev, eventually, kill_9, output, run, within};

const ROUNDS: usize = 40;
const LONG: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes that something has run; how often that was.
fn note(folder: &Path, what: &str) -> usize {
    let file = folder.join(what);
    let mut opened = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    opened.write_all(b".").unwrap();
    noted(folder, what)
}

fn noted(folder: &Path, what: &str) -> usize {
    std::fs::metadata(folder.join(what)).map_or(0, |file| file.len() as usize)
}

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn shared(folder: PathBuf) -> usize {
    let times = note(&folder, "shared");
    std::thread::sleep(Duration::from_millis(1500));
    times
}

fn parent(folder: PathBuf, _number: usize) -> usize {
    delayed(shared)(folder).memo().submit().unwrap().result().unwrap()
}

fn rounds(folder: PathBuf) -> Option<usize> {
    Some(note(&folder, "rounds")).filter(|round| *round >= ROUNDS)
}

fn last(folder: PathBuf, number: usize) -> usize {
    note(&folder, "last");
    number
}

fn busy(folder: PathBuf) -> Result<usize, String> {
    match note(&folder, "busy") {
        tries @ 0..=4 => Err(format!("busy, for the {tries}. time")),
        5 => Err("gone".into()),
        tries => Ok(tries),
    }
}

fn nothing(n: u64) -> u64 {
    n
}

fn kill_the_leader(dev: &Dev) -> crate::support::Again {
    let leader = format!("coordinator-{}", eventually("a leader", || dev.leader()));
    kill_9(dev.pid(&leader));
    let gone = format!("{leader} (pid ");
    eventually("it is gone", || dev.said().contains(&gone).then_some(()));
    dev.start_again(&leader)
}

pub(crate) fn policies_survive_their_leaders() {
    let dev = cluster();
    let cluster = connect(&dev);
    let folder = dev.dir().join("policy");
    std::fs::create_dir(&folder).unwrap();
    let at = || folder.clone();
    let pause = Duration::from_millis(50);
    let rounds = cluster.submit(delayed(rounds)(at()).delay(pause).recurrent()).unwrap();
    let backoff = Duration::from_millis(400);
    let call = delayed(busy)(at()).retries(99).backoff(backoff, backoff);
    let busy = cluster.submit(call.retry_when(|text: &str| text.starts_with("busy"))).unwrap();
    let newest = |number| {
        let call = delayed(last)(at(), number).delay(Duration::from_secs(4)).defer("last");
        cluster.submit(call).unwrap()
    };
    let older = [newest(1), newest(2)];
    let shared = || cluster.submit(delayed(shared)(at()).memo()).unwrap();
    let first = shared();
    within(PATIENCE, "some rounds", || (noted(&folder, "rounds") >= 5).then_some(()));
    let _again = kill_the_leader(&dev);

    let parents: Vec<Execution<usize>> =
        (0..6).map(|n| cluster.submit(delayed(parent)(at(), n)).unwrap()).collect();
    let newest = newest(3);
    assert!(parents.iter().all(|parent| parent.result().unwrap() == 1));
    assert_eq!((first.result().unwrap(), shared().result().unwrap()), (1, 1));
    assert_eq!(noted(&folder, "shared"), 1, "whoever asked for it, under whatever leader");

    assert!(older.iter().chain([&newest]).all(|call| call.result().unwrap() == 3));
    assert_eq!(noted(&folder, "last"), 1);
    assert_eq!(busy.result().unwrap(), Err("gone".into()));
    assert_eq!(noted(&folder, "busy"), 5);
    assert_eq!(rounds.result().unwrap(), ROUNDS);
    assert_eq!(noted(&folder, "rounds"), ROUNDS, "each round once: no worker was lost");
    println!("{ROUNDS} rounds and a memo of 8 under two leaders");
}

pub(crate) fn an_operator_cancels_a_group() {
    let dev = cluster();
    let cluster = connect(&dev);
    let call =
        |n, group: &str| cluster.submit(delayed(nothing)(n).delay(LONG).group(group)).unwrap();
    let late = [call(1, "late"), call(2, "late")];
    let other = call(3, "other");
    let shown = eventually("the groups are shown", || {
        let jobs = json(&dev, &["jobs"]);
        let job = jobs["jobs"][0]["job"].as_u64()?.to_string();
        let shown = json(&dev, &["job", &job]);
        (shown["batches"].as_array()?.len() == 2).then_some((job, shown))
    });
    let (job, shown) = shown;
    let batches = shown["batches"].as_array().unwrap();
    let late_one = batches.iter().find(|batch| batch["group"] == "late").unwrap();
    assert!(batches.iter().any(|batch| batch["group"] == "other"), "{shown}");
    let id = late_one["batch"].as_str().unwrap();
    let explained = output(&mut dev.ask(["explain", &format!("{id}:0")]));
    assert!(explained.contains("its delay is not over"), "{explained}");
    assert!(explained.contains("it is of group late"), "{explained}");

    let (code, _, error) = run(&mut dev.ask(["cancel", id, "--group", "late"]));
    assert!(code != Some(0) && error.contains("--group is of a job"), "{error}");
    let said = output(&mut dev.ask(["cancel", &job, "--group", "none"]));
    assert!(said.contains("nothing of group none is left"), "{said}");
    let said = output(&mut dev.ask(["cancel", &job, "--group", "late"]));
    assert!(said.contains("group late"), "{said}");
    for call in &late {
        let error = call.result().unwrap_err().to_string();
        assert!(error.contains("cancelled"), "{error}");
    }
    assert!(!other.done());
    // One of two that share a batch.
    let next = call(4, "other");
    let said = output(&mut dev.ask(["cancel", &other.id().to_string()]));
    assert!(said.contains("is being cancelled"), "{said}");
    assert!(other.result().unwrap_err().to_string().contains("cancelled"));
    let said = output(&mut dev.ask(["cancel", &other.id().to_string()]));
    assert!(said.contains("has ended: nothing is left to cancel"), "{said}");
    assert!(!next.done());
    cluster.cancel_group("other");
    assert!(next.result().is_err());
    println!("{}", said.trim());
}
