//! Real processes for tests: the binary itself, and clusters of it. Everything that was started is ended,
//! by its id, when its handle is dropped. Nothing sleeps for a fixed time: what is awaited is looked at
//! until it is there, or a generous bound has passed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes on an idle machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The command, without the environment of whoever runs the tests.
pub(crate) fn allhands<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allhands"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["ALLHANDS_CLUSTER", "ALLHANDS_IDENTITY", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Exit code, standard output and standard error of a command that ends.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let (code, out, error) = run(command);
    assert_eq!(code, Some(0), "{command:?}: {error}");
    out
}

/// Looks until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(BOUND, what, look)
}

/// Looks until `look` finds something, for as long as `bound`.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "other processes cannot be waited for")]
pub(crate) fn within<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "not within {bound:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a process that cannot object.
pub(crate) fn kill_9(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}

/// All processes whose command line, program or working directory mentions `dir`.
pub(crate) fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mentions = |process: &Path| {
        let link = |name| std::fs::read_link(process.join(name)).unwrap_or_default();
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let links = [link("exe"), link("cwd")];
        let found = line.contains(dir) || links.iter().any(|link| link.starts_with(dir));
        found.then(|| format!("{}: {line}", process.display()))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.filter(|path| path.join("cmdline").exists()).filter_map(|path| mentions(&path)).collect()
}

/// A cluster of `allhands dev`.
#[derive(Debug)]
pub(crate) struct Dev {
    process: Child,
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Dev {
    /// A new cluster in a directory of its own, ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("dev");
        let mut dev = Self::start_in(&dir, arguments);
        dev.temporary = Some(temporary);
        dev
    }

    /// A cluster in `dir`, ready.
    pub(crate) fn start_in(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = allhands(["dev", "--dir"]);
        let errors = std::fs::File::create(dir.with_extension("stderr")).unwrap();
        // It ends with this process, however that ends.
        command.args([dir.as_os_str(), "--tether".as_ref()]).arg(std::process::id().to_string());
        command.stdin(Stdio::piped()).args(arguments);
        command.stdout(Stdio::piped()).stderr(errors);
        let mut process = command.spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let dev = Self { process, dir: dir.to_owned(), temporary: None };
        let (said, line) = mpsc::channel();
        std::thread::spawn(move || said.send(out.lines().next()));
        let line = line.recv_timeout(BOUND).expect("dev says nothing");
        let line = line.unwrap_or_else(|| panic!("dev has ended: {}", dev.said())).unwrap();
        let shown = dir.canonicalize().unwrap();
        assert_eq!(line, format!("export ALLHANDS_CLUSTER={}", shown.display()));
        dev
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it has said besides.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("stderr")).unwrap()
    }

    /// A command that asks this cluster.
    pub(crate) fn ask<T: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = T>) -> Command {
        let mut command = allhands(arguments);
        command.env("ALLHANDS_CLUSTER", &self.dir);
        command
    }

    /// `allhands status --json`, if there is a leader.
    pub(crate) fn status(&self) -> Option<Value> {
        let (code, out, _) = run(&mut self.ask(["status", "--json", "--patience", "2"]));
        (code == Some(0)).then(|| serde_json::from_str(&out).unwrap())
    }

    /// The leader's number, if there is one.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.status()?["leader"].as_u64()
    }

    /// How many workers take tasks.
    pub(crate) fn workers_ready(&self) -> usize {
        let Some(status) = self.status() else {
            return 0;
        };
        let workers = status["workers"].as_array().unwrap();
        workers.iter().filter(|worker| worker["state"] == "ready").count()
    }

    /// One of `processes.json`.
    pub(crate) fn process(&self, name: &str) -> Value {
        let text = std::fs::read(self.dir.join("processes.json")).unwrap();
        let all: Value = serde_json::from_slice(&text).unwrap();
        let all = all["processes"].as_array().unwrap().clone();
        all.into_iter().find(|process| process["name"] == name).unwrap()
    }

    /// The number of a process as it was started.
    pub(crate) fn pid(&self, name: &str) -> Pid {
        let pid = self.process(name)["pid"].as_i64().unwrap();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Starts a process again that has ended.
    pub(crate) fn start_again(&self, name: &str) -> Again {
        self.start_again_as(name, |command| command).0
    }

    /// Starts a process again that has ended, by a command made of its own; what it says is in the file.
    pub(crate) fn start_again_as(
        &self,
        name: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> (Again, PathBuf) {
        let process = self.process(name);
        let words = process["command"].as_array().unwrap();
        let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let mut command = change(command);
        let path = self.dir.join(format!("{name}-again.log"));
        (Again::start(&mut command, &path), path)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until `allhands dev` itself has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the end of `allhands dev`", || self.process.try_wait().unwrap())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            let start = Instant::now();
            while self.process.try_wait().unwrap().is_none() {
                if start.elapsed() > BOUND {
                    // Its children end with it.
                    self.signal(Signal::KILL);
                }
                std::thread::yield_now();
            }
        }
    }
}

/// A process that a test has started, again or beside a cluster.
#[derive(Debug)]
pub(crate) struct Again(pub(crate) Child);

impl Again {
    /// Starts it; what it says goes into `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
