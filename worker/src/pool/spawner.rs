//! The one thread that starts processes.
//!
//! The kernel ties a child's death signal to the *thread* that forked it, so that thread must live as
//! long as the worker; and starting a process takes a millisecond that the loop has better use for.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;

use tokio::sync::oneshot;

/// Hands commands to the thread, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(super) struct Spawner(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    pub(super) fn start() -> io::Result<Self> {
        // Unbounded, but at most one request an executor lies in it.
        let (requests, received) = mpsc::channel::<Request>();
        std::thread::Builder::new().name("allhands-spawner".into()).spawn(move || {
            for Request { mut command, reply } in received {
                if let Err(Ok(mut orphan)) = reply.send(command.spawn()) {
                    // Nobody waits for it any more.
                    _ = orphan.kill();
                    _ = orphan.wait();
                }
            }
        })?;
        Ok(Self(requests))
    }

    /// # Errors
    /// When the system cannot start it: no such file, no memory, too many processes.
    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes has ended");
        self.0.send(Request { command, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
