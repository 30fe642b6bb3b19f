//! An execution of something else, and numbers that are not converted.
use allhands::Execution;

#[allhands::task]
fn number(n: u64) -> u64 {
    n
}

#[allhands::task(wait(m))]
fn waits(n: Execution<u64>) -> bool {
    n.done()
}

fn main() {
    let text = allhands::delayed(|| String::new())().submit().unwrap();
    number::submit(&text).unwrap();
    let many = vec![number::submit(1).unwrap()];
    number::submit(&many).unwrap();
    fn needs_future<F: Future>(_: F) {}
    needs_future(number::submit(1).unwrap());
}
