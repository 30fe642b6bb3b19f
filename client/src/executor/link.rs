//! The executor's end of the socket.

use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use allhands_common::id::WorkerId;
use allhands_common::wire::executor::{
    FromExecutor, HEADER_BYTES, ToExecutor, VERSION, read_frame, read_header, write_frame,
};
use allhands_store::cell::{Cell, LANES_MAX};
use allhands_store::passing;
use bytes::Bytes;
use rustix::buffer::spare_capacity;

use super::loans;

/// What one read asks for, in bytes: most frames, whole.
const READ_BYTES: usize = 16 << 10;

/// What was read and is no longer than this is copied: outcomes that a task keeps would each keep a whole buffer.
const SHORT_BYTES: usize = 1 << 10;

/// A worker that has said welcome.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) cell: Cell,
    pub(super) worker: WorkerId,
    pub(super) lanes: u32,
}

/// Connects to `socket` and greets.
pub(super) fn connect(socket: &Path) -> io::Result<Link> {
    let stream = UnixStream::connect(socket)?;
    let mut writer = Writer { stream: stream.try_clone()?, head: Vec::new(), bulk: Vec::new() };
    let release = env!("CARGO_PKG_VERSION").to_owned();
    writer.write(&mut FromExecutor::Hello { version: VERSION, release })?;
    let (first, files) = passing::receive(&stream, READ_BYTES)?;
    let mut reader = Reader { stream, ready: first.into(), buffer: Vec::new() };
    let Some(ToExecutor::Welcome { version, worker, lanes }) = reader.next()? else {
        return Err(io::Error::other("it did not say welcome"));
    };
    if version != VERSION || !(1..=LANES_MAX).contains(&lanes) {
        let words = format!(
            "it speaks version {version} with {lanes} lanes, this program version {VERSION}: build \
             the program with the worker's release of allhands"
        );
        return Err(io::Error::other(words));
    }
    let mut files = files.into_iter();
    let (Some(cell), Some(counter)) = (files.next(), files.next()) else {
        return Err(io::Error::other("no cell and counter came with its welcome"));
    };
    let cell = Cell::open(cell).map_err(io::Error::other)?;
    loans::open(counter);
    Ok(Link { reader, writer, cell, worker, lanes })
}

/// Reads frames.
pub(super) struct Reader {
    stream: UnixStream,
    /// Bytes that were read and not yet handed out.
    ready: Bytes,
    /// Empty; what the next read goes to.
    buffer: Vec<u8>,
}

impl Reader {
    /// The next message; `None` once the worker has closed the socket.
    pub(super) fn next(&mut self) -> io::Result<Option<ToExecutor>> {
        if !self.fill(HEADER_BYTES)? {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.ready[..HEADER_BYTES]);
        let (head, bulk) = read_header(header).map_err(io::Error::other)?;
        if !self.fill(HEADER_BYTES + head + bulk)? {
            return Ok(None);
        }
        let mut frame = self.ready.split_to(HEADER_BYTES + head + bulk).slice(HEADER_BYTES..);
        let head = frame.split_to(head);
        read_frame(&head, frame).map(Some).map_err(io::Error::other)
    }

    /// Whether [`Reader::next`] has the next message at hand.
    pub(super) fn has_frame(&self) -> bool {
        let Some(header) = self.ready.first_chunk() else { return false };
        read_header(*header)
            .is_ok_and(|(head, bulk)| self.ready.len() >= HEADER_BYTES + head + bulk)
    }

    /// Reads until `bytes` bytes are ready; `false` when the end came first.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if self.ready.len() >= bytes {
            return Ok(true);
        }
        let mut more = std::mem::take(&mut self.buffer);
        more.reserve(bytes.max(READ_BYTES));
        more.extend_from_slice(&self.ready);
        while more.len() < bytes {
            match rustix::io::read(&self.stream, spare_capacity(&mut more)) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if more.len() <= SHORT_BYTES {
            self.ready = Bytes::copy_from_slice(&more);
            more.clear();
            self.buffer = more;
        } else {
            self.ready = more.into();
        }
        Ok(true)
    }

    /// The socket, for whoever waits for its end.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        Ok(self.stream.try_clone()?.into())
    }
}

/// Writes frames.
pub(super) struct Writer {
    stream: UnixStream,
    head: Vec<u8>,
    bulk: Vec<Bytes>,
}

impl Writer {
    /// Writes the frame of `message`, all of it, in one call to the system where it takes it.
    pub(super) fn write(&mut self, message: &mut FromExecutor) -> io::Result<()> {
        self.head.clear();
        self.bulk.clear();
        write_frame(message, &mut self.head, &mut self.bulk).map_err(io::Error::other)?;
        let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(1 + self.bulk.len());
        parts.push(IoSlice::new(&self.head));
        parts.extend(self.bulk.iter().map(|piece| IoSlice::new(piece)));
        let mut left = parts.as_mut_slice();
        while !left.is_empty() {
            match self.stream.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
