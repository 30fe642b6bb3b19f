//! Opens a store: whose it is, what a crash has left, what is to be collected.
//!
//! Files without an entry, entries without a file of the right length, entries that are torn, pins of blobs
//! that are not here and everything that was coming in are removed. Names that are none of ours are left
//! alone. What an entry claims is believed until it is used (`body.rs`), so that opening a store reads its
//! entries and none of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use allhands_common::blob::BlobId;
use allhands_common::id::ClusterId;

use super::body::Chunk;
use super::entry::{self, Entry};
use super::error::OpenStoreError;
use super::index::Index;
use super::layout::{self, BlobFile, Layout};
use super::{Shared, Store};
use crate::disk::{Access, Disk};

/// The first bytes of a store's stamp; the cluster's id follows.
const MAGIC: [u8; 8] = *b"AHSTORE1";
const STAMP_BYTES: usize = 24;

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    cluster: ClusterId,
    quota_bytes: u64,
) -> Result<Store, OpenStoreError> {
    let io = |what| {
        let dir = dir.to_owned();
        move |source| OpenStoreError::Io { dir, what, source }
    };
    let layout = Layout::new(dir);
    disk.make_directory(dir).map_err(io("making the directory"))?;
    let lock = lock(&layout)?;
    stamp(&*disk, &layout, cluster)?;
    for directory in [&layout.blobs, &layout.pins, &layout.incoming] {
        disk.make_directory(directory).map_err(io("making a directory"))?;
    }
    disk.sync_directory(dir).map_err(io("syncing the directory"))?;

    for name in disk.list(&layout.incoming).map_err(io("listing what was coming in"))? {
        collect(&*disk, &layout.incoming.join(name));
    }
    let found = entries(&*disk, &layout).map_err(io("reading the entries"))?;
    let shared = Shared {
        disk,
        layout,
        index: Mutex::new(Index::new(quota_bytes)),
        incoming: AtomicU64::new(0),
        collects: AtomicBool::new(false),
        _lock: lock,
    };
    let store = Store { shared: Arc::new(shared) };
    store.fill(found);
    store.find_pins().map_err(io("listing the pins"))?;
    let mut index = store.lock();
    // Where pinned blobs are more than the quota nothing else is taken in.
    while index.usage().held_bytes > quota_bytes && store.evict_one(&mut index) {}
    drop(index);
    Ok(store)
}

fn lock(layout: &Layout) -> Result<File, OpenStoreError> {
    let dir = || layout.root.clone();
    let io = |source| OpenStoreError::Io { dir: dir(), what: "making the lock file", source };
    let file = File::options().write(true).create(true).truncate(false).open(layout.lock());
    let file = file.map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenStoreError::InUse { dir: dir() }),
        Err(TryLockError::Error(source)) => {
            Err(OpenStoreError::Io { dir: dir(), what: "locking it", source })
        }
    }
}

/// Reads whose store it is, or writes it into a new one.
fn stamp(disk: &dyn Disk, layout: &Layout, cluster: ClusterId) -> Result<(), OpenStoreError> {
    let (dir, path) = (layout.root.clone(), layout.stamp());
    let io = |source| OpenStoreError::Io { dir: dir.clone(), what: "reading the stamp", source };
    let mut stamp = [0; STAMP_BYTES];
    match disk.open(&path, Access::Read) {
        Ok(file) => {
            if file.length().map_err(io)? != STAMP_BYTES as u64 {
                return Err(OpenStoreError::Stamp { dir, path });
            }
            file.read_at(&mut stamp, 0).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            stamp[..8].copy_from_slice(&MAGIC);
            stamp[8..].copy_from_slice(&cluster.0);
            return write_stamp(disk, layout, &stamp).map_err(|source| OpenStoreError::Io {
                dir,
                what: "writing the stamp",
                source,
            });
        }
        Err(error) => return Err(io(error)),
    }
    let mut found = ClusterId([0; 16]);
    found.0.copy_from_slice(&stamp[8..]);
    match (stamp.starts_with(&MAGIC), found == cluster) {
        (false, _) => Err(OpenStoreError::Stamp { dir, path }),
        (true, false) => Err(OpenStoreError::OtherCluster { dir, found, wanted: cluster }),
        (true, true) => Ok(()),
    }
}

