//! The segment files through restarts, torn tails, flipped bits and a disk that fails at any step.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::format::{FILE_HEADER_BYTES, HEADER_BYTES};
use super::*;

/// Each segment of the tests: 100 bytes, 164 with its header.
const STORED: u64 = 100 + HEADER_BYTES as u64;
/// A file takes four of them.
const SMALL_FILE: u64 = FILE_HEADER_BYTES as u64 + 4 * STORED;

fn content(id: u64) -> Bytes {
    Bytes::from((0..100).map(|at| (id * 31 + at) as u8).collect::<Vec<_>>())
}

fn small(dir: &TempDir) -> Segments {
    on(Arc::new(RealDisk), dir)
}

fn on(disk: Arc<dyn Disk>, dir: &TempDir) -> Segments {
    Segments::open_on(disk, dir.path(), Durability::Disk, 1 << 20, SMALL_FILE).unwrap()
}

fn fill(segments: &Segments, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        segments.append(SegmentId(id), &content(id)).unwrap();
    }
}

/// Segments that a process has written and synced before it ended.
fn stored(dir: &TempDir, ids: impl IntoIterator<Item = u64>) {
    let segments = small(dir);
    fill(&segments, ids);
    segments.sync().unwrap();
}

fn whole(segments: &Segments, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        assert_eq!(segments.read(SegmentId(id)).unwrap(), content(id), "segment {id}");
    }
}

fn files(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Where segment `nth` of the first file has its header.
fn header_of(nth: u64) -> usize {
    (FILE_HEADER_BYTES as u64 + nth * STORED) as usize
}

fn damage(dir: &TempDir, at: usize) {
    let path = format::file_path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_appended_is_read_again_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, 0..10);
    whole(&segments, 0..10);
    segments.sync().unwrap();
    drop(segments);

    let segments = small(&dir);
    assert_eq!(files(&dir).len(), 3);
    whole(&segments, 0..10);
    fill(&segments, 0..12);
    assert_eq!(segments.disk_bytes().1, 12 * STORED, "a repeated append is one");
}

#[test]
fn an_id_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, [1]);
    let other = segments.append(SegmentId(1), &content(2));
    assert!(matches!(other, Err(AppendError::Conflict { id: SegmentId(1) })));
    whole(&segments, [1]);
    let huge = segments.append(SegmentId(2), &Bytes::from(vec![0; SEGMENT_BYTES_MAX + 1]));
    assert!(matches!(huge, Err(AppendError::TooLarge { .. })));
}

#[test]
fn a_torn_tail_is_cut_and_appended_again() {
    for cut in 1..STORED {
        let dir = tempfile::tempdir().unwrap();
        stored(&dir, 0..4);
        let path = format::file_path(dir.path(), 0);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(SMALL_FILE - cut).unwrap();

        let segments = small(&dir);
        whole(&segments, 0..3);
        assert!(matches!(segments.read(SegmentId(3)), Err(ReadError::Unknown { .. })), "cut {cut}");
        fill(&segments, [3]);
        segments.sync().unwrap();
        drop(segments);
        whole(&small(&dir), 0..4);
    }
}

#[test]
fn a_flipped_bit_in_the_bytes_is_an_error_that_names_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    stored(&dir, 0..4);
    damage(&dir, header_of(1) + HEADER_BYTES + 50);

    let segments = small(&dir);
    let read = segments.read(SegmentId(1));
    assert!(matches!(read, Err(ReadError::Mismatch { id: SegmentId(1), .. })), "{read:?}");
    whole(&segments, [0, 2, 3]);

    let heads: Vec<_> = (0..4).map(|id| SegmentHead::of(SegmentId(id), &content(id))).collect();
    assert_eq!(segments.missing(&heads, Check::Bytes).unwrap(), [SegmentId(1)]);
    fill(&segments, 0..4);
    assert_eq!(segments.missing(&heads, Check::Bytes).unwrap(), [], "the log has healed it");
    segments.sync().unwrap();
    drop(segments);
    whole(&small(&dir), 0..4);
}

#[test]
fn a_flipped_bit_in_any_header_loses_that_segment_only() {
    for at in header_of(1)..header_of(1) + HEADER_BYTES {
        let dir = tempfile::tempdir().unwrap();
        stored(&dir, 0..4);
        damage(&dir, at);
        let segments = small(&dir);
        whole(&segments, [0, 2, 3]);
        let live: BTreeSet<_> = (0..4).map(SegmentId).collect();
        assert_eq!(segments.retain(&live).unwrap(), [SegmentId(1)], "byte {at}");
    }
}

#[test]
fn a_damaged_file_header_refuses_and_an_unwritten_one_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(&dir, 0..4);
    damage(&dir, 20);
    let opened = Segments::open(dir.path(), Durability::Disk, 0);
    assert!(matches!(opened, Err(OpenSegmentsError::Header { .. })), "{opened:?}");

    let dir = tempfile::tempdir().unwrap();
    fs::write(format::file_path(dir.path(), 0), [0; 40]).unwrap();
    fs::write(format::file_path(dir.path(), 1), b"AHSE").unwrap();
    let segments = small(&dir);
    fill(&segments, 0..1);
    whole(&segments, 0..1);
}

