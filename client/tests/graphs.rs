//! Random graphs of executions against a serial evaluation of the same graph: values, handles, returned
//! executions, children that are waited for or awaited, failures, retries and cancels, in any combination.
#![expect(clippy::unwrap_used, reason = "a test that cannot write its file has failed")]

use std::io::Write;
use std::path::PathBuf;

use allhands::prelude::*;
use allhands::{Cause, Execution, Failure, TaskErrorKind, call};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::{Deserialize, Serialize};

/// A number, or the function's own error.
type Value = Result<u64, String>;

/// What a node that only has a handle makes of one without a value.
const WITHOUT: u64 = 1_000_003;

/// A node of a graph; the others that it names come before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Node {
    /// A number.
    Constant(u64),
    /// Fails of itself.
    Fails(u64),
    /// Panics.
    Panics,
    /// Fails so often, and is retried as often.
    Flaky { fails: u8, value: u64 },
    /// Takes the values of two.
    Values(usize, usize),
    /// Takes what two returned, errors too.
    Returned(usize),
    /// Takes handles, and waits for them itself.
    Handles(Vec<usize>),
    /// The same, as an `async fn`.
    Awaits(Vec<usize>),
    /// Awaits another, and panics.
    PanicsLate(usize),
    /// Starts after another, whatever became of it.
    After(usize),
    /// Returns the execution of another.
    Forwards(usize),
    /// Calls so many others and waits for them, so deep: as threads do, with `await`, or in turns.
    Calls { children: u64, depth: u64, how: How },
}

/// How a task waits for those that it calls.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum How {
    Blocks,
    Awaits,
    InTurns,
}

fn constant(value: u64) -> Value {
    Ok(value)
}

fn fails(value: u64) -> Value {
    Err(format!("no {value}"))
}

fn panics() -> Value {
    panic!("as was said")
}

/// Each try leaves a byte in the file.
fn flaky(tries: PathBuf, fails: u8, value: u64) -> Value {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&tries).unwrap();
    file.write_all(b"x").unwrap();
    match file.metadata().unwrap().len() {
        tries if tries <= fails.into() => Err(format!("try {tries}")),
        _ => Ok(value),
    }
}

fn values(a: u64, b: u64) -> Value {
    Ok(a.wrapping_mul(31).wrapping_add(b))
}

fn returned(value: Value) -> Value {
    Ok(value.map_or_else(|error| error.len() as u64, |value| value.wrapping_add(1)))
}

fn handles(all: Vec<Execution<Value>>) -> Value {
    let read = |execution: &Execution<Value>| execution.ok().unwrap_or(WITHOUT);
    Ok(all.iter().map(read).fold(7, |sum, value| sum.wrapping_mul(31).wrapping_add(value)))
}

#[allhands::task]
async fn awaits(all: Vec<Execution<Value>>) -> Value {
    let mut sum = 7u64;
    for execution in &all {
        let value = execution.await.ok().and_then(Result::ok).unwrap_or(WITHOUT);
        sum = sum.wrapping_mul(31).wrapping_add(value);
    }
    Ok(sum)
}

#[allhands::task]
async fn panics_late(other: Execution<Value>) -> Value {
    drop(other.await);
    panic!("as was said, but later")
}

#[allhands::task(wait)]
fn after(other: Execution<Value>, value: u64) -> Value {
    assert!(other.done(), "it starts after the other has ended");
    Ok(value)
}

fn forwards(other: Execution<Value>) -> Execution<Value> {
    other
}

#[allhands::task]
fn calls(children: u64, depth: u64) -> Result<u64, Failure> {
    if depth == 0 {
        return Ok(1);
    }
    let below = (0..children).map(|_| calls::submit(children, depth - 1));
    let below = below.collect::<Result<Vec<_>, _>>()?;
    below.iter().try_fold(1, |sum, child| Ok(sum + child.ok()?))
}

