//! The counter of one executor: the socket at which its threads borrow what they map.
//!
//! Each application comes with a socket for its answer, so that one which has to wait for the disk, or for
//! other machines, delays no other. The task ends with the executor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::wire::executor::{Borrow, COUNTER_BYTES_MAX, Loan};
use allhands_store::cell::LANES_MAX;
use allhands_store::map::FileRange;
use allhands_store::passing;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

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
        let borrow: Borrow = codec::decode(&message).map_err(io::Error::other)?;
        let Some(reply) = files.into_iter().next() else {
            return Err(io::Error::other("no socket for the answer came with an application"));
        };
        if applications.len() >= APPLICATIONS_MAX {
            applications.join_next().await;
        }
        while applications.try_join_next().is_some() {}
        let blobs = blobs.clone();
        applications.spawn_blocking(move || {
            let lent = blobs.lend(borrow.content, borrow.start..borrow.end);
            // An executor that has gone wants no answer.
            _ = answer(&reply, lent);
        });
    }
}

fn answer(reply: &OwnedFd, lent: Result<FileRange, Cause>) -> io::Result<()> {
    let (loan, file) = match lent {
        Ok(FileRange { file, offset, .. }) => (Loan::Lent { offset }, Some(file)),
        Err(cause) => (Loan::Refused(cause), None),
    };
    let mut message = Vec::new();
    codec::encode(&loan, &mut message).map_err(io::Error::other)?;
    let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    passing::send(reply, &message, &files).map(drop)
}
