//! The one source of chance: SplitMix64.

use std::ops::Range;

/// A stream of numbers from a seed.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number of `range`, which is not empty.
    pub(super) const fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in `per_mille` of 1,000 cases.
    pub(super) const fn chance(&mut self, per_mille: u32) -> bool {
        self.next() % 1000 < per_mille as u64
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.within(0..among.len() as u64) as usize]
    }

    /// Most often near the start of `range`, seldom near its end: as delays and durations are.
    pub(super) fn skewed(&mut self, range: Range<u64>) -> u64 {
        let span = range.end - range.start;
        let shift = self.within(0..8);
        range.start + self.next() % (span >> shift).max(1)
    }
}

/// Spreads the bits of a number over all of it.
pub(super) const fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
