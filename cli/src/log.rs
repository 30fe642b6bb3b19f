//! The log: to standard error, in colour where that is a terminal.

use std::io::{IsTerminal, Write, stderr};

use tracing_subscriber::EnvFilter;

/// What a daemon logs if nothing is asked for, and what everything else does. openraft warns of each message
/// that a dead coordinator does not answer, ten times a second; our own log says it once in a while.
const DAEMON: &str = "info,openraft=error,raft_log=warn,chunked_wal=warn";
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
