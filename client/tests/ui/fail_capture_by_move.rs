use allhands::delayed;

fn main() {
    let factor = vec![2u64];
    delayed(move |n: u64| n * factor[0])(1);
}
