//! Frames on their way to an executor: written together at the end of a step where the socket takes
//! them, else when it does.

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

/// Bulk up to this many bytes is copied beside the frame's head: cheaper than a piece of its own.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Bounded by what an executor may hold: its loads, and the common parts of their batches.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<VecDeque<Bytes>>,
    /// What comes after that: frames that share one piece.
    tail: RefCell<Vec<u8>>,
    stream: OnceCell<OwnedWriteHalf>,
    more: Notify,
}

impl Outbox {
    /// Puts `message` behind what waits for [`Outbox::flush`].
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(super) fn push(&self, message: &mut ToExecutor) -> Result<(), EncodeError> {
        let (mut tail, mut bulk) = (self.tail.borrow_mut(), Vec::new());
        let whole = tail.len();
        if let Err(error) = write_frame(message, &mut tail, &mut bulk) {
            tail.truncate(whole);
            return Err(error);
        }
        for piece in bulk {
            if piece.len() <= COPIED_BYTES_MAX {
                tail.extend_from_slice(&piece);
            } else {
                let mut waiting = self.waiting.borrow_mut();
                waiting.push_back(std::mem::take(&mut *tail).into());
                waiting.push_back(piece);
            }
        }
        Ok(())
    }

    /// Sends what was pushed, now or as soon as there is a socket that takes it.
    pub(super) fn flush(&self) {
        let mut tail = self.tail.borrow_mut();
        if tail.is_empty() && self.waiting.borrow().is_empty() {
            return;
        }
        if !tail.is_empty() {
            self.waiting.borrow_mut().push_back(std::mem::take(&mut *tail).into());
        }
        drop(tail);
        if let Some(stream) = self.stream.get()
            && !self.write(stream)
        {
            self.more.notify_one();
        }
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
