//! A disk takes no more. Files that may not grow beyond a limit stand in for it: to the program it is
//! the same failed write, and it needs no rights to set up.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use allhands::prelude::*;

use crate::batch::connect;
use crate::support::{Dev, eventually, kill_9, within};

/// First word of this program when it is to fill the disk of an embedded cluster.
pub(crate) const AS_EMBEDDED: &str = "embedded";

const TASKS: u64 = 128;
const ARGUMENT_BYTES: usize = 128 << 10;

/// A chunk of the log is closed at 4 MiB, a file of segments at 64 MiB: which of them a limit stops.
const STOPS_THE_LOG: u32 = 2 << 20;
const STOPS_THE_SEGMENTS: u32 = 10 << 20;

fn weigh(n: u64, bytes: Vec<u8>) -> u64 {
    n + bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()
}

/// A call whose arguments are 16 MiB.
fn heavy_call(cluster: &Cluster) -> Result<Vec<u64>, allhands::RunError> {
    let calls = (0..TASKS).map(|n| delayed(weigh)(n, vec![1; ARGUMENT_BYTES]));
    Parallel::new().on(cluster).run(calls)
}

/// `command`, whose files cannot grow beyond `bytes`.
fn limited(command: &Command, bytes: u32) -> Command {
    let mut limited = Command::new("sh");
    // Refused writes are errors and not the end of the process.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 512);
    limited.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    limited
}

/// The coordinator ends and says what to do; what it had acknowledged is there when it is started
/// again, and the call goes on.
fn a_coordinator_ends(bytes: u32, names: &str) {
    let dev = Dev::start(&["--coordinators", "1", "--workers", "1", "--slots", "1"]);
    let cluster = connect(&dev);
    let warm: Vec<u64> =
        Parallel::new().on(&cluster).run((0..1).map(|n| delayed(weigh)(n, vec![]))).unwrap();
    assert_eq!(warm, [0]);
    kill_9(dev.pid("coordinator-1"));
    eventually("it is gone", || dev.said().contains("coordinator-1 (pid ").then_some(()));

    let (mut full, log) = dev.start_again_as("coordinator-1", |command| limited(&command, bytes));
    let call = std::thread::spawn(move || heavy_call(&cluster).unwrap());
    let status: ExitStatus =
        within(Duration::from_secs(30), "it ends", || full.0.try_wait().unwrap());
    assert!(!status.success(), "{status}");
    let said = std::fs::read_to_string(log).unwrap();
    println!("{said}");
    for part in [names, "File too large", "free space"] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }

    let _again = dev.start_again("coordinator-1");
    let sums = call.join().unwrap();
    assert!(sums.iter().zip(0..).all(|(sum, n)| *sum == n + ARGUMENT_BYTES as u64));
    assert_eq!(sums.len() as u64, TASKS);
}

pub(crate) fn the_disk_of_the_segments_is_full() {
    a_coordinator_ends(STOPS_THE_SEGMENTS, "segments/");
}

pub(crate) fn the_disk_of_the_log_is_full() {
    a_coordinator_ends(STOPS_THE_LOG, "raft");
}

/// Whoever called is told, at once.
pub(crate) fn the_disk_of_an_embedded_cluster_is_full() {
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.arg(AS_EMBEDDED);
    let mut command = limited(&own, STOPS_THE_SEGMENTS);
    let out = tempfile::NamedTempFile::new().unwrap();
    let errors = out.reopen().unwrap();
    command.stdin(Stdio::null()).stdout(errors.try_clone().unwrap()).stderr(errors);
    let mut child = command.spawn().unwrap();
    let status = within(Duration::from_secs(30), "it ends", || child.try_wait().unwrap());
    let said = std::fs::read_to_string(out.path()).unwrap();
    println!("{said}");
    assert!(status.success(), "{status}: {said}");
    for part in ["segments/", "File too large", "free space"] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

/// A caller whose cluster runs into the limit.
pub(crate) fn be_embedded() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    println!("{}", heavy_call(&cluster).unwrap_err());
}
