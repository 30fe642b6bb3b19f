//! What an operator sees of a graph that has run: the timeline, the graph for Graphviz, and all of it as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Execution, Failure, Level, call, context};
use serde_json::Value;

use crate::batch::{cluster, connect};
use crate::support::{Dev, eventually, kill_9, output};

/// Long enough to be told from the time that the machinery takes.
#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn load(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(50));
    n
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Says what it does until it is let go.
#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn talks(until: PathBuf) -> u64 {
    context().log(Level::Warn, "it begins", &[("rows", &7)]);
    while !until.exists() {
        context().progress(3, 9);
        std::thread::sleep(Duration::from_millis(5));
    }
    3
}

/// What a task logs, and how far it is, is seen while it runs; the lines also after that.
pub(crate) fn an_operator_hears_what_tasks_say() {
    let dev = cluster();
    let cluster = connect(&dev);
    let (tell, told) = std::sync::mpsc::channel();
    cluster.listen(move |note| _ = tell.send(note)).unwrap();
    let until = dev.dir().join("until");
    let execution: Execution<u64> = cluster.submit(delayed(talks)(until.clone())).unwrap();
    let job = eventually("there is a job", || {
        let jobs = json(&dev, &["jobs"]);
        Some(jobs["jobs"].as_array()?.last()?["job"].as_u64()?.to_string())
    });
    let shown = eventually("it says how far it is", || {
        let shown = json(&dev, &["job", &job]);
        (!shown["progress"].as_array().unwrap().is_empty()).then_some(shown)
    });
    let progress = &shown["progress"][0];
    assert_eq!((&progress["done"], &progress["total"]), (&3.into(), &9.into()));
    assert_eq!(progress["task"], execution.id().to_string());
    let people = output(&mut dev.ask(["job", &job]));
    assert!(people.contains(&format!("{}  3     9", execution.id())), "{people}");
    let logs = json(&dev, &["job", &job, "--logs"]);
    let line = &logs["lines"][0];
    assert_eq!((&line["level"], &line["text"]), (&"warn".into(), &"it begins".into()));
    assert_eq!((&line["fields"]["rows"], &line["task"]), (&"7".into(), &progress["task"]));
    let people = output(dev.ask(["job", &job]).arg("--logs"));
    assert!(people.contains("  warn   ") && people.ends_with("it begins rows=7\n"), "{people}");
    // The program hears the same.
    let heard = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(heard.task, execution.id());
    std::fs::write(&until, "").unwrap();
    assert_eq!(execution.result().unwrap(), 3);
    let over = json(&dev, &["job", &job]);
    assert_eq!(over["progress"].as_array().unwrap().len(), 0, "{over}");
    assert_eq!(json(&dev, &["job", &job, "--logs"])["lines"], logs["lines"]);
}

/// Waits for what it has called.
fn survey(n: u64) -> Result<u64, Failure> {
    Ok(delayed(load)(n).submit()?.result()?)
}

fn fails(n: u64) -> u64 {
    assert!(n == 0, "it fails");
    n
}

fn json(dev: &Dev, words: &[&str]) -> Value {
    serde_json::from_str(&output(dev.ask(words).arg("--json"))).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn job(dev: &Dev) -> String {
    let jobs = json(dev, &["jobs"]);
    jobs["jobs"].as_array().unwrap().last().unwrap()["job"].as_u64().unwrap().to_string()
}

/// The attempts at a function's tasks.
fn of<'a>(record: &'a Value, function: &str) -> Vec<&'a Value> {
    let all = record["attempts"].as_array().unwrap().iter();
    // What a worker gave back unstarted has an attempt more.
    let begun = all.filter(|row| row["state"] != "returned");
    begun.filter(|row| text(&row["function"]).ends_with(function)).collect()
}

/// How many tasks a row is of.
fn tasks(row: &Value) -> u64 {
    row["end"].as_u64().unwrap() - row["start"].as_u64().unwrap()
}

/// A DOT file as it was written: the labels of its nodes, and its edges with their styles.
#[derive(Debug, Default)]
struct Dot {
    nodes: BTreeMap<String, String>,
    edges: BTreeSet<(String, String, String)>,
}

