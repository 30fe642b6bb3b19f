//! Arrays that tasks leave behind: handles as results, on the embedded cluster, whose executors are processes, and
//! inline.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io::Write as _;

use allhands::{ArrayWriter, Cause, Cluster, Failure, Parallel, Prefer, Shared, delayed};
use serde::{Deserialize, Serialize};

const LENGTH: u64 = 300_000;

fn numbers(seed: u64) -> Vec<u64> {
    (0..LENGTH).map(|n| n.wrapping_mul(2 * seed + 1)).collect()
}

fn made(seed: u64) -> Shared<[u64]> {
    allhands::put(&numbers(seed)).unwrap()
}

/// One axis after the other, in pieces of any length.
fn written(seed: u64) -> Result<Shared<[u64]>, Failure> {
    let mut writer = ArrayWriter::of_rows(&[100, 3])?;
    for some in numbers(seed).chunks(77_777) {
        writer.push(some)?;
    }
    Ok(writer.finish()?)
}

fn sum(part: Shared<[u64]>) -> u64 {
    part.iter().fold(0, |sum, n| sum.wrapping_add(*n))
}

#[derive(Serialize, Deserialize)]
struct Parts {
    name: String,
    arrays: BTreeMap<u64, Vec<Shared<[u64]>>>,
    none: Option<Shared<[f32]>>,
    empty: Shared<[u8]>,
}

fn nested(seed: u64) -> (Parts, Shared<[u64]>) {
    let (a, b) = (made(seed), made(seed + 1));
    let slices = vec![a.slice(5..10), a.clone(), b.slice(0..0)];
    let arrays = BTreeMap::from([(seed, slices), (seed + 1, vec![b.clone()])]);
    let empty = allhands::put(&[]).unwrap();
    (Parts { name: format!("{seed}"), arrays, none: None, empty }, b.slice(1..3))
}

/// All ways in which tasks run.
fn everywhere(cluster: &Cluster, mut check: impl FnMut(Parallel)) {
    let parallel = Parallel::new().on(cluster);
    check(parallel.clone());
    check(parallel.clone().prefer(Prefer::Threads));
    check(parallel.n_jobs(1));
}

fn embedded() -> Cluster {
    Cluster::embedded().slots(2).start().unwrap()
}

#[allhands::test]
fn a_task_returns_handles_on_what_it_has_put_or_written() {
    let cluster = embedded();
    everywhere(&cluster, |parallel| {
        let arrays = parallel.run((0..8).map(delayed(made))).unwrap();
        let others = parallel.try_run((0..8).map(delayed(written))).unwrap();
        for (seed, (put, written)) in (0..).zip(arrays.iter().zip(&others)) {
            assert!(**put == numbers(seed)[..] && **written == numbers(seed)[..], "{seed}");
            assert_eq!((put.shape(), written.shape()), (vec![300_000], vec![1000, 100, 3]));
            assert_eq!(written.rows(7..9)[..], numbers(seed)[2100..2700]);
        }
        // And give them to others.
        let parts = arrays.iter().chain(&others).map(|array| array.slice(1..100_000));
        let sums = parallel.run(parts.map(delayed(sum))).unwrap();
        let expected =
            |seed| numbers(seed)[1..100_000].iter().fold(0u64, |s, n| s.wrapping_add(*n));
        assert_eq!(sums, (0..8).chain(0..8).map(expected).collect::<Vec<_>>());
    });
}

#[allhands::test]
fn handles_may_stand_anywhere_in_a_result() {
    let cluster = embedded();
    everywhere(&cluster, |parallel| {
        let results: Vec<_> = parallel.run_iter((3..6).map(delayed(nested))).collect();
        for (seed, result) in (3..).zip(results) {
            let (parts, slice) = result.unwrap();
            assert_eq!(parts.name, format!("{seed}"));
            assert_eq!(parts.arrays[&seed][0][..], numbers(seed)[5..10]);
            assert!(parts.arrays[&seed][1][..] == numbers(seed));
            assert!(parts.arrays[&seed][2].is_empty() && parts.empty.is_empty());
            assert!(parts.arrays[&(seed + 1)][0][..] == numbers(seed + 1));
            assert!(parts.none.is_none());
            assert_eq!(slice[..], numbers(seed + 1)[1..3]);
            let mut own = slice.to_mut().unwrap();
            own[0] = 1;
            assert_eq!((own[0], slice[0]), (1, numbers(seed + 1)[1]));
        }
    });
}

/// What it was given.
fn same(array: Shared<[u64]>) -> Shared<[u64]> {
    array.slice(1..3)
}

