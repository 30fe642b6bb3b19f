//! The command `allhands`: starts the parts of a cluster, and asks it questions.
//!
//! What was typed is read in [`args`]; each command turns that into the configuration of what it runs.
//! Data goes to standard output, everything else to standard error; [`exit`] lists the exit codes.

mod args;
mod coordinator;
mod dev;
mod exit;
mod init;
mod log;
mod operator;
mod output;
mod place;
mod query;
mod random;
mod shutdown;
mod tether;
mod worker;

use std::process::ExitCode;

use allhands_worker::helper;
use clap::Parser;

use crate::args::{Arguments, Command};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == helper::SUBCOMMAND) {
        helper::executor_helper(words);
    }
    let arguments = Arguments::parse();
    log::start(arguments.log.as_deref(), arguments.command.is_daemon());
    let ended = match arguments.command {
        Command::Init(command) => init::run(&command),
        Command::Coordinator(command) => coordinator::run(&command),
        Command::Worker(command) => worker::run(&command),
        Command::Dev(command) => dev::run(&command),
        Command::Status(command) => query::status(&command),
        Command::Jobs(command) => query::jobs(&command),
        Command::Job(command) => query::job(&command),
        Command::Explain(command) => query::explain(&command),
        Command::Cancel(command) => query::cancel(&command),
    };
    exit::report(ended)
}
