//! What an executor borrows from its worker: files to map.
//!
//! Any thread of it may ask; each takes a socket of its own along for the answer, and waits there.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use allhands_common::blob::Content;
use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::wire::executor::{Borrow, COUNTER_BYTES_MAX, Loan};
use allhands_store::map::FileRange;
use allhands_store::passing;

/// The executor's end of the counter.
static COUNTER: OnceLock<OwnedFd> = OnceLock::new();

/// From now on `counter` is where this process borrows.
pub(super) fn open(counter: OwnedFd) {
    _ = COUNTER.set(counter);
}

/// The bytes `range` of `content`, to be mapped.
///
/// # Errors
/// The worker cannot provide them, or this process is no executor and has no worker.
pub(crate) fn borrow(content: Content, range: Range<u64>) -> Result<FileRange, Cause> {
    let Some(counter) = COUNTER.get() else {
        let message = format!(
            "{content} is not held by this process: a handle is good as long as the one that it was \
             made from"
        );
        return Err(Cause::BlobLost { message });
    };
    let bytes = range.end - range.start;
    match ask(counter, Borrow { content, start: range.start, end: range.end }) {
        Ok((Loan::Lent { offset }, Some(file))) => Ok(FileRange { file, offset, bytes }),
        Ok((Loan::Refused(cause), _)) => Err(cause),
        Ok((Loan::Lent { .. }, None)) => Err(Cause::Unlent {
            message: format!("no file came for {content}: are too many open?"),
        }),
        Err(error) => Err(Cause::Unlent { message: format!("{content}: {error}") }),
    }
}

fn ask(counter: &OwnedFd, borrow: Borrow) -> io::Result<(Loan, Option<OwnedFd>)> {
    let (mine, theirs) = passing::pair()?;
    let mut message = Vec::new();
    codec::encode(&borrow, &mut message).map_err(io::Error::other)?;
    passing::send(counter, &message, &[theirs.as_fd()])?;
    // Else this process would hold the other end, and would wait for ever for a worker that has died.
    drop(theirs);
    let (answer, files) = passing::receive(&mine, COUNTER_BYTES_MAX)?;
    if answer.is_empty() {
        return Err(io::Error::other("the worker does not answer"));
    }
    let loan = codec::decode(&answer).map_err(io::Error::other)?;
    Ok((loan, files.into_iter().next()))
}
