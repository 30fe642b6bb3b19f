//! Death with the worker, by two means that do not depend on each other.
//!
//! Until the watching thread runs, the kernel sends SIGKILL when the parent dies. From then on the
//! thread waits for the worker's end of the socket to close *or* its process to end (a child that the
//! worker forked may hold the socket open), and kills the whole process group. The kernel's signal
//! is switched off then: it would reach the executor alone, often before the socket closes, and leave
//! behind what tasks have started.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, getpgrp, getpid, getppid, kill_current_process_group, kill_process,
    pidfd_open, set_parent_process_death_signal,
};

use super::END;

/// Asks the kernel to end this process with the worker.
pub(super) fn bind_to(worker: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(END))?;
    if getppid() != Some(worker) {
        return Err(io::Error::other("it has died already"));
    }
    Ok(())
}

/// Ends this process and all of its group when the other end of `socket`, or `worker`, is gone.
pub(super) fn watch(worker: Pid, socket: OwnedFd) -> io::Result<()> {
    let process = pidfd_open(worker, PidfdFlags::empty()).ok();
    std::thread::Builder::new().name("allhands-watch".into()).stack_size(64 << 10).spawn(
        move || {
            wait(&socket, process.as_ref());
            end_group();
        },
    )?;
    Ok(set_parent_process_death_signal(None)?)
}

fn wait(socket: &OwnedFd, process: Option<&OwnedFd>) {
    loop {
        let mut waiting = vec![PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)];
        waiting.extend(
            process.map(|process| PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)),
        );
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Kills everything that was started here, and this process.
pub(super) fn end_group() -> ! {
    if getpgrp() == getpid() {
        _ = kill_current_process_group(END);
    }
    _ = kill_process(getpid(), END);
    loop {
        std::thread::park();
    }
}
