//! Reads little-endian fields off a byte slice; what is short or too long is an error, never a panic.
//!
//! Shared by the log's records and the snapshot files. Nothing here touches a disk.

use std::io;

/// A slice that is being read from its front.
#[derive(Debug)]
pub(crate) struct BytesIn<'a>(pub(crate) &'a [u8]);

impl<'a> BytesIn<'a> {
    pub(crate) fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{length} bytes expected, {} left", self.0.len()),
            )
        })?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> io::Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Refuses what is left over.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self.0.len() {
            0 => Ok(()),
            left => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("{left} bytes left over")))
            }
        }
    }
}
