//! Every example runs, prints what it promises and leaves nothing behind. `cargo test` has built them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

/// What an example printed.
fn run(name: &str) -> String {
    let mut folder: PathBuf = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let program = folder.join("examples").join(name);
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&program)
        .env_remove("ALLHANDS_CLUSTER")
        .env("TMPDIR", folder.path())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{name}: {}\n{text}\n{errors}", output.status);
    let left: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "{name} leaves {left:?}");
    text
}

#[test]
fn quickstart_prints_the_first_five_factorials_and_who_made_them() {
    let text = run("quickstart");
    assert!(text.starts_with("[1, 1, 2, 6, 24]\n"), "{text}");
    assert!(text.contains("10000 factorials in "), "{text}");
    let counts = text.lines().filter(|line| line.starts_with("executor "));
    let tasks: usize = counts
        .filter_map(|line| line.split(' ').nth(3).and_then(|count| count.parse::<usize>().ok()))
        .sum();
    assert_eq!(tasks, 10_000, "{text}");
}

#[test]
fn transform_keeps_the_order() {
    let text = run("transform");
    assert!(text.starts_with("item 7 squared is 49\n100 items in "), "{text}");
}

#[test]
fn a_missing_file_is_an_error_value_among_the_others() {
    let text = run("files");
    assert!(text.contains("one: THIS IS FILE ONE"), "{text}");
    assert!(text.contains("four: cannot be read: No such file"), "{text}");
    assert!(text.contains("five: THIS IS FILE FIVE"), "{text}");
}

#[test]
fn pages_are_fetched_by_threads() {
    let text = run("fetch_urls");
    let (at_once, rest) = text.split_once(" connections at once\n").unwrap();
    assert!(at_once.parse::<u32>().unwrap() > 2, "{text}");
    assert!(rest.starts_with("40 pages, "), "{text}");
}

#[test]
fn no_update_of_the_database_is_lost() {
    assert_eq!(run("db_updates"), "200 updates, the table counts 200\n");
}

#[test]
fn each_image_of_the_cube_has_its_mean() {
    let text = run("cube");
    assert!(text.starts_with("the first three means: [1.000, 2.000, 3.000]\n"), "{text}");
    assert!(text.contains("64 images of 1 MiB in "), "{text}");
}

#[test]
fn one_model_serves_all_tasks() {
    let text = run("broadcast");
    assert!(text.starts_with("the first three scores: [0.4"), "{text}");
    assert!(text.contains("200 predictions by "), "{text}");
}

#[test]
fn walks_stay_with_their_workers_until_they_are_read() {
    let text = run("walks");
    assert!(text.starts_with("16 walks of 8 MiB, the longest way: "), "{text}");
    assert!(text.contains("its last steps: ["), "{text}");
}

#[test]
fn two_tasks_gives_both_results() {
    let text = run("two_tasks");
    assert_eq!(text, "9592 primes below 100000\na Collatz sequence of 350 steps\n");
}

#[test]
fn orders_are_made_in_three_ways() {
    let text = run("orders");
    let order = "Order { text: \"product 42 for user 7\", cents: 4200 }";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("by value: {order}"));
    assert_eq!(lines[1], format!("by reference: {order}"));
    assert_eq!(lines[2], format!("returned: {order}"));
    assert!(lines[3].starts_with("without a user: it did not run: execution"), "{text}");
    assert_eq!(lines.len(), 4, "{text}");
}

#[test]
fn a_pipeline_fans_out_and_in_and_is_called_off() {
    let text = run("pipeline");
    let rest = text.strip_prefix("127995 letters in 8 books, the e 12798 times\n").unwrap();
    let (called_off, why) = rest.split_once(' ').unwrap();
    assert!(called_off.parse::<usize>().unwrap() > 0, "{text}");
    assert_eq!(why, "books are not read to their end, because page 3 of book 404 is torn out\n");
}
