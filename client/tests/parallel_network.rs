//! A cluster that is not there, or not for us: a clear error, soon.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use allhands::Cluster;
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::handshake::accept_link;
use allhands_common::net::identity::Identity;

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn authority(cluster: u8) -> Authority {
    Authority::create(ClusterId([cluster; 16])).unwrap()
}

/// The files of an identity, in `folder`.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn identity(authority: &Authority, role: Role, folder: &Path) {
    let days = Validity::days(SystemTime::UNIX_EPOCH + now(), 30);
    let files = authority.issue(role, "me", days, folder.to_owned()).unwrap();
    files.save().unwrap();
}

/// The address of a coordinator with the identity in `folder`, which takes and refuses links for as long as
/// the test runs.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn coordinator(folder: &Path) -> SocketAddr {
    let identity = Identity::load(folder).unwrap();
    let (tell, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let endpoint = Endpoint::bind(identity, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            tell.send(endpoint.local_address().unwrap()).unwrap();
            while let Some(arriving) = endpoint.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = arriving.establish().await else { return };
                    // Whoever may open no link is told so.
                    while accept_link(&connection).await.is_err_and(|e| !e.connection_is_gone()) {}
                });
            }
        });
    });
    address.recv().unwrap()
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
    identity(&authority(3), Role::Client, &folder);
    let begun = Instant::now();
    let error = Cluster::connect("127.0.0.1:9", &folder).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no cluster: 127.0.0.1:9: "), "{text}");
    assert!(text.contains("nothing answers") && error.retry_can_help(), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// How long [`Cluster::connect`] waits for a cluster that may come; a refusal takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(6);

#[allhands::test]
fn a_cluster_of_another_authority() {
    let directory = tempfile::tempdir().unwrap();
    let (theirs, mine) = (directory.path().join("theirs"), directory.path().join("mine"));
    identity(&authority(3), Role::Coordinator, &theirs);
    identity(&authority(4), Role::Client, &mine);
    let addresses = format!("{},{}", coordinator(&theirs), coordinator(&theirs));
    let begun = Instant::now();
    let error = Cluster::connect(&addresses, &mine).unwrap_err();
    let text = error.to_string();
    assert!(begun.elapsed() < PATIENCE, "{:?}: {text}", begun.elapsed());
    assert_eq!(text.matches("belongs to another cluster").count(), 2, "{text}");
    assert!(text.contains("Trying again cannot help") && !error.retry_can_help(), "{text}");
}

#[allhands::test]
fn an_identity_of_another_role() {
    let directory = tempfile::tempdir().unwrap();
    let (theirs, mine) = (directory.path().join("theirs"), directory.path().join("mine"));
    let authority = authority(3);
    identity(&authority, Role::Coordinator, &theirs);
    identity(&authority, Role::Worker, &mine);
    let begun = Instant::now();
    let error = Cluster::connect(coordinator(&theirs).to_string(), &mine).unwrap_err();
    let text = error.to_string();
    assert!(begun.elapsed() < PATIENCE, "{:?}: {text}", begun.elapsed());
    assert!(text.contains("use an identity of another role"), "{text}");
    assert!(text.contains("Trying again cannot help") && !error.retry_can_help(), "{text}");
}

#[allhands::test]
fn no_identity_in_the_directory() {
    let error = Cluster::connect("127.0.0.1:9", "/no/such/identity").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("/no/such/identity") && text.contains("allhands init"), "{text}");
}
