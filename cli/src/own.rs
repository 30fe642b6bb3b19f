//! How this program is started as the command again.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;

/// The words that come before the command's own. None, but in a program that is the command only
/// when it is told so.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    before: Vec<OsString>,
}

impl Own {
    /// `words` are the last of this process's.
    pub(crate) fn of(words: &[OsString]) -> Self {
        let all = std::env::args_os();
        let before = (all.len() + 1).saturating_sub(words.len().max(1));
        Self { before: all.take(before).skip(1).collect() }
    }

    /// The executable, and all words that start it with `arguments`.
    pub(crate) fn command(
        &self,
        arguments: &[OsString],
    ) -> anyhow::Result<(PathBuf, Vec<OsString>)> {
        let executable = std::env::current_exe().context("this program has no path")?;
        Ok((executable, self.before.iter().chain(arguments).cloned().collect()))
    }
}
