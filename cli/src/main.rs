//! The command `allhands`.

use std::process::ExitCode;

fn main() -> ExitCode {
    allhands_cli::main_with(std::env::args_os())
}
