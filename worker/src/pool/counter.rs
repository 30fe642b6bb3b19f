//! The counter of one executor: the socket at which its threads borrow what they map, and leave long results.
//!
//! Each application comes with a socket for its answer, so that one which has to wait for the disk, or for
//! other machines, delays no other. The task ends with the executor.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use allhands_common::blob::Content;
use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::wire::executor::{Application, COUNTER_BYTES_MAX, Reply};
use allhands_store::cell::LANES_MAX;
use allhands_store::map::FileRange;
use allhands_store::passing;
use allhands_transfer::store::Hold;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinSet, spawn_blocking};

use crate::blobs::Blobs;

/// Applications that are being seen to: one a lane, as each waits for its answer.
const APPLICATIONS_MAX: usize = LANES_MAX as usize;

/// Answers what comes over `counter`, until its other end is gone.
///
/// # Errors
/// The socket is damaged, or an application is: its executor is to be ended.
pub(super) async fn serve(counter: OwnedFd, blobs: Blobs) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&counter, true)?;
    #[expect(deprecated, reason = "its successor is unsafe, for types that are not an OwnedFd")]
    let counter = AsyncFd::with_interest(counter, Interest::READABLE)?;
    let mut applications = JoinSet::new();
    loop {
        let (message, files) = counter
            .async_io(Interest::READABLE, |socket| passing::receive(socket, COUNTER_BYTES_MAX))
            .await?;
        if message.is_empty() {
            return Ok(());
        }
        let application: Application = codec::decode(&message).map_err(io::Error::other)?;
        let mut files = files.into_iter();
        let Some(reply) = files.next() else {
            return Err(io::Error::other("no socket for the answer came with an application"));
        };
        let file = files.next();
        if applications.len() >= APPLICATIONS_MAX {
            applications.join_next().await;
        }
        while applications.try_join_next().is_some() {}
        let blobs = blobs.clone();
        applications.spawn_local(async move {
            let answered = spawn_blocking(match application {
                Application::Borrow { content, start, end } => {
                    let held = blobs.fetch(content, start..end).await;
                    Box::new(move || lend(&blobs, held, content, start..end)) as Work
                }
                Application::Deposit { batch, bytes } => {
                    Box::new(move || (keep(&blobs, batch, file, bytes), None)) as Work
                }
            });
            let Ok((answer, file)) = answered.await else { return };
            // An executor that has gone wants no answer.
            _ = say(&reply, &answer, file.as_ref());
        });
    }
}

/// What blocks on the disk: an answer, and the file beside it.
type Work = Box<dyn FnOnce() -> (Reply, Option<OwnedFd>) + Send>;

fn lend(
    blobs: &Blobs,
    held: Result<Option<Hold>, Cause>,
    content: Content,
    range: Range<u64>,
) -> (Reply, Option<OwnedFd>) {
    match held.and_then(|held| Ok((blobs.lend(content, range)?, held))) {
        Ok((FileRange { file, offset, .. }, _held)) => (Reply::Lent { offset }, Some(file)),
        Err(cause) => (Reply::Refused(cause), None),
    }
}

fn keep(blobs: &Blobs, batch: BatchId, file: Option<OwnedFd>, bytes: u64) -> Reply {
    let kept = match file {
        Some(file) => blobs.keep(batch, file, bytes),
        None => Err(Cause::BadResult { message: "it did not come with its announcement".into() }),
    };
    kept.map_or_else(Reply::Refused, Reply::Kept)
}

fn say(to: &OwnedFd, reply: &Reply, file: Option<&OwnedFd>) -> io::Result<()> {
    let mut message = Vec::new();
    codec::encode(reply, &mut message).map_err(io::Error::other)?;
    let files: Vec<_> = file.into_iter().map(AsFd::as_fd).collect();
    passing::send(to, &message, &files).map(drop)
}
