//! Directories of data: who may look into them, and which process works there.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};

/// Arguments and results of other people's tasks are nobody else's business.
pub(crate) const PRIVATE: u32 = 0o700;

/// Others may pass through to what they are told of, and see nothing else.
pub(crate) const PASSABLE: u32 = 0o711;

/// Makes `dir` with this mode, and what is missing above it. One that is there stays as it is.
pub(crate) fn make(dir: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(|| format!("{} cannot be made", dir.display()))
}

/// Locks `dir` by its file `name` for `who`, until this process ends or drops it.
pub(crate) fn lock(dir: &Path, name: &str, who: &str) -> anyhow::Result<File> {
    let path = dir.join(name);
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("{who} is running in {} already", dir.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}
