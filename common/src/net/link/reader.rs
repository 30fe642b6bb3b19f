//! The receiving half of a QUIC stream.
//!
//! Heads are read out of the received packets where they lie. Bulk is copied once, into a buffer of exactly
//! its length: a slice of a packet would keep the whole receive batch (up to 400 KiB) alive for as long as
//! somebody keeps a hundred bytes of it. Whoever copies it anyhow, and soon, may have it in the pieces in
//! which it came (`scattered`): a reader that copies is what limits the speed of chunks.
//!
//! A peer that sends what is not a frame of the link has broken the protocol: its connection is closed with
//! that reason, here and nowhere else. Only a frame of another protocol version is no reason to hang up,
//! because the answer must still reach the peer.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::RecvStream;

use super::LinkError;
use crate::bulk::{self, Carries};
use crate::codec;
use crate::frame::{FrameError, HEADER_BYTES, Header, Kind, Message};
use crate::net::cause::CloseCode;
use crate::net::connection::Connection;

/// Packets taken from the stream under one lock.
const READ_BATCH: usize = 32;

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
    /// Bulk as it came in, where somebody else joins it.
    scattered: Option<Box<Scattered>>,
    connection: Connection,
}

#[derive(Debug, Default)]
struct Scattered {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl FrameReader {
    pub(in crate::net) fn new(stream: RecvStream, connection: &Connection) -> Self {
        Self {
            stream,
            packets: VecDeque::new(),
            partial: BytesMut::new(),
            stage: Stage::Header,
            scattered: None,
            connection: connection.clone(),
        }
    }

    /// As [`Self::message`], with the bulk in the pieces in which it came in, uncopied.
    pub(super) async fn scattered<T: Message>(
        &mut self,
    ) -> Result<Option<(T, Vec<Bytes>)>, LinkError> {
        self.scattered.get_or_insert_default();
        let Some((message, _)) = self.message().await? else { return Ok(None) };
        let pieces = self.scattered.take().map(|scattered| scattered.pieces);
        Ok(Some((message, pieces.unwrap_or_default())))
    }

    /// The next message of type `T`, or `None` at the orderly end.
    pub(in crate::net) async fn message<T: Message>(
        &mut self,
    ) -> Result<Option<(T, Bytes)>, LinkError> {
        match self.frame(&[T::KIND]).await? {
            Some((_, head, bulk)) => Ok(Some((self.decode(&head)?, bulk))),
            None => Ok(None),
        }
    }

    pub(in crate::net) fn decode<T: Message>(&self, head: &[u8]) -> Result<T, LinkError> {
        codec::decode(head)
            .map_err(|source| self.hang_up(LinkError::Decode { peer: self.peer(), source }))
    }

    /// Puts the bulk of a frame where its message says.
    pub(super) fn attach<T: Carries>(&self, message: &mut T, bulk: Bytes) -> Result<(), LinkError> {
        bulk::attach(message, bulk)
            .map_err(|source| self.hang_up(LinkError::Bulk { peer: self.peer(), source }))
    }

    /// As [`Self::attach`], for bulk that is joined elsewhere.
    pub(super) fn check<T: Carries>(&self, message: &mut T, bytes: usize) -> Result<(), LinkError> {
        bulk::check(message, bytes)
            .map_err(|source| self.hang_up(LinkError::Bulk { peer: self.peer(), source }))
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
                    let bulk = if self.scattered.is_some() {
                        self.scatter(header.bulk_bytes()).await?;
                        Bytes::new()
                    } else {
                        let bulk = self.take(header.bulk_bytes(), true).await?;
                        bulk.ok_or_else(|| self.truncated())?
                    };
                    self.stage = Stage::Header;
                    return Ok(Some((header.kind(), head, bulk)));
                }
            }
        }
    }

    fn header(&self, bytes: &[u8], kinds: &[Kind]) -> Result<Header, LinkError> {
        let mut exact = [0; HEADER_BYTES];
        exact.copy_from_slice(bytes);
        let header = Header::decode(&exact)
            // Of several kinds the first is the one to name.
            .and_then(|header| match kinds {
                [expected, ..] if !kinds.contains(&header.kind()) => header.expect(*expected),
                _ => Ok(header),
            });
        header.map_err(|source| {
            let other_version = matches!(source, FrameError::Version { .. });
            let error = LinkError::Frame { peer: self.peer(), source };
            if other_version { error } else { self.hang_up(error) }
        })
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
                return if self.partial.is_empty() { Ok(None) } else { Err(self.truncated()) };
            }
        }
    }

    /// As [`Self::take`], into [`Self::scattered`].
    async fn scatter(&mut self, want: usize) -> Result<(), LinkError> {
        loop {
            if let Some(scattered) = &mut self.scattered {
                while scattered.bytes < want
                    && let Some(packet) = self.packets.front_mut()
                {
                    let piece = packet.split_to(packet.len().min(want - scattered.bytes));
                    scattered.bytes += piece.len();
                    scattered.pieces.push(piece);
                    if packet.is_empty() {
                        self.packets.pop_front();
                    }
                }
                if scattered.bytes == want {
                    scattered.bytes = 0;
                    return Ok(());
                }
            }
            if !self.receive().await? {
                return Err(self.truncated());
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
            .map_err(|error| LinkError::reading(self.connection.label(), error))?;
        self.packets.extend(batch.into_iter().take(read.unwrap_or(0)));
        Ok(read.is_some())
    }

    fn hang_up(&self, error: LinkError) -> LinkError {
        let source = core::error::Error::source(&error).map(ToString::to_string);
        self.connection.close(CloseCode::Protocol, &source.unwrap_or_default());
        error
    }

    fn truncated(&self) -> LinkError {
        LinkError::Truncated { peer: self.peer() }
    }

    fn peer(&self) -> Arc<str> {
        Arc::clone(self.connection.label())
    }
}
