//! A table of a SQLite database is updated by two hundred tasks, each with a connection of its own.
//! None of the updates is lost.
//!
//! ```text
//! cargo run --release --example db_updates
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::path::PathBuf;
use std::time::Duration;

use allhands::Failure;
use allhands::prelude::*;
use rusqlite::{Connection, TransactionBehavior};

/// Tasks, and rows that they update in turn.
const TASKS: u32 = 200;
const ROWS: u32 = 10;

/// Opens the database; whoever finds it locked waits.
fn open(path: &PathBuf) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    Ok(connection)
}

/// Adds one to a row.
fn count(path: PathBuf, row: u32) -> Result<(), Failure> {
    let mut connection = open(&path)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("UPDATE counters SET value = value + 1 WHERE id = ?1", [row])?;
    transaction.commit()?;
    Ok(())
}

#[allhands::main]
fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("counters.sqlite");
    let connection = open(&path)?;
    connection
        .execute_batch("CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)")?;
    for row in 0..ROWS {
        connection.execute("INSERT INTO counters VALUES (?1, 0)", [row])?;
    }

    let updates = (0..TASKS).map(|task| delayed(count)(path.clone(), task % ROWS));
    Parallel::new().try_run(updates).map_err(allhands::Error::from)?;

    let sum: u32 = connection.query_row("SELECT sum(value) FROM counters", [], |row| row.get(0))?;
    println!("{TASKS} updates, the table counts {sum}");
    Ok(())
}
