//! A file whose last bytes wait in RAM, so that short segments do not cost a call to the system each, and
//! are read from where they are.
//!
//! What waits is lost with the process. That costs nothing: a segment is durable only once its file is
//! synced, and until then the log has it and says it again.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::DiskFile;

/// Bytes that are written at once.
const TAIL_BYTES: usize = 128 << 10;

/// The file.
#[derive(Debug)]
pub(super) struct Tailed {
    file: Arc<dyn DiskFile>,
    tail: Mutex<Tail>,
}

/// What is not in the file.
#[derive(Debug, Default)]
struct Tail {
    /// Where it begins.
    start: u64,
    bytes: Vec<u8>,
}

impl Tailed {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, tail: Mutex::default() }
    }

    fn tail(&self) -> io::Result<MutexGuard<'_, Tail>> {
        self.tail.lock().map_err(|_| io::Error::other("a write of this file was broken off"))
    }
}

impl Tail {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn flush(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        if !self.bytes.is_empty() {
            file.write_at(&self.bytes, self.start)?;
            self.start = self.end();
            self.bytes.clear();
        }
        Ok(())
    }
}

impl DiskFile for Tailed {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut tail = self.tail()?;
        if tail.bytes.is_empty() {
            tail.start = offset;
        }
        if offset != tail.end() || tail.bytes.len() + bytes.len() > TAIL_BYTES {
            tail.flush(&*self.file)?;
            tail.start = offset;
        }
        if bytes.len() > TAIL_BYTES {
            return self.file.write_at(bytes, offset);
        }
        tail.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut tail = self.tail()?;
        let end = offset + bytes.len() as u64;
        if tail.bytes.is_empty() || end <= tail.start || offset >= tail.end() {
            drop(tail);
            return self.file.read_at(bytes, offset);
        }
        if offset < tail.start || end > tail.end() {
            tail.flush(&*self.file)?;
            drop(tail);
            return self.file.read_at(bytes, offset);
        }
        let from = (offset - tail.start) as usize;
        bytes.copy_from_slice(&tail.bytes[from..from + bytes.len()]);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.tail()?.flush(&*self.file)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.flush()?;
        self.file.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.flush()?;
        self.file.length()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::disk::{Disk, RealDisk};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_file_that_has_everything(
            steps in prop::collection::vec((0usize..200_000, any::<u8>(), any::<(u16, u16)>()), 1..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let file = Tailed::new(RealDisk.create(&path).unwrap());
            let mut model = Vec::new();
            for (length, byte, (from, until)) in steps {
                let bytes = vec![byte; length];
                file.write_at(&bytes, model.len() as u64).unwrap();
                model.extend(bytes);
                let place = |share: u16| model.len() * usize::from(share) / usize::from(u16::MAX);
                let (from, until) = (place(from.min(until)), place(from.max(until)));
                let mut read = vec![0; until - from];
                file.read_at(&mut read, from as u64).unwrap();
                prop_assert!(read == model[from..until]);
            }
            file.sync().unwrap();
            prop_assert!(std::fs::read(&path).unwrap() == model);
        }
    }
}
