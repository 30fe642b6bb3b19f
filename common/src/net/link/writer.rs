//! The sending half of a QUIC stream: heads are encoded into one growing buffer, bulk is handed on as it is,
//! without a copy.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{SendStream, VarInt};

use super::LinkError;
use super::pace::Pace;
use crate::codec;
use crate::frame::{HEADER_BYTES, Header, Message};
use crate::net::connection::Connection;

/// What may wait in a writer before [`FrameWriter::flush_if_full`] waits: a quarter of what QUIC itself
/// holds for a stream is enough to keep it busy.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bulk up to this size is copied behind its head rather than queued on its own: a copy of 4 KiB costs less
/// than one more buffer through the stack.
const INLINE_BULK_BYTES_MAX: usize = 4 << 10;

/// On a stream that is given up; the number says nothing.
const GIVEN_UP: VarInt = VarInt::from_u32(0);

/// The sending half of a stream. Dropping it without [`Self::finish`] resets the stream.
#[derive(Debug)]
pub(in crate::net) struct FrameWriter {
    stream: SendStream,
    /// Frames that are still growing; they follow `queue`.
    tail: Vec<u8>,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    pace: Pace,
    connection: quinn::Connection,
    peer: Arc<str>,
}

impl FrameWriter {
    pub(in crate::net) fn new(stream: SendStream, connection: &Connection) -> Self {
        Self {
            stream,
            tail: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            pace: Pace::new(),
            connection: connection.quinn().clone(),
            peer: Arc::clone(connection.label()),
        }
    }

    /// Encodes a frame behind those already queued. On error the queue is as it was.
    pub(in crate::net) fn queue<T: Message>(
        &mut self,
        message: &T,
        bulk: Bytes,
    ) -> Result<(), LinkError> {
        let start = self.tail.len();
        self.append_head(start, message, bulk.len()).inspect_err(|_| self.tail.truncate(start))?;
        if bulk.len() <= INLINE_BULK_BYTES_MAX {
            self.tail.extend_from_slice(&bulk);
        } else {
            self.seal_tail();
            self.queued += bulk.len();
            self.queue.push_back(bulk);
        }
        Ok(())
    }

    fn append_head<T: Message>(
        &mut self,
        start: usize,
        message: &T,
        bulk_bytes: usize,
    ) -> Result<(), LinkError> {
        self.tail.resize(start + HEADER_BYTES, 0);
        codec::encode(message, &mut self.tail)
            .map_err(|source| LinkError::Encode { peer: Arc::clone(&self.peer), source })?;
        let head_bytes = self.tail.len() - start - HEADER_BYTES;
        let header = Header::new(T::KIND, head_bytes, bulk_bytes)
            .map_err(|source| LinkError::Oversized { peer: Arc::clone(&self.peer), source })?;
        self.tail[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(())
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queued += self.tail.len();
            self.queue.push_back(core::mem::take(&mut self.tail).into());
        }
    }

    pub(in crate::net) async fn flush_if_full(&mut self) -> Result<(), LinkError> {
        if self.queued + self.tail.len() < QUEUE_BYTES_MAX { Ok(()) } else { self.flush().await }
    }

    pub(in crate::net) async fn flush(&mut self) -> Result<(), LinkError> {
        self.seal_tail();
        while !self.queue.is_empty() {
            self.pace.ready(&self.connection).await;
            let written = self
                .stream
                .write_chunks(self.queue.make_contiguous())
                .await
                .map_err(|error| LinkError::writing(&self.peer, error))?;
            self.queue.drain(..written.chunks);
            self.pace.handed_over(written.chunks.max(1));
            self.queued -= written.bytes;
        }
        Ok(())
    }

    pub(in crate::net) async fn finish(mut self) -> Result<(), LinkError> {
        self.flush().await?;
        self.stream.finish().map_err(|_| LinkError::Over { peer: Arc::clone(&self.peer) })?;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LinkError::Stopped { peer: Arc::clone(&self.peer) }),
            Err(error) => Err(LinkError::writing(&self.peer, error.into())),
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        // An error says that the stream is finished or gone already. quinn's own drop would finish it, and
        // the peer would take what is missing for the end.
        let _ = self.stream.reset(GIVEN_UP);
    }
}
