//! Frames on their way to an executor: written at once where the socket takes them, else when it does.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use allhands_common::codec::EncodeError;
use allhands_common::wire::executor::{ToExecutor, write_frame};
use bytes::{Buf, Bytes};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

/// Pieces handed to the system at once.
const PIECES_MAX: usize = 32;

/// Bounded by what an executor may hold: two loads, and the common parts of their batches.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<VecDeque<Bytes>>,
    stream: OnceCell<OwnedWriteHalf>,
    more: Notify,
}

impl Outbox {
    /// Sends `message`, now or as soon as there is a socket that takes it.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(super) fn push(&self, message: &mut ToExecutor) -> Result<(), EncodeError> {
        let (mut head, mut bulk) = (Vec::with_capacity(128), Vec::new());
        write_frame(message, &mut head, &mut bulk)?;
        let mut waiting = self.waiting.borrow_mut();
        let idle = waiting.is_empty();
        waiting.push_back(head.into());
        waiting.extend(bulk);
        drop(waiting);
        if let Some(stream) = self.stream.get()
            && idle
            && !self.write(stream)
        {
            self.more.notify_one();
        }
        Ok(())
    }

    /// From now on frames go to `stream`.
    pub(super) fn connect(&self, stream: OwnedWriteHalf) {
        _ = self.stream.set(stream);
    }

    /// Writes what waits, for ever.
    pub(super) async fn drain(&self) {
        loop {
            let Some(stream) = self.stream.get().filter(|_| !self.waiting.borrow().is_empty())
            else {
                self.more.notified().await;
                continue;
            };
            if stream.writable().await.is_err() || self.write(stream) {
                self.more.notified().await;
            }
        }
    }

    /// Whether nothing is left that could be written: it is written, or its reader is gone.
    fn write(&self, stream: &OwnedWriteHalf) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while !waiting.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = waiting.len().min(PIECES_MAX);
            for (piece, bytes) in pieces.iter_mut().zip(waiting.iter()) {
                *piece = IoSlice::new(bytes);
            }
            match stream.try_write_vectored(&pieces[..count]) {
                Ok(written) => advance(&mut waiting, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The keeper learns of its end by reading.
                Err(_) => waiting.clear(),
            }
        }
        true
    }
}

fn advance(waiting: &mut VecDeque<Bytes>, mut written: usize) {
    while written > 0 {
        let Some(front) = waiting.front_mut() else {
            return;
        };
        let part = written.min(front.len());
        front.advance(part);
        written -= part;
        if front.is_empty() {
            waiting.pop_front();
        }
    }
}
