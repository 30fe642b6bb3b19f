//! What may be typed, and nothing more: no file is read and no name resolved here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allhands_common::id::{BatchId, CoordinatorId, JobId, TaskId};
use allhands_common::net::authority::{AUTHORITY_DAYS, IDENTITY_DAYS};
use allhands_common::net::place::{self, CLUSTER_VARIABLE};
use allhands_coordinator::raft::config::Durability;
use clap::builder::{OsStringValueParser, RangedU64ValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit;

mod resource;

pub(crate) use resource::Resource;

/// How long a question is asked if nobody says, in seconds.
const PATIENCE: &str = "6";

/// All hands on deck: a cluster that runs `delayed` calls of Rust programs.
#[derive(Debug, Parser)]
#[command(name = "allhands", version, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to log to standard error, as in `info` or `allhands_worker=debug,warn`
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new cluster's certificate authority and identities
    Init(Init),
    /// Run a coordinator until SIGTERM or Ctrl-C
    Coordinator(Coordinator),
    /// Run this machine's worker until SIGTERM or Ctrl-C, which drain it
    Worker(Worker),
    /// Run a whole cluster on this machine, as separate processes, until SIGTERM or Ctrl-C
    Dev(Dev),
    /// Show coordinators, workers and totals
    Status(Query),
    /// List the jobs that are not forgotten
    Jobs(Query),
    /// Show a job and its batches
    Job(QueryJob),
    /// Say why a task is not running, or what became of it
    Explain(QueryTask),
    /// List the blobs that workers hold or programs offer
    Blobs(Query),
    /// Cancel a job, a batch, a group of tasks or one of them
    Cancel(Cancel),
}

impl Command {
    /// Whether it runs on and on, so that its log says what happens.
    pub(crate) const fn is_daemon(&self) -> bool {
        matches!(self, Self::Coordinator(_) | Self::Worker(_))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory to make: it must be new or empty, unless identities are added
    pub(crate) dir: PathBuf,
    /// How many coordinators: 1, 3 or 5
    #[arg(long, value_name = "N", default_value = "3", value_parser = voters)]
    pub(crate) coordinators: u32,
    /// Where coordinators 1, 2, … will listen; goes into the file DIR/cluster for programs and commands
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        value_parser = address,
        conflicts_with = "coordinators"
    )]
    pub(crate) at: Vec<String>,
    /// How many workers: worker-1, worker-2, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: u32,
    /// Add an identity to the existing authority in DIR, as in `worker:rack-7`; repeatable
    #[arg(long, value_name = "ROLE:NAME", conflicts_with_all = ["coordinators", "at", "workers"])]
    pub(crate) add: Vec<String>,
    /// For how many days the identities are valid
    #[arg(long, value_name = "N", default_value_t = IDENTITY_DAYS, value_parser = days())]
    pub(crate) days: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Which coordinator this is: its identity must be `coordinator-ID`
    #[arg(long, value_name = "ID", value_parser = coordinator_id)]
    pub(crate) id: CoordinatorId,
    /// The folder of its identity, which `allhands init` made
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,
    /// The UDP address to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where its log, segments and programs lie
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// All coordinators of the cluster, this one included
    #[arg(
        long, value_name = "ID=HOST:PORT,…", value_delimiter = ',', required = true,
        value_parser = member
    )]
    pub(crate) members: Vec<(CoordinatorId, String)>,
    /// When a write is acknowledged: on the disks of a majority, or in their kernels
    #[arg(long, value_enum, default_value_t = DurabilityName::Disk)]
    pub(crate) durability: DurabilityName,
    #[command(flatten)]
    pub(crate) tether: Tether,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Worker {
    /// All coordinators of the cluster
    #[arg(
        long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true,
        value_parser = address
    )]
    pub(crate) coordinators: Vec<String>,
    /// The folder of its identity, which `allhands init` made
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,
    /// Where its programs, chunk store and scratch directories lie
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The UDP address on which it gives chunks to workers and takes them from clients [default: the address
    /// by which it reaches the coordinators, any port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) data_listen: Option<SocketAddr>,
    /// Where others reach that, if elsewhere: behind an address translation, say; repeatable
    #[arg(long = "data-address", value_name = "HOST:PORT", value_parser = address)]
    pub(crate) data_addresses: Vec<String>,
    /// How much its chunk store may take, as in `40GiB` [default: half of what is free on its disk, counting
    /// what the store has taken]
    #[arg(long, value_name = "BYTES", value_parser = resource::some_bytes)]
    pub(crate) store_bytes: Option<u64>,
    /// How many tasks run at once [default: the cores that it may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// What people call it [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What it has besides slots, as in `gpu=1` or `memory=8GiB`; repeatable
    #[arg(long = "resource", value_name = "NAME=COUNT")]
    pub(crate) resources: Vec<Resource>,
    /// Whom tasks run as, where this runs as root; they must be able to reach --dir
    #[arg(long, value_name = "UID:GID")]
    pub(crate) user: Option<User>,
    #[command(flatten)]
    pub(crate) tether: Tether,
}

/// Of a process that must not outlive who started it: those of `allhands dev`, and that of a test.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tether {
    /// End with this process, and when standard input ends
    #[arg(long = "tether", value_name = "PID", hide = true)]
    pub(crate) parent: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Identities, data and logs; a directory of an earlier run continues its cluster
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// How many coordinators: 1, 3 or 5 [default: 3, or as many as DIR has]
    #[arg(long, value_name = "N", value_parser = voters)]
    pub(crate) coordinators: Option<u32>,
    /// How many workers [default: 2, or as many as last time]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// Slots of each worker [default: its share of the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// When a write is acknowledged: on the disks of a majority, or in their kernels
    #[arg(long, value_enum, default_value_t = DurabilityName::Disk)]
    pub(crate) durability: DurabilityName,
    #[command(flatten)]
    pub(crate) tether: Tether,
}

