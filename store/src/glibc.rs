//! Which glibc this machine has, for the check whether a program can run here.
//!
//! Read from the version definitions of the `libc.so.6` that lies there: asking `ldd` or `getconf`
//! needs programs that a slim image lacks, and `gnu_get_libc_version` is foreign code that a static
//! worker does not even carry.

use std::path::PathBuf;

use crate::elf::{self, Version};

/// Where distributions keep it, where no process of ours has it mapped.
const DIRECTORIES: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib", "/lib"];

/// The glibc of this machine; `None` where there is none.
pub fn of_this_machine() -> Option<Version> {
    mapped()
        .into_iter()
        .chain(DIRECTORIES.map(|directory| PathBuf::from(directory).join("libc.so.6")))
        .find_map(|path| elf::glibc_defined(&std::fs::read(path).ok()?).ok()?)
}

/// The one that this process runs with, if it is dynamically linked.
fn mapped() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.ends_with("/libc.so.6").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_env = "gnu")]
    fn the_own_glibc_is_found_and_plausible() {
        let (major, minor) = super::of_this_machine().unwrap();
        assert!(major == 2 && (17..100).contains(&minor), "{major}.{minor}");
    }
}