#[test]
fn a_file_goes_with_its_last_segment() {
    let dir = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, 0..8);
    for id in 0..4 {
        segments.discard(SegmentId(id));
    }
    assert_eq!(files(&dir), [format::file_name(1)]);
    assert!(matches!(segments.read(SegmentId(0)), Err(ReadError::Unknown { .. })));
    // The file that is written stays until it is closed.
    for id in 4..8 {
        segments.discard(SegmentId(id));
    }
    fill(&segments, 8..9);
    segments.sync().unwrap();
    assert_eq!(files(&dir), [format::file_name(2)]);
}

#[test]
fn a_mostly_dead_file_is_moved_and_unlinked_only_after_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, 0..8);
    for id in [0, 1, 3] {
        segments.discard(SegmentId(id));
    }
    assert!(segments.wants_rewrite());
    segments.rewrite().unwrap();
    assert!(!segments.wants_rewrite());
    assert!(files(&dir).contains(&format::file_name(0)), "the copy is not durable yet");
    whole(&segments, [2, 4, 5, 6, 7]);
    segments.sync().unwrap();
    assert!(!files(&dir).contains(&format::file_name(0)));
    drop(segments);
    whole(&small(&dir), [2, 4, 5, 6, 7]);
}

#[test]
fn a_file_that_was_half_moved_also_waits_for_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, 0..8);
    for id in [0, 1, 3] {
        segments.discard(SegmentId(id));
    }
    segments.rewrite().unwrap();
    segments.discard(SegmentId(2));
    assert!(files(&dir).contains(&format::file_name(0)));
    segments.sync().unwrap();
    assert!(!files(&dir).contains(&format::file_name(0)));
}

#[test]
fn a_link_keeps_what_the_store_discards() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let segments = small(&dir);
    fill(&segments, 0..8);
    let linked = segments.link_into(copy.path(), &[SegmentId(1), SegmentId(2)]).unwrap();
    for id in 0..8 {
        segments.discard(SegmentId(id));
    }
    assert_eq!(files(&copy), [format::file_name(0)]);
    for place in linked.places().unwrap() {
        assert_eq!(read_linked(copy.path(), place).unwrap(), content(place.head.id.0));
    }
    let unknown = segments.link_into(copy.path(), &[SegmentId(9)]);
    assert!(matches!(unknown, Err(MaintainError::Missing { id: SegmentId(9) })));
}

#[test]
fn ram_stays_within_the_budget_and_has_no_short_segments() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let segments =
        Segments::open_on(disk, dir.path(), Durability::Process, 12_000, SMALL_FILE).unwrap();
    fill(&segments, 0..20);
    whole(&segments, 0..20);
    assert_eq!(segments.cached_bytes(), 0);
    let long = |id: u64| Bytes::from(vec![id as u8; 5000]);
    for id in 20..40 {
        segments.append(SegmentId(id), &long(id)).unwrap();
    }
    assert_eq!(segments.cached_bytes(), 10_000);
    for id in 20..40 {
        assert_eq!(segments.read(SegmentId(id)).unwrap(), long(id));
    }
    assert!(segments.cached_bytes() <= 12_000);
}

/// A disk whose n-th write or sync from now on fails, and all after it.
#[derive(Debug)]
struct FailingDisk {
    left: Arc<AtomicI64>,
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn DiskFile>,
    left: Arc<AtomicI64>,
}

fn spend(left: &AtomicI64) -> io::Result<()> {
    match left.fetch_sub(1, Ordering::Relaxed) {
        ..=0 => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

impl Disk for FailingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        spend(&self.left)?;
        let file = RealDisk.create(path)?;
        Ok(Arc::new(FailingFile { file, left: Arc::clone(&self.left) }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path)?;
        Ok(Arc::new(FailingFile { file, left: Arc::clone(&self.left) }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.sync_directory(path)
    }
}

impl DiskFile for FailingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(full) = spend(&self.left) {
            // A full disk takes a part.
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(full);
        }
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        spend(&self.left)?;
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

#[test]
fn a_disk_that_fails_at_any_step_latches_and_loses_nothing_that_was_synced() {
    for fails_at in 0..35 {
        let dir = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicI64::new(fails_at));
        let segments = on(Arc::new(FailingDisk { left: Arc::clone(&left) }), &dir);
        let mut synced = 0;
        let failed = (0..9).find(|id| {
            let stored = segments.append(SegmentId(*id), &content(*id)).is_ok();
            let durable = stored && segments.sync().is_ok();
            if durable {
                synced = id + 1;
            }
            !durable
        });
        if let Some(failed) = failed {
            left.store(i64::MAX, Ordering::Relaxed);
            let again = segments.append(SegmentId(failed), &content(failed));
            assert!(matches!(again, Err(AppendError::Latched)), "at {fails_at}: {again:?}");
            assert!(matches!(segments.sync(), Err(MaintainError::Latched)));
        } else {
            assert!(fails_at > 20, "{fails_at} operations are not enough for nine segments");
        }
        drop(segments);
        let segments = small(&dir);
        whole(&segments, 0..synced);
        fill(&segments, 0..9);
        whole(&segments, 0..9);
    }
}
