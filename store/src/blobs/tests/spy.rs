//! A disk that is the real one, and tells a spy of each step before it is done. The spy may forbid it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{Access, Disk, DiskFile, RealDisk};

/// One step. Files have numbers, which they keep when they are renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Create { file: u64, path: PathBuf },
    Open { path: PathBuf, access: Access },
    Rename { file: u64, from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    List { path: PathBuf },
    SyncDirectory { path: PathBuf },
    Allocate { file: u64, bytes: u64 },
    Cut { file: u64, bytes: u64 },
    Write { file: u64, offset: u64, bytes: Vec<u8> },
    Read { file: u64 },
    Seal { file: u64 },
    Sync { file: u64 },
}

/// What happens to a step.
#[derive(Debug)]
pub(super) enum Verdict {
    Go,
    Fail(io::Error),
    /// A write reaches so many bytes, then fails.
    Short(usize, io::Error),
}

pub(super) trait Spy: Debug + Send + Sync {
    fn see(&self, step: Step) -> Verdict;
}

#[derive(Debug)]
pub(super) struct SpyDisk {
    spy: Arc<dyn Spy>,
    numbers: Mutex<BTreeMap<PathBuf, u64>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct SpyFile {
    spy: Arc<dyn Spy>,
    number: u64,
    file: Arc<dyn DiskFile>,
}

impl SpyDisk {
    pub(super) fn new(spy: Arc<dyn Spy>) -> Self {
        Self { spy, numbers: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// The number of the file that has this name.
    pub(super) fn number(&self, path: &Path) -> u64 {
        let next = || self.next.fetch_add(1, Ordering::Relaxed);
        *self.numbers.lock().unwrap().entry(path.to_owned()).or_insert_with(next)
    }

    fn ask(&self, step: Step) -> io::Result<()> {
        ask(&*self.spy, step)
    }

    fn file(&self, number: u64, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SpyFile { spy: self.spy.clone(), number, file })
    }
}

fn ask(spy: &dyn Spy, step: Step) -> io::Result<()> {
    match spy.see(step) {
        Verdict::Go => Ok(()),
        Verdict::Fail(error) | Verdict::Short(_, error) => Err(error),
    }
}

impl Disk for SpyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if path.exists() {
            return RealDisk.create(path);
        }
        self.numbers.lock().unwrap().remove(path);
        let file = self.number(path);
        self.ask(Step::Create { file, path: path.to_owned() })?;
        Ok(self.file(file, RealDisk.create(path)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.ask(Step::Open { path: path.to_owned(), access })?;
        let file = RealDisk.open(path, access)?;
        Ok(self.file(self.number(path), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            self.ask(Step::Remove { path: path.to_owned() })?;
            self.numbers.lock().unwrap().remove(path);
        }
        RealDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.number(from);
        self.ask(Step::Rename { file, from: from.to_owned(), to: to.to_owned() })?;
        RealDisk.rename(from, to)?;
        let mut numbers = self.numbers.lock().unwrap();
        numbers.remove(from);
        numbers.insert(to.to_owned(), file);
        Ok(())
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.ask(Step::List { path: path.to_owned() })?;
        let mut names = RealDisk.list(path)?;
        // The order of a directory is not one.
        names.sort();
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Step::SyncDirectory { path: path.to_owned() })
    }
}

impl DiskFile for SpyFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        ask(&*self.spy, Step::Allocate { file: self.number, bytes })?;
        self.file.allocate(bytes)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        ask(&*self.spy, Step::Cut { file: self.number, bytes })?;
        self.file.cut(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let step = Step::Write { file: self.number, offset, bytes: bytes.to_vec() };
        match self.spy.see(step) {
            Verdict::Go => self.file.write_at(bytes, offset),
            Verdict::Fail(error) => Err(error),
            Verdict::Short(length, error) => {
                self.file.write_at(&bytes[..length.min(bytes.len())], offset)?;
                Err(error)
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        ask(&*self.spy, Step::Read { file: self.number })?;
        self.file.read_at(bytes, offset)
    }

    fn seal(&self) -> io::Result<()> {
        ask(&*self.spy, Step::Seal { file: self.number })?;
        self.file.seal()
    }

    fn sync(&self) -> io::Result<()> {
        // No test is about the machine's own crashes.
        ask(&*self.spy, Step::Sync { file: self.number })
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

impl AsFd for SpyFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
