//! What an executor borrows from its worker, files to map, and what it leaves there: long results.
//!
//! Any thread of it may ask; each takes a socket of its own along for the answer, and waits there.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use allhands_common::blob::{BlobRef, Content, FileRef};
use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::wire::executor::{Application, COUNTER_BYTES_MAX, Reply};
use allhands_store::map::FileRange;
use allhands_store::passing;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The executor's end of the counter.
static COUNTER: OnceLock<OwnedFd> = OnceLock::new();

/// From now on `counter` is where this process borrows.
pub(super) fn open(counter: OwnedFd) {
    _ = COUNTER.set(counter);
}

/// What a worker has lent.
#[derive(Debug)]
pub(crate) struct Loan {
    /// Which bytes of the content.
    pub(crate) bytes: Range<u64>,
    pub(crate) file: FileRange,
    /// Which file in place they are of, if they are.
    pub(crate) in_place: Option<FileRef>,
}

/// The bytes `range` of `content`, and others around them, to be mapped.
///
/// # Errors
/// The worker cannot provide them, or this process is no executor and has no worker.
pub(crate) fn borrow(content: Content, range: Range<u64>) -> Result<Loan, Cause> {
    let Some(counter) = COUNTER.get() else {
        let message = format!(
            "{content} is not held by this process: a handle is good as long as the one that it was \
             made from"
        );
        return Err(Cause::BlobLost { message });
    };
    let unlent = |what: &dyn Display| Cause::Unlent { message: format!("{content}: {what}") };
    match apply(counter, &Application::Borrow { content, start: range.start, end: range.end }, None)
    {
        Ok((Reply::Lent { start, end, offset, in_place }, Some(file)))
            if start <= range.start && range.end <= end =>
        {
            let file = FileRange { file, offset, bytes: end - start };
            Ok(Loan { bytes: start..end, file, in_place })
        }
        Ok((Reply::Lent { .. }, Some(_))) => Err(unlent(&"the worker has lent other bytes of it")),
        Ok((Reply::Refused(cause), _)) => Err(cause),
        Ok((Reply::Lent { .. } | Reply::Kept(_), _)) => {
            Err(unlent(&"no file came for it: are too many open?"))
        }
        Err(error) => Err(unlent(&error)),
    }
}

/// Leaves a long result of a task of `batch` with the worker.
///
/// # Errors
/// There is no room for it, neither in memory nor in the worker's store.
pub(super) fn deposit(batch: BatchId, result: &[u8]) -> Result<BlobRef, Cause> {
    let bytes = result.len() as u64;
    let failed = |error: io::Error| Cause::BadResult {
        message: format!("its {bytes} bytes cannot be handed to the worker: {error}"),
    };
    let counter = COUNTER.get().ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
    let file = sealed(result).map_err(failed)?;
    match apply(counter, &Application::Deposit { batch, bytes }, Some(&file)).map_err(failed)? {
        (Reply::Kept(reference), _) => Ok(reference),
        (Reply::Refused(cause), _) => Err(cause),
        (Reply::Lent { .. }, _) => Err(failed(io::Error::other("it says that it has lent it"))),
    }
}

/// A memory file of these bytes that nobody can change any more, so that the worker need not copy it before it
/// looks at it.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("allhands-result", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

fn apply(
    counter: &OwnedFd,
    application: &Application,
    file: Option<&OwnedFd>,
) -> io::Result<(Reply, Option<OwnedFd>)> {
    let (mine, theirs) = passing::pair()?;
    let mut message = Vec::new();
    codec::encode(application, &mut message).map_err(io::Error::other)?;
    let files: Vec<_> = [Some(&theirs), file].into_iter().flatten().map(AsFd::as_fd).collect();
    passing::send(counter, &message, &files)?;
    // Else this process would hold the other end, and would wait for ever for a worker that has died.
    drop(theirs);
    let (answer, files) = passing::receive(&mine, COUNTER_BYTES_MAX)?;
    if answer.is_empty() {
        return Err(io::Error::other("the worker does not answer"));
    }
    let reply = codec::decode(&answer).map_err(io::Error::other)?;
    Ok((reply, files.into_iter().next()))
}
