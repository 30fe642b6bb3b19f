//! Which segment is where, and which file is how much alive. In RAM; rebuilt from the headers at start.
//!
//! What a segment's header says is not repeated here: a coordinator has as many segments as batches.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use allhands_common::id::SegmentId;
use allhands_common::paged::Paged;
use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::error::ReadError;
use super::format::{self, FILE_HEADER_BYTES, HEADER_BYTES, Salt, SegmentHead, SegmentPlace};
use super::scan::{OpenSegmentsError, scan};
use super::tail::Tailed;
use crate::raft::nonce::nonce;

/// Where a segment's bytes are: 16 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    file: u32,
    /// Where its bytes begin; its header stands before them.
    offset: u32,
    length: u32,
    /// Written or verified by this process; what the scan found is not.
    pub(super) proven: bool,
}

impl Known {
    fn stored_bytes(self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    pub(super) fn file(self) -> u64 {
        u64::from(self.file)
    }
}

/// A file that segments can be read from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    number: u64,
    file: Arc<dyn DiskFile>,
    salt: Salt,
}

impl Source {
    /// What the header of a segment says, if it is a whole one.
    pub(super) fn head(
        &self,
        dir: &Path,
        id: SegmentId,
        at: Known,
    ) -> Result<SegmentPlace, ReadError> {
        let mut header = [0; HEADER_BYTES];
        self.fill(dir, id, at, &mut header)?;
        self.parse(dir, id, at, &header)
    }

    /// A segment, checked against its header.
    pub(super) fn read(
        &self,
        dir: &Path,
        id: SegmentId,
        at: Known,
    ) -> Result<(SegmentHead, Bytes), ReadError> {
        let mut bytes = vec![0; HEADER_BYTES + at.length as usize];
        self.fill(dir, id, at, &mut bytes)?;
        let SegmentPlace { head, offset, .. } = self.parse(dir, id, at, &bytes)?;
        let bytes = Bytes::from(bytes).slice(HEADER_BYTES..);
        if !head.matches(&bytes) {
            return Err(ReadError::Mismatch {
                id,
                path: format::file_path(dir, self.number),
                offset,
            });
        }
        Ok((head, bytes))
    }

    /// Hands what was written to the system.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }

    fn fill(
        &self,
        dir: &Path,
        id: SegmentId,
        at: Known,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let begin = u64::from(at.offset) - HEADER_BYTES as u64;
        let read = self.file.read_at(bytes, begin);
        read.map_err(|source| ReadError::Io {
            id,
            path: format::file_path(dir, self.number),
            source,
        })
    }

    fn parse(
        &self,
        dir: &Path,
        id: SegmentId,
        at: Known,
        header: &[u8],
    ) -> Result<SegmentPlace, ReadError> {
        let offset = u64::from(at.offset);
        format::parse_header(self.salt, offset - HEADER_BYTES as u64, header)
            .filter(|head| head.id == id && head.length == at.length)
            .map(|head| SegmentPlace { head, file: self.number, offset })
            .ok_or_else(|| ReadError::Mismatch {
                id,
                path: format::file_path(dir, self.number),
                offset,
            })
    }
}

#[derive(Debug)]
struct SegmentFile {
    file: Arc<dyn DiskFile>,
    salt: Salt,
    length: u64,
    live_bytes: u64,
    unsynced: bool,
    /// A segment was moved out: this file stays until the copy is synced, also when it is empty.
    moved: bool,
}

#[derive(Debug)]
pub(super) struct Index {
    segments: Paged<Known>,
    files: BTreeMap<u64, SegmentFile>,
    /// The file that is written; all others only shrink.
    active: Option<u64>,
    next_file: u64,
    names_unsynced: bool,
}

impl Index {
    pub(super) fn scan(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenSegmentsError> {
        let io = |source| OpenSegmentsError::Io { dir: dir.to_owned(), source };
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            numbers.extend(name.to_str().and_then(format::file_number));
        }
        numbers.sort_unstable();
        let mut index = Self {
            segments: Paged::new(),
            files: BTreeMap::new(),
            active: None,
            next_file: numbers.last().map_or(0, |last| last + 1),
            names_unsynced: true,
        };
        for number in numbers {
            let Some(found) = scan(disk, dir, number)? else {
                continue;
            };
            let (salt, length) = (found.salt, found.length);
            let file: Arc<dyn DiskFile> = Arc::new(Tailed::new(found.file));
            // Not known to be synced: the process before may have died before it did.
            let entry =
                SegmentFile { file, salt, length, live_bytes: 0, unsynced: true, moved: false };
            index.files.insert(number, entry);
            index.active = Some(number);
            for (head, offset) in found.segments {
                // The later copy of a moved segment counts.
                index.insert(head.id, number, offset, head.length, false);
            }
        }
        Ok(index)
    }

    pub(super) fn get(&self, id: SegmentId) -> Option<Known> {
        self.segments.get(id.0).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.iter().map(|(id, _)| SegmentId(id))
    }

    /// The file that a segment is in.
    pub(super) fn source(&self, known: Known) -> Option<Source> {
        let number = known.file();
        let SegmentFile { file, salt, .. } = self.files.get(&number)?;
        Some(Source { number, file: Arc::clone(file), salt: *salt })
    }

