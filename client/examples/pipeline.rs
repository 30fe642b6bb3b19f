//! A pipeline: books are surveyed at the same time (fan-out), each by a task that has its pages counted by others
//! (nested), what they count comes together pair by pair (fan-in), and of a second row of calls the rest is called off
//! when the first of them fails.
//!
//! ```text
//! cargo run --release --example pipeline
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::collections::BTreeMap;
use std::time::Duration;

use allhands::prelude::*;
use allhands::{Until, context, wait};

/// How often each letter occurs.
type Letters = BTreeMap<char, u64>;

const WORDS: [&str; 6] = ["many", "hands", "make", "light", "work", "together"];

/// Reads page `page` of a book.
fn read(book: u64, page: u64) -> Result<String, String> {
    match (book, page) {
        (404, 3) => Err(format!("page {page} of book {book} is torn out")),
        _ => Ok((0..200).map(|n| WORDS[((n * n + page + book) % 6) as usize]).collect()),
    }
}

#[allhands::task]
fn count(text: &str) -> Letters {
    let mut letters = Letters::new();
    text.chars().for_each(|letter| *letters.entry(letter).or_default() += 1);
    letters
}

#[allhands::task]
fn add(mut left: Letters, right: Letters) -> Letters {
    right.into_iter().for_each(|(letter, n)| *left.entry(letter).or_default() += n);
    left
}

#[allhands::task]
fn sum(all: &[Letters]) -> Letters {
    all.iter().cloned().fold(Letters::new(), add)
}

/// Each page is a task of its own, and their sum another one. This one ends when it has called them: what it returns
/// is what will come of the last.
#[allhands::task]
fn survey(book: u64) -> Result<Execution<Letters>, String> {
    let pages = (0..16).map(|page| read(book, page)).collect::<Result<Vec<_>, _>>()?;
    let counted = || sum::submit(&pages.iter().map(count::submit).collect::<Result<Vec<_>, _>>()?);
    counted().map_err(|error| error.to_string())
}

/// Reads a book from its first page to its last, as long as somebody wants to know.
#[allhands::task]
#[expect(clippy::disallowed_methods, reason = "it takes the time that reading would")]
fn proofread(book: u64) -> Result<u64, String> {
    let mut bytes = 0;
    for page in 0..16 {
        if context().cancelled().is_set() {
            break;
        }
        bytes += read(book, page)?.len() as u64;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(bytes)
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    // What all these calls return stays in the cluster, and goes from task to task.
    let surveys = (0..8).map(survey::submit).collect::<Result<Vec<_>, _>>()?;
    let mut row: Vec<_> = surveys.into_iter().map(|survey| survey.flatten()).collect();
    while row.len() > 1 {
        let pairs = row.chunks_exact(2).map(|pair| add::submit(&pair[0], &pair[1]));
        row = pairs.collect::<allhands::Result<_>>()?;
    }
    let letters = row[0].result()?;
    println!("{} letters in 8 books, the e {} times", letters.values().sum::<u64>(), letters[&'e']);

    let books = (400..1_400).map(proofread::submit).collect::<Result<Vec<_>, _>>()?;
    let waited = wait(&books, Until::FirstError);
    let called_off = waited.open.iter().filter(|place| books[**place].cancel()).count();
    let failed = waited.done.iter().find_map(|place| books[*place].result().ok()?.err());
    if let Some(error) = failed {
        println!("{called_off} books are not read to their end, because {error}");
    }
    Ok(())
}
