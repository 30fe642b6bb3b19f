//! Compiles and runs: makes trybuild build instead of check. Under the lints that users may deny.
#![deny(warnings, missing_docs, unreachable_pub, private_interfaces)]
#![forbid(unsafe_code)]

use allhands::{Delayed, delayed};

/// A task in the public interface of a documented crate.
#[allhands::task(retries = 1)]
pub fn heavy(n: u64) -> u64 {
    n + 1
}

/// Its names in a module.
pub mod inner {
    /// Borrows.
    #[allhands::task]
    pub fn length(text: &str) -> usize {
        text.len()
    }

    /// Nobody calls it.
    #[allhands::task]
    pub(crate) fn unused<T>(value: T) -> T
    where
        T: serde::Serialize + serde::de::DeserializeOwned + 'static,
    {
        value
    }
}

fn main() {
    let _: Vec<Delayed<u64>> = (0..3).map(delayed(heavy)).collect();
    let _: Delayed<usize> = inner::length::delayed("abc");
    let _ = inner::unused(heavy(1));
}
