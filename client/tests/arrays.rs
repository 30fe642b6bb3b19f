//! Shared arrays on the embedded cluster: the tasks are in executor processes, and map what this one has.

use std::sync::Arc;

use allhands::{Cause, Cluster, Parallel, Prefer, Shared, delayed};

fn sum(part: Shared<[u64]>) -> u64 {
    part.iter().sum()
}

/// Lets the file system's clock go on, so that two writes differ by their times.
#[expect(clippy::disallowed_methods, reason = "time is what has to pass")]
fn tick() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[allhands::test]
fn slices_of_what_was_put_are_read_by_tasks() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let array = numbers(1 << 20);
    let shared = cluster.put(&array).unwrap();
    assert_eq!(&*shared, &array[..]);
    let parts = || (0..16).map(|part| shared.slice(part << 16..(part + 1) << 16));
    let expected: Vec<u64> = array.chunks(1 << 16).map(|part| part.iter().sum()).collect();
    for prefer in [Prefer::Processes, Prefer::Threads] {
        let parallel = Parallel::new().on(&cluster).prefer(prefer);
        assert_eq!(parallel.run(parts().map(delayed(sum))).unwrap(), expected);
    }
    assert_eq!(Parallel::new().n_jobs(1).run(parts().map(delayed(sum))).unwrap(), expected);
}

#[allhands::test]
fn a_call_keeps_what_its_caller_has_let_go() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let calls = (0..50u64).map(|n| {
        // Nobody but the call has it.
        delayed(sum)(cluster.put(&[n, n + 1, n + 2]).unwrap())
    });
    let sums = Parallel::new().on(&cluster).run(calls).unwrap();
    assert_eq!(sums, (0..50).map(|n| 3 * n + 3).collect::<Vec<_>>());
}

#[allhands::test]
fn a_reader_is_put_without_being_held_in_memory() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let bytes: Vec<u8> = (0..3_000_001u32).map(|at| at as u8).collect();
    let shared = cluster.put_reader(&bytes[..]).unwrap();
    assert_eq!(&*shared, &bytes[..]);
    let tail = |part: Shared<[u8]>| part.to_vec();
    let call = delayed(tail)(shared.slice(2_999_990..3_000_001));
    assert_eq!(Parallel::new().on(&cluster).run([call]).unwrap(), [bytes[2_999_990..].to_vec()]);
}

#[allhands::test]
fn rows_of_a_file_in_place_are_read_without_a_copy() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cube: Vec<u8> = (0..8 * 16 * 16u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(file.path(), &cube).unwrap();
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let images = Shared::<[u8]>::open_part(file.path(), 0, &[8, 16, 16]).unwrap();
    let mean = |image: Shared<[u8]>| {
        assert_eq!(image.shape(), [1, 16, 16]);
        image.iter().map(|pixel| u64::from(*pixel)).sum::<u64>()
    };
    let rows = (0..8).map(|row| images.rows(row..row + 1));
    let sums = Parallel::new().on(&cluster).map(rows, mean).unwrap();
    let expected: Vec<u64> =
        cube.chunks(256).map(|image| image.iter().map(|pixel| u64::from(*pixel)).sum()).collect();
    assert_eq!(sums, expected);
}

#[allhands::test]
fn a_context_may_hold_shared_arrays() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let table = cluster.put(&numbers(1000)).unwrap();
    let looked_up = Parallel::new()
        .on(&cluster)
        .map_with((table, 2u64), 0..100usize, |(table, times), at| table[at] * times)
        .unwrap();
    assert_eq!(looked_up, (0..100).map(|at| 2 * at).collect::<Vec<u64>>());
}

#[allhands::test]
fn a_task_may_return_a_part_of_what_it_was_given() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let shared = cluster.put(&numbers(100)).unwrap();
    let first_half = |all: Shared<[u64]>| all.slice(0..all.len() / 2);
    let halves = Parallel::new().on(&cluster).map([shared.clone()], first_half).unwrap();
    assert_eq!(&*halves[0], &shared[..50]);
}

