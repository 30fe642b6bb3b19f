//! The files of programs, each named by the hash of its bytes.
//!
//! A file gets its name when it is on the disk, and a name that was there at the start is believed once
//! the bytes have been hashed: whatever crashed, and whoever touched them, nothing else is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use allhands_common::program::ProgramId;
use bytes::Bytes;

/// What is asked for, and sent, at once.
pub(crate) const CHUNK_BYTES: u32 = 1 << 20;

/// Programs that no job uses are kept up to so many bytes, with those that one does.
pub(super) const STORE_BYTES_MAX: u64 = 8 << 30;

/// The programs that are here.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    bytes_max: u64,
    known: BTreeMap<ProgramId, Known>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Known {
    bytes: u64,
    /// When it was last used, by the store's clock.
    used: u64,
    /// Whether its bytes were seen to be right since the start.
    checked: bool,
}

impl Store {
    /// The programs in `dir`, not checked. What came in pieces before a crash comes anew.
    pub(super) fn open(dir: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| blake3::Hash::from_hex(name).ok()) {
                Some(hash) => {
                    let file = entry.metadata()?;
                    found.push((file.modified()?, ProgramId(*hash.as_bytes()), file.len()));
                }
                None => fs::remove_file(entry.path())?,
            }
        }
        // Of uses before the start no more is known than the order in which they came.
        found.sort();
        let mut store = Self { dir, bytes_max, known: BTreeMap::new(), clock: 0 };
        for (_, id, bytes) in found {
            store.insert(id, bytes, false);
        }
        Ok(store)
    }

    /// Where the pieces of a program are put together.
    pub(super) fn part(&self, id: ProgramId) -> PathBuf {
        self.dir.join(format!("{id}.part"))
    }

    /// Where a program is.
    pub(super) fn place(&self, id: ProgramId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// A program was stored.
    pub(super) fn add(&mut self, id: ProgramId, bytes: u64) {
        self.insert(id, bytes, true);
    }

    fn insert(&mut self, id: ProgramId, bytes: u64, checked: bool) {
        self.clock += 1;
        self.known.insert(id, Known { bytes, used: self.clock, checked });
    }

    /// A program's bytes were seen to be right.
    pub(super) fn confirm(&mut self, id: ProgramId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.checked = true;
        }
    }

    pub(super) fn has(&self, id: ProgramId) -> bool {
        self.known.contains_key(&id)
    }

    /// Whether a program that is here was checked. To ask is to use it.
    pub(super) fn is_checked(&mut self, id: ProgramId) -> Option<bool> {
        self.clock += 1;
        let known = self.known.get_mut(&id)?;
        known.used = self.clock;
        Some(known.checked)
    }

    /// At most `bytes` of a program from `offset` on.
    pub(super) fn read(&self, id: ProgramId, offset: u64, bytes: u32) -> io::Result<Bytes> {
        read(&self.place(id), offset, bytes)
    }

    /// Lets go of a program whose file is of no use.
    pub(super) fn remove(&mut self, id: ProgramId) {
        self.known.remove(&id);
        // A file that stays is looked at again after the next start.
        _ = fs::remove_file(self.place(id));
    }

    /// Lets go of those that were not used for longest, until the rest fits; never of one that is `live`.
    pub(super) fn evict(&mut self, live: &BTreeSet<ProgramId>) {
        let mut total: u64 = self.known.values().map(|known| known.bytes).sum();
        while total > self.bytes_max {
            let idle = self.known.iter().filter(|(id, _)| !live.contains(id));
            let Some((id, known)) = idle.min_by_key(|(_, known)| known.used) else { return };
            let (id, bytes) = (*id, known.bytes);
            tracing::info!(program = %id, bytes, "a program that no job uses makes room");
            self.remove(id);
            total -= bytes;
        }
    }
}

/// At most a chunk from `offset` on of a program in `dir`, for another coordinator, which checks its hash; `None` if it
/// is not there. Blocks.
pub(crate) fn serve(dir: &Path, id: ProgramId, offset: u64) -> Option<Bytes> {
    // It has this name once it is whole and synced.
    read(&dir.join(id.to_string()), offset, CHUNK_BYTES).ok()
}

fn read(place: &Path, offset: u64, bytes: u32) -> io::Result<Bytes> {
    let mut file = File::open(place)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut chunk = Vec::new();
    file.take(u64::from(bytes)).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// Gives the file `part`, which is open and whole, the name of its program. Blocks.
pub(super) fn seal(file: &File, part: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(part, part.with_extension(""))?;
    match part.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether the bytes at `place` are those of `id`; with the hash, their length is right as well. Blocks.
pub(super) fn check(place: &Path, id: ProgramId) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(place)?)?;
    Ok(*hasher.finalize().as_bytes() == id.0)
}
