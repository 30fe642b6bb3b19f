//! `allhands init`: a new cluster's authority and identities, or more identities of an old one's.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::place::{ADDRESSES_FILE, ADMIN, CLIENT};
use allhands_common::net::random;
use anyhow::{Context, ensure};
use serde::Serialize;

use crate::args::Init;
use crate::output;

pub(crate) fn run(command: &Init) -> anyhow::Result<()> {
    let made = if command.add.is_empty() { create(command)? } else { add(command)? };
    output::print(&made, command.json)
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    cluster: String,
    dir: PathBuf,
    addresses: Vec<String>,
    identities: Vec<IdentityView>,
    #[serde(skip)]
    is_new: bool,
}

#[derive(Debug, Serialize)]
struct IdentityView {
    #[serde(serialize_with = "as_word")]
    role: Role,
    name: String,
    path: PathBuf,
}

fn as_word<S: serde::Serializer>(role: &Role, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(role.as_str())
}

fn create(command: &Init) -> anyhow::Result<Made> {
    let dir = &command.dir;
    ensure!(
        is_vacant(dir)?,
        "{} is not empty, and nothing is ever overwritten: give a new directory, or use --add \
         ROLE:NAME to issue more identities of the cluster that is there",
        dir.display()
    );
    let distinct: BTreeSet<&String> = command.at.iter().collect();
    ensure!(distinct.len() == command.at.len(), "--at names an address twice");
    let coordinators = match u32::try_from(command.at.len())? {
        0 => command.coordinators,
        given @ (1 | 3 | 5) => given,
        given => anyhow::bail!("--at names {given} coordinators: a cluster has 1, 3 or 5"),
    };
    let issuer = Issuer::create(dir, command.days)?;
    if !command.at.is_empty() {
        write_addresses(dir, &command.at)?;
    }
    let mut identities = Vec::new();
    for name in names(coordinators, command.workers) {
        identities.push(issuer.issue(name)?);
    }
    Ok(Made {
        cluster: issuer.cluster(),
        dir: dir.clone(),
        addresses: command.at.clone(),
        identities,
        is_new: true,
    })
}

fn add(command: &Init) -> anyhow::Result<Made> {
    let issuer = Issuer::load(&command.dir, command.days)?;
    let mut identities = Vec::new();
    for text in &command.add {
        let (role, name) = text
            .split_once(':')
            .with_context(|| format!("--add {text}: expected ROLE:NAME, as in worker:rack-7"))?;
        identities.push(issuer.issue((role.parse()?, name.to_owned()))?);
    }
    Ok(Made {
        cluster: issuer.cluster(),
        dir: command.dir.clone(),
        addresses: Vec::new(),
        identities,
        is_new: false,
    })
}

/// The identities of a new cluster.
pub(crate) fn names(coordinators: u32, workers: u32) -> Vec<(Role, String)> {
    let coordinators = (1..=coordinators).map(|n| (Role::Coordinator, coordinator_name(n)));
    let workers = (1..=workers).map(|n| (Role::Worker, worker_name(n)));
    let people = [(Role::Client, CLIENT.to_owned()), (Role::Admin, ADMIN.to_owned())];
    coordinators.chain(workers).chain(people).collect()
}

/// What the certificate of the `number`-th coordinator must say.
pub(crate) fn coordinator_name(number: u32) -> String {
    format!("coordinator-{number}")
}

/// What the `number`-th worker is called unless somebody says otherwise.
pub(crate) fn worker_name(number: u32) -> String {
    format!("worker-{number}")
}

/// Whether nothing is at `dir`, or an empty directory.
pub(crate) fn is_vacant(dir: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", dir.display())),
    }
}

/// Writes the file that tells programs and commands where the coordinators are.
pub(crate) fn write_addresses(dir: &Path, addresses: &[String]) -> anyhow::Result<()> {
    let file = dir.join(ADDRESSES_FILE);
    std::fs::write(&file, format!("{}\n", addresses.join(",")))
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// An authority and its directory.
pub(crate) struct Issuer<'a> {
    authority: Authority,
    dir: &'a Path,
    validity: Validity,
}

