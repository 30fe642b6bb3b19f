//! What is where in the directory of a store.
//!
//! ```text
//! lock                    locked by the process that has the store open
//! stamp                   version of this layout, and whose store it is
//! blobs/BLOB.bytes        a blob's bytes: all its space from the beginning, never cut
//! blobs/BLOB.entry        its manifest, which chunks are there, its last use        (entry.rs)
//! blobs/BLOB.renewed      a copy that did not take the place of a damaged one; nothing of it survives a start
//! pins/OWNER.BLOB         an empty file: this owner pins this blob
//! incoming/NUMBER         bytes whose name is not known yet; nothing of it survives a start
//! ```
//! BLOB is the blob's id. The names are the index: a file system keeps them through a crash better than we would.

use std::path::{Path, PathBuf};

use allhands_common::blob::BlobId;

use super::owner::Owner;

/// The directories and files of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) blobs: PathBuf,
    pub(super) pins: PathBuf,
    pub(super) incoming: PathBuf,
}

/// The files of one blob.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) bytes: PathBuf,
    pub(super) entry: PathBuf,
    pub(super) renewed: PathBuf,
}

/// What a name in `blobs/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlobFile {
    Bytes(BlobId),
    Entry(BlobId),
    Renewed(BlobId),
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            blobs: root.join("blobs"),
            pins: root.join("pins"),
            incoming: root.join("incoming"),
        }
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn stamp(&self) -> PathBuf {
        self.root.join("stamp")
    }

    pub(super) fn blob(&self, id: &BlobId) -> Paths {
        Paths {
            bytes: self.blobs.join(format!("{id}.bytes")),
            entry: self.blobs.join(format!("{id}.entry")),
            renewed: self.blobs.join(format!("{id}.renewed")),
        }
    }

    pub(super) fn pin(&self, owner: Owner, id: &BlobId) -> PathBuf {
        self.pins.join(format!("{owner}.{id}"))
    }

    pub(super) fn incoming(&self, number: u64) -> PathBuf {
        self.incoming.join(number.to_string())
    }
}

/// `None` for a name that is none of ours: such files are left alone.
pub(super) fn parse_blob(name: &str) -> Option<BlobFile> {
    match name.split_once('.')? {
        (id, "bytes") => id.parse().ok().map(BlobFile::Bytes),
        (id, "entry") => id.parse().ok().map(BlobFile::Entry),
        (id, "renewed") => id.parse().ok().map(BlobFile::Renewed),
        _ => None,
    }
}

/// `None` for a name that is none of ours.
pub(super) fn parse_pin(name: &str) -> Option<(Owner, BlobId)> {
    let (owner, id) = name.split_once('.')?;
    Some((owner.parse().ok()?, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use allhands_common::id::JobId;

    use super::*;

    #[test]
    fn names_parse_as_they_are_written() {
        let (layout, id, owner) =
            (Layout::new(Path::new("/s")), BlobId([7; 32]), Owner::Job(JobId(3)));
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let paths = layout.blob(&id);
        assert_eq!(parse_blob(&name(&paths.bytes)), Some(BlobFile::Bytes(id)));
        assert_eq!(parse_blob(&name(&paths.entry)), Some(BlobFile::Entry(id)));
        assert_eq!(parse_blob(&name(&paths.renewed)), Some(BlobFile::Renewed(id)));
        assert_eq!(parse_pin(&name(&layout.pin(owner, &id))), Some((owner, id)));
        assert_eq!(parse_blob("lost+found"), None);
        assert_eq!(parse_blob("0.bytes"), None);
        assert_eq!(parse_pin("job-3"), None);
    }
}
