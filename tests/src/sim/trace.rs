//! What happened, as a hash, and as text where somebody wants to read it.

use std::fmt::Arguments;

use super::rng::mix;

/// The trace of a run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    keep: bool,
    pub(super) lines: Vec<String>,
}

impl Trace {
    pub(super) const fn new(keep: bool) -> Self {
        Self { hash: 0, keep, lines: Vec::new() }
    }

    /// These numbers describe what happened.
    pub(super) fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = mix(self.hash ^ number).wrapping_add(1);
        }
    }

    /// What happened, in words.
    pub(super) fn say(&mut self, now: u64, words: Arguments<'_>) {
        if self.keep {
            self.lines.push(format!("{:>10}.{:03} ms  {words}", now / 1000, now % 1000));
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }
}
