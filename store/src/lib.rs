//! Memory shared between processes of one machine, and the little that a worker reads from ELF files.
//!
//! [`cell`] is the page that a worker and one executor share: which task runs, which may be taken.
//! It is this crate's only file that says `unsafe`.

pub mod cell;
pub mod elf;
pub mod glibc;