/// Written whole under another name first: a torn stamp would keep the store closed.
fn write_stamp(disk: &dyn Disk, layout: &Layout, stamp: &[u8; STAMP_BYTES]) -> io::Result<()> {
    let new = layout.root.join("stamp.new");
    // One that a crash has left.
    _ = disk.remove(&new);
    let file = disk.create(&new)?;
    file.write_at(stamp, 0)?;
    file.sync()?;
    disk.rename(&new, &layout.stamp())
}

/// The entries whose blobs are here. Everything else that is ours in `blobs/` is removed.
fn entries(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(BlobId, Entry)>> {
    let (mut bytes, mut entries) = (BTreeSet::new(), BTreeSet::new());
    for name in disk.list(&layout.blobs)? {
        match layout::parse_blob(&name) {
            Some(BlobFile::Bytes(id)) => _ = bytes.insert(id),
            Some(BlobFile::Entry(id)) => _ = entries.insert(id),
            Some(BlobFile::Renewed(id)) => collect(disk, &layout.blob(&id).renewed),
            None => {}
        }
    }
    let mut found = BTreeMap::new();
    for id in &entries {
        match read(disk, layout, id) {
            Ok(Some(entry)) if bytes.contains(id) => _ = found.insert(*id, entry),
            Ok(_) => {}
            Err(error) => {
                // Left where it is: the next start may be luckier, and to store the blob again replaces it.
                tracing::error!(blob = %id, %error, "a blob cannot be read: it is not used");
                bytes.remove(id);
                continue;
            }
        }
        if !found.contains_key(id) {
            collect(disk, &layout.blob(id).entry);
        }
    }
    for id in bytes.iter().filter(|id| !found.contains_key(id)) {
        collect(disk, &layout.blob(id).bytes);
    }
    Ok(found.into_iter().collect())
}

/// The entry of a blob, if it is one and the file beside it has the right length.
fn read(disk: &dyn Disk, layout: &Layout, id: &BlobId) -> io::Result<Option<Entry>> {
    let paths = layout.blob(id);
    let file = disk.open(&paths.entry, Access::Read)?;
    let Some(entry) = entry::read(&*file, id)? else { return Ok(None) };
    match disk.open(&paths.bytes, Access::Read) {
        Ok(file) => Ok((file.length()? == entry.manifest.bytes()).then_some(entry)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn collect(disk: &dyn Disk, path: &PathBuf) {
    tracing::info!(?path, "collecting what a crash has left");
    if let Err(error) = disk.remove(path) {
        tracing::warn!(?path, %error, "a file that belongs to no blob cannot be removed");
    }
}

impl Store {
    /// Notes what was found, in the order of its last uses, whose numbers begin anew.
    fn fill(&self, mut found: Vec<(BlobId, Entry)>) {
        found.sort_by_key(|(_, entry)| entry.used);
        let mut index = self.lock();
        for (id, entry) in found {
            let chunk = |index| match entry.claims(index) {
                true => Chunk::Claimed,
                false => Chunk::Absent,
            };
            let chunks = (0..entry.manifest.chunks().len() as u32).map(chunk).collect();
            let used = index.tick();
            if used != entry.used {
                // Else later uses could seem to be earlier than this one, after another start.
                self.body(id, entry.manifest.clone(), Vec::new()).note_used(used);
            }
            index.insert(self.body(id, entry.manifest, chunks), used);
        }
    }

    fn find_pins(&self) -> io::Result<()> {
        let Shared { disk, layout, .. } = &*self.shared;
        let mut index = self.lock();
        for (owner, id) in
            disk.list(&layout.pins)?.iter().filter_map(|name| layout::parse_pin(name))
        {
            if index.pin(&id, owner).is_none() {
                collect(&**disk, &layout.pin(owner, &id));
            }
        }
        Ok(())
    }
}
