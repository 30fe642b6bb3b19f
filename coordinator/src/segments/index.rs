//! Which segment is where, and which file is how much alive. In RAM; rebuilt from the headers at start.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use allhands_common::id::SegmentId;

use super::disk::{Disk, DiskFile};
use super::format::{self, FILE_HEADER_BYTES, HEADER_BYTES, Salt, SegmentHead, SegmentPlace};
use super::scan::{OpenSegmentsError, scan};
use crate::raft::nonce::nonce;

#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) place: SegmentPlace,
    /// Written or verified by this process; what the scan found is not.
    pub(super) proven: bool,
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
    segments: BTreeMap<SegmentId, Known>,
    files: BTreeMap<u64, SegmentFile>,
    /// The file that is written; all others only shrink.
    active: Option<u64>,
    next_file: u64,
    names_unsynced: bool,
}

fn stored_bytes(head: &SegmentHead) -> u64 {
    HEADER_BYTES as u64 + u64::from(head.length)
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
            segments: BTreeMap::new(),
            files: BTreeMap::new(),
            active: None,
            next_file: numbers.last().map_or(0, |last| last + 1),
            names_unsynced: true,
        };
        for number in numbers {
            let Some(found) = scan(disk, dir, number)? else {
                continue;
            };
            let (file, salt, length) = (found.file, found.salt, found.length);
            // Not known to be synced: the process before may have died before it did.
            let entry =
                SegmentFile { file, salt, length, live_bytes: 0, unsynced: true, moved: false };
            index.files.insert(number, entry);
            index.active = Some(number);
            for place in found.places {
                // The later copy of a moved segment counts.
                index.insert(Known { place, proven: false });
            }
        }
        Ok(index)
    }

    pub(super) fn get(&self, id: SegmentId) -> Option<Known> {
        self.segments.get(&id).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.keys().copied()
    }

    pub(super) fn file(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.files.get(&number).map(|file| Arc::clone(&file.file))
    }

    pub(super) fn prove(&mut self, id: SegmentId) {
        if let Some(known) = self.segments.get_mut(&id) {
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
        let number = self.file_with_room(disk, dir, file_bytes, stored_bytes(&head))?;
        let Some(file) = self.files.get_mut(&number) else {
            return Err((number, io::ErrorKind::NotFound.into()));
        };
        let header = format::header(file.salt, file.length, &head);
        let begin = file.length + HEADER_BYTES as u64;
        file.file.write_at(&header, file.length).map_err(|error| (number, error))?;
        file.file.write_at(bytes, begin).map_err(|error| (number, error))?;
        file.length = begin + u64::from(head.length);
        file.unsynced = true;
        let place = SegmentPlace { head, file: number, offset: begin };
        self.insert(Known { place, proven: true });
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
        let number = self.next_file;
        let failed = |error| (number, error);
        let salt = Salt(nonce().map_err(failed)?);
        let file = disk.create(&format::file_path(dir, number)).map_err(failed)?;
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

    fn insert(&mut self, known: Known) {
        let place = known.place;
        if let Some(before) = self.segments.insert(place.head.id, known) {
            self.shrink(&before.place);
            if let Some(file) = self.files.get_mut(&before.place.file) {
                file.moved = true;
            }
        }
        if let Some(file) = self.files.get_mut(&place.file) {
            file.live_bytes += stored_bytes(&place.head);
        }
    }

    fn shrink(&mut self, place: &SegmentPlace) {
        if let Some(file) = self.files.get_mut(&place.file) {
            file.live_bytes -= stored_bytes(&place.head);
        }
    }

    /// Forgets a segment; gives the number of a closed file that thereby became empty and was forgotten too.
    pub(super) fn remove(&mut self, id: SegmentId) -> Option<u64> {
        let known = self.segments.remove(&id)?;
        self.shrink(&known.place);
        let number = known.place.file;
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
        let of_file = self.segments.values().filter(|known| known.place.file == number);
        of_file.map(|known| known.place.head.id).collect()
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