#[allhands::task]
async fn awaits_calls(children: u64, depth: u64, in_turns: bool) -> Result<u64, Failure> {
    if depth == 0 {
        return Ok(1);
    }
    let below = (0..children).map(|n| match in_turns && n % 2 == 0 {
        true => calls::submit(children, depth - 1),
        false => awaits_calls::submit(children, depth - 1, in_turns),
    });
    let mut sum = 1;
    for child in below.collect::<Result<Vec<_>, _>>()? {
        sum += match in_turns {
            true => child.ok()?,
            false => child.await??,
        };
    }
    Ok(sum)
}

fn nested(children: u64, depth: u64, how: How) -> Value {
    let tree = match how {
        How::Blocks => calls::submit(children, depth),
        How::Awaits => awaits_calls::submit(children, depth, false),
        How::InTurns => awaits_calls::submit(children, depth, true),
    };
    tree.map_err(|error| error.to_string())?.ok().map_err(|error| error.to_string())
}

fn node(before: usize) -> BoxedStrategy<Node> {
    let how = prop_oneof![Just(How::Blocks), Just(How::Awaits), Just(How::InTurns)];
    let alone = prop_oneof![
        4 => any::<u64>().prop_map(Node::Constant),
        1 => (0u64..9).prop_map(Node::Fails),
        1 => Just(Node::Panics),
        1 => (0u8..3, any::<u64>()).prop_map(|(fails, value)| Node::Flaky { fails, value }),
        2 => (0u64..4, 0u64..3, how).prop_map(|(children, depth, how)| {
            Node::Calls { children, depth, how }
        }),
    ];
    if before == 0 {
        return alone.boxed();
    }
    let other = 0..before;
    prop_oneof![
        4 => alone,
        4 => (other.clone(), other.clone()).prop_map(|(a, b)| Node::Values(a, b)),
        2 => other.clone().prop_map(Node::Returned),
        2 => prop::collection::vec(other.clone(), 0..4).prop_map(Node::Handles),
        2 => prop::collection::vec(other.clone(), 0..4).prop_map(Node::Awaits),
        1 => other.clone().prop_map(Node::PanicsLate),
        1 => other.clone().prop_map(Node::After),
        2 => other.prop_map(Node::Forwards),
    ]
    .boxed()
}

/// The nodes, and which of them are cancelled at once.
fn graph() -> impl Strategy<Value = (Vec<Node>, Vec<usize>)> {
    let nodes = (1usize..24).prop_flat_map(|count| (0..count).map(node).collect::<Vec<_>>());
    (nodes, prop::collection::vec(0usize..24, 0..2))
}

/// What becomes of a node: a value, its own error, or none.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Value(u64),
    Error(String),
    None,
}

/// The same graph, one node after the other.
fn evaluate(nodes: &[Node]) -> Vec<Fate> {
    let mut fates: Vec<Fate> = Vec::new();
    for node in nodes {
        let value = |at: &usize| match fates[*at] {
            Fate::Value(value) => Some(value),
            Fate::Error(_) | Fate::None => None,
        };
        let fate = match node {
            Node::Constant(value) | Node::Flaky { value, .. } => Fate::Value(*value),
            Node::Fails(value) => Fate::Error(format!("no {value}")),
            Node::Panics | Node::PanicsLate(_) => Fate::None,
            Node::Values(a, b) => match (value(a), value(b)) {
                (Some(a), Some(b)) => Fate::Value(a.wrapping_mul(31).wrapping_add(b)),
                _ => Fate::None,
            },
            Node::Returned(other) => match &fates[*other] {
                Fate::Value(value) => Fate::Value(value.wrapping_add(1)),
                Fate::Error(error) => Fate::Value(error.len() as u64),
                Fate::None => Fate::None,
            },
            Node::Handles(all) | Node::Awaits(all) => {
                let read = |at| value(at).unwrap_or(WITHOUT);
                let sum = |sum: u64, value: u64| sum.wrapping_mul(31).wrapping_add(value);
                Fate::Value(all.iter().map(read).fold(7, sum))
            }
            Node::After(other) => Fate::Value(*other as u64),
            Node::Forwards(other) => fates[*other].clone(),
            Node::Calls { children, depth, .. } => {
                let size = (0..=*depth).map(|level| children.pow(level as u32)).sum();
                Fate::Value(size)
            }
        };
        fates.push(fate);
    }
    fates
}

