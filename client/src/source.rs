//! The digest of a task's source: the part of it that is known only when the user's crate is compiled.
//!
//! `#[task]` hashes the function's tokens. What `cfg`s say, what `include_str!` reads and what `env!`
//! finds is decided after the macro ran, so it emits a constant that mixes these in. The hash is
//! FNV-1a with 128 bits, in a `const fn`: it tells versions of honest source apart, no more.

/// Digest of a task's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

/// FNV's prime for 128 bits.
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Digest {
    /// The digest in the order of its bytes, for keys.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Mixes in bytes and their number.
    #[must_use]
    pub const fn bytes(self, bytes: &[u8]) -> Self {
        let mut state = self.0;
        let mut at = 0;
        while at < bytes.len() {
            state = (state ^ bytes[at] as u128).wrapping_mul(PRIME);
            at += 1;
        }
        Self((state ^ bytes.len() as u128).wrapping_mul(PRIME))
    }

    /// Mixes in what a `cfg!` said.
    #[must_use]
    pub const fn flag(self, flag: bool) -> Self {
        self.bytes(&[flag as u8])
    }

    /// Mixes in what an `option_env!` said; unset differs from empty.
    #[must_use]
    pub const fn option(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.flag(true).bytes(text.as_bytes()),
            None => self.flag(false),
        }
    }

    /// Mixes in the crate of a `module_path!()`: its first segment.
    #[must_use]
    pub const fn crate_of(self, module_path: &str) -> Self {
        let path = module_path.as_bytes();
        let mut end = 0;
        while end < path.len() && path[end] != b':' {
            end += 1;
        }
        self.bytes(path.split_at(end).0)
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn every_kind_of_difference_counts() {
        let start = Digest(7);
        let digests = [
            start,
            start.flag(true),
            start.bytes(b""),
            start.bytes(b"ab").bytes(b"c"),
            start.bytes(b"a").bytes(b"bc"),
            start.option(None),
            start.option(Some("")),
        ];
        for (place, digest) in digests.iter().enumerate() {
            assert!(!digests[..place].contains(digest), "number {place} repeats an earlier one");
        }
    }

    #[test]
    fn the_module_does_not_count_but_the_crate_does() {
        let of = |path| Digest(7).crate_of(path);
        assert_eq!(of("app::jobs::night"), of("app::jobs"));
        assert_ne!(of("app"), of("ap"));
    }
}
