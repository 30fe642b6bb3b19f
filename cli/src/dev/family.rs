//! The processes that `allhands dev` has started.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches only the parent, which ends them in
//! order: workers first, while there is still a leader to take what they hold. Each holds the end of a
//! pipe and is tied to the parent (see [`tether`](crate::tether)).

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::quote;
use crate::own::Own;

/// How long a process may take to end once it is asked to. A worker that drains waits for its tasks.
const GRACE: Duration = Duration::from_secs(5);

/// How much of a log is shown of a process that has failed.
const LAST_WORDS_BYTES: u64 = 2_000;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Coordinator,
    Worker,
}

impl Role {
    pub(crate) const fn subcommand(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
        }
    }
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
}

/// What was started.
#[derive(Debug)]
pub(crate) struct Member {
    part: Part,
    executable: PathBuf,
    words: Vec<OsString>,
    child: Child,
    /// Where the log of this run begins.
    log_from: u64,
}

/// All that was started and has not been seen to end.
#[derive(Debug)]
pub(crate) struct Family {
    own: Own,
    members: Vec<Member>,
    children: tokio::signal::unix::Signal,
}

impl Family {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(own: Own) -> anyhow::Result<Self> {
        let children = signal(SignalKind::child()).context("the ends of children are not told")?;
        Ok(Self { own, members: Vec::new(), children })
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn start(&mut self, part: Part) -> anyhow::Result<()> {
        let (executable, words) = self.own.command(&part.arguments)?;
        let unusable = || format!("{} cannot be written", part.log.display());
        let mut log =
            OpenOptions::new().create(true).append(true).open(&part.log).with_context(unusable)?;
        writeln!(log, "$ {}", shell_line(&executable, &words)).with_context(unusable)?;
        let log_from = log.seek(SeekFrom::End(0)).with_context(unusable)?;
        let child = Command::new(&executable)
            .args(&words)
            .args(["--tether", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().with_context(unusable)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", part.name))?;
        self.members.push(Member { part, executable, words, child, log_from });
        Ok(())
    }

    /// Waits until one of them ends.
    pub(crate) async fn next_end(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            self.children.recv().await;
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        let (place, status) =
            self.members.iter_mut().enumerate().find_map(|(place, member)| {
                Some((place, member.child.try_wait().ok().flatten()?))
            })?;
        Some(Ended { member: self.members.swap_remove(place), status })
    }

    /// Ends all, workers first, and returns when none is left.
    pub(crate) async fn end(&mut self) {
        for role in [Role::Worker, Role::Coordinator] {
            self.signal(role, Signal::TERM);
            if timeout(GRACE, self.until_none(role)).await.is_err() {
                self.signal(role, Signal::KILL);
                self.until_none(role).await;
            }
        }
    }

    async fn until_none(&mut self, role: Role) {
        while self.members.iter().any(|member| member.part.role == role) {
            self.next_end().await;
        }
    }

    fn signal(&self, role: Role, signal: Signal) {
        for member in self.members.iter().filter(|member| member.part.role == role) {
            // One that has just ended is not there to be told; it has not been waited for, so its
            // number is nobody else's.
            let _ = kill_process(Pid::from_child(&member.child), signal);
        }
    }

    pub(crate) fn view(&self) -> FamilyView<'_> {
        let members = self.members.iter().map(|member| MemberView {
            role: member.part.role,
            name: &member.part.name,
            pid: member.child.id(),
            command: member.command(),
            log: &member.part.log,
        });
        FamilyView { pid: std::process::id(), processes: members.collect() }
    }
}

/// `DIR/processes.json`.
#[derive(Debug, Serialize)]
pub(crate) struct FamilyView<'a> {
    /// Of `allhands dev` itself.
    pid: u32,
    processes: Vec<MemberView<'a>>,
}

#[derive(Debug, Serialize)]
struct MemberView<'a> {
    role: Role,
    name: &'a str,
    pid: u32,
    /// Starts it again, on its own.
    command: Vec<String>,
    log: &'a PathBuf,
}

impl Member {
    fn command(&self) -> Vec<String> {
        let words = self.words.iter().map(|word| word.to_string_lossy().into());
        std::iter::once(self.executable.to_string_lossy().into()).chain(words).collect()
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  pid {}  {}", self.part.name, self.child.id(), self.part.log.display())
    }
}

/// A process that has ended, and that nobody asked to.
#[derive(Debug)]
pub(crate) struct Ended {
    member: Member,
    status: ExitStatus,
}

impl Ended {
    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let read = || {
            let mut log = std::fs::File::open(&self.member.part.log)?;
            let end = log.seek(SeekFrom::End(0))?;
            let from = self.member.log_from.max(end.saturating_sub(LAST_WORDS_BYTES));
            log.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, pid) = (&self.member.part, self.member.child.id());
        write!(
            f,
            "{} (pid {pid}) has ended: {}; its log is {}; to start it again: {}",
            part.name,
            self.status,
            part.log.display(),
            shell_line(&self.member.executable, &self.member.words)
        )
    }
}

fn shell_line(executable: &std::path::Path, arguments: &[OsString]) -> String {
    let words = std::iter::once(executable.as_os_str()).chain(arguments.iter().map(AsRef::as_ref));
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}
