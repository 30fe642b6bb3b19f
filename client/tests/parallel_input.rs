//! Bad input: each a clear error, at once.

use std::time::{Duration, Instant};

use allhands::prelude::*;
use allhands::{Cluster, EmbeddedBuilder};

fn one(n: u64) -> u64 {
    n
}

#[test]
fn without_init_nothing_is_started() {
    // A plain test: neither `main` nor the test enters the executor.
    let error = Parallel::new()
        .run([delayed(one)(1)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("allhands::init() was not called"), "{error}");
    let error = EmbeddedBuilder::default().start().unwrap_err().to_string();
    assert!(error.contains("#[allhands::test]"), "{error}");
}

#[test]
fn inline_needs_no_cluster() {
    assert_eq!(
        Parallel::new()
            .n_jobs(1)
            .run((0..3).map(delayed(one)))
            .unwrap(),
        [0, 1, 2]
    );
    let error = Parallel::new()
        .n_jobs(0)
        .run([delayed(one)(1)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("n_jobs(0)"), "{error}");
}

mod on_a_network {
    use std::time::SystemTime;

    use allhands_common::id::ClusterId;
    use allhands_common::net::access::Role;
    use allhands_common::net::authority::{Authority, Validity};

    use super::*;

    fn identity(folder: &std::path::Path) {
        let authority = Authority::create(ClusterId([3; 16])).unwrap();
        let days = Validity::days(SystemTime::UNIX_EPOCH + now(), 30);
        let place = folder.to_owned();
        let files = authority.issue(Role::Client, "me", days, place).unwrap();
        files.save().unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "certificates use the wall clock")]
    fn now() -> Duration {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
    }

    #[allhands::test]
    fn no_cluster_at_the_address() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("client");
        identity(&folder);
        let begun = Instant::now();
        let error = Cluster::connect("127.0.0.1:9", &folder).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no cluster: 127.0.0.1:9: "), "{text}");
        assert!(
            text.contains("nothing answers") && error.retry_can_help(),
            "{text}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "{:?}",
            begun.elapsed()
        );
    }

    #[allhands::test]
    fn no_identity_in_the_directory() {
        let error = Cluster::connect("127.0.0.1:9", "/no/such/identity").unwrap_err();
        let text = format!("{error:?}");
        assert!(
            text.contains("/no/such/identity") && text.contains("allhands init"),
            "{text}"
        );
    }
}
