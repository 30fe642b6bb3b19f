//! What the raft layer does with the segment files, off the core loop: sync, link, compare, move, retain.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use allhands_common::id::SegmentId;

use super::error::{MaintainError, ReadError};
use super::format::{self, SegmentHead, SegmentPlace};
use super::index::{Known, Source};
use super::{Segments, State};

/// How sure [`Segments::missing`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The header says so: enough for what was synced before a snapshot named it.
    Header,
    /// The bytes match; those that this process has not written itself are read.
    Bytes,
}

/// Files that were linked for a snapshot, and the segments in them that it names.
#[derive(Debug)]
pub struct Linked {
    dir: PathBuf,
    files: BTreeMap<u64, Source>,
    segments: Vec<(SegmentId, Known)>,
}

impl Linked {
    /// Where the segments are and what they are. Reads every header: beside the log, not in its order.
    pub fn places(&self) -> Result<Vec<SegmentPlace>, ReadError> {
        let place = |(id, known): &(SegmentId, Known)| {
            let source = self.files.get(&known.file()).ok_or(ReadError::Unknown { id: *id })?;
            source.head(&self.dir, *id, *known)
        };
        self.segments.iter().map(place).collect()
    }
}

impl Segments {
    /// Makes everything appended so far durable, then unlinks the files that a move has emptied. Blocks on the disk,
    /// not the appends beside it. A failure latches the store.
    pub fn sync(&self) -> Result<(), MaintainError> {
        let (files, names, empty) = {
            let mut state = self.writable()?;
            let (files, names) = state.index.take_unsynced();
            (files, names, state.index.empty_files())
        };
        let syncs = self.shared.durability.syncs();
        for file in files {
            let done = if syncs { file.sync() } else { file.flush() };
            done.map_err(|error| self.latch("sync", error))?;
        }
        if names && syncs {
            let synced = self.shared.disk.sync_directory(&self.shared.dir);
            synced.map_err(|error| self.latch("sync of the directory", error))?;
        }
        for number in empty {
            let mut state = self.writable()?;
            if state.index.is_empty(number) {
                state.index.forget_file(number);
                let path = format::file_path(&self.shared.dir, number);
                let removed = self.shared.disk.remove(&path);
                removed.map_err(|error| self.failed("unlinking an empty file", error))?;
            }
        }
        Ok(())
    }

    /// Links the files of these segments into `dir`. Call it while no segment can be discarded: in the order of the
    /// log. Where in them the segments are can be asked later.
    pub fn link_into(&self, dir: &Path, ids: &[SegmentId]) -> Result<Linked, MaintainError> {
        let state = self.writable()?;
        let mut segments = Vec::with_capacity(ids.len());
        let mut files = BTreeMap::new();
        for id in ids {
            let missing = || MaintainError::Missing { id: *id };
            let known = state.index.get(*id).ok_or_else(missing)?;
            segments.push((*id, known));
            if let Entry::Vacant(entry) = files.entry(known.file()) {
                let source = state.index.source(known).ok_or_else(missing)?;
                // Who reads the link reads the file.
                source
                    .flush()
                    .map_err(|error| self.failed("writing a file to be linked", error))?;
                entry.insert(source);
            }
        }
        for number in files.keys() {
            let from = format::file_path(&self.shared.dir, *number);
            let linked = self.shared.disk.link(&from, &format::file_path(dir, *number));
            linked.map_err(|error| self.failed("linking a file into a snapshot", error))?;
        }
        Ok(Linked { dir: dir.to_owned(), files, segments })
    }

    /// Those of `wanted` that are not here.
    pub fn missing(
        &self,
        wanted: &[SegmentHead],
        check: Check,
    ) -> Result<Vec<SegmentId>, MaintainError> {
        let mut missing = Vec::new();
        for head in wanted {
            let mut state = self.writable()?;
            let whole = match state.index.get(head.id) {
                None => false,
                Some(known) if known.proven || check == Check::Header => {
                    self.head(&state, head.id, known).is_ok_and(|place| place.head == *head)
                }
                Some(known) => {
                    self.read_known(&state, head.id, known).is_ok_and(|(stored, _)| stored == *head)
                }
            };
            if whole {
                state.index.prove(head.id);
            } else {
                missing.push(head.id);
            }
        }
        Ok(missing)
    }

    /// Discards all but `live`, and names those of them that are not here: the state has just been replayed or
    /// replaced, and a node that misses one must fetch it or stop.
    pub fn retain(&self, live: &BTreeSet<SegmentId>) -> Result<Vec<SegmentId>, MaintainError> {
        let mut state = self.writable()?;
        let dead: Vec<_> = state.index.ids().filter(|id| !live.contains(id)).collect();
        for id in dead {
            self.take_out(&mut state, id);
        }
        Ok(live.iter().filter(|id| state.index.get(**id).is_none()).copied().collect())
    }

    /// Whether a closed file is more than half dead.
    pub fn wants_rewrite(&self) -> bool {
        self.lock().is_some_and(|state| !state.latched && state.index.mostly_dead().is_some())
    }

    /// Moves the live segments out of one mostly dead file, one at a time beside the appends; the file is unlinked by
    /// the next [`Segments::sync`], when the copies are durable. A segment that cannot be read stays, and so does
    /// its file.
    pub fn rewrite(&self) -> Result<(), MaintainError> {
        let (number, ids) = {
            let state = self.writable()?;
            let Some(number) = state.index.mostly_dead() else {
                return Ok(());
            };
            (number, state.index.segments_of(number))
        };
        for id in ids {
            let mut state = self.writable()?;
            let Some(known) = state.index.get(id).filter(|known| known.file() == number) else {
                continue;
            };
            let (head, bytes) = self.read_known(&state, id, known)?;
            let shared = &self.shared;
            let written =
                state.index.write(&*shared.disk, &shared.dir, shared.file_bytes, head, &bytes);
            if let Err((_, source)) = written {
                state.latched = true;
                return Err(self.failed("moving a live segment", source));
            }
        }
        Ok(())
    }

    fn writable(&self) -> Result<std::sync::MutexGuard<'_, State>, MaintainError> {
        self.lock().filter(|state| !state.latched).ok_or(MaintainError::Latched)
    }

    fn latch(&self, what: &'static str, source: io::Error) -> MaintainError {
        if let Some(mut state) = self.lock() {
            state.latched = true;
        }
        self.failed(what, source)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> MaintainError {
        MaintainError::Io { dir: self.shared.dir.clone(), what, source }
    }
}
