//! How the command ends: its exit codes, and the one place where an error is printed.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::operator::AskError;

/// The exit codes, for `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    it failed; standard error says why
  2    the command line is not understood
  3    the job, batch or task that was asked for is not there
  4    no coordinator answered as the leader
  130  ended at once by a second Ctrl-C or SIGTERM";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNKNOWN: u8 = 3;
const NO_LEADER: u8 = 4;
/// As of a shell's command that Ctrl-C has ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Prints why the words are not understood, or the help that they ask for.
pub(crate) fn misunderstood(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// Prints what went wrong, and says what to exit with.
pub(crate) fn report(ended: anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::from(match error.downcast_ref() {
        Some(AskError::Unknown { .. }) => UNKNOWN,
        Some(AskError::NoLeader { .. }) => NO_LEADER,
        Some(AskError::Unexpected) | None => FAILED,
    })
}

/// Whether the reader of our output has had enough: `allhands jobs | head -1`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(broken)
}
