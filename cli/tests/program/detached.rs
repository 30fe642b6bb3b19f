//! Jobs that outlive the program that has opened them, on a cluster of real processes of which some end meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Execution, JobId, TaskErrorKind, call};
use serde_json::Value;

use crate::batch::{cluster, connect};
use crate::support::{Dev, eventually, kill_9, output, within};

pub(crate) const AS_OPENER: &str = "opener";

/// Tasks that each take [`NAP`]: with two slots some three seconds.
const NAPS: u64 = 600;
const NAP: Duration = Duration::from_millis(10);

/// Of one long result: 2 MiB.
const WORDS: usize = 1 << 18;

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn nap(n: u64) -> u64 {
    std::thread::sleep(NAP);
    assert!(n != 13, "thirteen");
    n * n
}

fn long(n: u64) -> Vec<u64> {
    vec![n; WORDS]
}

fn sum(numbers: Vec<u64>) -> u64 {
    numbers.iter().sum()
}

/// Its result is that of what it calls.
fn forwards(n: u64) -> Result<Execution<u64>, allhands::Failure> {
    Ok(delayed(nap)(n).submit()?)
}

/// Opens a job in the cluster of a directory, gives it calls, and leaves: without waiting for any of them.
pub(crate) fn be_opener(directory: &str, retention_ms: &str) {
    let addresses = std::fs::read_to_string(Path::new(directory).join("cluster")).unwrap();
    let identity = Path::new(directory).join("client");
    let cluster = Cluster::connect(addresses.trim(), identity).unwrap();
    let retention = Duration::from_millis(retention_ms.parse().unwrap());
    let job = cluster.detached("nightly", retention).unwrap();
    for n in 0..NAPS {
        job.submit(delayed(nap)(n)).unwrap();
    }
    let numbers = job.submit(delayed(long)(7)).unwrap();
    job.submit(call(sum, (&numbers,)).timeout(Duration::from_secs(60))).unwrap();
    job.submit(delayed(forwards)(5).timeout(Duration::from_secs(61))).unwrap();
    let held = job.submit(delayed(sum)(vec![1; WORDS])).unwrap_err().to_string();
    assert!(held.contains("would have to serve"), "{held}");
    println!("{}", job.leave().unwrap());
}

fn opened(dev: &Dev, retention: Duration) -> JobId {
    let mut opener = Command::new(std::env::current_exe().unwrap());
    opener.arg(AS_OPENER).arg(dev.dir()).arg(retention.as_millis().to_string());
    output(opener.stdin(Stdio::null())).trim().parse().unwrap()
}

/// One of a job's naps.
fn a_nap(job: &allhands::Job) -> allhands::TaskId {
    let batch = job.batches().find(|batch| batch.name.contains("nap")).unwrap();
    allhands::TaskId { batch: batch.id, index: 0 }
}

