//! What this machine can run.

use allhands_common::program::Platform;
use allhands_store::glibc;

/// Processor, system, and the glibc that lies here.
pub fn of_this_machine() -> Platform {
    Platform {
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        glibc: glibc::of_this_machine(),
    }
}
