//! What the tests of the store share: contents, stores, and how to look at a store from outside.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use allhands_common::blob::{BlobId, CHUNK_BYTES, Manifest};
use allhands_common::id::ClusterId;

use crate::blobs::*;

pub(super) const CHUNK: usize = CHUNK_BYTES as usize;
pub(super) const CLUSTER: ClusterId = ClusterId([7; 16]);
/// No test reaches it that does not mean to.
pub(super) const AMPLE: u64 = 1 << 30;

/// Bytes that no other seed gives, and no other place.
pub(super) fn content(seed: u8, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed]);
    hasher.finalize_xof().fill(&mut content);
    content
}

pub(super) fn manifest(content: &[u8]) -> Manifest {
    Manifest::of(content).unwrap()
}

pub(super) fn id(content: &[u8]) -> BlobId {
    manifest(content).id()
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(dir, CLUSTER, AMPLE).unwrap()
}

/// Chunk `index` of `content`.
pub(super) fn chunk(content: &[u8], index: u32) -> &[u8] {
    content.chunks(CHUNK).nth(index as usize).unwrap()
}

/// Writes these chunks.
pub(super) fn write(blob: &Blob, content: &[u8], indices: impl IntoIterator<Item = u32>) {
    for index in indices {
        blob.write_chunk(index, chunk(content, index)).unwrap();
    }
}

/// A complete blob.
pub(super) fn stored(store: &Store, content: &[u8]) -> Blob {
    let blob = store.reserve(&manifest(content)).unwrap();
    write(&blob, content, 0..content.len().div_ceil(CHUNK) as u32);
    assert!(blob.is_complete());
    blob
}

/// All that is here of a blob is what was stored, by each way to get at it.
pub(super) fn whole(blob: &Blob, content: &[u8]) {
    assert!(blob.is_complete());
    for index in 0..content.len().div_ceil(CHUNK) as u32 {
        assert!(blob.read_chunk(index).unwrap() == chunk(content, index), "chunk {index}");
    }
    assert!(*blob.map(0..content.len() as u64).unwrap() == *content);
    assert!(*blob.file_range(0..content.len() as u64).unwrap().map().unwrap() == *content);
}

/// Flips a bit of a blob's file at `at`, as a disk would.
pub(super) fn flip(dir: &Path, id: &BlobId, at: u64) {
    let path = Layout::new(dir).blob(id).bytes;
    // It is sealed against whoever is not root.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(&path, mode).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The names in one of a store's directories.
pub(super) fn names(dir: &Path, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join(directory)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A run of chunks, as lists have them.
pub(super) fn run(start: u32, end: u32) -> Vec<Range<u32>> {
    std::iter::once(start..end).collect()
}

/// What a blob of so many bytes takes.
pub(super) fn taken(bytes: usize) -> u64 {
    index::disk_bytes(bytes as u64)
}