/// The results of a job's naps, each once; and of its other calls.
fn take(job: &mut allhands::Job) -> BTreeMap<u64, u64> {
    let names: Vec<(allhands::BatchId, String, u32)> =
        job.batches().map(|batch| (batch.id, batch.name, batch.tasks)).collect();
    let is = |name: &str, of: &str| name.contains(of);
    assert_eq!(
        names.iter().map(|(_, _, tasks)| u64::from(*tasks)).sum::<u64>(),
        NAPS + 3,
        "{names:?}"
    );
    let mut squares = BTreeMap::new();
    let firsts: BTreeMap<_, _> = names
        .iter()
        .filter(|(_, name, _)| is(name, "nap"))
        .scan(0, |first, (id, _, tasks)| {
            let this = *first;
            *first += u64::from(*tasks);
            Some((*id, this))
        })
        .collect();
    for ended in job.results_of::<u64>(|batch| is(&batch.name, "nap")) {
        let task = ended.id();
        let n = firsts[&task.batch] + u64::from(task.index);
        match ended.result() {
            Ok(square) => assert_eq!(squares.insert(n, square), None, "{n} came twice"),
            Err(error) => assert!(n == 13 && error.to_string().contains("thirteen"), "{error}"),
        }
    }
    let one = |job: &mut allhands::Job, of: &str| {
        let all: Vec<Execution<u64>> = job.results_of(|batch| is(&batch.name, of)).collect();
        assert_eq!(all.len(), 1, "{of}");
        all[0].result().unwrap()
    };
    assert_eq!(one(job, "sum"), 7 * WORDS as u64);
    assert_eq!(one(job, "forwards"), 25);
    let long: Vec<Execution<Vec<u64>>> = job.results_of(|batch| is(&batch.name, "long")).collect();
    assert_eq!(long.len(), 1);
    assert!(long[0].result().unwrap() == vec![7; WORDS]);
    let unlike = job.execution::<String>(long[0].id()).result().unwrap_err().to_string();
    let other = job.execution::<f64>(a_nap(job)).result().unwrap_err().to_string();
    assert!(other.contains("it returns `u64`, and is read as `f64`"), "{other}");
    let both = "it returns `alloc::vec::Vec<u64>`, and is read as `alloc::string::String`";
    assert!(unlike.contains(both), "{unlike}");
    squares
}

/// It runs on when its program has ended and its leader is killed; another process takes its results, and then another.
pub(crate) fn a_job_outlives_its_program_and_its_leader() {
    let dev = cluster();
    let id = opened(&dev, Duration::from_secs(600));
    let leader = eventually("a leader", || dev.leader());
    kill_9(dev.pid(&format!("coordinator-{leader}")));
    let cluster = connect(&dev);
    let expected: BTreeMap<u64, u64> = (0..NAPS).filter(|n| *n != 13).map(|n| (n, n * n)).collect();
    for _ in 0..2 {
        // What was attached before has said goodbye, which takes a moment.
        let mut job = eventually("it can be attached to", || cluster.job(id).ok());
        assert_eq!(job.name(), "nightly");
        assert_eq!(take(&mut job), expected);
        let progress = job.progress().unwrap();
        // What a task has called counts as well.
        assert_eq!((progress.done, progress.failed, progress.total), (NAPS + 4, 1, Some(NAPS + 4)));
        let other = cluster.job(id).unwrap_err().to_string();
        assert!(other.contains("attached to another client"), "{other}");
    }
    println!("{} results, twice", expected.len());
}

/// One that is cancelled ends, and one that is over is forgotten after its time: both are said.
pub(crate) fn a_job_is_cancelled_and_forgotten() {
    let dev = cluster();
    let cluster = connect(&dev);
    let id = opened(&dev, Duration::from_secs(2));
    let mut job = eventually("it can be attached to", || cluster.job(id).ok());
    job.cancel("changed my mind");
    let mut cancelled = 0;
    for ended in job.results_of::<u64>(|batch| batch.name.contains("nap")) {
        if let Err(error) = ended.result() {
            let ended = matches!(error.kind(), TaskErrorKind::Ended(_));
            cancelled += usize::from(ended && error.to_string().contains("changed my mind"));
        }
    }
    assert!(cancelled > 0);
    drop(job);
    // To attach to it would keep it for longer.
    within(Duration::from_secs(30), "it is forgotten", || {
        let jobs: Value = serde_json::from_str(&output(&mut dev.ask(["jobs", "--json"]))).unwrap();
        jobs["jobs"].as_array().unwrap().is_empty().then_some(())
    });
    let forgotten = cluster.job(id).unwrap_err().to_string();
    assert!(forgotten.contains("is over and forgotten"), "{forgotten}");
    let unknown = cluster.job(JobId(999)).unwrap_err().to_string();
    assert!(unknown.contains("job 999 does not exist"), "{unknown}");
    println!("{cancelled} of {NAPS} cancelled; {forgotten}");
}
