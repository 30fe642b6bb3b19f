use allhands::{delayed, task};

struct Plain;

fn takes(_: u64, _: Plain) -> f64 {
    1.0
}

#[task]
fn heavy(_: u64, _: Plain) -> f64 {
    1.0
}

#[task]
fn number(n: u64) -> u64 {
    n
}

fn main() {
    delayed(takes)(1, Plain);
    number::delayed("1");
}
