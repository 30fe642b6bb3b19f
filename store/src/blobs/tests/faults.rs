//! A disk that fails at any step: what fails says so, what is handed out is right, nothing of a failure
//! stays, and trying again does it.

use std::io::ErrorKind;
use std::sync::Mutex;

use allhands_common::id::JobId;

use super::spy::{Spy, SpyDisk, Step, Verdict};
use super::support::*;
use crate::blobs::*;

/// How a step fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Eio,
    Full,
    /// Half of a write is done.
    Short,
}

/// Lets one step fail, or all from one on.
#[derive(Debug)]
struct Saboteur {
    fault: Fault,
    state: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    seen: usize,
    fail_at: Option<usize>,
    /// Whether all later ones fail as well.
    for_good: bool,
    failed: Option<Step>,
}

impl Spy for Saboteur {
    fn see(&self, step: Step) -> Verdict {
        let mut plan = self.state.lock().unwrap();
        let now = plan.seen;
        plan.seen += 1;
        let fails = match plan.fail_at {
            Some(at) if plan.for_good => now >= at,
            Some(at) => now == at,
            None => false,
        };
        if !fails {
            return Verdict::Go;
        }
        plan.failed.get_or_insert_with(|| match &step {
            Step::Write { file, offset, .. } => {
                Step::Write { file: *file, offset: *offset, bytes: Vec::new() }
            }
            step => step.clone(),
        });
        // What EIO is in `ErrorKind`.
        let eio = || io::Error::from_raw_os_error(5);
        match (self.fault, &step) {
            (Fault::Eio, _) => Verdict::Fail(eio()),
            (Fault::Full, _) => Verdict::Fail(ErrorKind::StorageFull.into()),
            (Fault::Short, Step::Write { bytes, .. }) => Verdict::Short(bytes.len() / 2, eio()),
            (Fault::Short, _) => Verdict::Fail(eio()),
        }
    }
}

impl Saboteur {
    fn new(fault: Fault, fail_at: usize, for_good: bool) -> Arc<Self> {
        let plan = Plan { fail_at: Some(fail_at), for_good, ..Plan::default() };
        Arc::new(Self { fault, state: Mutex::new(plan) })
    }

    fn relent(&self) {
        self.state.lock().unwrap().fail_at = None;
    }

    fn failed(&self) -> Option<Step> {
        self.state.lock().unwrap().failed.clone()
    }
}

struct Contents {
    pinned: Vec<u8>,
    durable: Vec<u8>,
    streamed: Vec<u8>,
    evicting: Vec<u8>,
}

impl Contents {
    fn new() -> Self {
        Self {
            pinned: content(1, CHUNK + 3000),
            durable: content(2, 5000),
            streamed: content(3, CHUNK + 1),
            evicting: content(4, CHUNK + 2),
        }
    }

    /// Room for all but the last.
    fn quota(&self) -> u64 {
        [&self.pinned, &self.durable, &self.streamed].iter().map(|bytes| taken(bytes.len())).sum()
    }
}

const OWNER: Owner = Owner::Job(JobId(1));

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Action<'c> = Box<dyn Fn(&Store) -> Outcome + 'c>;

/// All that a store does; each step is safe to repeat.
fn steps(contents: &Contents) -> Vec<Action<'_>> {
    vec![
        Box::new(|store| {
            let blob = store.reserve(&manifest(&contents.pinned))?;
            for index in [1, 0] {
                blob.write_chunk(index, chunk(&contents.pinned, index))?;
            }
            store.pin(&blob.id(), OWNER)?;
            Ok(())
        }),
        Box::new(|store| {
            let blob = store.put_bytes(&contents.durable)?;
            store.make_durable(&blob.id())?;
            Ok(())
        }),
        Box::new(|store| {
            store.put(&contents.streamed[..])?;
            Ok(())
        }),
        Box::new(|store| {
            for bytes in [&contents.pinned, &contents.durable, &contents.streamed] {
                // What could not be read is written again.
                let blob = store.put_bytes(bytes)?;
                blob.read_chunk(0)?;
                blob.map(0..bytes.len() as u64)?;
            }
            Ok(())
        }),
        Box::new(|store| {
            store.put_bytes(&contents.evicting)?;
            Ok(())
        }),
        Box::new(|store| {
            store.release(&id(&contents.pinned), OWNER);
            Ok(())
        }),
    ]
}

/// Nothing that is handed out is wrong.
fn sound(store: &Store, contents: &Contents) {
    for bytes in [&contents.pinned, &contents.durable, &contents.streamed, &contents.evicting] {
        let Some(blob) = store.get(&id(bytes)) else { continue };
        for index in 0..bytes.len().div_ceil(CHUNK) as u32 {
            if let Ok(read) = blob.read_chunk(index) {
                assert!(read == chunk(bytes, index));
            }
        }
        if let Ok(map) = blob.map(0..bytes.len() as u64) {
            assert!(*map == **bytes);
        }
    }
    let held: u64 = store.list().iter().map(|info| taken(info.bytes as usize)).sum();
    assert_eq!(store.usage().held_bytes, held, "what failed takes no room");
}

fn reopened(dir: &Path, contents: &Contents) {
    let store = open(dir);
    sound(&store, contents);
    assert_eq!(names(dir, "blobs").len(), 2 * store.usage().blobs, "orphans are collected");
    assert_eq!(names(dir, "incoming"), [] as [String; 0]);
}

