//! The directory of a cluster for development.
//!
//! ```text
//! DIR/ca.* cluster-id cluster NAME/   as `allhands init` makes them
//! DIR/dev.json          addresses of the coordinators, number of workers: kept from run to run
//! DIR/dev.lock          locked while `allhands dev` runs there
//! DIR/processes.json    the processes of this run, with their commands
//! DIR/data/NAME/        data directories
//! DIR/logs/NAME.log     what the processes say, run after run
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use allhands_common::net::authority::IDENTITY_DAYS;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::family::{Family, Part, Role};
use super::ports;
use crate::args::{Dev, DurabilityName};
use crate::directory;
use crate::init::{Issuer, coordinator_name, is_vacant, names, worker_name, write_addresses};

const COORDINATORS: u32 = 3;
const WORKERS: u32 = 2;

/// What is kept from run to run.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    coordinators: Vec<SocketAddr>,
    workers: u32,
}

/// The directory, ours while this lives.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    kept: Kept,
    slots: u32,
    durability: DurabilityName,
    _lock: File,
}

impl Home {
    /// Makes the directory, or goes on with the cluster that is there.
    pub(crate) fn open(command: &Dev) -> anyhow::Result<Self> {
        let file = command.dir.join("dev.json");
        let is_new = !file.exists();
        ensure!(
            !is_new || is_vacant(&command.dir)?,
            "{} is not empty and has no cluster of `allhands dev`: give a new directory",
            command.dir.display()
        );
        directory::make(&command.dir, directory::PRIVATE)?;
        let dir = command.dir.canonicalize().context("the directory has no path")?;
        let lock = directory::lock(&dir, "dev.lock", "`allhands dev`")?;
        let mut kept = if is_new {
            let coordinators = ports::free(command.coordinators.unwrap_or(COORDINATORS))?;
            Issuer::create(&dir, IDENTITY_DAYS)?;
            Kept { coordinators, workers: WORKERS }
        } else {
            let text =
                fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", file.display()))?
        };
        let coordinators = u32::try_from(kept.coordinators.len())?;
        if let Some(asked) = command.coordinators.filter(|asked| *asked != coordinators) {
            bail!(
                "{} has a cluster of {coordinators} coordinators, not {asked}: leave --coordinators \
                 away, or give a new directory",
                dir.display()
            );
        }
        kept.workers = command.workers.unwrap_or(kept.workers);
        Issuer::load(&dir, IDENTITY_DAYS)?.complete(names(coordinators, kept.workers))?;
        write_addresses(
            &dir,
            &kept.coordinators.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )?;
        for inner in ["data", "logs"] {
            directory::make(&dir.join(inner), directory::PRIVATE)?;
        }
        write_json(&file, &kept)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = u32::try_from(cores)? / kept.workers.max(1);
        Ok(Self {
            dir,
            slots: command.slots.unwrap_or(share).max(1),
            kept,
            durability: command.durability,
            _lock: lock,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.kept.coordinators.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn worker_names(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.kept.workers).map(worker_name)
    }

    /// All that is to be started, coordinators first.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let numbered = || (1u32..).zip(&self.kept.coordinators);
        let members: Vec<String> = numbered().map(|(id, at)| format!("{id}={at}")).collect();
        let coordinators = numbered().map(|(id, address)| {
            self.part(
                Role::Coordinator,
                coordinator_name(id),
                [
                    ("--id", id.to_string()),
                    ("--listen", address.to_string()),
                    ("--members", members.join(",")),
                    ("--durability", self.durability.as_str().into()),
                ],
            )
        });
        let workers = self.worker_names().map(|name| {
            self.part(
                Role::Worker,
                name.clone(),
                [
                    ("--coordinators", self.addresses().join(",")),
                    ("--slots", self.slots.to_string()),
                    ("--name", name),
                ],
            )
        });
        coordinators.chain(workers).collect()
    }

    fn part<const N: usize>(&self, role: Role, name: String, own: [(&str, String); N]) -> Part {
        let paths =
            [("--identity", self.dir.join(&name)), ("--dir", self.dir.join("data").join(&name))];
        let own = own.into_iter().map(|(flag, value)| (flag, OsString::from(value)));
        let all = own.chain(paths.map(|(flag, path)| (flag, path.into_os_string())));
        let arguments = all.flat_map(|(flag, value)| [flag.into(), value]);
        Part {
            role,
            arguments: std::iter::once(role.subcommand().into()).chain(arguments).collect(),
            log: self.logs().join(format!("{name}.log")),
            name,
        }
    }

    /// Writes down which processes run.
    pub(crate) fn publish(&self, family: &Family) -> anyhow::Result<()> {
        write_json(&self.processes(), &family.view())
    }

    /// Forgets the processes, which have ended.
    pub(crate) fn leave(self) {
        // It may never have been written.
        let _ = fs::remove_file(self.processes());
    }

    fn processes(&self) -> PathBuf {
        self.dir.join("processes.json")
    }
}

/// Replaces the file in one step.
fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let failed = || format!("{} cannot be written", path.display());
    fs::write(&new, serde_json::to_vec_pretty(value)?).with_context(failed)?;
    fs::rename(&new, path).with_context(failed)
}