    pub(super) fn prove(&mut self, id: SegmentId) {
        if let Some(known) = self.segments.get_mut(id.0) {
            known.proven = true;
        }
    }

    pub(super) fn disk_bytes(&self) -> (u64, u64) {
        self.files
            .values()
            .fold((0, 0), |(all, live), file| (all + file.length, live + file.live_bytes))
    }

    /// Writes a segment behind the last one; on failure says which file it was.
    pub(super) fn write(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        file_bytes: u64,
        head: SegmentHead,
        bytes: &[u8],
    ) -> Result<(), (u64, io::Error)> {
        let stored = HEADER_BYTES as u64 + u64::from(head.length);
        let number = self.file_with_room(disk, dir, file_bytes, stored)?;
        let Some(file) = self.files.get_mut(&number) else {
            return Err((number, io::ErrorKind::NotFound.into()));
        };
        let header = format::header(file.salt, file.length, &head);
        let begin = file.length + HEADER_BYTES as u64;
        let written = file.file.write_at(&header, file.length);
        let written = written.and_then(|()| file.file.write_at(bytes, begin));
        written.map_err(|error| (number, error))?;
        file.length += stored;
        file.unsynced = true;
        self.insert(head.id, number, begin, head.length, true);
        Ok(())
    }

    fn file_with_room(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        file_bytes: u64,
        needed: u64,
    ) -> Result<u64, (u64, io::Error)> {
        if let Some(number) = self.active
            && let Some(file) = self.files.get(&number)
            && file.length + needed <= file_bytes
        {
            return Ok(number);
        }
        if let Some((full, file)) =
            self.active.and_then(|full| Some((full, self.files.get(&full)?)))
        {
            file.file.flush().map_err(|error| (full, error))?;
        }
        let number = self.next_file;
        let failed = |error| (number, error);
        let salt = Salt(nonce().map_err(failed)?);
        let file = disk.create(&format::file_path(dir, number)).map_err(failed)?;
        let file: Arc<dyn DiskFile> = Arc::new(Tailed::new(file));
        file.write_at(&format::file_header(number, salt), 0).map_err(failed)?;
        let length = FILE_HEADER_BYTES as u64;
        self.files.insert(
            number,
            SegmentFile { file, salt, length, live_bytes: 0, unsynced: true, moved: false },
        );
        self.next_file += 1;
        self.active = Some(number);
        self.names_unsynced = true;
        Ok(number)
    }

    fn insert(&mut self, id: SegmentId, number: u64, offset: u64, length: u32, proven: bool) {
        let short = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let known = Known { file: short(number), offset: short(offset), length, proven };
        if let Some(before) = self.segments.insert(id.0, known) {
            self.shrink(before);
            if let Some(file) = self.files.get_mut(&before.file()) {
                file.moved = true;
            }
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.live_bytes += known.stored_bytes();
        }
    }

    fn shrink(&mut self, known: Known) {
        if let Some(file) = self.files.get_mut(&known.file()) {
            file.live_bytes -= known.stored_bytes();
        }
    }

    /// Forgets a segment; gives the number of a closed file that thereby became empty and was forgotten too.
    pub(super) fn remove(&mut self, id: SegmentId) -> Option<u64> {
        let known = self.segments.remove(id.0)?;
        self.shrink(known);
        let number = known.file();
        let file = self.files.get(&number)?;
        if self.active == Some(number) || file.moved || file.live_bytes > 0 {
            return None;
        }
        self.files.remove(&number).map(|_| number)
    }

    pub(super) fn is_empty(&self, number: u64) -> bool {
        self.files.get(&number).is_some_and(|file| file.live_bytes == 0)
    }

    pub(super) fn forget_file(&mut self, number: u64) {
        self.files.remove(&number);
    }

    /// Closed files without a live segment: left by a move, or by a file that was emptied while it was written.
    pub(super) fn empty_files(&self) -> Vec<u64> {
        self.closed().filter(|(_, file)| file.live_bytes == 0).map(|(number, _)| *number).collect()
    }

    /// A closed file that is more than half dead.
    pub(super) fn mostly_dead(&self) -> Option<u64> {
        self.closed()
            .find(|(_, file)| file.live_bytes > 0 && file.live_bytes * 2 < file.length)
            .map(|(number, _)| *number)
    }

    fn closed(&self) -> impl Iterator<Item = (&u64, &SegmentFile)> {
        self.files.iter().filter(|(number, _)| Some(**number) != self.active)
    }

    pub(super) fn segments_of(&self, number: u64) -> Vec<SegmentId> {
        let of_file = self.segments.iter().filter(|(_, known)| known.file() == number);
        of_file.map(|(id, _)| SegmentId(id)).collect()
    }

    /// What a sync has to reach: the files written since the last one, and whether names are new.
    pub(super) fn take_unsynced(&mut self) -> (Vec<Arc<dyn DiskFile>>, bool) {
        let mut files = Vec::new();
        for file in self.files.values_mut() {
            if std::mem::take(&mut file.unsynced) {
                files.push(Arc::clone(&file.file));
            }
        }
        (files, std::mem::take(&mut self.names_unsynced))
    }
}
