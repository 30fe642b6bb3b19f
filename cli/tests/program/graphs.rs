//! Executions that depend on each other, on a cluster of real processes of which some end meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Execution, Failure, as_completed, call};

use crate::batch::{cluster, connect};
use crate::support::{eventually, kill_9, output, within};

/// Tasks of a graph, and how long each takes.
const TASKS: usize = 5_000;
const NAP: Duration = Duration::from_millis(3);
/// How often the leader ends meanwhile.
const KILLS: usize = 10;

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// Notes that an attempt has run: a line in the task's file.
fn note(folder: &Path, number: usize) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(number.to_string()))
        .unwrap();
    let attempt = allhands::context().attempt().unwrap();
    file.write_all(format!("{attempt}\n").as_bytes()).unwrap();
}

fn mix(a: u64, b: u64) -> u64 {
    a.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(b).rotate_left(17)
}

fn start(folder: PathBuf, number: usize) -> u64 {
    note(&folder, number);
    nap(NAP);
    number as u64
}

fn values(folder: PathBuf, number: usize, a: u64, b: u64) -> u64 {
    note(&folder, number);
    nap(NAP);
    mix(a, b)
}

/// Waits for others itself.
fn handles(folder: PathBuf, number: usize, others: Vec<Execution<u64>>) -> Result<u64, Failure> {
    note(&folder, number);
    let mut sum = number as u64;
    for other in others {
        sum = mix(sum, other.result()?);
    }
    Ok(sum)
}

fn flat(value: u64) -> u64 {
    value
}

/// What each task of a graph does; a function of its number.
#[derive(Debug, Clone, Copy)]
enum Node {
    Start,
    Values(usize, usize),
    Handles(usize, usize),
}

fn node(number: usize) -> Node {
    let random = |salt: u64| mix(number as u64, salt) as usize;
    if number < 16 {
        return Node::Start;
    }
    let (a, b) = (random(1) % number, random(2) % number);
    match random(3) % 10 {
        0..3 => Node::Start,
        3..9 => Node::Values(a, b),
        _ => Node::Handles(a, b),
    }
}

fn evaluate() -> Vec<u64> {
    let mut values: Vec<u64> = Vec::with_capacity(TASKS);
    for number in 0..TASKS {
        values.push(match node(number) {
            Node::Start => number as u64,
            Node::Values(a, b) => mix(values[a], values[b]),
            Node::Handles(a, b) => mix(mix(number as u64, values[a]), values[b]),
        });
    }
    values
}

fn submit(cluster: &Cluster, folder: &Path) -> Vec<Execution<u64>> {
    let mut all: Vec<Execution<u64>> = Vec::with_capacity(TASKS);
    for number in 0..TASKS {
        let folder = folder.to_owned();
        let execution = match node(number) {
            Node::Start => cluster.submit(delayed(start)(folder, number)),
            Node::Values(a, b) => cluster.submit(call(values, (folder, number, &all[a], &all[b]))),
            Node::Handles(a, b) => {
                let others = vec![all[a].clone(), all[b].clone()];
                let sum = cluster.submit(delayed(handles)(folder, number, others)).unwrap();
                cluster.submit(call(flat, (&sum,)))
            }
        };
        all.push(execution.unwrap());
    }
    all
}

/// Each attempt runs a task once.
fn no_attempt_ran_twice(folder: &Path) -> usize {
    let mut runs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let attempts: BTreeSet<&str> = text.lines().collect();
        assert_eq!(attempts.len(), text.lines().count(), "{}: {text}", path.display());
        runs += attempts.len();
    }
    runs
}

