//! The means of 64 slices of one array of `f64`, by tasks that map it: opened in place, put, and again once it
//! is there; beside it as many threads that go over the same map. And the memory that executors share while
//! they all use it, and calls without number that carry one array behind an `Arc`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use allhands::prelude::*;
use anyhow::Context as _;

use super::warm;
use crate::Arguments;
use crate::cluster::Measured;
use crate::measure::Line;

const MIB: u64 = 512;
const SLICES: usize = 64;

/// Executors that use the array at once while their memory is looked at.
const SHARERS: u32 = 8;

/// Bytes of the array that many calls carry.
const CARRIED_BYTES: usize = 8 << 20;
const CARRIERS: u64 = 100_000;

fn mean(part: Shared<[f64]>) -> f64 {
    mean_of(&part)
}

fn mean_of(part: &[f64]) -> f64 {
    // Four sums, so that one addition need not wait for the other.
    let mut sums = [0.0; 4];
    for four in part.chunks_exact(4) {
        sums.iter_mut().zip(four).for_each(|(sum, one)| *sum += one);
    }
    sums.iter().sum::<f64>() / part.len() as f64
}

/// Another array for each repeat: none may be known from before.
fn array(mib: u64, rep: u32) -> Vec<f64> {
    let count = mib * (1 << 20) / size_of::<f64>() as u64;
    (0..count).map(|at| (at ^ u64::from(rep) << 20) as f64).collect()
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mib = arguments.mib.unwrap_or(MIB);
    let measured = Measured::start(arguments)?;
    warm(&measured, arguments.workers)?;
    // The program's own functions are known, too.
    let small = measured.cluster.put(&[1.0; SLICES])?;
    means(&measured, &small)?;
    let folder = tempfile::tempdir()?;
    for rep in 0..arguments.repeats {
        let array = array(mib, rep);
        let path = folder.path().join(format!("array-{rep}"));
        write(&path, &array)?;
        let print = |run: &str, took: Duration| {
            let system = if run == "plain" { "plain" } else { "allhands" };
            let mut line = Line::new(system, "array", SLICES as u64, rep, took);
            line.run = Some(run.into());
            line.bytes_per_s = Some((mib << 20) as f64 / took.as_secs_f64());
            line.print()
        };

        let begun = Instant::now();
        let opened = Shared::open(&path)?;
        let expected = means(&measured, &opened)?;
        print("first_open", begun.elapsed())?;
        drop(opened);

        let begun = Instant::now();
        let shared = measured.cluster.put(&array)?;
        let found = means(&measured, &shared)?;
        print("first_put", begun.elapsed())?;
        anyhow::ensure!(found == expected, "a mean is wrong");

        // This process has not touched its own map yet.
        plain(&shared, arguments.workers);
        let begun = Instant::now();
        let bare = plain(&shared, arguments.workers);
        print("plain", begun.elapsed())?;
        let begun = Instant::now();
        let found = means(&measured, &shared)?;
        print("second", begun.elapsed())?;
        anyhow::ensure!(found == expected && bare == expected, "a mean is wrong");
        std::fs::remove_file(&path)?;
    }
    carried(&measured, arguments)?;
    drop(measured);
    if arguments.coordinators == 0 {
        shared_memory(mib)?;
    }
    Ok(())
}

fn slices(array: &Shared<[f64]>) -> impl Iterator<Item = Shared<[f64]>> + '_ {
    let each = array.len() / SLICES;
    (0..SLICES).map(move |slice| array.slice(slice * each..(slice + 1) * each))
}

fn means(measured: &Measured, array: &Shared<[f64]>) -> anyhow::Result<Vec<f64>> {
    Ok(Parallel::new().on(&measured.cluster).run(slices(array).map(delayed(mean)))?)
}

/// The same by threads of this process.
fn plain(array: &[f64], threads: u32) -> Vec<f64> {
    let each = array.len() / SLICES;
    let slices: Vec<&[f64]> = array.chunks_exact(each).collect();
    let mut means = vec![0.0; SLICES];
    let share = SLICES.div_ceil(threads as usize);
    thread::scope(|scope| {
        for (slices, means) in slices.chunks(share).zip(means.chunks_mut(share)) {
            scope.spawn(move || {
                for (slice, mean) in slices.iter().zip(means) {
                    *mean = mean_of(slice);
                }
            });
        }
    });
    means
}

