//! A stream that knows its end: pieces with their lengths, and a last word without which all of it is nothing.
//!
//! ```text
//! piece   length u32, not 0 | bytes          end   0 u32
//! ```
//! Integers are little-endian. A task pours an array through a pipe to whoever stores it. A pipe says no more than
//! that its writer is gone; only the end says that the array is complete.

use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a piece, as a rule: a chunk, as it will be hashed and written.
const PIECE_BYTES: usize = 1 << 20;

/// Writes pieces.
#[derive(Debug)]
pub struct PiecesWriter<W> {
    out: W,
    /// What is not written yet, behind room for its length.
    piece: Vec<u8>,
}

const LENGTH_BYTES: usize = 4;

impl<W: Write> PiecesWriter<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self { out, piece: vec![0; LENGTH_BYTES] }
    }

    /// The next bytes; some of them stay here until a piece is full.
    ///
    /// # Errors
    /// Whoever reads is gone, or the system refuses.
    pub fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = LENGTH_BYTES + PIECE_BYTES - self.piece.len();
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.piece.extend_from_slice(now);
            bytes = rest;
            if self.piece.len() == LENGTH_BYTES + PIECE_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Writes what is here, and the end.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> io::Result<()> {
        if self.piece.len() > LENGTH_BYTES {
            self.send()?;
        }
        // A length of nothing.
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.piece.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        self.piece[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let sent = self.out.write_all(&self.piece);
        self.piece.truncate(LENGTH_BYTES);
        sent
    }
}

/// Reads the bytes in pieces. A stream that stops before its end is an error.
#[derive(Debug)]
pub struct Pieces<R> {
    source: R,
    /// What is left of the piece.
    left: u32,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// From the beginning.
    pub const fn new(source: R) -> Self {
        Self { source, left: 0, ended: false }
    }
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 && !self.ended {
            let mut length = [0; LENGTH_BYTES];
            self.source.read_exact(&mut length).map_err(unfinished)?;
            self.left = u32::from_le_bytes(length);
            self.ended = self.left == 0;
        }
        if self.ended {
            return Ok(0);
        }
        let most = into.len().min(self.left as usize);
        match self.source.read(&mut into[..most])? {
            0 => Err(unfinished(ErrorKind::UnexpectedEof.into())),
            read => {
                self.left -= u32::try_from(read).unwrap_or(self.left);
                Ok(read)
            }
        }
    }
}

fn unfinished(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::new(
            ErrorKind::UnexpectedEof,
            "whoever wrote it is gone, and has not finished it",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[&[u8]], finish: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = PiecesWriter::new(&mut out);
        parts.iter().for_each(|part| writer.push(part).unwrap());
        if finish {
            writer.finish().unwrap();
        }
        out
    }

    fn read(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Pieces::new(stream).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn what_was_finished_comes_back() {
        let long: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|at| (at / 11) as u8).collect();
        for parts in [&[&long[..]][..], &[&long[..5], &long[5..]], &[], &[b""], &[b"x"]] {
            assert_eq!(read(&written(parts, true)).unwrap(), parts.concat());
        }
        assert_eq!(written(&[b"abc"], true), [3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0]);
        assert_eq!(written(&[&long[..PIECE_BYTES]], true).len(), PIECE_BYTES + 8);
    }

    #[test]
    fn what_was_not_finished_is_nothing() {
        let whole = written(&[&[7; PIECE_BYTES + 9]], true);
        for end in [0, 3, 4, 100, PIECE_BYTES + 4, PIECE_BYTES + 6, whole.len() - 1] {
            let error = read(&whole[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{end}");
        }
        assert_eq!(read(&written(&[b"abc"], false)).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
