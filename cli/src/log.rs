//! The log: to standard error, in colour where that is a terminal.

use std::io::{IsTerminal, Write, stderr};

use tracing_subscriber::EnvFilter;

/// What a daemon logs if nothing is asked for, and what everything else does. Of openraft's warnings, those
/// stay out that a healthy cluster causes as well:
///
/// * `core::heartbeat`, `replication` and its handler: each message that another coordinator does not answer, ten
///   times a second while one is away. Our own log says that once in a while. What cannot be read of a snapshot
///   stays in.
/// * `core::raft_core`: votes that were not answered, and what came too late for the office that it was meant
///   for, at every change of leader.
const DAEMON: &str = "info,raft_log=warn,chunked_wal=warn,openraft=warn,openraft::core::heartbeat=error,\
                      openraft::core::raft_core=error,openraft::replication=error,\
                      openraft::engine::handler::replication_handler=error,\
                      openraft::replication::snapshot_transmitter=warn";
const COMMAND: &str = "warn";

/// Starts to log what `filter` lets through. A filter that is none is said to be so.
pub(crate) fn start(filter: Option<&str>, daemon: bool) {
    let usual = || EnvFilter::new(if daemon { DAEMON } else { COMMAND });
    let asked = filter.filter(|text| !text.is_empty()).map(EnvFilter::try_new);
    let filter = match asked {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(stderr(), "warning: --log or RUST_LOG is no filter: {error}");
            usual()
        }
        None => usual(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}
