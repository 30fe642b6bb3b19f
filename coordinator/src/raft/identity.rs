//! Whose directory this is: an exclusive lock, and a stamp with cluster and node that is checked at every start.
//!
//! The stamp is written once, before the first vote, and synced with its directory; the lock dies with the process.
//! Starting with another node's directory would vote twice, so it is refused.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use allhands_common::id::ClusterId;
use rustix::fs::{FlockOperation, flock};

use super::types::NodeId;

const STAMP: &str = "identity";
const LOCK: &str = "lock";
const FIRST_LINE: &str = "allhands coordinator directory 1";

/// Why a directory is not ours to use.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process has it. Ends when that process does.
    #[error("{dir} is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to another node or cluster.
    #[error(
        "{dir} belongs to {found}, this is {expected}: give this coordinator a directory of its own"
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
    /// Files without a stamp, or a stamp that nobody wrote.
    #[error("{dir} is neither empty nor stamped as a coordinator's directory: refusing to use it")]
    Unknown {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refused.
    #[error("{dir} cannot be claimed")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// The lock on a directory. Held as long as anything writes there.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

impl Claim {
    /// Makes `dir` if need be, locks it, and checks or writes its stamp.
    pub fn take(dir: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, ClaimError> {
        let io = |source| ClaimError::Io { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(io)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                ClaimError::InUse { dir: dir.to_owned() }
            } else {
                io(error.into())
            }
        })?;
        let expected = format!("cluster {cluster} node {node}");
        match fs::read_to_string(dir.join(STAMP)) {
            Ok(stamp) => {
                let Some(found) = stamp.strip_prefix(FIRST_LINE) else {
                    return Err(ClaimError::Unknown { dir: dir.to_owned() });
                };
                if found.trim() != expected {
                    let found = found.trim().to_owned();
                    return Err(ClaimError::NotOurs { dir: dir.to_owned(), found, expected });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let used = fs::read_dir(dir).map_err(io)?.any(|entry| {
                    !entry.is_ok_and(|entry| {
                        let name = entry.file_name();
                        name == LOCK || name == format!("{STAMP}.tmp").as_str()
                    })
                });
                if used {
                    return Err(ClaimError::Unknown { dir: dir.to_owned() });
                }
                stamp(dir, &expected).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        Ok(Self { _lock: lock })
    }
}

fn stamp(dir: &Path, whose: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{STAMP}.tmp"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{FIRST_LINE}\n{whose}")?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(STAMP))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([1; 16]);
        let claim = Claim::take(dir.path(), cluster, 1).unwrap();
        assert!(matches!(Claim::take(dir.path(), cluster, 1), Err(ClaimError::InUse { .. })));
        drop(claim);
        Claim::take(dir.path(), cluster, 1).unwrap();
        assert!(matches!(Claim::take(dir.path(), cluster, 2), Err(ClaimError::NotOurs { .. })));
        let other = ClusterId([2; 16]);
        assert!(matches!(Claim::take(dir.path(), other, 1), Err(ClaimError::NotOurs { .. })));
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), b"x").unwrap();
        let claim = Claim::take(dir.path(), ClusterId([1; 16]), 1);
        assert!(matches!(claim, Err(ClaimError::Unknown { .. })));
    }
}
