use allhands::{call, delayed, task};

fn add(a: u64, b: i32) -> u64 {
    a + b as u64
}

#[task]
fn heavy(a: u64, b: i32) -> u64 {
    add(a, b)
}

fn main() {
    delayed(add)(1);
    delayed(add)(1, 2, 3);
    call(add, (1,));
    heavy::delayed(1);
}
