//! The counter of one executor: the socket at which its threads borrow what they map, and leave long results and the
//! arrays that they write.
//!
//! Each application comes with a socket for its answer, so that one which has to wait for the disk, or for
//! other machines, delays no other. The task ends with the executor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use allhands_common::blob::{BlobRef, Content, FileRef};
use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::wire::executor::{Application, COUNTER_BYTES_MAX, Reply, WRITERS_MAX};
use allhands_store::cell::LANES_MAX;
use allhands_store::map::FileRange;
use allhands_store::passing;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinSet, spawn_blocking};

use super::seat::Seat;
use crate::blobs::{Blobs, Lent, Maker};

/// Applications that are being seen to: one a lane, as each waits for its answer.
const APPLICATIONS_MAX: usize = LANES_MAX as usize;

/// Arrays that one executor may write at a time, with those that are just being given up: each holds a thread for as
/// long as its task takes to write it.
const POURS_MAX: usize = 2 * WRITERS_MAX;

/// Files in place of which an executor has been lent something.
#[derive(Debug, Default)]
pub(super) struct LentFiles(RefCell<BTreeSet<FileRef>>);

impl LentFiles {
    /// One of them that is not what it was.
    pub(super) fn changed(&self, blobs: &Blobs) -> Option<PathBuf> {
        self.0.borrow().iter().find_map(|file| blobs.changed(file))
    }
}

/// Answers what comes over `counter` from the executor of `seat`, until its other end is gone.
///
/// # Errors
/// The socket is damaged, or an application is: its executor is to be ended.
pub(super) async fn serve(counter: OwnedFd, blobs: Blobs, seat: &Rc<Seat>) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&counter, true)?;
    #[expect(deprecated, reason = "its successor is unsafe, for types that are not an OwnedFd")]
    let counter = AsyncFd::with_interest(counter, Interest::READABLE)?;
    let (mut applications, mut pours) = (JoinSet::new(), JoinSet::new());
    loop {
        let received = counter
            .async_io(Interest::READABLE, |socket| passing::receive(socket, COUNTER_BYTES_MAX))
            .await;
        let (message, files) = match received {
            Ok(received) => received,
            // The socket for the answer is lost, and closed with that: whoever applied learns of it.
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                tracing::warn!(%error, "an executor cannot be served");
                continue;
            }
            Err(error) => return Err(error),
        };
        if message.is_empty() {
            return Ok(());
        }
        let application: Application = codec::decode(&message).map_err(io::Error::other)?;
        let mut files = files.into_iter();
        let Some(reply) = files.next() else {
            return Err(io::Error::other("no socket for the answer came with an application"));
        };
        let file = files.next();
        let others = match application {
            Application::Pour { .. } => {
                while pours.try_join_next().is_some() {}
                if pours.len() >= POURS_MAX {
                    _ = say(&reply, &Reply::Refused(too_many_pours()), None);
                    continue;
                }
                &mut pours
            }
            Application::Borrow { .. } | Application::Deposit { .. } => {
                if applications.len() >= APPLICATIONS_MAX {
                    applications.join_next().await;
                }
                while applications.try_join_next().is_some() {}
                &mut applications
            }
        };
        let (blobs, seat) = (blobs.clone(), Rc::clone(seat));
        others.spawn_local(async move {
            let (answer, file) = match application {
                Application::Borrow { content, start, end } => {
                    lend(blobs, content, start..end).await
                }
                Application::Deposit { batch, task, bytes } => {
                    let keep = move |file| blobs.keep(Maker { batch, task }, file, bytes);
                    (keep_as(file, keep).await, None)
                }
                Application::Pour { batch, task } => {
                    let pour = move |file| blobs.pour(Maker { batch, task }, file);
                    (keep_as(file, pour).await, None)
                }
            };
            if let Reply::Lent { in_place: Some(file), .. } = &answer {
                seat.lent.0.borrow_mut().insert(*file);
            }
            // An executor that has gone wants no answer.
            _ = say(&reply, &answer, file.as_ref());
        });
    }
}

async fn lend(blobs: Blobs, content: Content, range: Range<u64>) -> (Reply, Option<OwnedFd>) {
    // What came from elsewhere is held until it is lent.
    let held = match blobs.fetch(content, range.clone()).await {
        Ok(held) => held,
        Err(cause) => return (Reply::Refused(cause), None),
    };
    let lent = spawn_blocking(move || (blobs.lend(content, range), held)).await;
    match lent {
        Ok((Ok(Lent { start, file: FileRange { file, offset, bytes }, in_place }), _)) => {
            let end = start + bytes;
            (Reply::Lent { start, end, offset, in_place }, Some(file))
        }
        Ok((Err(cause), _)) => (Reply::Refused(cause), None),
        Err(error) => (Reply::Refused(Cause::Unlent { message: error.to_string() }), None),
    }
}

async fn keep_as(
    file: Option<OwnedFd>,
    keep: impl FnOnce(OwnedFd) -> Result<BlobRef, Cause> + Send + 'static,
) -> Reply {
    let refused = |message: &str| Reply::Refused(Cause::BadResult { message: message.into() });
    let Some(file) = file else { return refused("it did not come with its announcement") };
    match spawn_blocking(move || keep(file)).await {
        Ok(kept) => kept.map_or_else(Reply::Refused, Reply::Kept),
        Err(error) => refused(&error.to_string()),
    }
}

fn too_many_pours() -> Cause {
    let message = format!(
        "its executor writes {POURS_MAX} arrays at the moment, more than it may: finish some first"
    );
    Cause::BadResult { message }
}

fn say(to: &OwnedFd, reply: &Reply, file: Option<&OwnedFd>) -> io::Result<()> {
    let mut message = Vec::new();
    codec::encode(reply, &mut message).map_err(io::Error::other)?;
    let files: Vec<_> = file.into_iter().map(AsFd::as_fd).collect();
    passing::send_now(to, &message, &files).map(drop)
}