#[allhands::test]
fn a_file_that_changed_after_it_was_opened_is_noticed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [1u8; 64]).unwrap();
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let shared = Shared::<[u8]>::open(file.path()).unwrap();
    std::fs::write(file.path(), [2u8; 63]).unwrap();
    let parallel = Parallel::new().on(&cluster);
    let path = file.path().display().to_string();
    // The first call of a function is read back in the client, which notices it.
    let sum = |all: Shared<[u8]>| all.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let error = parallel.map([shared.clone()], sum).unwrap_err().to_string();
    assert!(error.contains(&format!("{path} was changed")), "{error}");
    // A later one is not: its task notices it.
    let anew = Shared::<[u8]>::open(file.path()).unwrap();
    assert_eq!(parallel.map([anew], sum).unwrap(), [126]);
    let error = parallel.map([shared], sum).unwrap_err();
    let cause = error.task().unwrap().cause();
    assert_eq!(cause, Some(&Cause::SourceChanged { path }), "{error}");
}

#[allhands::test]
fn a_file_that_changes_under_a_task_is_noticed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [1u8; 64]).unwrap();
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let shared = Shared::<[u8]>::open(file.path()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let spoil = |all: Shared<[u8]>, path: String| {
        tick();
        std::fs::write(path, [2u8; 64]).unwrap();
        all[0]
    };
    let error =
        Parallel::new().on(&cluster).run([delayed(spoil)(shared, path.clone())]).unwrap_err();
    let cause = error.task().unwrap().cause();
    assert_eq!(cause, Some(&Cause::SourceChanged { path }), "{error}");
}

#[allhands::test]
fn a_file_that_is_cut_under_a_task_is_noticed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![1u8; 1 << 20]).unwrap();
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let shared = Shared::<[u8]>::open(file.path()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // The kernel ends whoever reads what is not there any more. That is not the task's fault, nor is it tried again.
    let cut = |all: Shared<[u8]>, path: String| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(4096).unwrap();
        all.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    };
    for prefer in [Prefer::Processes, Prefer::Threads] {
        std::fs::write(file.path(), vec![1u8; 1 << 20]).unwrap();
        let shared = Shared::<[u8]>::open(file.path()).unwrap();
        let parallel = Parallel::new().on(&cluster).prefer(prefer).retries(5);
        let error = parallel.run([delayed(cut)(shared, path.clone())]).unwrap_err();
        let task = error.task().unwrap();
        assert_eq!(task.cause(), Some(&Cause::SourceChanged { path: path.clone() }), "{error}");
        assert_eq!(task.tries(), 1, "{error}");
    }
    // A task that only has the handle goes on.
    let length = |all: Shared<[u8]>| all.len();
    assert!(
        Parallel::new().on(&cluster).map([shared], length).is_err(),
        "it is another file by now"
    );
}

#[allhands::test]
fn an_array_of_another_cluster_is_refused() {
    let one = Cluster::embedded().slots(1).start().unwrap();
    let other = Cluster::embedded().slots(1).start().unwrap();
    let shared = one.put(&numbers(10)).unwrap();
    let error = Parallel::new().on(&other).map([shared], sum).unwrap_err().to_string();
    assert!(error.contains("another cluster") && error.contains("cluster.put"), "{error}");
}

fn total(array: Arc<Vec<u8>>, n: u64) -> u64 {
    array.len() as u64 + u64::from(array[0]) + n
}

#[allhands::test]
fn a_long_array_behind_an_arc_is_stored_once_for_all_calls() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let array = Arc::new(vec![3u8; 8 << 20]);
    let calls = (0..5_000u64).map(|n| delayed(total)(Arc::clone(&array), n));
    let totals = Parallel::new().on(&cluster).run(calls).unwrap();
    let expected = (8 << 20) + 3;
    assert_eq!(totals, (expected..expected + 5_000).collect::<Vec<u64>>());
}