impl<'a> Issuer<'a> {
    pub(crate) fn create(dir: &'a Path, days: u32) -> anyhow::Result<Self> {
        let cluster = ClusterId(random::bytes().context("the system gives no random bytes")?);
        let authority = Authority::create(cluster)?;
        authority.save(dir)?;
        Ok(Self { authority, dir, validity: validity(days) })
    }

    pub(crate) fn load(dir: &'a Path, days: u32) -> anyhow::Result<Self> {
        Ok(Self { authority: Authority::load(dir)?, dir, validity: validity(days) })
    }

    fn cluster(&self) -> String {
        self.authority.cluster().to_string()
    }

    fn issue(&self, (role, name): (Role, String)) -> anyhow::Result<IdentityView> {
        let path = self.dir.join(&name);
        ensure!(
            !path.exists(),
            "{} is there already, and nothing is ever overwritten: move it away, or choose another \
             name",
            path.display()
        );
        let files = self.authority.issue(role, &name, self.validity, path.clone())?;
        files.save().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(IdentityView { role, name, path })
    }

    /// Issues what is not there yet.
    pub(crate) fn complete(&self, names: Vec<(Role, String)>) -> anyhow::Result<()> {
        for (role, name) in names {
            if !self.dir.join(&name).exists() {
                self.issue((role, name))?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn validity(days: u32) -> Validity {
    Validity::days(SystemTime::now(), days)
}

impl Made {
    fn of(&self, role: Role) -> impl Iterator<Item = &IdentityView> {
        self.identities.iter().filter(move |identity| identity.role == role)
    }

    /// HOST:PORT of each coordinator, invented where it was not given.
    fn addresses(&self) -> Vec<String> {
        if self.addresses.is_empty() {
            self.of(Role::Coordinator)
                .enumerate()
                .map(|(n, _)| format!("HOST{}:7100", n + 1))
                .collect()
        } else {
            self.addresses.clone()
        }
    }
}

impl Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.display();
        if !self.is_new {
            return self.identities.iter().try_for_each(|one| {
                writeln!(
                    f,
                    "{}  copy it to the machine of {} {}",
                    one.path.display(),
                    one.role,
                    one.name
                )
            });
        }
        let addresses = self.addresses();
        let members: Vec<String> =
            addresses.iter().enumerate().map(|(n, at)| format!("{}={at}", n + 1)).collect();
        let (members, all) = (members.join(","), addresses.join(","));
        writeln!(f, "cluster {} in {dir}\n", self.cluster)?;
        writeln!(f, "Copy each folder, as a whole, to its machine, and start there:")?;
        for (number, (one, at)) in self.of(Role::Coordinator).zip(&addresses).enumerate() {
            let (host, port) = at.rsplit_once(':').unwrap_or((at, "7100"));
            let any = if host.starts_with('[') { "[::]" } else { "0.0.0.0" };
            writeln!(f, "  {}", one.path.display())?;
            writeln!(
                f,
                "    allhands coordinator --id {} --identity {} --listen {any}:{port} --dir DATA \
                 --members {members}",
                number + 1,
                one.name
            )?;
        }
        for one in self.of(Role::Worker) {
            writeln!(f, "  {}", one.path.display())?;
            writeln!(
                f,
                "    allhands worker --coordinators {all} --identity {} --dir DATA",
                one.name
            )?;
        }
        writeln!(f, "\nFor programs, and for `allhands status` and its like:")?;
        if self.addresses.is_empty() {
            writeln!(f, "  echo {all} > {dir}/{ADDRESSES_FILE}")?;
        }
        writeln!(f, "  export ALLHANDS_CLUSTER={dir}")?;
        writeln!(
            f,
            "  (they need of it: {ADDRESSES_FILE} and {CLIENT}/ to run programs, {ADMIN}/ to ask and to cancel)"
        )?;
        writeln!(f, "\nKeep {dir}/ca.key off all machines: whoever holds it is the cluster.")
    }
}
