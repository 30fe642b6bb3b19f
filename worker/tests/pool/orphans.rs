//! Death with the worker: nothing is left, whatever killed it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use allhands::delayed;

use crate::support::{calls, until, with_pool};

const VICTIM: &str = "ALLHANDS_TEST_VICTIM";

/// Starts a child, notes both processes, and never ends.
#[expect(clippy::zombie_processes, reason = "the child is to be killed with the task")]
fn settle(directory: String) -> u32 {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let note = Path::new(&directory).join(std::process::id().to_string());
    std::fs::write(&note, format!("{} {}", std::process::id(), child.id())).unwrap();
    loop {
        std::thread::park();
    }
}

fn lives(process: &str) -> bool {
    // A process that has ended but that nobody has waited for yet has no memory left.
    std::fs::read_to_string(format!("/proc/{process}/statm"))
        .is_ok_and(|memory| !memory.starts_with('0'))
}

fn settled(directory: &Path) -> Vec<String> {
    let notes = std::fs::read_dir(directory).unwrap();
    let texts = notes.map(|note| std::fs::read_to_string(note.unwrap().path()).unwrap());
    texts.flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn a_killed_executor_takes_what_it_has_started_with_it() {
    with_pool("orphans::a_killed_executor_takes_what_it_has_started_with_it", async |rig| {
        let directory = tempfile::tempdir().unwrap();
        let executor = rig.executor(1).await;
        let path = directory.path().to_str().unwrap().to_owned();
        rig.load(executor, 1, &calls([delayed(settle)(path)]));
        until("the task has started", || settled(directory.path()).len() == 2).await;
        let processes = settled(directory.path());
        assert!(processes.iter().all(|process| lives(process)));
        rig.pool.kill(executor);
        rig.death().await;
        until("all are gone", || !processes.iter().any(|process| lives(process))).await;
    });
}

/// The worker is this test once more, and is killed with its executors running.
#[test]
fn kill_9_of_the_worker_leaves_no_process() {
    const NAME: &str = "orphans::kill_9_of_the_worker_leaves_no_process";
    allhands::executor::enter_if_executor();
    if let Ok(directory) = std::env::var(VICTIM) {
        with_pool(NAME, async |rig| {
            for number in 1..=3 {
                let executor = rig.executor(number).await;
                rig.load(executor, number, &calls([delayed(settle)(directory.clone())]));
            }
            rig.event().await;
        });
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        until("the tasks have started", || settled(directory.path()).len() == 6).await;
        let processes = settled(directory.path());
        assert!(processes.iter().all(|process| lives(process)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        until("all are gone", || !processes.iter().any(|process| lives(process))).await;
        // Its output is closed by then, too.
        BufReader::new(victim.stdout.take().unwrap()).lines().for_each(drop);
    });
}
