//! How an executor is started: which file, which arguments, which environment.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use allhands_common::program::ProgramId;
use allhands_common::wire::executor::SOCKET_VARIABLE;

use crate::helper;
use crate::programs;
use allhands_scheduler::Spawn;

/// Variables by which libraries learn how many threads to start. Each task has its cpus; without
/// these every executor would start as many threads as the machine has cores.
const THREAD_VARIABLES: [&str; 8] = [
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
];

/// How programs are started.
#[derive(Debug, Clone)]
pub enum Launch {
    /// Embedded: this command, for each program, which is the client's own.
    Own(ExecutorCommand),
    /// A worker daemon: from its program store, through its helper.
    Stored(Stored),
}

/// A program, its arguments and its environment.
#[derive(Debug, Clone)]
pub struct ExecutorCommand {
    /// The file.
    pub exe: PathBuf,
    /// Its arguments; none, but for tests.
    pub args: Vec<OsString>,
    /// What it inherits.
    pub environment: Environment,
}

impl ExecutorCommand {
    /// This very program with these arguments: the embedded cluster's executors. `/proc/self/exe`
    /// stays right when the file is replaced by a build.
    pub fn own(args: impl IntoIterator<Item: Into<OsString>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { exe: "/proc/self/exe".into(), args, environment: Environment::Inherited }
    }
}

/// Which variables an executor gets besides its job's and the pool's.
#[derive(Debug, Clone)]
pub enum Environment {
    /// Those of this process: test runners and `LD_LIBRARY_PATH` rely on it.
    Inherited,
    /// These alone.
    Cleared(Vec<(OsString, OsString)>),
}

/// Programs in a store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The program store's directory.
    pub programs: PathBuf,
    /// The executable whose hidden subcommand is [`helper::executor_helper`].
    pub helper: PathBuf,
    /// The unprivileged user and group to run as, where the worker is root.
    pub user: Option<(u32, u32)>,
    /// Variables for every executor.
    pub variables: Vec<(OsString, OsString)>,
}

impl Launch {
    /// The command of an executor that is to connect to `socket` and may write to `scratch`.
    pub(super) fn command(&self, spawn: &Spawn, socket: &Path, scratch: &Path) -> Command {
        let (mut command, inherited) = match self {
            Self::Own(own) => {
                let mut command = Command::new(&own.exe);
                command.args(&own.args);
                let inherited = matches!(own.environment, Environment::Inherited);
                if let Environment::Cleared(variables) = &own.environment {
                    command.env_clear().envs(variables.iter().cloned());
                }
                (command, inherited)
            }
            Self::Stored(stored) => (stored.command(spawn.program.id, &spawn.program.name), false),
        };
        let cpus = spawn.cpus.max(1).to_string();
        for variable in THREAD_VARIABLES {
            // What the user has set for the whole program is meant.
            if !(inherited && std::env::var_os(variable).is_some()) {
                command.env(variable, &cpus);
            }
        }
        let mut announced = OsString::from(format!("{}:", std::process::id()));
        announced.push(socket);
        command
            .env("TMPDIR", scratch)
            .envs(spawn.env.iter().map(|(name, value)| (name, value)))
            .env(SOCKET_VARIABLE, announced)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Stored {
    fn command(&self, program: ProgramId, name: &str) -> Command {
        let file = programs::file(&self.programs, program);
        let mut command = Command::new(&self.helper);
        command.args(helper::arguments(&file, name));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs(self.variables.iter().cloned());
        if let Some((user, group)) = self.user {
            // The order of std: supplementary groups are dropped, then the group, then the user.
            command.uid(user).gid(group);
        }
        command
    }
}
