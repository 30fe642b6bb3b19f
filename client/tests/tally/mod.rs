//! Counting what tasks have done: in files, because each may run in another process.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Counts in `file`: how often that was done, this time included.
pub(crate) fn tally(file: &Path) -> u64 {
    let mut opened = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    opened.write_all(b".").unwrap();
    counted(file)
}

/// How often it was done so far.
pub(crate) fn counted(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}

/// A file of its own for a test, in a directory that goes with it.
pub(crate) fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tally");
    (directory, file)
}
