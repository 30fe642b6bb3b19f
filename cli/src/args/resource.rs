//! `NAME=COUNT` of `--resource`.

use std::str::FromStr;

/// What a worker has besides slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Memory, in bytes.
    Memory(u64),
    /// A counted thing.
    Counted(String, u32),
}

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];

impl FromStr for Resource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected NAME=COUNT, as in gpu=1, or memory=BYTES, as in memory=8GiB";
        let (name, amount) = text.split_once('=').ok_or(wrong)?;
        let none = "there is none of it: leave it away, or give a count from 1 on";
        let given = match name {
            "" => return Err(wrong),
            "cpus" | "slots" => return Err("cpus are slots: use --slots"),
            "memory" => bytes(amount).map(Self::Memory),
            name => amount.parse().ok().map(|count| Self::Counted(name.into(), count)),
        };
        match given.ok_or(wrong)? {
            Self::Memory(0) | Self::Counted(_, 0) => Err(none),
            given => Ok(given),
        }
    }
}

/// Of `--store-bytes`.
pub(super) fn some_bytes(text: &str) -> Result<u64, &'static str> {
    bytes(text).filter(|bytes| *bytes > 0).ok_or("expected a number of bytes, as in 40GiB")
}

fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bytes_and_the_rest_is_counted() {
        assert_eq!("memory=2GiB".parse(), Ok(Resource::Memory(2 << 30)));
        assert_eq!("memory=5".parse(), Ok(Resource::Memory(5)));
        assert_eq!("gpu=2".parse(), Ok(Resource::Counted("gpu".into(), 2)));
        for wrong in ["gpu", "=1", "gpu=many", "memory=2GB", "cpus=4", "gpu=0", "memory=0"] {
            assert!(wrong.parse::<Resource>().is_err(), "{wrong}");
        }
    }
}
