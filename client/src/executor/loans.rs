//! What an executor borrows from its worker, files to map, and what it leaves there: long results, and arrays that
//! tasks put or write.
//!
//! Any thread of it may ask; each takes a socket of its own along for the answer, and waits there.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use allhands_common::blob::{BlobRef, Content, FileRef};
use allhands_common::codec;
use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::wire::executor::{Application, COUNTER_BYTES_MAX, Reply, WRITERS_MAX};
use allhands_store::map::FileRange;
use allhands_store::passing;
use allhands_store::pieces::PiecesWriter;
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

/// Leaves a long result of a task, or an array that it has put, with the worker.
///
/// # Errors
/// There is no room for it, neither in memory nor in the worker's store.
pub(crate) fn deposit((batch, task): (BatchId, u32), result: &[u8]) -> Result<BlobRef, Cause> {
    let bytes = result.len() as u64;
    let failed = |error: io::Error| Cause::BadResult {
        message: format!("its {bytes} bytes cannot be handed to the worker: {error}"),
    };
    let counter = COUNTER.get().ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
    let file = sealed(result).map_err(failed)?;
    let application = Application::Deposit { batch, task, bytes };
    kept(apply(counter, &application, Some(&file)).map_err(failed)?.0)
}

fn kept(reply: Reply) -> Result<BlobRef, Cause> {
    match reply {
        Reply::Kept(reference) => Ok(reference),
        Reply::Refused(cause) => Err(cause),
        Reply::Lent { .. } => {
            Err(Cause::BadResult { message: "its worker says that it has lent it".into() })
        }
    }
}

/// An array that the worker is storing while it is written. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Pour {
    pieces: PiecesWriter<PipeWriter>,
    reply: OwnedFd,
    _seat: Seat,
}

/// One of the arrays that this process may write at a time.
#[derive(Debug)]
struct Seat;

static WRITERS: AtomicUsize = AtomicUsize::new(0);

impl Seat {
    fn take() -> Result<Self, Cause> {
        let one_more = |writers| (writers < WRITERS_MAX).then_some(writers + 1);
        match WRITERS.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Self),
            Err(_) => Err(Cause::BadResult {
                message: format!(
                    "the tasks of its process write {WRITERS_MAX} arrays at the moment, which is as many as they \
                     may: finish some first"
                ),
            }),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        WRITERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Has the worker store an array that is still to be written, by a task.
///
/// # Errors
/// There is no worker, or this process has too many files open.
pub(crate) fn pour((batch, task): (BatchId, u32)) -> Result<Pour, Cause> {
    let seat = Seat::take()?;
    let start = || -> io::Result<Pour> {
        let counter = COUNTER.get().ok_or(io::ErrorKind::NotConnected)?;
        let (theirs, mine) = io::pipe()?;
        let application = Application::Pour { batch, task };
        let reply = say(counter, &application, Some(&theirs.into()))?;
        Ok(Pour { pieces: PiecesWriter::new(mine), reply, _seat: seat })
    };
    start().map_err(|error| unpoured(&error))
}

fn unpoured(error: &io::Error) -> Cause {
    Cause::BadResult { message: format!("the array cannot be handed to the worker: {error}") }
}

impl Pour {
    /// The next bytes.
    ///
    /// # Errors
    /// The worker has no room for it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        self.pieces.push(bytes).map_err(|error| self.refusal(&error))
    }

    /// All of it was written.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn finish(self) -> Result<BlobRef, Cause> {
        let Self { pieces, reply, _seat } = self;
        // Whoever does not take the end says why.
        _ = pieces.finish();
        kept(answer(&reply).map_err(|error| unpoured(&error))?.0)
    }

    /// Why nobody takes it any more.
    fn refusal(&self, error: &io::Error) -> Cause {
        if error.kind() == io::ErrorKind::BrokenPipe
            && let Ok((Reply::Refused(cause), _)) = answer(&self.reply)
        {
            return cause;
        }
        unpoured(error)
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
    answer(&say(counter, application, file)?)
}

/// Says it; where the answer will come.
fn say(
    counter: &OwnedFd,
    application: &Application,
    file: Option<&OwnedFd>,
) -> io::Result<OwnedFd> {
    let (mine, theirs) = passing::pair()?;
    let mut message = Vec::new();
    codec::encode(application, &mut message).map_err(io::Error::other)?;
    let files: Vec<_> = [Some(&theirs), file].into_iter().flatten().map(AsFd::as_fd).collect();
    passing::send(counter, &message, &files)?;
    // Their end is closed here: else this process would wait for ever for a worker that has died.
    Ok(mine)
}

fn answer(reply: &OwnedFd) -> io::Result<(Reply, Option<OwnedFd>)> {
    let (answer, files) = passing::receive(reply, COUNTER_BYTES_MAX)?;
    if answer.is_empty() {
        return Err(io::Error::other("the worker does not answer"));
    }
    let reply = codec::decode(&answer).map_err(io::Error::other)?;
    Ok((reply, files.into_iter().next()))
}
