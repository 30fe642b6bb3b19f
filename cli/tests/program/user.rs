//! Tasks that run as somebody else than their worker.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use allhands::prelude::*;

use crate::batch::connect;
use crate::support::{Again, Dev, allhands, eventually, output};

/// An unprivileged user.
const NOBODY: u32 = 65_534;

fn whoami(n: u64) -> (u64, u32) {
    // What it is given to write to is its own.
    std::fs::write(std::env::temp_dir().join("x"), "x").unwrap();
    (n, rustix::process::getuid().as_raw())
}

pub(crate) fn tasks_run_as_the_user_of_the_worker() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can start tasks as another user");
    }
    let dev = Dev::start(&["--coordinators", "1", "--workers", "0"]);
    output(allhands(["init"]).arg(dev.dir()).args(["--add", "worker:other"]));
    // Where anybody may pass, as in /var/lib; the command too, since this one may be in somebody's home.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let command = place.path().join("allhands");
    std::fs::copy(env!("CARGO_BIN_EXE_allhands"), &command).unwrap();
    let addresses = std::fs::read_to_string(dev.dir().join("cluster")).unwrap();
    let mut worker = Command::new(command);
    worker.args(["worker", "--slots", "2", "--coordinators", addresses.trim(), "--user"]);
    worker.arg(format!("{NOBODY}:{NOBODY}")).arg("--identity").arg(dev.dir().join("other"));
    worker.arg("--dir").arg(place.path().join("data"));
    let _worker = Again::start(&mut worker, &dev.dir().join("other.log"));
    eventually("it has registered", || (dev.workers_ready() == 1).then_some(()));

    let on = connect(&dev);
    let users: Vec<(u64, u32)> = Parallel::new().on(&on).run((0..4).map(delayed(whoami))).unwrap();
    println!("{users:?}");
    assert_eq!(users, [0, 1, 2, 3].map(|n| (n, NOBODY)));
}
