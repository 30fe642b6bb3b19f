//! The command `allhands`: starts the parts of a cluster, and asks it questions.
//!
//! What was typed is read in `args`; each command turns that into the configuration of what it runs.
//! Data goes to standard output, everything else to standard error; `exit` lists the exit codes.
//!
//! It is a library so that another program can be the command as well: the benchmarks are all
//! processes of the cluster that they measure.

mod args;
mod coordinator;
mod dev;
mod directory;
mod exit;
mod init;
mod log;
mod operator;
mod output;
mod own;
mod place;
mod query;
mod shutdown;
mod tether;
mod worker;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use allhands_common::wire::admin::{Answer, Question};
use allhands_worker::helper;
use clap::Parser;

use crate::args::{Arguments, Command};
use crate::own::Own;

/// Is the command, with these words, of which the first is its own name. They are the last words that
/// this process was started with.
pub fn main_with(words: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    if words.get(1).is_some_and(|word| word == helper::SUBCOMMAND) {
        helper::executor_helper(words.into_iter().skip(2));
    }
    let own = Own::of(&words);
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => return exit::misunderstood(&error),
    };
    log::start(arguments.log.as_deref(), arguments.command.is_daemon());
    exit::report(match arguments.command {
        Command::Init(command) => init::run(&command),
        Command::Coordinator(command) => coordinator::run(&command),
        Command::Worker(command) => worker::run(&command),
        Command::Dev(command) => dev::run(&command, &own),
        Command::Status(command) => query::status(&command),
        Command::Jobs(command) => query::jobs(&command),
        Command::Job(command) => query::job(&command),
        Command::Explain(command) => query::explain(&command),
        Command::Blobs(command) => query::blobs(&command),
        Command::Cancel(command) => query::cancel(&command),
    })
}

/// Asks the cluster of a directory that `allhands init` or `allhands dev` made.
///
/// # Errors
/// Its addresses or its admin's identity cannot be read, no leader answers within a few seconds, or
/// there is no such thing as the question names.
pub fn ask(directory: &Path, question: Question) -> anyhow::Result<Answer> {
    query::ask(directory, &question)
}
