//! The helper: what a worker daemon really starts, and what becomes the executor's program.
//!
//! What must happen in a child before its program runs (death with the worker, limits) cannot be done
//! in safe code between `fork` and `exec`. So the worker starts its own binary again, as a hidden
//! subcommand, which does it and then replaces itself. The embedded cluster needs none: there the
//! program itself does the same as the first thing in `init()`.
//!
//! Not done here yet: Landlock, seccomp, memory limits. An executor is held off from others by its
//! user, where the worker is root and has one configured, and else by nothing.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};

/// The hidden subcommand's name.
pub const SUBCOMMAND: &str = "__executor";

/// Exit code of a helper that could not start its program.
const FAILED: i32 = 72;

/// The helper's arguments, its name included.
pub(crate) fn arguments(program: &Path, name: &str) -> [OsString; 4] {
    [SUBCOMMAND.into(), std::process::id().to_string().into(), program.into(), name.into()]
}

/// Becomes the program that `args` name (what follows the subcommand's name). Never returns.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "it stands for the program that it should have become"
)]
#[expect(clippy::print_stderr, reason = "the worker reads its last words there")]
pub fn executor_helper(args: impl IntoIterator<Item = OsString>) -> ! {
    let error = become_program(args.into_iter());
    eprintln!("allhands: {error}");
    std::process::exit(FAILED)
}

fn become_program(mut args: impl Iterator<Item = OsString>) -> String {
    let worker = args.next().and_then(|pid| Pid::from_raw(pid.to_str()?.parse().ok()?));
    let (Some(worker), Some(program), Some(name)) = (worker, args.next(), args.next()) else {
        return format!("`{SUBCOMMAND}` is for the worker alone: PID PROGRAM NAME");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("the kernel does not end executors with their worker: {error}");
    }
    if getppid() != Some(worker) {
        return "the worker has died".to_owned();
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        return format!("core files cannot be switched off: {error}");
    }
    let error = Command::new(&program).arg0(name).exec();
    format!("{} cannot be executed: {error}", program.to_string_lossy())
}