#[allhands::test]
fn long_arguments_by_value_and_short_ones_mix() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    fn join(a: String, b: Vec<u32>, c: u8) -> (usize, u64, u8) {
        (a.len(), b.iter().map(|n| u64::from(*n)).sum(), c)
    }
    let calls = || {
        [(10, 10), (6 << 20, 10), (10, 2 << 20), (2 << 20, 1 << 20)].map(|(text, numbers)| {
            let numbers: Vec<u32> = (0..numbers).collect();
            delayed(join)("x".repeat(text), numbers, 7)
        })
    };
    let sum = |n: u64| n * (n - 1) / 2;
    let expected = vec![
        (10, sum(10), 7),
        (6 << 20, sum(10), 7),
        (10, sum(2 << 20), 7),
        (2 << 20, sum(1 << 20), 7),
    ];
    assert_eq!(Parallel::new().on(&cluster).run(calls()).unwrap(), expected);
    let low = Parallel::new().on(&cluster).max_nbytes(16);
    assert_eq!(low.run(calls()).unwrap(), expected);
    let error = Parallel::new().on(&cluster).max_nbytes(None).run(calls()).unwrap_err().to_string();
    assert!(error.contains("task 1") && error.contains("6291"), "{error}");
}

#[allhands::test]
fn an_error_names_a_long_argument_by_its_length() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let fail = |text: String| -> u8 { panic!("no use for {} bytes", text.len()) };
    let error =
        Parallel::new().on(&cluster).map(["x".repeat(3 << 20)], fail).unwrap_err().to_string();
    assert!(error.contains("(3145736 bytes in a blob)"), "{error}");
    assert!(error.contains("no use for 3145728 bytes"), "{error}");
}

#[allhands::test]
fn long_results_come_back_whatever_their_number_and_their_length() {
    let cluster = Cluster::embedded().slots(2).start().unwrap();
    let make = |n: u64| vec![n; 1 << 20];
    // 8 MiB each, and the half of them equal.
    let calls = || (0..12).map(move |n| delayed(make)(n / 2));
    let expected: Vec<Vec<u64>> = (0..12).map(|n| vec![n / 2; 1 << 20]).collect();
    let parallel = Parallel::new().on(&cluster);
    assert!(parallel.run(calls()).unwrap() == expected);
    assert!(parallel.run_iter(calls()).map(Result::unwrap).eq(expected.clone()));
    let singles: Vec<_> = calls().map(|call| parallel.start([call]).unwrap()).collect();
    assert!(singles.into_iter().flat_map(|one| one.wait().unwrap()).eq(expected.clone()));
    let inline = Parallel::new().n_jobs(1).run(calls().take(2)).unwrap();
    assert!(inline == expected[..2]);
}

#[allhands::test]
fn an_error_that_carries_finished_results_carries_long_ones_too() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let make = |n: u64| {
        assert!(n != 3, "three is too much");
        vec![n; 1 << 20]
    };
    let error = Parallel::new().on(&cluster).batch_size(1).map(0..4, make).unwrap_err();
    let partial = error.partial::<Vec<u64>>();
    let done: Vec<u64> = partial.iter().flatten().map(|array| array[0]).collect();
    assert!(
        done.iter().all(|n| partial[*n as usize].as_ref().unwrap().len() == 1 << 20),
        "{error}"
    );
    assert!(error.to_string().contains("three is too much"), "{error}");
}

#[allhands::test]
fn a_file_in_a_context_is_looked_at_by_every_task() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [1u8; 64]).unwrap();
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let shared = Shared::<[u8]>::open(file.path()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // One executor reads the context once, for all of them; the fifth task spoils it.
    let outcomes = Parallel::new().on(&cluster).on_error(allhands::Collect).map_with(
        (shared, path),
        0..10u32,
        |(array, path), n| {
            if n == 4 {
                tick();
                std::fs::write(path, [2u8; 64]).unwrap();
            }
            u32::from(array[0]) * n
        },
    );
    for (n, outcome) in (0u32..).zip(outcomes.unwrap()) {
        match outcome {
            Ok(value) => assert!(n < 4 && value == n, "{n}: {value}"),
            Err(error) => {
                let changed = matches!(error.cause(), Some(Cause::SourceChanged { .. }));
                assert!(n >= 4 && changed, "{n}: {error}");
            }
        }
    }
}
