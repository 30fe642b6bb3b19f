//! `Parallel` inline, and on a coordinator that the test plays on the session's own thread.

pub(crate) mod fake;
mod inline;
mod on_cluster;

use serde::{Deserialize, Serialize};

fn square(n: u64) -> u64 {
    n * n
}

#[expect(clippy::disallowed_methods, reason = "the task is to take time")]
fn slowly(n: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(5));
    n
}

fn fails_at_three(n: u64) -> u64 {
    assert!(n != 3, "three is too much");
    n
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Odd(u64);

fn even(n: u64) -> Result<u64, Odd> {
    if n.is_multiple_of(2) { Ok(n) } else { Err(Odd(n)) }
}
