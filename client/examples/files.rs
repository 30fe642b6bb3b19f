//! Five files are read and put into capitals, each by its own task. One is missing: that is an error
//! value among the results, and the others are done all the same.
//!
//! ```text
//! cargo run --release --example files
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::fs;
use std::path::PathBuf;

use allhands::Failure;
use allhands::prelude::*;

/// The text of a file in capitals.
fn capitals(path: PathBuf) -> Result<String, Failure> {
    Ok(fs::read_to_string(path)?.to_uppercase())
}

#[allhands::main]
fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let names = ["one", "two", "three", "four", "five"];
    for name in names.iter().filter(|name| **name != "four") {
        fs::write(folder.path().join(name), format!("this is file {name}"))?;
    }

    let paths = names.map(|name| folder.path().join(name));
    let texts = Parallel::new().run(paths.map(delayed(capitals)))?;
    for (name, text) in names.iter().zip(texts) {
        match text {
            Ok(text) => println!("{name}: {text}"),
            Err(error) => println!("{name}: cannot be read: {error}"),
        }
    }
    Ok(())
}
