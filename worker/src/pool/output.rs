//! What executors print.
//!
//! Their pipes are read on the worker's loop, in whole lines, and handed to a *sink*: a bounded
//! channel with a thread behind it that writes. While the sink is full only that executor's pipe waits,
//! as it would on a terminal that does not read; the loop goes on. The end of standard error is kept
//! for the error of a task that kills its executor.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use allhands_common::id::{BatchId, ExecutorId};
use allhands_common::limit::STDERR_TAIL_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Pieces that may wait for a sink's thread: 64 pipes' worth.
const WAITING_MAX: usize = 64;

/// What is read at once, in bytes: a pipe's whole buffer.
const READ_BYTES: usize = 64 << 10;

/// Longest line; a longer one is cut into pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// What all executors together may write to a worker's log in a second; the rest is counted.
const LOG_BYTES_PER_SECOND_MAX: usize = 1 << 20;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Lines that an executor has written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Who.
    pub executor: ExecutorId,
    /// The batch whose load it was running.
    pub batch: Option<BatchId>,
    /// Where to.
    pub stream: Stream,
    /// Whole lines, but for a cut one and the last.
    pub lines: Bytes,
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES_MAX)..];
        let surplus = (self.0.len() + kept.len()).saturating_sub(STDERR_TAIL_BYTES_MAX);
        self.0.drain(..surplus);
        self.0.extend(kept);
    }

    pub(super) fn text(&self) -> String {
        let (front, back) = self.0.as_slices();
        let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        // It may begin inside of a character.
        text.trim_start_matches(char::REPLACEMENT_CHARACTER).trim().to_owned()
    }
}

/// Reads `pipe` to its end.
pub(super) async fn forward(
    mut pipe: pipe::Receiver,
    written: impl Fn(Bytes) -> Written,
    tail: Option<Rc<RefCell<Tail>>>,
    sink: mpsc::Sender<Written>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let before = buffer.len();
        let end = !matches!(pipe.read_buf(&mut buffer).await, Ok(1..));
        if let Some(tail) = &tail {
            tail.borrow_mut().push(&buffer[before..]);
        }
        let whole = if end { buffer.len() } else { whole_lines(&buffer) };
        if whole > 0 {
            // A sink that has ended takes nothing, but the pipe is still to be emptied.
            _ = sink.send(written(buffer.split_to(whole).freeze())).await;
        }
        if end {
            return;
        }
    }
}

/// Up to and with the last newline; all of it when the line is too long to wait for its end.
fn whole_lines(bytes: &[u8]) -> usize {
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if bytes.len() >= LINE_BYTES_MAX => bytes.len(),
        None => 0,
    }
}

/// A sink that writes to this process's own standard output and error: what embedded executors print
/// looks as if the program had.
///
/// # Errors
/// When its thread cannot be started.
pub fn to_own() -> io::Result<mpsc::Sender<Written>> {
    start(|written| {
        // Nobody reads them any more: as for any program, that is no reason to stop.
        _ = match written.stream {
            Stream::Out => {
                io::stdout().write_all(&written.lines).and_then(|()| io::stdout().flush())
            }
            Stream::Err => io::stderr().write_all(&written.lines),
        };
    })
}

/// A sink that writes to the log, line by line, with executor and batch; at most so much in a second.
///
/// # Errors
/// When its thread cannot be started.
pub fn to_log() -> io::Result<mpsc::Sender<Written>> {
    let mut budget = Budget { since: Instant::now(), bytes: 0, dropped: 0 };
    start(move |written| {
        let (executor, stream) = (written.executor, written.stream);
        let batch = written.batch.map(tracing::field::display);
        for line in written.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Some(dropped) = budget.renew() {
                tracing::warn!(dropped_bytes = dropped, "executors print more than the log takes");
            }
            if budget.takes(line.len()) {
                let line = String::from_utf8_lossy(line);
                tracing::info!(target: "allhands::output", %executor, batch, ?stream, "{line}");
            }
        }
    })
}

/// What may still be logged in this second.
struct Budget {
    since: Instant,
    bytes: usize,
    dropped: usize,
}

impl Budget {
    /// Begins a new second if it is time; how many bytes were dropped in the one before, if any.
    fn renew(&mut self) -> Option<usize> {
        if self.since.elapsed() < Duration::from_secs(1) {
            return None;
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= LOG_BYTES_PER_SECOND_MAX;
        *(if fits { &mut self.bytes } else { &mut self.dropped }) += bytes;
        fits
    }
}

fn start(mut write: impl FnMut(Written) + Send + 'static) -> io::Result<mpsc::Sender<Written>> {
    let (sink, mut waiting) = mpsc::channel(WAITING_MAX);
    std::thread::Builder::new().name("allhands-output".into()).spawn(move || {
        while let Some(written) = waiting.blocking_recv() {
            write(written);
        }
    })?;
    Ok(sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(&[b'a'; 3 * STDERR_TAIL_BYTES_MAX]);
        tail.push("ä end\n".as_bytes());
        assert!(tail.text().ends_with("aä end") && tail.0.len() == STDERR_TAIL_BYTES_MAX);
        tail.push(&"ä".repeat(STDERR_TAIL_BYTES_MAX).as_bytes()[1..]);
        assert!(tail.text().starts_with('ä'));
    }

    #[test]
    fn lines_are_kept_whole_but_not_for_ever() {
        assert_eq!(whole_lines(b"one\ntwo\nthr"), 8);
        assert_eq!(whole_lines(b"thr"), 0);
        assert_eq!(whole_lines(&[b'x'; LINE_BYTES_MAX]), LINE_BYTES_MAX);
    }

    #[test]
    fn a_flood_is_counted_beyond_the_budget() {
        let mut budget = Budget { since: Instant::now(), bytes: 0, dropped: 0 };
        assert!(budget.takes(LOG_BYTES_PER_SECOND_MAX));
        assert!(!budget.takes(1));
        budget.since -= Duration::from_secs(2);
        assert_eq!(budget.renew(), Some(1));
        assert!(budget.takes(1));
    }
}
