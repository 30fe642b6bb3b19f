//! How an embedded cluster ends: with `main`, with its disk, or with the process; and what it leaves
//! behind. Each test runs itself again, in a process with an environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use allhands::prelude::*;

/// Set in the process that a test starts: what it is to do.
const ROLE: &str = "ALLHANDS_TEST_ROLE";

fn square(n: u64) -> u64 {
    n * n
}

/// Runs the test of this name in a process of its own, which puts its files into `folder`.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn again(test: &str, role: &str, folder: &Path) {
    // A limit on the size of files is as good as a full disk. (Units are 512 bytes or 1 KiB.)
    let script = match role {
        "full" => "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"",
        _ => "exec \"$0\" \"$@\"",
    };
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .env("TMPDIR", folder)
        .env_remove("ALLHANDS_CLUSTER")
        .output()
        .unwrap();
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{test} as {role}: {}\n{text}\n{errors}", output.status);
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[allhands::main]
fn program() -> allhands::Result<()> {
    assert_eq!(Parallel::new().run([delayed(square)(3)])?, [9]);
    match role().as_deref() {
        Some("fails") => {
            Parallel::new().n_jobs(0).run([delayed(square)(3)]).map(drop).map_err(Into::into)
        }
        Some("panics") => panic!("it was told to"),
        _ => Ok(()),
    }
}

#[allhands::test]
fn nothing_is_left_when_main_is_left_however_that_happens() {
    if role().is_some() {
        let caught = std::panic::catch_unwind(program);
        assert_eq!(caught.is_ok_and(|result| result.is_ok()), role().as_deref() == Some("works"));
        let left = entries(&std::env::temp_dir());
        assert!(left.is_empty(), "{left:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for role in ["works", "fails", "panics"] {
        again("nothing_is_left_when_main_is_left_however_that_happens", role, folder.path());
    }
}

#[allhands::test]
fn what_a_process_leaves_is_its_own_alone_and_swept_by_the_next() {
    use std::os::unix::fs::PermissionsExt;

    if role().is_some() {
        assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let left = [(); 2].map(|()| {
        again(
            "what_a_process_leaves_is_its_own_alone_and_swept_by_the_next",
            "works",
            folder.path(),
        );
        let left = entries(folder.path());
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::metadata(&left[0]).unwrap().permissions().mode() & 0o777, 0o700);
        left
    });
    assert_ne!(left[0], left[1]);
}

#[allhands::test]
fn after_shutdown_the_next_call_starts_another() {
    for _ in 0..2 {
        assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]);
        allhands::shutdown();
    }
    allhands::shutdown();
}

#[allhands::test]
fn a_long_temporary_folder_does_and_a_missing_one_is_named() {
    let test = "a_long_temporary_folder_does_and_a_missing_one_is_named";
    match role().as_deref() {
        Some("works") => assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]),
        Some(_) => {
            let error = Parallel::new().run([delayed(square)(3)]).unwrap_err().to_string();
            assert!(error.contains("/nonexistent: No such file"), "{error}");
        }
        None => {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("x".repeat(95 - folder.path().as_os_str().len()));
            fs::create_dir(&folder).unwrap();
            again(test, "works", &folder);
            again(test, "misses", Path::new("/nonexistent"));
        }
    }
}

#[allhands::test]
fn a_full_disk_ends_the_call_at_once_and_is_named() {
    if role().is_none() {
        let folder = tempfile::tempdir().unwrap();
        again("a_full_disk_ends_the_call_at_once_and_is_named", "full", folder.path());
        return;
    }
    let begun = Instant::now();
    let texts = (0..64).map(|_| "x".repeat(256 << 10));
    let error = Parallel::new().map(texts, |text| text.len()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the embedded cluster has ended") && error.retry_can_help(), "{text}");
    assert!(text.contains("cannot be written to") && text.contains("File too large"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // The next call has a cluster of its own, with files of its own.
    assert_eq!(Parallel::new().run([delayed(square)(3)]).unwrap(), [9]);
}
