//! The cluster that is measured: embedded, or processes of this very program on loopback.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use allhands::Cluster;
use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::Arguments;

/// First argument that makes this program the command `allhands`.
pub(crate) const AS_ALLHANDS: &str = "allhands";

/// A cluster, and what has to end with it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cluster: Cluster,
    /// Processes on loopback, where it is not embedded.
    pub(crate) dev: Option<Dev>,
}

/// `allhands dev`, run by this program.
#[derive(Debug)]
pub(crate) struct Dev {
    child: Child,
    folder: TempDir,
}

impl Measured {
    /// Starts what the arguments say.
    pub(crate) fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        Self::with_workers(arguments, arguments.workers)
    }

    pub(crate) fn with_workers(arguments: &Arguments, workers: u32) -> anyhow::Result<Self> {
        if arguments.coordinators == 0 {
            let cluster = Cluster::embedded().slots(workers).start()?;
            return Ok(Self { cluster, dev: None });
        }
        let dev = Dev::start(arguments.coordinators, workers, &arguments.durability)?;
        let addresses = std::fs::read_to_string(dev.folder().join("cluster"))
            .context("`allhands dev` left no list of addresses")?;
        let cluster = Cluster::connect(addresses.trim(), dev.folder().join("client"))?;
        Ok(Self { cluster, dev: Some(dev) })
    }
}

impl Dev {
    fn start(coordinators: u32, workers: u32, durability: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let directory = folder.path().join("cluster");
        let mut child = Command::new(std::env::current_exe()?)
            .args([AS_ALLHANDS, "dev", "--coordinators", &coordinators.to_string()])
            .args(["--workers", &workers.to_string(), "--slots", "1", "--durability", durability])
            .args(["--dir".as_ref(), directory.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `allhands dev`")?;
        let out = child.stdout.take().context("`allhands dev` has no standard output")?;
        for line in BufReader::new(out).lines() {
            if line?.contains("ALLHANDS_CLUSTER") {
                return Ok(Self { child, folder });
            }
        }
        bail!("`allhands dev` ended before the cluster was up: {}", child.wait()?)
    }

    /// The cluster's directory.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// The processes that `allhands dev` has started: their command lines and ids.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<(u32, String)>> {
        let parent = self.child.id();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let stat = read(format!("/proc/{id}/stat"));
            // The name in parentheses may contain spaces: the parent follows its end.
            let after = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            let ppid = after.split(' ').nth(1).and_then(|text| text.parse::<u32>().ok());
            if ppid == Some(parent) {
                let command = read(format!("/proc/{id}/cmdline")).replace('\0', " ");
                found.push((id, command));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn read(path: impl AsRef<Path>) -> String {
    // A process may end while it is looked at.
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(process) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // It ends what it started; failing to reach it means that it is gone.
            _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        _ = self.child.wait();
    }
}