/// Of every command that asks a cluster.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The coordinators, or the directory that `allhands init` or `allhands dev` made
    #[arg(
        long, env = CLUSTER_VARIABLE, value_name = "HOST:PORT,…|DIR",
        value_parser = OsStringValueParser::new().try_map(cluster)
    )]
    pub(crate) cluster: OsString,
    /// The folder of an admin identity [default: `admin` in the cluster's directory, or beside
    /// ALLHANDS_IDENTITY]
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// How long to try, in seconds: a cluster that elects a leader takes up to 2
    #[arg(long, value_name = "SECONDS", default_value = PATIENCE, value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Query {
    /// What `--cluster DIR` means.
    pub(crate) fn of_directory(directory: &Path) -> Self {
        let patience = seconds(PATIENCE).unwrap_or_default();
        Self { cluster: directory.into(), identity: None, patience, json: false }
    }
}

#[derive(Debug, Args)]
pub(crate) struct QueryJob {
    /// Which, as `allhands jobs` lists it
    pub(crate) job: JobId,
    /// Draw when its tasks waited and ran, also of one that has ended not long ago; with --json all that is recorded
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Print its tasks and what joins them as a graph for Graphviz: `allhands job 3 --graph | dot -Tsvg`
    #[arg(long, conflicts_with = "timeline")]
    pub(crate) graph: bool,
    /// Print the lines that its tasks have logged last, also of one that has ended not long ago
    #[arg(long, conflicts_with_all = ["timeline", "graph"])]
    pub(crate) logs: bool,
    /// How many rows of the timeline to show: the last ones
    #[arg(long, value_name = "N", default_value = "200", requires = "timeline")]
    pub(crate) rows: usize,
    #[command(flatten)]
    pub(crate) query: Query,
}

#[derive(Debug, Args)]
pub(crate) struct QueryTask {
    /// Which: BATCH:INDEX, with a batch that `allhands job` lists
    pub(crate) task: TaskId,
    #[command(flatten)]
    pub(crate) query: Query,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// A job, a batch that `allhands job` lists, or one execution
    #[arg(value_name = "JOB|BATCH|BATCH:INDEX")]
    pub(crate) target: Target,
    /// Of a job only the tasks of this group, which `allhands job` shows
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

impl std::str::FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected UID:GID, two numbers, as in 65534:65534";
        let (id, group) = text.split_once(':').ok_or(wrong)?;
        let number = |text: &str| text.parse().map_err(|_| wrong);
        Ok(Self { id: number(id)?, group: number(group)? })
    }
}

/// What can be cancelled: a job (a number), a batch (32 hexadecimal digits), or an execution (a batch, and which of it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Job(JobId),
    Batch(BatchId),
    Task(TaskId),
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected a job's number, a batch's 32 hexadecimal digits, or an execution as BATCH:INDEX";
        let batch = text.parse().map(Self::Batch);
        let task = batch.or_else(|_| text.parse().map(Self::Task));
        task.or_else(|_| text.parse().map(Self::Job)).map_err(|_| wrong)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityName {
    Disk,
    Process,
}

impl DurabilityName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Process => "process",
        }
    }
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Disk => Self::Disk,
            DurabilityName::Process => Self::Process,
        }
    }
}

fn voters(text: &str) -> Result<u32, &'static str> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("a cluster has 1, 3 or 5 coordinators"),
    }
}

fn member(text: &str) -> Result<(CoordinatorId, String), String> {
    let wrong = || "expected ID=HOST:PORT, as in 1=10.0.0.1:7100".to_owned();
    let (id, at) = text.split_once('=').ok_or_else(wrong)?;
    Ok((coordinator_id(id).map_err(|_| wrong())?, address(at)?))
}

fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    place::check(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// No identity outlives its authority.
fn days() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(AUTHORITY_DAYS))
}

/// A variable that is set to nothing names no cluster.
fn cluster(text: OsString) -> Result<OsString, &'static str> {
    let wrong = "it names no cluster: expected HOST:PORT,HOST:PORT,…, or the directory that \
                 `allhands init` or `allhands dev` made, as --cluster or ALLHANDS_CLUSTER";
    if text.to_string_lossy().trim().is_empty() { Err(wrong) } else { Ok(text) }
}

/// A coordinator's number is the low half of what orders leaders.
fn coordinator_id(text: &str) -> Result<CoordinatorId, &'static str> {
    let id: u16 = text.parse().map_err(|_| "expected a number from 1 to 65535")?;
    if id == 0 { Err("coordinators are numbered from 1") } else { Ok(CoordinatorId(id.into())) }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let wrong = "expected a number of seconds, such as 6 or 0.5";
    let seconds = text.parse().map_err(|_| wrong)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_number_is_a_job_and_32_digits_are_a_batch() {
        assert_eq!("17".parse(), Ok(Target::Job(JobId(17))));
        assert_eq!("11".repeat(16).parse(), Ok(Target::Batch(BatchId([0x11; 16]))));
        assert!("x".parse::<Target>().is_err());
    }

    #[test]
    fn members_have_an_id_and_an_address() {
        assert_eq!(member("2=host:7100"), Ok((CoordinatorId(2), "host:7100".into())));
        for wrong in ["host:7100", "a=host:7100", "0=host:7100", "1=host", "1=host:99999"] {
            assert!(member(wrong).is_err(), "{wrong}");
        }
    }
}
