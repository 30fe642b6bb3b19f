//! A cluster that is not there: a clear error, soon.

use std::time::{Duration, Instant, SystemTime};

use allhands::Cluster;
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn identity(folder: &std::path::Path) {
    let authority = Authority::create(ClusterId([3; 16])).unwrap();
    let days = Validity::days(SystemTime::UNIX_EPOCH + now(), 30);
    let place = folder.to_owned();
    let files = authority.issue(Role::Client, "me", days, place).unwrap();
    files.save().unwrap();
}

#[expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "certificates use the wall clock"
)]
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
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
    assert!(text.contains("nothing answers") && error.retry_can_help(), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[allhands::test]
fn no_identity_in_the_directory() {
    let error = Cluster::connect("127.0.0.1:9", "/no/such/identity").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("/no/such/identity") && text.contains("allhands init"), "{text}");
}
