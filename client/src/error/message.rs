//! The texts of [`Error`](super::Error).

use std::fmt;

use super::{Kind, can_come};

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster { causes } => {
                f.write_str("no cluster: ")?;
                for (place, (address, cause)) in causes.iter().enumerate() {
                    let gap = if place == 0 { "" } else { "; " };
                    let cause = cause.as_ref().map(|cause| cause.cause.as_str());
                    let cause = cause.unwrap_or("it answers, and knows no leader yet");
                    write!(f, "{gap}{address}: {cause}")?;
                }
                f.write_str(match can_come(causes) {
                    true => {
                        ". Check that the coordinators run (`allhands status`) and that \
                         ALLHANDS_CLUSTER and ALLHANDS_IDENTITY are those that `allhands dev` or \
                         `allhands init` gave; without ALLHANDS_CLUSTER the program runs on an \
                         embedded cluster"
                    }
                    false => {
                        ". Trying again cannot help: the addresses and the identity (ALLHANDS_CLUSTER \
                         and ALLHANDS_IDENTITY, or the arguments of Cluster::connect) must be of the \
                         same `allhands init` or `allhands dev`, the identity one of a client, and both \
                         sides of the same release"
                    }
                })
            }
            Self::Address { text, cause } => write!(
                f,
                "`{text}` is no list of coordinator addresses ({cause}): write \
                 `host:port,host:port`, as `allhands dev` prints it"
            ),
            Self::Identity { directory } => write!(
                f,
                "the identity in {directory} cannot be used: ALLHANDS_IDENTITY, or the second \
                 argument of Cluster::connect, names the directory of a client identity, as \
                 `allhands init` makes it"
            ),
            Self::Environment { cause } => write!(f, "ALLHANDS_CLUSTER is set, but {cause}"),
            Self::NotInitialised => f.write_str(
                "allhands::init() was not called: put #[allhands::main] on main, or call \
                 allhands::init() first in it. In tests use #[allhands::test] in place of #[test]",
            ),
            Self::InExecutor => f.write_str(
                "this code runs as a task, in an executor, which has no cluster of its own: make the \
                 call where the tasks are submitted, or say `.n_jobs(1)` to run it inside the task",
            ),
            #[cfg(not(feature = "embedded"))]
            Self::NoEmbedded => f.write_str(
                "no cluster is configured, and this program was built without an embedded one: set \
                 ALLHANDS_CLUSTER, or build allhands with its feature `embedded`",
            ),
            #[cfg(feature = "embedded")]
            Self::Embedded { cause } => write!(f, "the embedded cluster does not start: {cause}"),
            Self::EmbeddedEnded { cause } => write!(
                f,
                "the embedded cluster has ended, and its calls with it: {cause}. The next call that \
                 names no cluster starts another"
            ),
            Self::Own { what, cause } => write!(f, "{what} cannot be had: {cause}"),
            Self::ProgramRefused { reason } => {
                write!(f, "the cluster does not take this program: {reason}")
            }
            Self::Refused { reason } => write!(f, "the cluster does not take the call: {reason}"),
            Self::Leaderless { waited } => write!(
                f,
                "no coordinator has led for {:.1} s: a majority of the coordinators must run and \
                 reach one another (`allhands status`); the call was given up, run it again",
                waited.as_secs_f64()
            ),
            Self::Expired => f.write_str(
                "this process had been away from the cluster for longer than its lease of 15 s, so \
                 its calls were cancelled: run them again",
            ),
            Self::Forgotten => f.write_str(
                "the cluster does not know the call any more, although it had taken it: were the \
                 coordinators' directories removed? Run it again",
            ),
            Self::Unreadable { reason } => write!(
                f,
                "results cannot be read ({reason}): run the call again, and look at that \
                 coordinator's disk"
            ),
            Self::Closed => f.write_str(
                "the session has ended: every `Cluster` handle was dropped, or its thread panicked",
            ),
            Self::Shape(what) => f.write_str(what),
            Self::Data => f.write_str("a shared array cannot be had"),
            Self::Early => f.write_str(
                "a call with a file that was opened in place was made before this program was connected to \
                 a cluster of other machines: make such calls after `Cluster::connect`",
            ),
            Self::OtherCluster => f.write_str(
                "a shared array was put into another cluster than the one that the call runs on: put it \
                 into this one, with `cluster.put`, and run the call `.on(&cluster)`",
            ),
            Self::Homeless { cluster, others: true } => write!(
                f,
                "it is of cluster {cluster}, and this process is connected to another one: connect to that one \
                 (`Cluster::connect`, or ALLHANDS_CLUSTER) before the handle is read"
            ),
            Self::Homeless { others: false, .. } => f.write_str(
                "this process is not connected to a cluster: connect to the one that it is of \
                 (`Cluster::connect`, or `Cluster::from_env`) before the handle is read",
            ),
            Self::OtherExecution { execution, cluster } => write!(
                f,
                "execution {execution} is of cluster {cluster}, and the call goes to another one: take its \
                 result, and give that"
            ),
            Self::EmbeddedJob => f.write_str(
                "a job that goes on without this process needs a cluster that does: this one is embedded, and ends \
                 with the process. Start one (`allhands dev`), and name it in ALLHANDS_CLUSTER",
            ),
            Self::Uncommitted { job, calls } => write!(
                f,
                "job {job} was left with {calls} calls that the cluster has not confirmed: they may never run. See \
                 `allhands status`, and submit them again in another job"
            ),
            Self::HeldHere { function } => write!(
                f,
                "the call of {function} names an array, or has an argument beyond 1 MiB, that this process would have \
                 to serve, and its job goes on without it: have a task make it, and pass its execution"
            ),
            Self::OthersJob { job } => write!(
                f,
                "job {job} was opened by another process, and takes calls only from that one: open another job \
                 (`Cluster::detached`)"
            ),
            Self::InTask(error) => error.fmt(f),
            Self::TooManyNamed { function, named, limit } => write!(
                f,
                "the call of {function} names {named} executions, the limit is {limit}: combine them in \
                 several calls, and those in another one"
            ),
            Self::Blob(cause) => cause.fmt(f),
            Self::NoTask => f.write_str(
                "an array was put on a thread of an executor on which no task runs: put it on the task's own \
                 thread",
            ),
            Self::Run(error) => error.fmt(f),
        }
    }
}
