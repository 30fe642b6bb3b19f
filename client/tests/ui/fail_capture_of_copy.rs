use allhands::delayed;

fn main() {
    let factor = 2u64;
    let _ = delayed(move |n: u64| n * factor)(1);
}
