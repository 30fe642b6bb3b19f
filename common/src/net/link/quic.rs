//! Frames over one QUIC stream.
//!
//! The writer encodes heads into one growing buffer and hands bulk on as it is, without a copy. The reader
//! takes heads out of the received packets where they lie; bulk it copies once, into a buffer of exactly its
//! length: a slice of a packet would keep the whole receive batch (up to half a megabyte) alive for as long
//! as somebody keeps a hundred bytes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};

use super::LinkError;
use super::pace::Pace;
use crate::codec;
use crate::frame::{HEADER_BYTES, Header, Kind, Message};
use crate::net::connection::Connection;

/// What may wait in a writer before [`FrameWriter::flush_if_full`] waits: a quarter of what QUIC itself
/// holds for a stream is enough to keep it busy.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bulk up to this size is copied behind its head rather than queued on its own: a copy of 4 KiB costs less
/// than one more buffer through the stack.
const INLINE_BULK_BYTES_MAX: usize = 4 << 10;

/// Packets taken from the stream under one lock.
const READ_BATCH: usize = 32;

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
        self.append_head(start, message, bulk.len())
            .inspect_err(|_| self.tail.truncate(start))?;
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
        codec::encode(message, &mut self.tail).map_err(|source| LinkError::Encode {
            peer: Arc::clone(&self.peer),
            source,
        })?;
        let head_bytes = self.tail.len() - start - HEADER_BYTES;
        let header = Header::new(T::KIND, head_bytes, bulk_bytes).map_err(|source| {
            LinkError::Oversized {
                peer: Arc::clone(&self.peer),
                source,
            }
        })?;
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
        if self.queued + self.tail.len() < QUEUE_BYTES_MAX {
            Ok(())
        } else {
            self.flush().await
        }
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
        self.stream.finish().map_err(|_| LinkError::Over {
            peer: Arc::clone(&self.peer),
        })?;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LinkError::Stopped {
                peer: Arc::clone(&self.peer),
            }),
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

/// How far the frame that is being received has come.
#[derive(Debug)]
enum Stage {
    Header,
    Head(Header),
    Bulk(Header, Bytes),
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(in crate::net) struct FrameReader {
    stream: RecvStream,
    /// Received and not yet taken.
    packets: VecDeque<Bytes>,
    /// The beginning of the piece that [`Self::take`] was asked for.
    partial: BytesMut,
    stage: Stage,
    peer: Arc<str>,
}

impl FrameReader {
    pub(in crate::net) fn new(stream: RecvStream, connection: &Connection) -> Self {
        Self {
            stream,
            packets: VecDeque::new(),
            partial: BytesMut::new(),
            stage: Stage::Header,
            peer: Arc::clone(connection.label()),
        }
    }

    /// The next message of type `T`, or `None` at the orderly end. A peer that breaks the protocol is told
    /// to stop sending.
    pub(in crate::net) async fn message<T: Message>(
        &mut self,
    ) -> Result<Option<(T, Bytes)>, LinkError> {
        let Some((_, head, bulk)) = self.frame(&[T::KIND]).await? else {
            return Ok(None);
        };
        Ok(Some((self.decode(&head)?, bulk)))
    }

    pub(in crate::net) fn decode<T: Message>(&mut self, head: &[u8]) -> Result<T, LinkError> {
        codec::decode(head).map_err(|source| {
            self.stop();
            LinkError::Decode {
                peer: Arc::clone(&self.peer),
                source,
            }
        })
    }

    /// The next frame, if it is one of `kinds`. Its lengths are checked before anything is allocated.
    pub(in crate::net) async fn frame(
        &mut self,
        kinds: &[Kind],
    ) -> Result<Option<(Kind, Bytes, Bytes)>, LinkError> {
        loop {
            self.stage = match &self.stage {
                Stage::Header => {
                    let Some(bytes) = self.take(HEADER_BYTES, false).await? else {
                        return Ok(None);
                    };
                    Stage::Head(self.header(&bytes, kinds)?)
                }
                Stage::Head(header) => {
                    let header = *header;
                    let head = self.take(header.head_bytes(), false).await?;
                    Stage::Bulk(header, head.ok_or_else(|| self.truncated())?)
                }
                Stage::Bulk(header, head) => {
                    let (header, head) = (*header, head.clone());
                    let bulk = self.take(header.bulk_bytes(), true).await?;
                    let bulk = bulk.ok_or_else(|| self.truncated())?;
                    self.stage = Stage::Header;
                    return Ok(Some((header.kind(), head, bulk)));
                }
            }
        }
    }

    fn header(&mut self, bytes: &[u8], kinds: &[Kind]) -> Result<Header, LinkError> {
        let mut exact = [0; HEADER_BYTES];
        exact.copy_from_slice(bytes);
        let refused = |reader: &mut Self, source| {
            reader.stop();
            LinkError::Frame {
                peer: Arc::clone(&reader.peer),
                source,
            }
        };
        let header = Header::decode(&exact).map_err(|source| refused(self, source))?;
        if kinds.contains(&header.kind()) {
            return Ok(header);
        }
        // Of several, the first is the one to name.
        let expected = kinds.first().map_or_else(|| header.kind(), |kind| *kind);
        header
            .expect(expected)
            .map_err(|source| refused(self, source))
    }

    /// Exactly `want` bytes; `None` if the stream ended in order before the first. With `copy` they are in a
    /// buffer of their own. When dropped it loses nothing: the next call must ask for the same piece.
    async fn take(&mut self, want: usize, copy: bool) -> Result<Option<Bytes>, LinkError> {
        if want == 0 {
            return Ok(Some(Bytes::new()));
        }
        loop {
            if !copy
                && self.partial.is_empty()
                && let Some(packet) = self.packets.front_mut()
                && packet.len() >= want
            {
                return Ok(Some(packet.split_to(want)));
            }
            self.partial.reserve(want - self.partial.len());
            while self.partial.len() < want {
                let Some(packet) = self.packets.front_mut() else {
                    break;
                };
                let piece = packet.split_to(packet.len().min(want - self.partial.len()));
                self.partial.extend_from_slice(&piece);
                if packet.is_empty() {
                    self.packets.pop_front();
                }
            }
            if self.partial.len() == want {
                return Ok(Some(core::mem::take(&mut self.partial).freeze()));
            }
            if !self.receive().await? {
                return if self.partial.is_empty() {
                    Ok(None)
                } else {
                    Err(self.truncated())
                };
            }
        }
    }

    /// Adds packets; false at the orderly end of the stream.
    async fn receive(&mut self) -> Result<bool, LinkError> {
        let mut batch = [const { Bytes::new() }; READ_BATCH];
        let read = self
            .stream
            .read_chunks(&mut batch)
            .await
            .map_err(|error| LinkError::reading(&self.peer, error))?;
        self.packets
            .extend(batch.into_iter().take(read.unwrap_or(0)));
        Ok(read.is_some())
    }

    fn stop(&mut self) {
        // An error says that the stream has ended already.
        let _ = self.stream.stop(GIVEN_UP);
        self.packets.clear();
    }

    fn truncated(&self) -> LinkError {
        LinkError::Truncated {
            peer: Arc::clone(&self.peer),
        }
    }
}
