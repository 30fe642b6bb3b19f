//! How much is lent at once: an executor that is lent what lies around the bytes of one task need not ask again for
//! those of the next.
//!
//! A map costs the same whatever its length, and pages that nobody touches cost nothing. But it keeps the whole
//! file, and an executor counts what it keeps mapped by length (`client/src/shared/kept.rs`): of a file of many
//! gibibytes it is lent a window.

use std::ops::Range;

/// How long a window is, and where it begins: at a multiple of it. A kept map in eight, by what an executor keeps.
const WINDOW_BYTES: u64 = 1 << 30;

/// The windows of a content of `bytes` bytes that `range` lies in.
pub(super) fn around(range: &Range<u64>, bytes: u64) -> Range<u64> {
    if range.start >= range.end || range.end > bytes {
        return range.clone();
    }
    let start = range.start / WINDOW_BYTES * WINDOW_BYTES;
    let end = range.end.div_ceil(WINDOW_BYTES).saturating_mul(WINDOW_BYTES);
    start..end.min(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_window_has_the_range_and_ends_with_the_content() {
        assert_eq!(around(&(7..9), 100), 0..100);
        assert_eq!(around(&(GIB..GIB + 1), 5 * GIB), GIB..2 * GIB);
        assert_eq!(around(&(GIB - 1..GIB + 1), GIB + 5), 0..GIB + 5);
        assert_eq!(around(&(0..3 * GIB), 3 * GIB), 0..3 * GIB);
    }

    #[test]
    fn what_is_no_range_of_the_content_stays_what_it_is() {
        assert_eq!(around(&(3..3), 9), 3..3);
        assert_eq!(around(&(3..10), 9), 3..10);
        assert_eq!(around(&(u64::MAX - 1..u64::MAX), u64::MAX), u64::MAX / GIB * GIB..u64::MAX);
    }
}