/// Reads what the command writes, and nothing else: a line that is neither a node nor an edge nor known is wrong.
fn read_dot(text: &str) -> Dot {
    let mut dot = Dot::default();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("digraph \"job "), "{text}");
    assert_eq!(lines.next_back(), Some("}"));
    for line in lines {
        let line = line.trim().strip_suffix(';').unwrap();
        if line.starts_with("rankdir=") || line.starts_with("node ") {
            continue;
        }
        let (what, attributes) = line.split_once(" [").unwrap();
        let attributes = attributes.strip_suffix(']').unwrap();
        let ids: Vec<&str> = what.split(" -> ").map(|id| id.trim_matches('"')).collect();
        match ids[..] {
            [node] => {
                let label = attributes.strip_prefix("label=\"").unwrap();
                let (label, _) = label.rsplit_once("\", fillcolor=").unwrap();
                assert!(
                    dot.nodes.insert(node.into(), label.into()).is_none(),
                    "{node} is there twice"
                );
            }
            [from, to] => {
                let style = attributes.strip_prefix("style=").unwrap();
                dot.edges.insert((from.into(), to.into(), style.into()));
            }
            _ => panic!("not a line of DOT: {line}"),
        }
    }
    dot
}

/// Calls that depend on, call and fail because of each other.
fn run_a_few(cluster: &Cluster) {
    let a: Execution<u64> = cluster.submit(delayed(load)(1)).unwrap();
    let b: Execution<u64> = cluster.submit(delayed(load)(2)).unwrap();
    let sum: Execution<u64> = cluster.submit(call(add, (&a, &b))).unwrap();
    let nested: Execution<Result<u64, Failure>> = cluster.submit(delayed(survey)(7)).unwrap();
    let failed: Execution<u64> = cluster.submit(delayed(fails)(1)).unwrap();
    let hopeless: Execution<u64> = cluster.submit(call(add, (&failed, &a))).unwrap();
    assert_eq!((sum.result().unwrap(), nested.ok().unwrap()), (3, 7));
    hopeless.result().unwrap_err();
}

