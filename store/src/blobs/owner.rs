//! Who pins a blob, and how that is written into a name.

use std::fmt;
use std::str::FromStr;

use allhands_common::id::JobId;

/// What keeps a blob from being evicted. A blob may have any number of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A job: until it ends.
    Job(JobId),
    /// An entry of the result cache, named by its key.
    Cache([u8; 32]),
    /// Somebody in or beside this process, by a number that the process gives. Forgotten when the store is opened
    /// again: leases end with the process that gave them.
    Lease(u64),
}

impl Owner {
    /// Whether its pins outlive the process.
    pub(super) const fn lasts(self) -> bool {
        match self {
            Self::Job(_) | Self::Cache(_) => true,
            Self::Lease(_) => false,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job-{id}"),
            Self::Cache(key) => {
                f.write_str("cache-")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Lease(number) => write!(f, "lease-{number}"),
        }
    }
}

/// A text that names no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the owner of a blob: expected job-NUMBER, cache-KEY or lease-NUMBER")]
pub struct ParseOwnerError;

impl FromStr for Owner {
    type Err = ParseOwnerError;

    fn from_str(text: &str) -> Result<Self, ParseOwnerError> {
        let (kind, rest) = text.split_once('-').ok_or(ParseOwnerError)?;
        match kind {
            "job" => rest.parse().map(Self::Job).map_err(|_| ParseOwnerError),
            "lease" => rest.parse().map(Self::Lease).map_err(|_| ParseOwnerError),
            // A key is written as every 32 bytes here are.
            "cache" => rest
                .parse()
                .map(|allhands_common::blob::ChunkId(key)| Self::Cache(key))
                .map_err(|_| ParseOwnerError),
            _ => Err(ParseOwnerError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_print_and_parse_alike() {
        for owner in [Owner::Job(JobId(7)), Owner::Cache([0xab; 32]), Owner::Lease(u64::MAX)] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        for wrong in ["", "job", "job-", "job-x", "cache-12", "somebody-1"] {
            assert_eq!(wrong.parse::<Owner>(), Err(ParseOwnerError), "{wrong}");
        }
    }
}
