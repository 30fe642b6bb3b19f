//! The end of a process together with the one that started it, in whatever way that ends.
//!
//! Two means: the kernel kills it (`PR_SET_PDEATHSIG`), and its standard input, a pipe that only the
//! parent holds, ends. The first needs the parent to be the very process, the second survives a
//! kernel that forgets the first.

use std::io::{Read, stdin};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::args::Tether;
use crate::exit;

impl Tether {
    /// Ties this process to its parent, if it shall be.
    pub(crate) fn tie(&self) -> anyhow::Result<()> {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        set_parent_process_death_signal(Some(Signal::KILL))
            .context("the kernel does not end this process with its parent")?;
        let alive = i32::try_from(parent).ok().and_then(Pid::from_raw) == getppid();
        ensure!(alive, "process {parent}, which started this one, has ended");
        std::thread::Builder::new()
            .name("tether".into())
            .spawn(end_with_input)
            .context("cannot start the thread that watches the parent")?;
        Ok(())
    }
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the parent was killed, and this process must not outlive it"
)]
fn end_with_input() {
    let mut byte = [0];
    while matches!(stdin().read(&mut byte), Ok(1..)) {}
    std::process::exit(exit::INTERRUPTED.into())
}
