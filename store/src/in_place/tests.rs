//! A file in place: what it is, that a change is noticed, and when its hash is remembered.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tempfile::TempDir;

use super::*;

/// Nobody can have changed a file since then without showing it.
const LATER: Timespec = Timespec { tv_sec: 1 << 40, tv_nsec: 0 };

fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("array");
    fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn a_file_is_mapped_where_it_is() {
    let content: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|at| (at / 1000) as u8).collect();
    let (_dir, path) = file(&content);
    let file = FileInPlace::open(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((file.identity().inode, file.identity().bytes), (metadata.ino(), metadata.size()));
    let end = content.len() as u64;
    assert!(*file.map(0..end).unwrap() == *content);
    assert_eq!(*file.file_range(5000..6000).unwrap().map().unwrap(), content[5000..6000]);
    assert!(matches!(file.map(0..end + 1), Err(InPlaceError::Beyond { .. })));

    let manifest = file.manifest().unwrap();
    assert_eq!(*manifest, Manifest::of(&content).unwrap());
    assert!(file.read_chunk(&manifest, 3).unwrap() == content[3 * CHUNK_BYTES as usize..]);
    assert!(matches!(file.read_chunk(&manifest, 4), Err(InPlaceError::Beyond { .. })));
}

#[test]
fn a_change_is_noticed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("longer", |path| {
            use std::io::Write as _;
            File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
        }),
        ("shorter", |path| File::options().write(true).open(path).unwrap().set_len(3).unwrap()),
        ("another time", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (_dir, path) = file(b"some bytes");
        let file = FileInPlace::open(&path).unwrap();
        let manifest = file.manifest().unwrap();
        file.check().unwrap();
        change(&path);
        assert!(matches!(file.check(), Err(InPlaceError::Changed { .. })), "{what}");
        assert!(matches!(file.map(0..1), Err(InPlaceError::Changed { .. })), "{what}");
        assert!(matches!(file.file_range(0..1), Err(InPlaceError::Changed { .. })), "{what}");
        assert!(matches!(file.manifest(), Err(InPlaceError::Changed { .. })), "{what}");
        if what == "shorter" {
            let chunk = file.read_chunk(&manifest, 0);
            assert!(matches!(chunk, Err(InPlaceError::Changed { .. })));
        }
        assert_ne!(FileInPlace::open(&path).unwrap().identity(), file.identity());
    }
}

#[test]
fn other_bytes_of_the_same_length_are_not_served() {
    let (_dir, path) = file(b"some bytes");
    let file = FileInPlace::open(&path).unwrap();
    let manifest = file.manifest().unwrap();
    fs::write(&path, b"other byte").unwrap();
    assert!(matches!(file.read_chunk(&manifest, 0), Err(InPlaceError::Changed { .. })));
}

#[test]
fn a_file_under_another_name_is_another() {
    let (dir, path) = file(b"some bytes");
    let opened = FileInPlace::open(&path).unwrap();
    let other = dir.path().join("new");
    fs::write(&other, b"some bytes").unwrap();
    fs::rename(&other, &path).unwrap();
    assert_ne!(FileInPlace::open(&path).unwrap().identity(), opened.identity());
    // To take its name away has changed what was opened, though not its bytes: that is no reason to believe it.
    assert!(matches!(opened.check(), Err(InPlaceError::Changed { .. })));
}

#[test]
fn a_hash_is_remembered_once_the_file_is_quiet() {
    let (_dir, path) = file(b"some bytes");
    let file = FileInPlace::open(&path).unwrap();
    let changed_ns = file.identity().changed_ns;
    let at = |ns: i128| Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    file.manifest_at(at(changed_ns + TICK_NS - 1)).unwrap();
    assert!(!remembered().contains_key(&file.identity()), "it may change without showing it");
    let manifest = file.manifest_at(at(changed_ns + TICK_NS)).unwrap();
    assert!(remembered().contains_key(&file.identity()));
    let again = FileInPlace::open(&path).unwrap().manifest_at(LATER).unwrap();
    assert!(Arc::ptr_eq(&manifest, &again), "it is not hashed again");
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = FileInPlace::open(dir.path());
    assert!(matches!(opened, Err(InPlaceError::NotAFile { .. })), "{opened:?}");
    let missing = FileInPlace::open(&dir.path().join("missing"));
    assert!(matches!(missing, Err(InPlaceError::Io { what: "opening it", .. })));
}

#[test]
fn an_empty_file_is_an_empty_blob() {
    let (_dir, path) = file(b"");
    let file = FileInPlace::open(&path).unwrap();
    assert_eq!(*file.manifest().unwrap(), Manifest::of(b"").unwrap());
    assert_eq!(&*file.map(0..0).unwrap(), b"");
}