/// Which nodes were cancelled, or depend on one that was.
fn touched(nodes: &[Node], cancelled: &[usize]) -> Vec<bool> {
    let mut touched: Vec<bool> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let others = match node {
            Node::Constant(_)
            | Node::Fails(_)
            | Node::Panics
            | Node::Flaky { .. }
            | Node::Calls { .. }
            | Node::After(_) => &[][..],
            Node::Values(a, b) => &[*a, *b][..],
            Node::Returned(other) | Node::Forwards(other) => &[*other][..],
            Node::PanicsLate(other) => &[*other][..],
            Node::Handles(all) | Node::Awaits(all) => all,
        };
        touched.push(cancelled.contains(&at) || others.iter().any(|other| touched[*other]));
    }
    touched
}

/// Submits the graph: what is not cancelled must have become what a serial evaluation says.
fn check(cluster: &Cluster, nodes: &[Node], cancelled: &[usize], folder: &std::path::Path) {
    let mut executions: Vec<Execution<Value>> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let of = |other: &usize| &executions[*other];
        let execution = match node {
            Node::Constant(value) => cluster.submit(delayed(constant)(*value)),
            Node::Fails(value) => cluster.submit(delayed(fails)(*value)),
            Node::Panics => cluster.submit(delayed(panics)()),
            Node::Flaky { fails, value } => {
                let tries = folder.join(format!("{at}"));
                let call = delayed(flaky)(tries, *fails, *value).retries(u32::from(*fails));
                cluster.submit(call.backoff(std::time::Duration::ZERO, std::time::Duration::ZERO))
            }
            Node::Values(a, b) => cluster.submit(call(values, (of(a), of(b)))),
            Node::Returned(other) => cluster.submit(call(returned, (of(other),))),
            Node::Handles(all) => {
                let all: Vec<Execution<Value>> = all.iter().map(|at| of(at).clone()).collect();
                cluster.submit(delayed(handles)(all))
            }
            Node::Awaits(all) => {
                let all: Vec<Execution<Value>> = all.iter().map(|at| of(at).clone()).collect();
                cluster.submit(awaits::delayed(all))
            }
            Node::PanicsLate(other) => cluster.submit(panics_late::delayed(of(other).clone())),
            Node::After(other) => cluster.submit(after::delayed(of(other), *other as u64)),
            Node::Forwards(other) => {
                let forwarded = cluster.submit(delayed(forwards)(of(other).clone()));
                forwarded.map(|forwarded| forwarded.flatten())
            }
            Node::Calls { children, depth, how } => {
                cluster.submit(delayed(nested)(*children, *depth, *how))
            }
        };
        executions.push(execution.unwrap());
        if cancelled.contains(&at) {
            executions[at].cancel();
        }
    }
    let touched = touched(nodes, cancelled);
    let all = evaluate(nodes).into_iter().zip(&executions).zip(nodes).zip(touched);
    for (((fate, execution), node), touched) in all {
        let ended = match execution.result() {
            Ok(Ok(value)) => Fate::Value(value),
            Ok(Err(error)) => Fate::Error(error),
            Err(error) => {
                if let TaskErrorKind::Ended(Cause::DependencyFailed { message, .. }) = error.kind()
                {
                    assert!(!message.is_empty());
                }
                Fate::None
            }
        };
        // What names one that was cancelled, or not in time, may have become something else.
        assert!(touched || ended == fate, "{node:?} is {ended:?}, not {fate:?}, in {nodes:#?}");
    }
}

#[allhands::test]
fn random_graphs_become_what_a_serial_evaluation_says() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let number = std::cell::Cell::new(0);
    let graphs = TestRunner::new(config).run(&graph(), |(nodes, cancelled)| {
        number.set(number.get() + 1);
        let folder = folder.path().join(format!("{}", number.get()));
        std::fs::create_dir(&folder).unwrap();
        check(&cluster, &nodes, &cancelled, &folder);
        Ok(())
    });
    graphs.unwrap();
}