#[test]
fn one_step_fails_and_trying_again_helps() {
    let contents = Contents::new();
    for fault in [Fault::Eio, Fault::Full, Fault::Short] {
        let mut at = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let saboteur = Saboteur::new(fault, at, false);
            let disk = Arc::new(SpyDisk::new(saboteur.clone()));
            let open = || Store::open_on(disk.clone(), dir.path(), CLUSTER, contents.quota());
            let store = open().or_else(|_| open()).unwrap();
            for step in steps(&contents) {
                if let Err(error) = step(&store) {
                    sound(&store, &contents);
                    step(&store).unwrap_or_else(|again| {
                        panic!(
                            "{fault:?} at {at}: {error:?}, then {again:?}, after {:?}",
                            saboteur.failed()
                        )
                    });
                }
            }
            saboteur.relent();
            sound(&store, &contents);
            whole(&store.get(&id(&contents.evicting)).unwrap(), &contents.evicting);
            drop(store);
            reopened(dir.path(), &contents);
            if saboteur.failed().is_none() {
                break;
            }
            at += 1;
        }
        assert!(at > 60, "a workload of {at} steps is none");
    }
}

#[test]
fn a_disk_that_fails_for_good_leaves_what_a_start_puts_in_order() {
    let contents = Contents::new();
    let mut at = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let saboteur = Saboteur::new(Fault::Eio, at, true);
        let disk = Arc::new(SpyDisk::new(saboteur.clone()));
        if let Ok(store) = Store::open_on(disk, dir.path(), CLUSTER, contents.quota()) {
            for step in steps(&contents) {
                // What fails is said; here only what stays is looked at.
                _ = step(&store);
            }
            sound(&store, &contents);
            saboteur.relent();
            sound(&store, &contents);
        }
        reopened(dir.path(), &contents);
        if saboteur.failed().is_none() {
            break;
        }
        at += 1;
    }
    assert!(at > 60, "a workload of {at} steps is none");
}

#[test]
fn a_full_disk_shows_when_space_is_taken() {
    #[derive(Debug)]
    struct FullDisk;
    impl Spy for FullDisk {
        fn see(&self, step: Step) -> Verdict {
            match step {
                Step::Allocate { bytes, .. } if bytes > 100_000 => {
                    Verdict::Fail(ErrorKind::StorageFull.into())
                }
                _ => Verdict::Go,
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SpyDisk::new(Arc::new(FullDisk)));
    let store = Store::open_on(disk, dir.path(), CLUSTER, AMPLE).unwrap();
    let kept = stored(&store, b"held");
    stored(&store, b"evicted in vain, as the disk is filled by others");
    let big = content(1, 200_000);
    let refused = store.reserve(&manifest(&big));
    assert!(matches!(refused, Err(ReserveError::DiskFull { bytes: 200_000, .. })), "{refused:?}");
    let refused = store.put_bytes(&big);
    assert!(matches!(refused, Err(PutError::DiskFull { bytes: 0, .. })), "{refused:?}");
    assert!(matches!(store.put(&big[..]), Err(PutError::DiskFull { .. })));
    assert_eq!(store.usage().blobs, 1);
    whole(&kept, b"held");
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
    assert_eq!(names(dir.path(), "blobs").len(), 2);
}

#[test]
fn what_could_not_be_synced_is_let_go() {
    #[derive(Debug)]
    struct Unsynced;
    impl Spy for Unsynced {
        fn see(&self, step: Step) -> Verdict {
            match step {
                Step::Sync { file } if file > 0 => Verdict::Fail(ErrorKind::Other.into()),
                _ => Verdict::Go,
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SpyDisk::new(Arc::new(Unsynced)));
    let store = Store::open_on(disk, dir.path(), CLUSTER, AMPLE).unwrap();
    let content = content(1, 5000);
    let blob = store.put_bytes(&content).unwrap();
    store.pin(&blob.id(), OWNER).unwrap();
    let map = blob.map(0..5000).unwrap();
    let lost = store.make_durable(&blob.id());
    assert!(matches!(lost, Err(SyncError::Lost { .. })), "{lost:?}");
    assert!(matches!(blob.read_chunk(0), Err(ReadError::Gone { .. })));
    assert_eq!(*map, content);
    assert!(store.list().is_empty());
    assert_eq!(names(dir.path(), "pins"), [] as [String; 0]);
}

#[test]
fn a_write_that_fails_ends_a_stream_however_long_it_is() {
    #[derive(Debug)]
    struct OneWrite;
    impl Spy for OneWrite {
        fn see(&self, step: Step) -> Verdict {
            match step {
                Step::Write { offset, .. } if offset == 2 * CHUNK as u64 => {
                    Verdict::Fail(ErrorKind::Other.into())
                }
                _ => Verdict::Go,
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SpyDisk::new(Arc::new(OneWrite)));
    let store = Store::open_on(disk, dir.path(), CLUSTER, u64::MAX / 2).unwrap();
    let put = store.put(io::repeat(1));
    assert!(matches!(put, Err(PutError::Io { .. })), "{put:?}");
    assert_eq!(store.usage().held_bytes, 0);
    assert_eq!(names(dir.path(), "incoming"), [] as [String; 0]);
}
