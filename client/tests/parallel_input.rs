//! Without `init()`: nothing is started. (No test here is an `#[allhands::test]`: one would enter for
//! all.)

use allhands::EmbeddedBuilder;
use allhands::prelude::*;

fn one(n: u64) -> u64 {
    n
}

#[test]
fn without_init_nothing_is_started() {
    // A plain test: neither `main` nor the test enters the executor.
    let error = Parallel::new().run([delayed(one)(1)]).unwrap_err().to_string();
    assert!(error.contains("allhands::init() was not called"), "{error}");
    let error = EmbeddedBuilder::default().start().unwrap_err().to_string();
    assert!(error.contains("#[allhands::test]"), "{error}");
}

#[test]
fn inline_needs_no_cluster() {
    assert_eq!(Parallel::new().n_jobs(1).run((0..3).map(delayed(one))).unwrap(), [0, 1, 2]);
    let error = Parallel::new().n_jobs(0).run([delayed(one)(1)]).unwrap_err().to_string();
    assert!(error.contains("n_jobs(0)"), "{error}");
}
