use allhands::{delayed, task};

#[task(recurrent)]
fn ends_at_once(n: u64) -> u64 {
    n
}

#[task(memo, defer)]
fn both() -> u64 {
    1
}

#[task(when = is_busy)]
fn never_again() -> Result<u64, String> {
    Ok(1)
}

#[task(retries = 3, when = is_busy)]
fn cannot_fail(n: u64) -> u64 {
    n
}

fn is_busy(error: &String) -> bool {
    error == "busy"
}

fn plain(n: u64) -> u64 {
    n
}

fn main() {
    let _ = delayed(plain)(1).recurrent();
    let _ = delayed(plain)(1).retry_when(is_busy);
}
