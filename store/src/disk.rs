//! The few things that the chunk store asks of a disk, so that tests can own one that fails.
//!
//! [`RealDisk`] is the file system. Positions are explicit: a file has no cursor that two threads could
//! share. All calls block.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only: such a descriptor may be given away.
    Read,
    /// Reading and writing.
    Write,
}

/// One open file. Its descriptor is what maps are made of.
pub trait DiskFile: AsFd + Debug + Send + Sync {
    /// Takes space for the first `bytes` bytes, which the file has from then on. Fails where there is not
    /// so much; never later, when they are written.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Gives back what lies beyond `bytes`. Only for files that nobody else has seen.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `bytes` from `offset`; a shorter file is `UnexpectedEof`.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Takes away the right to open the file for writing.
    fn seal(&self) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// Where files are.
pub trait Disk: Debug + Send + Sync {
    /// Makes a new, empty file.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a name; who has the file open or mapped keeps it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory that only its owner may enter, and what is missing above it.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = File::options();
        Ok(Arc::new(options.read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let write = access == Access::Write;
        Ok(Arc::new(File::options().read(true).write(write).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for File {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match bytes {
            // The system refuses to take no space.
            0 => Ok(()),
            _ => Ok(rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes)?),
        }
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn seal(&self) -> io::Result<()> {
        self.set_permissions(fs::Permissions::from_mode(0o400))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
