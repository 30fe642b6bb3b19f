use allhands::task;

struct Type;

impl Type {
    #[task]
    fn method(&self) {}
}

#[task]
fn changes(v: &mut Vec<u8>) {
    v.clear();
}

#[task]
fn r#match(n: u8) -> u8 {
    n
}

#[task]
fn nine(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}

#[task]
unsafe fn dangerous() {}

#[task]
extern "C" fn foreign() {}

#[task]
fn anything(n: impl Into<u64>) -> impl Iterator<Item = u64> {
    0..n.into()
}

#[task]
fn longest(a: &str) -> &str {
    a
}

#[task]
struct NotAFunction;

fn main() {}
