//! Two calls at once, on two executors, and both results.
//!
//! ```text
//! cargo run --release --example two_tasks
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

/// The number of primes below `n`.
#[allhands::task]
fn primes(n: u64) -> usize {
    (2..n).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

/// The number of steps that the longest of the Collatz sequences that start below `n` takes.
#[allhands::task]
fn collatz(n: u64) -> u64 {
    let steps = |start: u64| {
        let next = |n: &u64| match n % 2 {
            _ if *n == 1 => None,
            0 => Some(n / 2),
            _ => Some(3 * n + 1),
        };
        std::iter::successors(Some(start), next).count() as u64 - 1
    };
    (1..n).map(steps).max().unwrap_or(0)
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    // Both run from here on, on two executors.
    let primes = primes::submit(100_000)?;
    let collatz = collatz::submit(100_000)?;
    println!("{} primes below 100000", primes.result()?);
    println!("a Collatz sequence of {} steps", collatz.result()?);
    Ok(())
}