pub(crate) fn an_operator_sees_what_happened_when() {
    let dev = cluster();
    // The record is the leader's own: what another one has led in between it does not have.
    let (cluster, job, [record, drawn, dot]) = eventually("one leader sees all of it", || {
        let term = dev.status()?["term"].clone();
        let cluster = connect(&dev);
        run_a_few(&cluster);
        let job = job(&dev);
        let record = dev.ask(["job", &job, "--timeline"]).arg("--json").output().unwrap().stdout;
        let drawn = dev.ask(["job", &job, "--timeline"]).env("COLUMNS", "100").output().unwrap();
        let dot = dev.ask(["job", &job, "--graph"]).output().unwrap().stdout;
        let texts = [record, drawn.stdout, dot].map(|text| String::from_utf8(text).unwrap());
        (dev.status()?["term"] == term).then_some((cluster, job, texts))
    });
    let record: Value = serde_json::from_str(&record).unwrap();
    let loads = of(&record, "load");
    let called: Vec<&&Value> = loads.iter().filter(|row| !row["parent"].is_null()).collect();
    let sums = of(&record, "add");
    let [done] = of(&record, "survey")[..] else { panic!("{record}") };
    assert_eq!(called.len(), 1, "{record}");
    for row in &loads {
        assert_eq!((&row["state"], &row["failed"]), (&"done".into(), &0.into()), "{row}");
        assert!(text(&row["worker"]).starts_with("worker-"), "{row}");
        let at = |name: &str| row[name].as_u64().unwrap();
        let times = ["submitted_us", "assigned_us", "started_us", "finished_us", "committed_us"];
        assert!(times.map(at).is_sorted(), "{row}");
        assert!(at("run_us") >= 50_000 * tasks(row), "{row}");
    }
    // The sum was ready when the later of the two was committed, and what waits for a failure never ran.
    let states: BTreeSet<&str> = sums.iter().map(|row| text(&row["state"])).collect();
    assert_eq!(states, BTreeSet::from(["done", "dependency-failed"]), "{record}");
    let ready = sums.iter().find(|row| row["state"] == "done").unwrap();
    let first = loads.iter().map(|row| row["finished_us"].as_u64().unwrap()).min().unwrap();
    assert!(ready["ready_us"].as_u64().unwrap() >= first, "{ready}");
    assert_eq!(ready["dependencies"].as_array().unwrap().len(), 2, "{ready}");
    assert_eq!(of(&record, "fails")[0]["state"], "failed");
    let pause = &done["blocked"][0];
    let (since, until) = (pause["since_us"].as_u64().unwrap(), pause["until_us"].as_u64().unwrap());
    assert!(since < until && text(&done["worker"]).starts_with("worker-"), "{done}");
    let child = format!("{}:{}", text(&called[0]["batch"]), called[0]["start"]);
    assert_eq!(pause["on"][0], *child, "it waited for what it had called");

    assert!(drawn.lines().all(|line| line.chars().count() <= 100), "{drawn}");
    assert!(drawn.contains("survey") && drawn.contains('▒') && drawn.contains('█'), "{drawn}");
    let dot = read_dot(&dot);
    let labels: Vec<&str> =
        dot.nodes.values().map(|label| label.rsplit("::").next().unwrap()).collect();
    let surveys = labels.iter().filter(|label| label.starts_with("survey\\ndone")).count();
    assert_eq!(surveys, 1, "{labels:?}");
    let styles = |style: &str| dot.edges.iter().filter(|(_, _, of)| of == style).count();
    assert_eq!((styles("dashed"), styles("solid") >= 3), (1, true), "{:?}", dot.edges);
    for (from, to, _) in &dot.edges {
        assert!(dot.nodes.contains_key(from) && dot.nodes.contains_key(to), "{dot:?}: {record}");
    }

    // The next leader has none of it, but of what goes on as much as the workers know.
    let naps: Vec<Execution<u64>> =
        (0..4).map(|n| cluster.submit(delayed(long)(n)).unwrap()).collect();
    // One on each slot runs; what is with a worker as what comes next does not.
    eventually("two of them run", || {
        let shown = json(&dev, &["job", &job, "--timeline"]);
        let rows = of(&shown, "long");
        let running = rows.iter().filter(|row| row["state"] == "running");
        (running.map(|row| tasks(row)).sum::<u64>() == 2).then_some(())
    });
    let leader = format!("coordinator-{}", eventually("a leader", || dev.leader()));
    kill_9(dev.pid(&leader));
    let adopted = eventually("another leads, and knows", || {
        let (code, said, _) =
            crate::support::run(dev.ask(["job", &job, "--timeline"]).arg("--json"));
        let said: Value = (code == Some(0)).then(|| serde_json::from_str(&said).ok())??;
        let held = of(&said, "long").iter().map(|row| tasks(row)).sum::<u64>();
        (held >= 2 && of(&said, "survey").is_empty()).then_some(said)
    });
    for row in of(&adopted, "long") {
        let held = adopted["now_us"].as_u64().unwrap() - row["assigned_us"].as_u64().unwrap();
        assert!(held > 0 && text(&row["worker"]).starts_with("worker-"), "{row}");
    }
    for nap in naps {
        nap.result().unwrap();
    }
    let term = |dev: &Dev| eventually("a leader", || dev.status())["term"].clone();
    let led = term(&dev);
    drop(cluster);
    eventually("it is said of a job that is over as well", || {
        let jobs = json(&dev, &["jobs"]);
        jobs["jobs"].as_array().unwrap().is_empty().then_some(())
    });
    let (code, over, error) =
        crate::support::run(dev.ask(["job", &job, "--timeline"]).arg("--json"));
    if term(&dev) != led {
        return; // Yet another one leads: it knows nothing of what is over.
    }
    assert_eq!(code, Some(0), "{error}");
    let over: Value = serde_json::from_str(&over).unwrap();
    assert!(of(&over, "long").iter().map(|row| tasks(row)).sum::<u64>() >= 2, "{over}");
}

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn long(n: u64) -> u64 {
    std::thread::sleep(Duration::from_secs(4));
    n
}
