//! The program store: executables by the blake3 of their bytes.

use std::path::{Path, PathBuf};

use allhands_common::program::ProgramId;

/// Where `program` lies once it is whole.
pub(crate) fn file(directory: &Path, program: ProgramId) -> PathBuf {
    directory.join(program.to_string())
}
