//! From nothing to the first result, each time in a fresh process.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use allhands::prelude::*;
use anyhow::Context as _;

use super::noop;
use crate::Arguments;
use crate::measure::{Line, complain};

/// First argument of the fresh process.
pub(crate) const AS_FRESH: &str = "as-fresh";

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for rep in 0..arguments.repeats {
        let begun = Instant::now();
        let output = Command::new(std::env::current_exe()?).arg(AS_FRESH).output()?;
        let whole = begun.elapsed();
        let text = String::from_utf8(output.stdout)?;
        let micros: u64 = text.trim().parse().context("the fresh process said something else")?;
        let took = Duration::from_micros(micros);
        Line::new("allhands", "startup", 1, rep, took).print()?;
        Line::new("process", "startup", 1, rep, whole).print()?;
    }
    Ok(())
}

/// The fresh process: starts an embedded cluster, runs one call, prints the microseconds.
pub(crate) fn be_fresh() -> ExitCode {
    let begun = Instant::now();
    let first = Parallel::new().run([delayed(noop)(7)]);
    let took = begun.elapsed();
    match first {
        Ok(result) if result == [7] => {
            use std::io::Write as _;
            // The parent notices when nothing comes.
            _ = writeln!(std::io::stdout(), "{}", took.as_micros());
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.into());
            ExitCode::FAILURE
        }
    }
}
