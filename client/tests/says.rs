//! What tasks say while they run reaches the program that has called them: real executor processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Level, Note, Said, TaskId, context};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is said in this process's session, from now on.
fn listen() -> Receiver<Note> {
    let (tell, told) = channel();
    let cluster = Cluster::from_env().unwrap();
    // Who has heard enough does not listen any more.
    cluster.listen(move |note| _ = tell.send(note)).unwrap();
    told
}

/// The next thing that `task` says.
fn next(told: &Receiver<Note>, task: TaskId) -> Said {
    loop {
        let note = told.recv_timeout(PATIENCE).unwrap();
        if note.task == task {
            return note.said;
        }
    }
}

/// Says how far it is until it is let go.
#[allhands::task]
#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn works(until: PathBuf) -> u64 {
    context().log(Level::Info, "begins", &[("n", &7), ("of", &"nine")]);
    let mut done = 0;
    while !until.exists() {
        done += 1;
        context().progress(done, 1_000_000);
        std::thread::sleep(Duration::from_millis(5));
    }
    context().log(Level::Warn, "ends", &[]);
    done
}

#[allhands::test]
fn lines_and_progress_come_while_the_task_runs() {
    let directory = tempfile::tempdir().unwrap();
    let until = directory.path().join("until");
    let told = listen();
    let execution = works::submit(&until).unwrap();
    let (mut line, mut seen) = (None, Vec::new());
    while seen.len() < 2 {
        match next(&told, execution.id()) {
            Said::Line(first) => assert_eq!(line.replace(first), None),
            Said::Progress { done, total: 1_000_000 } => seen.push(done),
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.is_sorted() && !execution.done(), "{seen:?}");
    let line = line.unwrap();
    assert_eq!((line.level, line.text.as_str()), (Level::Info, "begins"));
    assert_eq!(line.to_string(), "begins n=7 of=nine");
    std::fs::write(&until, "").unwrap();
    let done = execution.result().unwrap();
    let last = loop {
        match next(&told, execution.id()) {
            Said::Line(line) => break line,
            Said::Progress { done: so_far, .. } => assert!(so_far <= done),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((last.level, last.text.as_str()), (Level::Warn, "ends"));
}

#[allhands::task]
fn short(n: u64) -> u64 {
    context().log(Level::Debug, format!("task {n}"), &[]);
    context().progress(n, n);
    n
}

#[allhands::test]
fn the_lines_of_a_task_that_is_done_in_no_time_come() {
    let told = listen();
    let all: Vec<_> = (0..20).map(|n| short::submit(n).unwrap()).collect();
    for (n, execution) in all.iter().enumerate() {
        assert_eq!(execution.result().unwrap(), n as u64);
    }
    let mut missing: Vec<TaskId> = all.iter().map(|execution| execution.id()).collect();
    while !missing.is_empty() {
        let note = told.recv_timeout(PATIENCE).unwrap();
        if let Some(at) = missing.iter().position(|task| *task == note.task) {
            let number = all.iter().position(|execution| execution.id() == note.task).unwrap();
            let Said::Line(line) = note.said else { panic!("{note:?}") };
            assert_eq!(
                line.text,
                format!("task {number}"),
                "of what has ended nothing is left to do"
            );
            missing.swap_remove(at);
        }
    }
}

#[allhands::task]
fn chats(lines: u64) -> u64 {
    (0..lines).for_each(|n| context().log(Level::Trace, "x".repeat(100_000), &[("n", &n)]));
    lines
}

#[allhands::test]
fn a_task_that_says_too_much_is_not_held_up_and_the_rest_is_counted() {
    // A cluster of its own: what a process may say in a second is for all of its tasks.
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let (tell, told) = channel();
    cluster.listen(move |note| _ = tell.send(note)).unwrap();
    let execution = cluster.submit(chats::delayed(2000)).unwrap();
    assert_eq!(execution.result().unwrap(), 2000);
    let (mut lines, mut dropped) = (0, 0);
    while lines + dropped < 2000 {
        match next(&told, execution.id()) {
            Said::Line(line) => {
                assert_eq!(line.text.len(), 4096, "as long as it may be");
                lines += 1;
            }
            Said::Dropped(some) => dropped += some,
            other => panic!("{other:?}"),
        }
    }
    assert!(lines > 0 && lines + dropped == 2000, "{lines} lines, {dropped} left out");
}

/// Its job, and milliseconds until its time is over.
#[allhands::task]
fn knows(_: ()) -> (Option<u64>, Option<u64>) {
    let context = context();
    let left = context.deadline().map(|at| at.duration_since(std::time::Instant::now()));
    (context.job().map(|job| job.0), left.map(|left| left.as_millis() as u64))
}

#[allhands::test]
fn a_task_knows_its_job_and_when_its_time_is_over() {
    let timeless = knows::submit(()).unwrap().result().unwrap();
    assert!(timeless.0.is_some() && timeless.1.is_none(), "{timeless:?}");
    let within = Parallel::new().timeout(Duration::from_secs(600));
    let timed = within.run([knows::delayed(())]).unwrap()[0];
    assert!(timed.0.is_some() && (1..=600_000).contains(&timed.1.unwrap()), "{timed:?}");
    // Inline there is no job, and nobody would end it.
    let inline = within.n_jobs(1).run([knows::delayed(())]).unwrap();
    assert_eq!(inline, [(None, None)]);
    let said: Vec<u64> = Parallel::new().n_jobs(1).run([short::delayed(3)]).unwrap();
    assert_eq!(said, [3]);
}
