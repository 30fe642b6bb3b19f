//! A link inside one process: a bounded channel of messages that are moved, never encoded.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::LinkError;
use crate::frame::{Header, Message};

/// What travels: a frame, or the word that no more will come.
#[derive(Debug)]
enum Parcel<T> {
    Frame(T, Bytes),
    End,
}

/// Frames fed and not yet flushed wait in `queue`, so that feeding is as cancel-safe as over QUIC.
#[derive(Debug)]
pub(super) struct Sender<T> {
    channel: mpsc::Sender<Parcel<T>>,
    queue: VecDeque<(T, Bytes)>,
    peer: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Receiver<T> {
    channel: mpsc::Receiver<Parcel<T>>,
    ended: bool,
    peer: Arc<str>,
}

pub(super) fn channel<T>(frames_max: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(frames_max);
    let peer: Arc<str> = "the other end in this process".into();
    (
        Sender { channel: sender, queue: VecDeque::new(), peer: Arc::clone(&peer) },
        Receiver { channel: receiver, ended: false, peer },
    )
}

impl<T: Message> Sender<T> {
    pub(super) fn queue(&mut self, message: T, bulk: Bytes) -> Result<(), LinkError> {
        // The same cap as on the wire, so that what works embedded works on a cluster.
        Header::new(T::KIND, 0, bulk.len())
            .map_err(|source| LinkError::Oversized { peer: Arc::clone(&self.peer), source })?;
        self.queue.push_back((message, bulk));
        Ok(())
    }

    pub(super) async fn flush_if_full(&mut self) -> Result<(), LinkError> {
        if self.queue.len() < self.channel.max_capacity() { Ok(()) } else { self.flush().await }
    }

    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.queue.is_empty() {
            let room = self
                .channel
                .reserve()
                .await
                .map_err(|_| LinkError::Stopped { peer: Arc::clone(&self.peer) })?;
            if let Some((message, bulk)) = self.queue.pop_front() {
                room.send(Parcel::Frame(message, bulk));
            }
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<(), LinkError> {
        self.flush().await?;
        self.channel
            .send(Parcel::End)
            .await
            .map_err(|_| LinkError::Stopped { peer: Arc::clone(&self.peer) })
    }
}

impl<T: Message> Receiver<T> {
    pub(super) async fn message(&mut self) -> Result<Option<(T, Bytes)>, LinkError> {
        if self.ended {
            return Ok(None);
        }
        match self.channel.recv().await {
            Some(Parcel::Frame(message, bulk)) => Ok(Some((message, bulk))),
            Some(Parcel::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(LinkError::Abandoned { peer: Arc::clone(&self.peer) }),
        }
    }
}
