use allhands::{delayed, task};

struct Plain;

#[derive(Debug)]
struct MyError;

fn value() -> Plain {
    Plain
}

fn error() -> Result<f64, MyError> {
    Err(MyError)
}

#[task]
fn heavy() -> Plain {
    Plain
}

fn main() {
    delayed(value)();
    delayed(error)();
}
