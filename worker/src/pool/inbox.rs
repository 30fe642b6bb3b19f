//! Frames from an executor. It runs user code that may have overwritten anything: what it says is
//! checked, and memory is taken only as bytes arrive.

use std::io;

use allhands_common::wire::executor::{
    FrameError, FromExecutor, HEADER_BYTES, read_frame, read_header,
};
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;

/// What is read at once, in bytes: several no-op loads' outcomes; a flush of large ones in a few.
const READ_BYTES: usize = 64 << 10;

/// Bytes that were read and are not yet a frame.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: BytesMut,
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes.
    Some,
    /// Nothing just now.
    NothingNow,
    /// Nothing ever again.
    End,
}

impl Inbox {
    /// The next frame of `stream`; `None` at its end. May be dropped while it waits.
    pub(super) async fn next(
        &mut self,
        stream: &mut OwnedReadHalf,
    ) -> Result<Option<FromExecutor>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.buffer.reserve(READ_BYTES);
            // Unlike `try_read_buf` this knows that a short read has emptied the socket.
            if !matches!(stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }

    /// Reads once, without waiting.
    pub(super) fn read(&mut self, stream: &OwnedReadHalf) -> Read {
        self.buffer.reserve(READ_BYTES);
        match stream.try_read_buf(&mut self.buffer) {
            Ok(0) => Read::End,
            Ok(_) => Read::Some,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::NothingNow,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Read::Some,
            Err(_) => Read::End,
        }
    }

    /// A frame that has come whole.
    pub(super) fn take(&mut self) -> Result<Option<FromExecutor>, FrameError> {
        let Some(header) = self.buffer.first_chunk() else {
            return Ok(None);
        };
        let (head, bulk) = read_header(*header)?;
        if self.buffer.len() < HEADER_BYTES + head + bulk {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(HEADER_BYTES + head + bulk).freeze();
        let head = frame.split_to(HEADER_BYTES + head).slice(HEADER_BYTES..);
        read_frame(&head, frame).map(Some)
    }
}