fn write(path: &Path, array: &[f64]) -> anyhow::Result<()> {
    let mut file = File::create_new(path)?;
    for part in array.chunks(1 << 17) {
        let bytes: Vec<u8> = part.iter().flat_map(|one| one.to_ne_bytes()).collect();
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Calls that carry one array behind an `Arc`, by the common names of the language.
fn carried(measured: &Measured, arguments: &Arguments) -> anyhow::Result<()> {
    fn length(array: Arc<Vec<u8>>, n: u64) -> u64 {
        array.len() as u64 + n
    }
    let array = Arc::new(vec![7u8; CARRIED_BYTES]);
    let tasks = arguments.tasks.unwrap_or(CARRIERS);
    let begun = Instant::now();
    let calls = (0..tasks).map(|n| delayed(length)(Arc::clone(&array), n));
    let lengths = Parallel::new().on(&measured.cluster).run(calls)?;
    let took = begun.elapsed();
    let expected = CARRIED_BYTES as u64..CARRIED_BYTES as u64 + tasks;
    anyhow::ensure!(lengths.into_iter().eq(expected), "a length is wrong");
    let mut line = Line::new("allhands", "array", tasks, 0, took);
    line.run = Some("arc".into());
    line.print()
}

/// What this process and its executors have in memory together, for every byte of the array that all of them
/// have read.
fn shared_memory(mib: u64) -> anyhow::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the others have to get here, and to be looked at"
    )]
    fn read_and_stay(array: Shared<[f64]>, for_ms: u64) -> (f64, u32) {
        let mean = mean_of(&array);
        thread::sleep(Duration::from_millis(for_ms));
        (mean, std::process::id())
    }
    let cluster = Cluster::embedded().slots(SHARERS).start()?;
    let parallel = Parallel::new().on(&cluster).batch_size(1);
    let before = {
        let small = cluster.put(&[1.0; 4])?;
        let calls = (0..SHARERS).map(|_| delayed(read_and_stay)(small.clone(), 200));
        let mut processes: Vec<u32> = parallel.run(calls)?.into_iter().map(|(_, id)| id).collect();
        processes.push(std::process::id());
        processes.sort_unstable();
        processes.dedup();
        pss_bytes(&processes)?
    };
    let shared = cluster.put_reader(&bytes_of(mib)[..])?.cast::<f64>()?;
    let calls = (0..SHARERS).map(|_| delayed(read_and_stay)(shared.clone(), 4_000));
    let begun = Instant::now();
    let batch = parallel.start(calls)?;
    // Half of the stay: all have read it, and none has left.
    wait(Duration::from_millis(3_000));
    let mut processes = children_of(std::process::id())?;
    processes.push(std::process::id());
    let during = pss_bytes(&processes)?;
    let users: std::collections::BTreeSet<u32> =
        batch.wait()?.into_iter().map(|(_, id)| id).collect();
    anyhow::ensure!(users.len() == SHARERS as usize, "{} executors used it", users.len());
    let mut line = Line::new("allhands", "array", SHARERS.into(), 0, begun.elapsed());
    line.run = Some("shared".into());
    line.pss_ratio = Some((during - before) as f64 / (mib << 20) as f64);
    line.print()
}

#[expect(clippy::disallowed_methods, reason = "tasks have to be under way when they are looked at")]
fn wait(time: Duration) {
    thread::sleep(time);
}

fn bytes_of(mib: u64) -> Vec<u8> {
    vec![1; usize::try_from(mib << 20).unwrap_or(usize::MAX)]
}

fn children_of(process: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let list = std::fs::read_to_string(task?.path().join("children"))?;
        children.extend(list.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Proportional set sizes: a page that several map counts for each with its share.
fn pss_bytes(processes: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for process in processes {
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        sum += kib.context("no Pss")?.trim().parse::<u64>()? << 10;
    }
    Ok(sum)
}
