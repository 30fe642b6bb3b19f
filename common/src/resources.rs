//! What a task needs besides time, and what a worker has of it.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

/// Amounts by name, for a task (what it needs) or a worker (what it has). `cpus` are slots; the rest
/// are counts of whatever the operator names ("gpu", "licence").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Slots.
    pub cpus: u32,
    /// Bytes of memory; 0 = not counted.
    pub memory_bytes: u64,
    /// Counted things by name.
    pub custom: BTreeMap<String, u32>,
}

impl Default for Resources {
    fn default() -> Self {
        Self::cpus(1)
    }
}

impl Resources {
    /// Just slots.
    pub const fn cpus(cpus: u32) -> Self {
        Self { cpus, memory_bytes: 0, custom: BTreeMap::new() }
    }

    /// Adds `count` of the thing called `name`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, count: u32) -> Self {
        self.custom.insert(name.into(), count);
        self
    }

    /// Adds memory, in bytes.
    #[must_use]
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Whether something of this size ever fits into `whole`.
    pub fn fits(&self, whole: &Self) -> bool {
        self.missing(whole).is_none()
    }

    /// The first thing that `whole` has too little of: its name, what is needed, what is there.
    pub fn missing<'a>(&'a self, whole: &Self) -> Option<(&'a str, u64, u64)> {
        if self.cpus > whole.cpus {
            return Some(("cpus", self.cpus.into(), whole.cpus.into()));
        }
        if self.memory_bytes > whole.memory_bytes && self.memory_bytes > 0 {
            return Some(("memory", self.memory_bytes, whole.memory_bytes));
        }
        self.custom.iter().find_map(|(name, need)| {
            let there = whole.custom.get(name).copied().unwrap_or(0);
            (*need > there).then_some((name.as_str(), (*need).into(), there.into()))
        })
    }

    /// Takes `part` away. The caller has checked that it fits.
    pub fn subtract(&mut self, part: &Self) {
        self.cpus = self.cpus.saturating_sub(part.cpus);
        self.memory_bytes = self.memory_bytes.saturating_sub(part.memory_bytes);
        for (name, count) in &part.custom {
            if let Some(there) = self.custom.get_mut(name) {
                *there = there.saturating_sub(*count);
            }
        }
    }

    /// Gives `part` back.
    pub fn add(&mut self, part: &Self) {
        self.cpus += part.cpus;
        self.memory_bytes += part.memory_bytes;
        for (name, count) in &part.custom {
            *self.custom.entry(name.clone()).or_insert(0) += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_missing_is_named() {
        let whole = Resources::cpus(4).with("gpu", 1);
        assert!(Resources::cpus(4).with("gpu", 1).fits(&whole));
        assert_eq!(Resources::cpus(1).with("gpu", 2).missing(&whole), Some(("gpu", 2, 1)));
        assert_eq!(Resources::cpus(1).memory(5).missing(&whole), Some(("memory", 5, 0)));
    }
}
