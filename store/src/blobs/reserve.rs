//! Takes space for a blob: where a quota or a disk that is full shows, and nowhere later.

use std::io;
use std::path::Path;
use std::sync::Arc;

use allhands_common::blob::{BlobId, Manifest};

use super::body::Chunk;
use super::error::{ReserveError, StoreFull};
use super::index::{Index, disk_bytes};
use super::layout::Paths;
use super::{Blob, Store, entry};
use crate::disk::DiskFile;

impl Store {
    /// A handle on the blob of this manifest; where none of it is here, with all the space that it needs and
    /// no chunk. Two that reserve one blob get the same.
    ///
    /// # Errors
    /// There is no room, also after all that may be evicted was.
    pub fn reserve(&self, manifest: &Manifest) -> Result<Blob, ReserveError> {
        let id = manifest.id();
        let mut index = self.lock();
        if let Some(body) = index.hold(&id) {
            let used = index.touch(&id);
            drop(index);
            return Ok(self.handle(body, used));
        }
        let bytes = manifest.bytes();
        self.make_room(&mut index, disk_bytes(bytes)).map_err(ReserveError::Full)?;
        let used = index.tick();
        let paths = self.shared.layout.blob(&id);
        while let Err(source) = self.create(&paths, manifest, used) {
            self.clear(&paths);
            if source.kind() != io::ErrorKind::StorageFull {
                return Err(ReserveError::Io { id, path: paths.bytes, source });
            }
            // Others have filled the disk: what the quota would still let stay has to go.
            if !self.evict_one(&mut index) {
                let dir = self.shared.layout.root.clone();
                return Err(ReserveError::DiskFull { id, bytes, dir });
            }
        }
        let absent = vec![Chunk::Absent; manifest.chunks().len()];
        Ok(self.add(&mut index, id, manifest.clone(), absent, used))
    }

    /// Notes a blob whose files are here, and gives a handle on it.
    pub(super) fn add(
        &self,
        index: &mut Index,
        id: BlobId,
        manifest: Manifest,
        chunks: Vec<Chunk>,
        used: u64,
    ) -> Blob {
        let body = self.body(id, manifest, chunks);
        index.insert(body.clone(), used);
        index.hold(&id);
        self.handle(body, None)
    }

    fn create(&self, paths: &Paths, manifest: &Manifest, used: u64) -> io::Result<()> {
        self.create_new(&paths.bytes)?.allocate(manifest.bytes())?;
        self.write_entry(paths, manifest, used, false)
    }

    /// Writes the entry of a blob.
    pub(super) fn write_entry(
        &self,
        paths: &Paths,
        manifest: &Manifest,
        used: u64,
        claimed: bool,
    ) -> io::Result<()> {
        let bytes = entry::encode(manifest, used, claimed);
        let file = self.create_new(&paths.entry)?;
        file.allocate(bytes.len() as u64)?;
        file.write_at(&bytes, 0)
    }

    /// A new file, in place of one that could not be removed or read before.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.shared.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.shared.disk.remove(path)?;
                self.shared.disk.create(path)
            }
            created => created,
        }
    }

    /// Removes what there is of a blob's files. What stays is an orphan, which the next start collects.
    pub(super) fn clear(&self, paths: &Paths) {
        _ = self.shared.disk.remove(&paths.entry);
        _ = self.shared.disk.remove(&paths.bytes);
    }

    /// Evicts until `needed_bytes` fit into the quota.
    pub(super) fn make_room(&self, index: &mut Index, needed_bytes: u64) -> Result<(), StoreFull> {
        for id in index.make_room(needed_bytes)? {
            tracing::info!(blob = %id, "a blob that nobody uses makes room");
            // Dropped here: the space has to be free before it is taken again.
            self.take_out(index, &id);
        }
        Ok(())
    }

    /// Evicts the blob that was not used for longest; whether there was one that may go.
    pub(super) fn evict_one(&self, index: &mut Index) -> bool {
        let Some(id) = index.oldest() else { return false };
        tracing::info!(blob = %id, "a blob that nobody uses makes room on a full disk");
        self.take_out(index, &id);
        true
    }
}
