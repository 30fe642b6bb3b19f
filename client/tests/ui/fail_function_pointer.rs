use allhands::delayed;

fn main() {
    let f: fn(u64) -> u64 = |n| n + 1;
    let _ = delayed(f)(1);
}
