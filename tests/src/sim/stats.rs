//! What was done, counted.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<&'static str, u64>);

impl Stats {
    /// One more of `what`.
    pub(super) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// `many` more of `what`.
    pub(super) fn add(&mut self, what: &'static str, many: u64) {
        *self.0.entry(what).or_insert(0) += many;
    }

    /// How many of `what`.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, many)| self.add(what, *many));
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, many)| writeln!(f, "  {many:>12}  {what}"))
    }
}