/// Every outcome is what a serial evaluation says, whoever leads.
pub(crate) fn a_graph_survives_its_leaders() {
    let dev = cluster();
    let cluster = connect(&dev);
    let folder = dev.dir().join("graph");
    std::fs::create_dir(&folder).unwrap();
    let all = submit(&cluster, &folder);
    let expected = evaluate();
    // One that was started again is killed when it is dropped.
    let (mut kills, mut again) = (0, BTreeMap::new());
    for (count, (number, result)) in as_completed(&all).enumerate() {
        assert_eq!(result.unwrap(), expected[number], "task {number}");
        if count >= (kills + 1) * TASKS / (KILLS + 2) && kills < KILLS {
            kills += 1;
            eventually("all coordinators are there", || {
                let status = dev.status()?;
                let all = status["coordinators"].as_array()?;
                all.iter().all(|one| one["state"] != "silent").then_some(())
            });
            let leader = format!("coordinator-{}", eventually("a leader", || dev.leader()));
            if again.remove(&leader).is_none() {
                kill_9(dev.pid(&leader));
                let gone = format!("{leader} (pid ");
                eventually("it is gone", || dev.said().contains(&gone).then_some(()));
            }
            again.insert(leader.clone(), dev.start_again(&leader));
        }
    }
    let runs = no_attempt_ran_twice(&folder);
    println!("{kills} leaders were killed, {runs} runs of {TASKS} tasks");
}

fn leaf(folder: PathBuf, number: usize) -> u64 {
    note(&folder, number);
    nap(Duration::from_millis(400));
    number as u64
}

/// Calls others, and waits for them.
fn parent(folder: PathBuf, number: usize) -> Result<u64, Failure> {
    note(&folder, number);
    let children = (1..=3).map(|n| delayed(leaf)(folder.clone(), number + n).submit());
    let children = children.collect::<Result<Vec<_>, _>>()?;
    let mut sum = 0;
    for child in children {
        sum += child.result()?;
    }
    Ok(sum)
}

/// The same, with neither slot nor thread.
#[allhands::task]
async fn awaits(folder: PathBuf, number: usize) -> Result<u64, Failure> {
    note(&folder, number);
    let children = (1..=3).map(|n| delayed(leaf)(folder.clone(), number + n).submit());
    let mut sum = 0;
    for child in children.collect::<Result<Vec<_>, _>>()? {
        sum += child.await?;
    }
    Ok(sum)
}

/// The parents that waited there run again, and get the children that they had: these are submitted once.
pub(crate) fn a_worker_with_blocked_parents_is_killed() {
    let dev = cluster();
    let cluster = connect(&dev);
    let folder = dev.dir().join("family");
    std::fs::create_dir(&folder).unwrap();
    let call = |n: usize| match n % 2 {
        0 => awaits::delayed(folder.clone(), 10 * n),
        _ => delayed(parent)(folder.clone(), 10 * n),
    };
    let parents: Vec<Execution<Result<u64, Failure>>> =
        (1..=8).map(|n| cluster.submit(call(n)).unwrap()).collect();
    let there = |number: usize| folder.join(number.to_string()).exists();
    within(Duration::from_secs(20), "some parents wait, some children run", || {
        let begun = (1..=8).filter(|n| there(10 * n)).count();
        let below = (1..=8).filter(|n| there(10 * n + 1)).count();
        (begun >= 2 && below >= 2).then_some(())
    });
    for first in [0, 1] {
        eventually("one of each kind waits, and that is explained", || {
            let explain =
                |parent: &Execution<_>| output(&mut dev.ask(["explain", &parent.id().to_string()]));
            let mut said = parents.iter().skip(first).step_by(2).map(explain);
            said.find(|said| said.contains("waits, without a slot"))
        });
    }
    kill_9(dev.pid("worker-1"));
    for (n, parent) in (1..).zip(&parents) {
        assert_eq!(parent.ok().unwrap(), 3 * 10 * n + 6);
    }
    let runs = no_attempt_ran_twice(&folder);
    // What ran on the worker runs again, and nothing else: at most a parent and a child a slot, and what waited.
    assert!((32..=32 + 16).contains(&runs), "{runs} runs");
    println!("{runs} runs of 32 tasks");
}