#[allhands::test]
fn what_a_task_was_given_may_come_back() {
    let cluster = embedded();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = numbers(2).iter().flat_map(|n| n.to_ne_bytes()).collect();
    std::fs::write(file.path(), bytes).unwrap();
    everywhere(&cluster, |parallel| {
        // Nobody but the call has it, and then nobody but the result.
        let calls = (0..20).map(|seed| delayed(same)(cluster.put(&numbers(seed)).unwrap()));
        for (seed, slice) in (0..).zip(parallel.run(calls).unwrap()) {
            assert_eq!(slice[..], numbers(seed)[1..3]);
        }
        let opened = Shared::<[u64]>::open(file.path()).unwrap();
        let again = parallel.run([delayed(same)(opened)]).unwrap();
        assert_eq!(again[0][..], numbers(2)[1..3]);
        let left = parallel.run([delayed(made)(9)]).unwrap().remove(0);
        let again = parallel.run([delayed(same)(left)]).unwrap();
        assert_eq!(again[0][..], numbers(9)[1..3]);
    });
}

#[allhands::test]
fn a_long_result_may_hold_handles_too() {
    let both = |seed: u64| (numbers(seed), made(seed));
    let cluster = embedded();
    for (values, array) in Parallel::new().on(&cluster).map(0..3u64, both).unwrap() {
        assert!(values == *array);
    }
}

#[allhands::test]
fn what_failed_calls_leave_can_be_read() {
    let cluster = embedded();
    let third_fails = |n: u64| match n {
        3 => panic!("the third"),
        n => made(n),
    };
    everywhere(&cluster, |parallel| {
        let error = parallel.batch_size(1).map(0..4u64, third_fails).unwrap_err();
        for (n, array) in (0..).zip(error.partial::<Shared<[u64]>>()) {
            assert!(array.is_none_or(|array| *array == numbers(n)[..]), "{n}");
        }
    });
}

#[allhands::test]
fn a_writer_refuses_what_is_no_whole_rows_and_leaves_nothing() {
    let cluster = embedded();
    let incomplete = |_: u64| {
        let mut writer = ArrayWriter::of_rows(&[4]).unwrap();
        writer.push(&[1.5f64; 6]).unwrap();
        writer.finish().unwrap_err().to_string()
    };
    everywhere(&cluster, |parallel| {
        let said = parallel.map([0u64], incomplete).unwrap();
        assert!(said[0].contains("6 elements were written, which are no whole rows"), "{said:?}");
    });
    let error = ArrayWriter::<u8>::of_rows(&[3, 0]).unwrap_err().to_string();
    assert!(error.contains("[3, 0]"), "{error}");
}

#[allhands::test]
fn bytes_are_written_as_to_a_file() {
    let cluster = embedded();
    let lines = |count: u64| -> Result<Shared<[u8]>, Failure> {
        let mut writer = ArrayWriter::<u8>::new()?;
        for n in 0..count {
            writeln!(writer, "line {n}")?;
        }
        Ok(writer.finish()?)
    };
    let expected: String = (0..300_000).map(|n| format!("line {n}\n")).collect();
    everywhere(&cluster, |parallel| {
        let text = parallel.map([300_000u64], lines).unwrap().remove(0).unwrap();
        assert!(std::str::from_utf8(&text).unwrap() == expected);
    });
    // Also where no task runs.
    let mut writer = ArrayWriter::<u8>::of_rows_on(&cluster, &[]).unwrap();
    writer.write_all(b"here").unwrap();
    assert_eq!(&*writer.finish().unwrap(), b"here");
}

#[allhands::test]
fn too_many_writers_are_refused_and_harm_nobody() {
    let cluster = embedded();
    let many = |seed: u64| -> Result<(String, Shared<[u64]>), Failure> {
        let mut writers = Vec::new();
        let refused = loop {
            match ArrayWriter::<u64>::new().and_then(|mut writer| {
                writer.push(&numbers(seed))?;
                Ok(writer)
            }) {
                Ok(writer) => writers.push(writer),
                Err(error) => break error.to_string(),
            }
        };
        drop(writers);
        Ok((refused, written(seed)?))
    };
    let (refused, array) =
        Parallel::new().on(&cluster).map([1u64], many).unwrap().remove(0).unwrap();
    assert!(refused.contains("write 16 arrays at the moment"), "{refused}");
    assert!(*array == numbers(1)[..]);
}

#[allhands::test]
fn a_thread_without_a_task_puts_nothing() {
    let cluster = embedded();
    let elsewhere = |_: u64| {
        std::thread::spawn(|| allhands::put(&[1u8]).unwrap_err().to_string()).join().unwrap()
    };
    let said = Parallel::new().on(&cluster).map([0u64], elsewhere).unwrap();
    assert!(said[0].contains("on which no task runs"), "{said:?}");
}

#[allhands::test]
fn a_handle_outlives_its_call_and_what_was_read_its_cluster() {
    let cluster = embedded();
    let array = Parallel::new().on(&cluster).run([delayed(made)(1)]).unwrap().remove(0);
    // The batch is long forgotten.
    Parallel::new().on(&cluster).run((2..9).map(delayed(made))).unwrap();
    let unread = Parallel::new().on(&cluster).run([delayed(made)(10)]).unwrap().remove(0);
    let slice = array.slice(5..9);
    assert_eq!(array[0], numbers(1)[0]);
    drop((array, cluster));
    assert_eq!(slice.load().unwrap(), &numbers(1)[5..9]);
    let error = unread.load().unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::BlobLost { .. })), "{error}");
}
