//! Memory shared between processes of one machine, and the little that a worker reads from ELF files.
//!
//! [`cell`] is the page that a worker and one executor share: which task runs, which may be taken;
//! [`passing`] hands it, and other open files, from one to the other.
//! [`blobs`] is the chunk store: blobs on disk, verified chunk by chunk, mapped read-only by whoever needs
//! them, [`pieces`] how an array comes that is still being written. [`in_place`] is for files that stay where they are, [`scratch`] for
//! directories that do not outlive their process. `cell.rs` and `map.rs` are this crate's
//! only files that say `unsafe`.

pub mod blobs;
pub mod cell;
mod crew;
pub mod disk;
pub mod elf;
pub mod glibc;
pub mod in_place;
pub mod map;
pub mod passing;
pub mod pieces;
pub mod scratch;
