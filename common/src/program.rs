//! The user's executable as the cluster knows it.

use alloc::string::String;

use serde::{Deserialize, Serialize};

pub use crate::id::ProgramId;

/// What a worker must know of a program before it fetches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its content address.
    pub id: ProgramId,
    /// Its length.
    pub bytes: u64,
    /// What it was built for, as in `x86_64-linux-gnu`.
    pub platform: Platform,
    /// The file's name, for people and for `argv[0]`.
    pub name: String,
}

/// What a program was built for, or a worker can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Processor, as `std::env::consts::ARCH` names it.
    pub arch: String,
    /// Operating system, as `std::env::consts::OS` names it.
    pub os: String,
    /// The newest glibc version that the program asks for, or that the worker has: (major, minor).
    /// `None` for a program that asks for none (static, musl), or a worker without glibc.
    pub glibc: Option<(u16, u16)>,
}

impl Platform {
    /// Why a program built for `self` cannot run on `worker`; `None` when it can.
    pub fn obstacle(&self, worker: &Self) -> Option<String> {
        if (&self.arch, &self.os) != (&worker.arch, &worker.os) {
            return Some(alloc::format!(
                "built for {}-{}, the worker is {}-{}: build it for the worker's target",
                self.arch,
                self.os,
                worker.arch,
                worker.os
            ));
        }
        match (self.glibc, worker.glibc) {
            (None, _) => None,
            (Some((major, minor)), None) => Some(alloc::format!(
                "needs glibc {major}.{minor}, the worker has none: build it for a musl target"
            )),
            (Some(needs), Some(has)) => (needs > has).then(|| {
                alloc::format!(
                    "needs glibc {}.{}, the worker has {}.{}: build it on an older system or for a \
                     musl target",
                    needs.0,
                    needs.1,
                    has.0,
                    has.1
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(arch: &str, glibc: Option<(u16, u16)>) -> Platform {
        Platform { arch: arch.into(), os: "linux".into(), glibc }
    }

    #[test]
    fn an_obstacle_names_both_sides() {
        let worker = linux("x86_64", Some((2, 31)));
        assert_eq!(linux("x86_64", Some((2, 31))).obstacle(&worker), None);
        assert_eq!(linux("x86_64", None).obstacle(&worker), None);
        let newer = linux("x86_64", Some((2, 36))).obstacle(&worker).unwrap();
        assert!(newer.contains("2.36") && newer.contains("2.31"), "{newer}");
        assert!(linux("aarch64", None).obstacle(&worker).unwrap().contains("aarch64"));
    }
}
